/* Sum over workers and parameter update in one pass over a chunk (method 5).
 *
 * An update is memory traffic and little else: gradients of W workers are read, the parameter and its
 * moments are read and written. Done as separate operations the same bytes travel several times; here a
 * block of BLOCK elements is summed in the first-level cache and consumed there.
 *
 * Numbers. The sum runs in the fixed order of the workers, in fp32; every operation is IEEE without
 * contraction (ISO C mode), so all instruction sets give the same bits, and so do all workers whatever
 * their number of slices. Weight decay and step are subtracted from the parameter in one rounding.
 *
 * A table row is six 64-bit integers: offset in the parameter, offset in the staging buffers, length, row of
 * `hyper`, offset in the output (all in elements), and the address of this worker's own gradient: nobody else
 * reads that part of it, so it need not be staged (0: it was). A hyper row is eight doubles, see below. */
#include "native.h"
#include <math.h>
#include <string.h>

#define BLOCK 1024
#define ROW 6
#define HYPER 8
#if defined(__GNUC__) || defined(__clang__)
#define INLINE static inline __attribute__((always_inline))
#define restrict_ __restrict__
#else
#define INLINE static inline
#define restrict_
#endif

enum { SGD = 0, ADAM = 1, ADAMW = 2, SUM = 3 };

struct job {
    int rule, half_grads, sources, own;
    int64_t rows;
    const int64_t *table;
    const uint64_t *source; /* one staging address per worker */
    const double *hyper;
    float scale;
    float *param, *first, *second; /* fp32 parameters (or masters) and state; for SUM, `param` is the output */
    uint16_t *half;                /* bf16 parameters, or the bf16 output of SUM */
    double squares;                /* SUM: sum of squares of what was written */
};

INLINE float widen(uint16_t bits) {
    uint32_t word = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &word, 4);
    return value;
}

/* Round to nearest even; a NaN stays a NaN. */
INLINE uint16_t narrow(float value) {
    uint32_t word;
    memcpy(&word, &value, 4);
    uint32_t rounded = (word + 0x7fff + ((word >> 16) & 1)) >> 16;
    uint32_t nan = (word >> 16) | 0x40;
    return (uint16_t)((word & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

INLINE const void *source(const struct job *job, const int64_t *row, int64_t done, int w) {
    const int64_t width = job->half_grads ? 2 : 4;
    if (w == job->own && row[5]) return (const char *)(uintptr_t)row[5] + done * width;
    return (const char *)(uintptr_t)job->source[w] + (row[1] + done) * width;
}

INLINE void gather(const struct job *job, const int64_t *row, int64_t done, int n, float *restrict_ sum) {
    if (job->half_grads) {
        const uint16_t *restrict_ g = source(job, row, done, 0);
        for (int i = 0; i < n; i++) sum[i] = widen(g[i]);
        for (int w = 1; w < job->sources; w++) {
            const uint16_t *restrict_ h = source(job, row, done, w);
            for (int i = 0; i < n; i++) sum[i] += widen(h[i]);
        }
    } else if (job->sources == 1) {
        memcpy(sum, source(job, row, done, 0), (size_t)n * 4);
    } else {
        const float *restrict_ a = source(job, row, done, 0);
        const float *restrict_ b = source(job, row, done, 1);
        for (int i = 0; i < n; i++) sum[i] = a[i] + b[i];
        for (int w = 2; w < job->sources; w++) {
            const float *restrict_ g = source(job, row, done, w);
            for (int i = 0; i < n; i++) sum[i] += g[i];
        }
    }
    const float scale = job->scale;
    if (scale != 1.0f)
        for (int i = 0; i < n; i++) sum[i] *= scale;
}

/* hyper: lr, beta1, beta2, eps, weight decay, 1 - beta1^t, sqrt(1 - beta2^t), sign (-1 maximizes) */
INLINE void adam(const double *h, int decoupled, const float *restrict_ g, float *restrict_ p,
                 float *restrict_ m, float *restrict_ v, int n) {
    const float b1 = (float)(1 - h[1]), b2 = (float)h[2], b2c = (float)(1 - h[2]), sign = (float)h[7];
    const float step = (float)(h[0] / h[5]), root = (float)(1 / h[6]), eps = (float)h[3];
    const float l2 = decoupled ? 0.0f : (float)h[4], decay = decoupled ? (float)(h[0] * h[4]) : 0.0f;
    for (int i = 0; i < n; i++) {
        float grad = sign * g[i] + l2 * p[i];
        float mean = m[i] + b1 * (grad - m[i]);
        float square = b2 * v[i] + b2c * grad * grad;
        m[i] = mean;
        v[i] = square;
        p[i] -= decay * p[i] + step * mean / (sqrtf(square) * root + eps);
    }
}

/* hyper: lr, momentum, 1 - dampening (1 at a parameter's first step), weight decay, nesterov, unused, unused, sign */
INLINE void sgd(const double *h, const float *restrict_ g, float *restrict_ p, float *restrict_ m, int n) {
    const float lr = (float)h[0], momentum = (float)h[1], fresh = (float)h[2], l2 = (float)h[3];
    const float sign = (float)h[7];
    if (momentum == 0) {
        for (int i = 0; i < n; i++) p[i] -= lr * (sign * g[i] + l2 * p[i]);
    } else if (h[4] != 0) {
        for (int i = 0; i < n; i++) {
            float grad = sign * g[i] + l2 * p[i];
            m[i] = momentum * m[i] + fresh * grad;
            p[i] -= lr * (grad + momentum * m[i]);
        }
    } else {
        for (int i = 0; i < n; i++) {
            m[i] = momentum * m[i] + fresh * (sign * g[i] + l2 * p[i]);
            p[i] -= lr * m[i];
        }
    }
}

INLINE double put(const struct job *job, const float *restrict_ sum, int64_t out, int n) {
    double squares = 0;
    for (int i = 0; i < n; i++) squares += (double)sum[i] * (double)sum[i];
    if (job->half) {
        uint16_t *restrict_ o = job->half + out;
        for (int i = 0; i < n; i++) o[i] = narrow(sum[i]);
    } else {
        memcpy(job->param + out, sum, (size_t)n * 4);
    }
    return squares;
}

INLINE void run(struct job *job) {
    float sum[BLOCK] __attribute__((aligned(64)));
    for (int64_t r = 0; r < job->rows; r++) {
        const int64_t *row = job->table + r * ROW;
        const double *hyper = job->hyper + row[3] * HYPER;
        for (int64_t done = 0; done < row[2]; done += BLOCK) {
            int n = row[2] - done < BLOCK ? (int)(row[2] - done) : BLOCK;
            int64_t at = row[0] + done;
            gather(job, row, done, n, sum);
            if (job->rule == SUM) {
                job->squares += put(job, sum, row[4] + done, n);
                continue;
            }
            float *p = job->param + at;
            if (job->rule == SGD)
                sgd(hyper, sum, p, job->first ? job->first + at : NULL, n);
            else if (job->rule == ADAMW)
                adam(hyper, 1, sum, p, job->first + at, job->second + at, n);
            else
                adam(hyper, 0, sum, p, job->first + at, job->second + at, n);
            if (job->half)
                for (int i = 0; i < n; i++) job->half[at + i] = narrow(p[i]);
        }
    }
}

static void run_portable(struct job *job) { run(job); }
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define DISPATCH 1
__attribute__((target("avx2"))) static void run_avx2(struct job *job) { run(job); }
__attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,prefer-vector-width=512")))
static void run_avx512(struct job *job) { run(job); }
#endif

/* level: -1 the best this processor has, 0 portable, 1 AVX2, 2 AVX-512 (for tests of equal bits) */
static int choose(int level, void (**chosen)(struct job *)) {
    *chosen = run_portable;
#ifdef DISPATCH
    int best = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                       __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")
                   ? 2
                   : __builtin_cpu_supports("avx2") ? 1 : 0;
    if (level > best) return 0;
    if (level < 0) level = best;
    if (level == 1) *chosen = run_avx2;
    if (level == 2) *chosen = run_avx512;
    return 1;
#else
    return level <= 0;
#endif
}

/* reduce(rule, table, rows, sources, count, own, half_grads, scale, hyper, param, first, second, half, level)
 * -> sum of squares of the output (rule SUM), else 0.0 */
static PyObject *reduce(PyObject *self, PyObject *args) {
    (void)self;
    struct job job;
    unsigned long long table, sources, hyper, param, first, second, half;
    long long rows;
    int level;
    double scale;
    void (*go)(struct job *);
    memset(&job, 0, sizeof job);
    if (!PyArg_ParseTuple(args, "iKLKiiidKKKKKi", &job.rule, &table, &rows, &sources, &job.sources,
                          &job.own, &job.half_grads, &scale, &hyper, &param, &first, &second, &half, &level))
        return NULL;
    if (!choose(level, &go)) {
        PyErr_SetString(PyExc_ValueError, "this processor lacks the instruction set that was asked for");
        return NULL;
    }
    job.table = (const int64_t *)(uintptr_t)table;
    job.rows = rows;
    job.source = (const uint64_t *)(uintptr_t)sources;
    job.hyper = (const double *)(uintptr_t)hyper;
    job.scale = (float)scale;
    job.param = (float *)(uintptr_t)param;
    job.first = (float *)(uintptr_t)first;
    job.second = (float *)(uintptr_t)second;
    job.half = (uint16_t *)(uintptr_t)half;
    Py_BEGIN_ALLOW_THREADS
    go(&job);
    Py_END_ALLOW_THREADS
    return PyFloat_FromDouble(job.squares);
}

/* copy(table, rows, base): each row is a source address (0 writes zeros), a byte offset from base and a length.
 * `base` 0 copies outwards: the row's offset is then the source address and the first field the target. */
static PyObject *copy(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long table, base;
    long long rows;
    if (!PyArg_ParseTuple(args, "KLK", &table, &rows, &base)) return NULL;
    Py_BEGIN_ALLOW_THREADS
    const int64_t *row = (const int64_t *)(uintptr_t)table;
    for (long long r = 0; r < rows; r++, row += 3) {
        char *target = (char *)(uintptr_t)(base + (unsigned long long)row[1]);
        if (base == 0)
            memcpy((void *)(uintptr_t)row[0], target, (size_t)row[2]);
        else if (row[0] == 0)
            memset(target, 0, (size_t)row[2]);
        else
            memcpy(target, (const void *)(uintptr_t)row[0], (size_t)row[2]);
    }
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyMethodDef outsize_update_methods[] = {
    {"reduce", reduce, METH_VARARGS, "Sum over workers, then update or store, in one pass."},
    {"copy", copy, METH_VARARGS, "Copy many pieces in one call."},
    {NULL, NULL, 0, NULL}};
