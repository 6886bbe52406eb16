/* One layer of the rerooted tree convolution, but for its matrix products.
 *
 * The products give U = up [W_self | W_left | W_right], D = down [W_self | W_near | W_far] and P = pivot W_self. What is
 * left for each node p with children c,
 *
 *     child(c)   = (1 - rho(c)) left(c) + rho(c) right(c)             total = sum of child(c)
 *     context(p) = (1 - rho(p)) near(p) + rho(p) far(p)               (nothing at a root)
 *     zu(p) = U_self(p) + whole total        zp(p) = P(p) + b + whole total + context(p)
 *     zd(c) = D_self(c) + b + without (total - child(c)) + context(p)
 *
 * with whole = 1 / sqrt(n), without = 1 / sqrt(n - 1), and then LayerNorm(x + relu(z)) for each of the three, is two
 * dozen passes over memory as array operations, half of a training step. In breadth-first order the children of a node
 * are neighbours, so here it is one pass, and its gradient another. The gradient reads the normalised vectors, one over
 * their deviation, and where relu passed. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { UP, DOWN, PIVOT, STATES };

/* Addresses in the order in which `layer_native.py` writes them. */
typedef struct {
    const float *x[STATES];      /* forward: the layer's input; backward: the gradient of its output, [nodes, width] */
    float *mixed[STATES];        /* U, D [nodes, 3 width], P [nodes, width]; backward: their gradients */
    float *out[STATES];          /* the layer's output; backward: the gradient that passes by the products */
    float *hat[STATES];          /* [nodes, width] normalised vectors; all three null where no gradient will be asked */
    float *rstd[STATES];         /* [nodes] */
    uint8_t *open[STATES];       /* [nodes, width] where relu passed */
    const float *gamma, *beta, *bias; /* [width] */
    float *gamma_grad, *beta_grad;    /* [width], added to */
    const float *rho;                 /* [nodes] */
    const int64_t *first, *count, *parent;
    float *scratch;                   /* [4 width] */
} layer;

typedef struct {
    int64_t nodes, width;
    float eps;
} sizes;

static inline __attribute__((always_inline)) float total_of(const float *a, int64_t w) {
    float lane[8] = {0}, rest = 0;
    int64_t k = 0;
    for (; k + 8 <= w; k += 8)
        for (int i = 0; i < 8; i++) lane[i] += a[k + i];
    for (; k < w; k++) rest += a[k];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7])) + rest;
}

static inline __attribute__((always_inline)) float product_of(const float *a, const float *b, int64_t w) {
    float lane[8] = {0}, rest = 0;
    int64_t k = 0;
    for (; k + 8 <= w; k += 8)
        for (int i = 0; i < 8; i++) lane[i] += a[k + i] * b[k + i];
    for (; k < w; k++) rest += a[k] * b[k];
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7])) + rest;
}

/* LayerNorm(x + relu(z)); z is overwritten. */
static inline __attribute__((always_inline)) void act(const layer *l, const sizes *s, int keep, int state,
                                                      int64_t node, float *restrict z) {
    const int64_t w = s->width, at = node * w;
    const float *restrict x = l->x[state] + at;
    float *restrict out = l->out[state] + at;
    if (keep) {
        uint8_t *restrict open = l->open[state] + at;
        for (int64_t k = 0; k < w; k++) open[k] = z[k] > 0;
    }
    for (int64_t k = 0; k < w; k++) z[k] = x[k] + (z[k] > 0 ? z[k] : 0);
    const float mean = total_of(z, w) / (float)w;
    for (int64_t k = 0; k < w; k++) z[k] -= mean;
    const float r = 1.0f / sqrtf(product_of(z, z, w) / (float)w + s->eps);
    for (int64_t k = 0; k < w; k++) z[k] *= r;
    for (int64_t k = 0; k < w; k++) out[k] = z[k] * l->gamma[k] + l->beta[k];
    if (keep) {
        l->rstd[state][node] = r;
        memcpy(l->hat[state] + at, z, (size_t)w * sizeof(float));
    }
}

static inline __attribute__((always_inline)) void forward_body(const layer *l, const sizes *s) {
    const int keep = l->rstd[UP] != NULL;
    const int64_t w = s->width;
    float *restrict total = l->scratch, *restrict context = total + w, *restrict z = context + w;
    for (int64_t p = 0; p < s->nodes; p++) {
        const int64_t begin = l->first[p], n = l->count[p];
        const float whole = n > 1 ? 1.0f / sqrtf((float)n) : 1.0f;
        const float without = n > 2 ? 1.0f / sqrtf((float)(n - 1)) : 1.0f;
        memset(total, 0, (size_t)w * sizeof(float));
        for (int64_t c = begin; c < begin + n; c++) {
            const float *restrict left = l->mixed[UP] + c * 3 * w + w, *restrict right = left + w;
            const float rho = l->rho[c];
            for (int64_t k = 0; k < w; k++) total[k] += left[k] + rho * (right[k] - left[k]);
        }
        const float *restrict near = l->mixed[DOWN] + p * 3 * w + w, *restrict far = near + w;
        const int root = l->parent[p] == p;
        const float rho = l->rho[p];
        if (root) memset(context, 0, (size_t)w * sizeof(float));
        else
            for (int64_t k = 0; k < w; k++) context[k] = near[k] + rho * (far[k] - near[k]);
        for (int64_t c = begin; c < begin + n; c++) {
            const float *restrict left = l->mixed[UP] + c * 3 * w + w, *restrict right = left + w;
            const float *restrict self = l->mixed[DOWN] + c * 3 * w;
            const float mine = l->rho[c];
            for (int64_t k = 0; k < w; k++)
                z[k] = self[k] + l->bias[k] + context[k] +
                       without * (total[k] - (left[k] + mine * (right[k] - left[k])));
            act(l, s, keep, DOWN, c, z);
        }
        if (root) {
            const float *restrict self = l->mixed[DOWN] + p * 3 * w;
            for (int64_t k = 0; k < w; k++) z[k] = self[k] + l->bias[k];
            act(l, s, keep, DOWN, p, z);
        }
        const float *restrict up = l->mixed[UP] + p * 3 * w, *restrict pivot = l->mixed[PIVOT] + p * w;
        for (int64_t k = 0; k < w; k++) z[k] = up[k] + whole * total[k];
        act(l, s, keep, UP, p, z);
        for (int64_t k = 0; k < w; k++) z[k] = pivot[k] + l->bias[k] + whole * total[k] + context[k];
        act(l, s, keep, PIVOT, p, z);
    }
}

/* Gradient of z into `z` and of x into out, from the gradient of the output. */
static inline __attribute__((always_inline)) void act_back(const layer *l, const sizes *s, int state, int64_t node,
                                                           float *restrict z, float *restrict g) {
    const int64_t w = s->width, at = node * w;
    const float *restrict grad = l->x[state] + at, *restrict hat = l->hat[state] + at;
    const uint8_t *restrict open = l->open[state] + at;
    float *restrict out = l->out[state] + at;
    for (int64_t k = 0; k < w; k++) {
        g[k] = grad[k] * l->gamma[k];
        l->gamma_grad[k] += grad[k] * hat[k];
        l->beta_grad[k] += grad[k];
    }
    const float mean = total_of(g, w) / (float)w, along = product_of(g, hat, w) / (float)w;
    const float r = l->rstd[state][node];
    for (int64_t k = 0; k < w; k++) out[k] = r * (g[k] - mean - hat[k] * along);
    for (int64_t k = 0; k < w; k++) z[k] = open[k] ? out[k] : 0;
}

static inline __attribute__((always_inline)) void backward_body(const layer *l, const sizes *s) {
    const int64_t w = s->width;
    float *restrict total = l->scratch, *restrict context = total + w, *restrict spare = context + w;
    for (int64_t p = 0; p < s->nodes; p++) {
        const int64_t begin = l->first[p], n = l->count[p];
        const float whole = n > 1 ? 1.0f / sqrtf((float)n) : 1.0f;
        const float without = n > 2 ? 1.0f / sqrtf((float)(n - 1)) : 1.0f;
        float *restrict up = l->mixed[UP] + p * 3 * w, *restrict pivot = l->mixed[PIVOT] + p * w;
        act_back(l, s, UP, p, up, spare);
        act_back(l, s, PIVOT, p, pivot, spare);
        memset(context, 0, (size_t)w * sizeof(float));
        for (int64_t c = begin; c < begin + n; c++) {
            float *restrict self = l->mixed[DOWN] + c * 3 * w;
            act_back(l, s, DOWN, c, self, spare);
            for (int64_t k = 0; k < w; k++) context[k] += self[k];
        }
        for (int64_t k = 0; k < w; k++) total[k] = whole * (up[k] + pivot[k]) + without * context[k];
        for (int64_t c = begin; c < begin + n; c++) {
            const float *restrict self = l->mixed[DOWN] + c * 3 * w;
            float *restrict left = l->mixed[UP] + c * 3 * w + w, *restrict right = left + w;
            const float rho = l->rho[c];
            for (int64_t k = 0; k < w; k++) {
                const float g = total[k] - without * self[k];
                right[k] = rho * g;
                left[k] = g - rho * g;
            }
        }
        float *restrict near = l->mixed[DOWN] + p * 3 * w + w, *restrict far = near + w;
        if (l->parent[p] == p) {
            act_back(l, s, DOWN, p, near - w, spare);
            memset(near, 0, 2 * (size_t)w * sizeof(float));
            memset(up + w, 0, 2 * (size_t)w * sizeof(float));
            continue;
        }
        const float rho = l->rho[p];
        for (int64_t k = 0; k < w; k++) {
            const float g = pivot[k] + context[k];
            far[k] = rho * g;
            near[k] = g - rho * g;
        }
    }
}

#define VARIANT(name, ...)                                                                                \
    __VA_ARGS__ static void forward_##name(const layer *l, const sizes *s) { forward_body(l, s); }         \
    __VA_ARGS__ static void backward_##name(const layer *l, const sizes *s) { backward_body(l, s); }

VARIANT(plain, )
#if defined(__x86_64__)
VARIANT(avx2, __attribute__((target("avx2,fma"))))
VARIANT(avx512, __attribute__((target("avx512f,avx2,fma"))))
#endif

/* Rows that the passes follow without looking lie within the arrays. */
static int within(const layer *l, const sizes *s) {
    for (int64_t p = 0; p < s->nodes; p++)
        if (l->parent[p] < 0 || l->parent[p] >= s->nodes) return 0;
    return outsize_ranges_within(l->first, l->count, s->nodes);
}

static void run(const layer *l, const sizes *s, int backward) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        backward ? backward_avx512(l, s) : forward_avx512(l, s);
        return;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        backward ? backward_avx2(l, s) : forward_avx2(l, s);
        return;
    }
#endif
    backward ? backward_plain(l, s) : forward_plain(l, s);
}

static PyObject *tree_layer(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long addresses;
    long long nodes, width;
    float eps;
    int backward;
    if (!PyArg_ParseTuple(args, "KLLfp", &addresses, &nodes, &width, &eps, &backward)) return NULL;
    layer l;
    memcpy(&l, (const void *)(uintptr_t)addresses, sizeof l);
    const sizes s = {nodes, width, eps};
    if (nodes < 0 || width < 1 || width > 1 << 24 || !within(&l, &s)) {
        PyErr_Format(PyExc_ValueError, "the children or parents of %lld nodes lie outside of them", nodes);
        return NULL;
    }
    l.scratch = malloc(4 * (size_t)width * sizeof(float));
    if (l.scratch == NULL) return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    run(&l, &s, backward);
    Py_END_ALLOW_THREADS
    free(l.scratch);
    Py_RETURN_NONE;
}

PyMethodDef outsize_tree_layer_methods[] = {
    {"tree_layer", tree_layer, METH_VARARGS,
     "tree_layer(addresses, nodes, width, eps, backward): a rerooted layer after its products, or its gradient."},
    {NULL, NULL, 0, NULL}};
