/* Waiting on other processes through shared memory (method 5).
 *
 * Each worker owns a few 64-bit counters that only grow; a waiter wants "every worker's counter has reached
 * v". One 32-bit word, the bell, changes whenever any counter does, so a waiter reads the bell, looks at the
 * counters, and sleeps in the kernel on the bell's old value: no polling burn with more workers than cores,
 * no lost wake-up. A second word, the poison, ends every wait at once.
 *
 * Atomics are the compiler's builtins on memory that several processes map; the futex is not "private". */
#include "native.h"

#ifdef __linux__
#include <errno.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void ring(uint32_t *bell, uint32_t *waiters) {
    __atomic_add_fetch(bell, 1, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(waiters, __ATOMIC_SEQ_CST) != 0)
        syscall(SYS_futex, bell, FUTEX_WAKE, 0x7fffffff, NULL, NULL, 0);
}

static int reached(const char *first, Py_ssize_t stride, Py_ssize_t count, uint64_t value) {
    for (Py_ssize_t i = 0; i < count; i++)
        if (__atomic_load_n((const uint64_t *)(first + i * stride), __ATOMIC_ACQUIRE) < value) return 0;
    return 1;
}

enum { REACHED = 0, SLICE_OVER = 1, POISONED = 2 };

static int wait_slice(uint32_t *bell, uint32_t *waiters, uint32_t *poison, const char *first, Py_ssize_t stride,
                      Py_ssize_t count, uint64_t value, int spins, int64_t nanoseconds) {
    for (int i = 0; i < spins; i++) {
        if (reached(first, stride, count, value)) return REACHED;
#if defined(__x86_64__) || defined(__i386__)
        __builtin_ia32_pause();
#endif
    }
    struct timespec limit, now;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += (time_t)(nanoseconds / 1000000000);
    limit.tv_nsec += (long)(nanoseconds % 1000000000);
    if (limit.tv_nsec >= 1000000000) limit.tv_sec++, limit.tv_nsec -= 1000000000;
    for (;;) {
        uint32_t heard = __atomic_load_n(bell, __ATOMIC_SEQ_CST);
        if (reached(first, stride, count, value)) return REACHED;
        if (__atomic_load_n(poison, __ATOMIC_ACQUIRE) != 0) return POISONED;
        clock_gettime(CLOCK_MONOTONIC, &now);
        struct timespec left = {limit.tv_sec - now.tv_sec, limit.tv_nsec - now.tv_nsec};
        if (left.tv_nsec < 0) left.tv_sec--, left.tv_nsec += 1000000000;
        if (left.tv_sec < 0) return SLICE_OVER;
        __atomic_add_fetch(waiters, 1, __ATOMIC_SEQ_CST);
        long status = syscall(SYS_futex, bell, FUTEX_WAIT, heard, &left, NULL, 0);
        int reason = status == 0 ? 0 : errno;
        __atomic_sub_fetch(waiters, 1, __ATOMIC_SEQ_CST);
        if (reason == EINTR) return SLICE_OVER; /* lets Python run its signal handlers */
    }
}

/* wait_all(bell, waiters, poison, first, stride, count, value, spins, nanoseconds) -> 0 | 1 | 2 */
static PyObject *wait_all(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long bell, waiters, poison, first, value;
    Py_ssize_t stride, count;
    int spins, outcome;
    long long nanoseconds;
    if (!PyArg_ParseTuple(args, "KKKKnnKiL", &bell, &waiters, &poison, &first, &stride, &count, &value, &spins,
                          &nanoseconds))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    outcome = wait_slice((uint32_t *)(uintptr_t)bell, (uint32_t *)(uintptr_t)waiters,
                         (uint32_t *)(uintptr_t)poison, (const char *)(uintptr_t)first, stride, count, value,
                         spins, nanoseconds);
    Py_END_ALLOW_THREADS
    return PyLong_FromLong(outcome);
}

/* post(bell, waiters, counter, value): publishes everything written before, then wakes the waiters. */
static PyObject *post(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long bell, waiters, counter, value;
    if (!PyArg_ParseTuple(args, "KKKK", &bell, &waiters, &counter, &value)) return NULL;
    /* Staging uses non-temporal stores, which only a fence orders before the counter. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    __atomic_store_n((uint64_t *)(uintptr_t)counter, value, __ATOMIC_SEQ_CST);
    ring((uint32_t *)(uintptr_t)bell, (uint32_t *)(uintptr_t)waiters);
    Py_RETURN_NONE;
}

/* claim(word, expected, desired) -> bool: 32-bit compare and swap. */
static PyObject *claim(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long word;
    unsigned int expected, desired;
    if (!PyArg_ParseTuple(args, "KII", &word, &expected, &desired)) return NULL;
    return PyBool_FromLong(__atomic_compare_exchange_n((uint32_t *)(uintptr_t)word, &expected, desired, 0,
                                                       __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST));
}

/* load(counter) -> int */
static PyObject *load(PyObject *self, PyObject *args) {
    (void)self;
    unsigned long long counter;
    if (!PyArg_ParseTuple(args, "K", &counter)) return NULL;
    return PyLong_FromUnsignedLongLong(__atomic_load_n((uint64_t *)(uintptr_t)counter, __ATOMIC_ACQUIRE));
}

PyMethodDef outsize_sync_methods[] = {
    {"wait_all", wait_all, METH_VARARGS, "Wait until every counter has reached a value."},
    {"post", post, METH_VARARGS, "Raise one counter and wake the waiters."},
    {"claim", claim, METH_VARARGS, "Compare and swap one 32-bit word."},
    {"load", load, METH_VARARGS, "Read one counter."},
    {NULL, NULL, 0, NULL}};
#else
PyMethodDef outsize_sync_methods[] = {{NULL, NULL, 0, NULL}};
#endif
