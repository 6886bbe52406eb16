/* The sum over children of a tree-convolution layer, without the intermediates.
 *
 * A layer multiplies every node's vector by [W_self | W_left | W_right] at once; what is left is, for each node p,
 *
 *     out[p] = sum over children c of (1 - rho[c]) * left[c] + rho[c] * right[c].
 *
 * As array operations that is a mixture, a gather, a zero fill and a scattered addition, each a pass over memory. In
 * breadth-first order the children of a node are neighbours, so here it is one pass that reads left and right and
 * writes out; the backward is one pass that reads the parent's row and writes the children's. */
#include "native.h"

#include <string.h>

typedef struct {
    const float *mixed; /* [nodes, stride]: left at column `left`, right at column `left + width` */
    const float *rho;   /* [nodes] */
    const int64_t *first, *count; /* [nodes]: where the children begin, how many */
    float *out;
    int64_t nodes, width, stride, left;
} job;

static inline __attribute__((always_inline)) void sum_body(const job *j) {
    for (int64_t p = 0; p < j->nodes; p++) {
        float *restrict out = j->out + p * j->width;
        memset(out, 0, (size_t)j->width * sizeof(float));
        for (int64_t c = j->first[p]; c < j->first[p] + j->count[p]; c++) {
            const float *restrict l = j->mixed + c * j->stride + j->left;
            const float *restrict r = l + j->width;
            const float rho = j->rho[c];
            for (int64_t k = 0; k < j->width; k++) out[k] += l[k] + rho * (r[k] - l[k]);
        }
    }
}

/* Backward: mixed is the gradient of out [nodes, width]; out is the gradient of the mixture [nodes, stride]. */
static inline __attribute__((always_inline)) void spread_body(const job *j) {
    for (int64_t p = 0; p < j->nodes; p++) {
        const float *restrict g = j->mixed + p * j->width;
        for (int64_t c = j->first[p]; c < j->first[p] + j->count[p]; c++) {
            float *restrict l = j->out + c * j->stride + j->left;
            float *restrict r = l + j->width;
            const float rho = j->rho[c];
            for (int64_t k = 0; k < j->width; k++) {
                r[k] = rho * g[k];
                l[k] = g[k] - rho * g[k];
            }
        }
    }
}

#define VARIANT(name, ...)                                               \
    __VA_ARGS__ static void sum_##name(const job *j) { sum_body(j); }     \
    __VA_ARGS__ static void spread_##name(const job *j) { spread_body(j); }

VARIANT(plain, )
#if defined(__x86_64__)
VARIANT(avx2, __attribute__((target("avx2,fma"))))
VARIANT(avx512, __attribute__((target("avx512f,avx2,fma"))))
#endif

int outsize_ranges_within(const int64_t *first, const int64_t *count, int64_t rows) {
    for (int64_t p = 0; p < rows; p++)
        if (count[p] && (count[p] < 0 || first[p] < 0 || count[p] > rows || first[p] > rows - count[p])) return 0;
    return 1;
}

static void run(const job *j, int backward) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        backward ? spread_avx512(j) : sum_avx512(j);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        backward ? spread_avx2(j) : sum_avx2(j);
        return;
    }
#endif
    backward ? spread_plain(j) : sum_plain(j);
}

static PyObject *call(PyObject *args, int backward) {
    unsigned long long mixed, rho, first, count, out;
    job j;
    long long nodes, width, stride, left;
    if (!PyArg_ParseTuple(args, "KKKKKLLLL", &mixed, &rho, &first, &count, &out, &nodes, &width, &stride, &left))
        return NULL;
    j.mixed = (const float *)(uintptr_t)mixed;
    j.rho = (const float *)(uintptr_t)rho;
    j.first = (const int64_t *)(uintptr_t)first;
    j.count = (const int64_t *)(uintptr_t)count;
    j.out = (float *)(uintptr_t)out;
    j.nodes = nodes, j.width = width, j.stride = stride, j.left = left;
    if (nodes < 0 || width < 1 || left < 0 || left > stride - 2 * width ||
        !outsize_ranges_within(j.first, j.count, nodes)) {
        PyErr_Format(PyExc_ValueError, "the children of %lld nodes lie outside of them, or %lld + 2 * %lld columns of %lld",
                     nodes, left, width, stride);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    run(&j, backward);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

static PyObject *child_sum(PyObject *self, PyObject *args) {
    (void)self;
    return call(args, 0);
}

static PyObject *child_spread(PyObject *self, PyObject *args) {
    (void)self;
    return call(args, 1);
}

PyMethodDef outsize_trees_methods[] = {
    {"child_sum", child_sum, METH_VARARGS,
     "child_sum(mixed, rho, first, count, out, nodes, width, stride, left): mixed children summed per node."},
    {"child_spread", child_spread, METH_VARARGS,
     "child_spread(grad, rho, first, count, out, nodes, width, stride, left): its gradient."},
    {NULL, NULL, 0, NULL}};
