/* Python's door to the codec: addresses and sizes come in as integers, the GIL is released while threads run.
 * Sizes and regions are checked by `outsize.codecs.native` before an address is formed. */
#include "codec.h"
#include "native.h"

#include <string.h>

static const codec_level *levels[4];
static int level_count;

static int add_levels(void) { /* best first */
    if (level_count) return 0;
    codec_byte_tables();
#if defined(__x86_64__)
    codec_x86_tables();
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi2") && __builtin_cpu_supports("popcnt"))
        levels[level_count++] = &codec_avx512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("popcnt"))
        levels[level_count++] = &codec_avx2;
#elif defined(__aarch64__)
    codec_neon_tables();
    levels[level_count++] = &codec_neon;
#endif
    levels[level_count++] = &codec_portable;
    return 0;
}

/* codec_levels() -> tuple[str, ...]: the instruction sets usable on this machine, best first. */
static PyObject *codec_levels(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    add_levels();
    PyObject *names = PyTuple_New(level_count);
    for (int i = 0; names && i < level_count; i++) {
        PyObject *name = PyUnicode_FromString(levels[i]->name);
        if (!name || PyTuple_SetItem(names, i, name) < 0) {
            Py_DECREF(names);
            return NULL;
        }
    }
    return names;
}

static int begin(codec_job *job, int level) {
    add_levels();
    if (level < 0 || level >= level_count || job->width < 0 || job->width > 3 || job->n < 0 ||
        job->threads < 1) {
        PyErr_Format(PyExc_ValueError, "codec: level %d of %d, width %d, %lld elements, %d threads", level,
                     level_count, job->width, (long long)job->n, job->threads);
        return -1;
    }
    job->level = levels[level];
    return 0;
}

static PyObject *end(int status, PyObject *result) {
    if (status >= 0) return result;
    Py_XDECREF(result);
    return PyErr_NoMemory();
}

typedef unsigned long long address;
#define AT(a) ((void *)(uintptr_t)(a))

/* codec_encode(level, threads, width, n, operation, neg_inf, x, y, base, table, bitmap, values, capacity)
 * -> (nnz, digest, negative). Values beyond `capacity` are left out: compare nnz with it. */
static PyObject *codec_encode(PyObject *self, PyObject *args) {
    (void)self;
    int level, operation, status;
    address neg_inf, x, y, base, table, bitmap, values;
    long long n, capacity;
    codec_job job = {0};
    if (!PyArg_ParseTuple(args, "iiiLiKKKKKKKL", &level, &job.threads, &job.width, &n, &operation, &neg_inf,
                          &x, &y, &base, &table, &bitmap, &values, &capacity))
        return NULL;
    job.n = n, job.operation = (enum operation)operation, job.neg_inf = neg_inf, job.x = AT(x), job.y = AT(y);
    job.base = AT(base), job.table = AT(table), job.bitmap = AT(bitmap), job.values = AT(values);
    job.capacity = capacity;
    if (begin(&job, level)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = codec_run_encode(&job);
    Py_END_ALLOW_THREADS return end(
        status, Py_BuildValue("LKi", (long long)job.nnz, (address)job.digest, job.negative));
}

/* codec_copy(level, threads, width, n, x, base, table, bitmap, values, capacity) -> digest of the values */
static PyObject *codec_copy(PyObject *self, PyObject *args) {
    (void)self;
    int level, status;
    address x, base, table, bitmap, values;
    long long n, capacity;
    codec_job job = {0};
    if (!PyArg_ParseTuple(args, "iiiLKKKKKL", &level, &job.threads, &job.width, &n, &x, &base, &table,
                          &bitmap, &values, &capacity))
        return NULL;
    job.n = n, job.x = AT(x), job.base = AT(base), job.table = AT(table), job.bitmap = AT(bitmap);
    job.values = AT(values), job.capacity = capacity;
    if (begin(&job, level)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = codec_run_copy(&job);
    Py_END_ALLOW_THREADS return end(status, PyLong_FromUnsignedLongLong(job.digest));
}

/* codec_decode(level, threads, width, n, nnz, base, table, bitmap, values, y) -> (status, bad_block, digest);
 * status 1: the table does not add up to nnz; bad_block >= 0: its count and bitmap disagree. */
static PyObject *codec_decode(PyObject *self, PyObject *args) {
    (void)self;
    int level, status;
    address base, table, bitmap, values, y;
    long long n, nnz;
    codec_job job = {0};
    if (!PyArg_ParseTuple(args, "iiiLLKKKKK", &level, &job.threads, &job.width, &n, &nnz, &base, &table,
                          &bitmap, &values, &y))
        return NULL;
    job.n = n, job.nnz = nnz, job.base = AT(base), job.table = AT(table), job.bitmap = AT(bitmap);
    job.values = AT(values), job.y = AT(y), job.bad_block = -1;
    if (begin(&job, level)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = codec_run_decode(&job);
    Py_END_ALLOW_THREADS return end(
        status, Py_BuildValue("iLK", status, (long long)job.bad_block, (address)job.digest));
}

/* codec_select(level, threads, width, n, x, one, bitmap, y) -> digest of the bitmap. y = bit ? x (or `one`) :
 * 0. */
static PyObject *codec_select(PyObject *self, PyObject *args) {
    (void)self;
    int level, status;
    address x, one, bitmap, y;
    long long n;
    codec_job job = {0};
    if (!PyArg_ParseTuple(args, "iiiLKKKK", &level, &job.threads, &job.width, &n, &x, &one, &bitmap, &y))
        return NULL;
    job.n = n, job.x = AT(x), job.one = one, job.base = job.bitmap = AT(bitmap), job.y = AT(y);
    if (begin(&job, level)) return NULL;
    Py_BEGIN_ALLOW_THREADS status = codec_run_select(&job);
    Py_END_ALLOW_THREADS return end(status, PyLong_FromUnsignedLongLong(job.digest));
}

/* codec_digest(level, address, bytes) -> digest */
static PyObject *codec_digest(PyObject *self, PyObject *args) {
    (void)self;
    int level;
    address at;
    long long bytes;
    codec_job job = {.threads = 1};
    uint64_t digest;
    if (!PyArg_ParseTuple(args, "iKL", &level, &at, &bytes)) return NULL;
    if (begin(&job, level)) return NULL;
    Py_BEGIN_ALLOW_THREADS digest = codec_digest_bytes(job.level, AT(at), (size_t)bytes, 0);
    Py_END_ALLOW_THREADS return PyLong_FromUnsignedLongLong(digest);
}

PyMethodDef outsize_codec_methods[] = {
    {"codec_levels", codec_levels, METH_NOARGS, "Instruction sets usable here, best first."},
    {"codec_encode", codec_encode, METH_VARARGS, "Bitmap, table and values in one pass over the input."},
    {"codec_copy", codec_copy, METH_VARARGS, "Values only, from a table and bitmap made before."},
    {"codec_decode", codec_decode, METH_VARARGS, "Dense output from the three regions."},
    {"codec_select", codec_select, METH_VARARGS, "Keep the elements whose bit is set, zero the others."},
    {"codec_digest", codec_digest, METH_VARARGS, "The digest of a buffer."},
    {NULL, NULL, 0, NULL}};
