/* Bytes in use by the process's C allocator, and their peak between two moments.
 *
 * A step's peak lasts for fractions of an operator, so reading the count at operator boundaries misses it and a
 * Python thread that polls it is held up by the interpreter lock. One native thread samples for every meter that
 * runs. Reading glibc's count takes some 30 us, so the thread rests `rest` times as long as a reading took: that
 * bounds its cost whatever the reading costs. Where the arena (arena.c) serves torch's libraries it keeps a
 * high-water mark of their blocks, exact to the byte; then only what others hold is sampled. */
#include "native.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { METERS = 16, STACK = 256 * 1024 };
#define MOVED ((size_t)-1)
#define STALE 50000000 /* ns after which a count is not relied on any more */

typedef int (*mallctl_t)(const char *, void *, size_t *, void *, size_t);

static struct {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    pthread_t thread;
    int running;             /* the thread exists */
    int active;              /* meters that run */
    unsigned forks;          /* between this process and the one that loaded the module */
    unsigned char used[METERS];
    size_t peak[METERS];
    int64_t rest_bytes;      /* latest count of what torch's libraries do not hold */
    int64_t sampled_at;      /* ns */
    int64_t cost;            /* ns of the latest reading */
    int64_t interval, rest;  /* ns; multiple of cost */
    uint64_t samples, spent; /* readings, and ns that they took together */
} meter = {.lock = PTHREAD_MUTEX_INITIALIZER, .interval = 500000, .rest = 100};

typedef int (*property_t)(const char *, size_t *);

static mallctl_t jemalloc_control;
static property_t tcmalloc_property;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int jemalloc_count(size_t *bytes) {
    uint64_t epoch = 1;
    size_t allocated = 0, cached = 0, size = sizeof allocated;
    jemalloc_control("epoch", NULL, NULL, &epoch, sizeof epoch);
    if (jemalloc_control("stats.allocated", &allocated, &size, NULL, 0)) return 0; /* built without statistics */
    /* What was freed and waits in a thread's cache counts as allocated there; 4096 stands for all arenas together. */
    size = sizeof cached;
    if (jemalloc_control("stats.arenas.4096.tcache_bytes", &cached, &size, NULL, 0) || cached > allocated) cached = 0;
    *bytes = allocated - cached;
    return 1;
}

/* Everything the C allocator has handed out, as whoever serves malloc counts it. */
static size_t count_bytes(void) {
    size_t bytes = 0;
    if (jemalloc_control != NULL && jemalloc_count(&bytes)) return bytes;
    if (tcmalloc_property != NULL && tcmalloc_property("generic.current_allocated_bytes", &bytes)) return bytes;
#ifdef __GLIBC__
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
#else
    return 0;
#endif
}

/* As `count_bytes`, with the part of it that stands for the arena's blocks: MOVED if that changed meanwhile. A reading
 * that ran into the middle of such a change counted a whole block twice, which only a loaded machine showed. */
static size_t count_beside(size_t *shadow) {
    unsigned version = outsize_arena_version();
    *shadow = outsize_arena_shadow();
    size_t all = count_bytes();
    if (version % 2 || version != outsize_arena_version()) *shadow = MOVED;
    return all;
}

enum { TRIES = 4, LATE_TRIES = 8, FIRST_PAUSE = 50000 /* ns, twice as long after each try */ };

/* Caller holds the lock. What torch's libraries do not hold, read while none of their small blocks changes. Where they
 * change all the time the count stays as it was; once it is stale, the lowest of several readings is taken, none of
 * which is too low: a reading in the middle of a change counts the block twice. Returns the time that readings took. */
static int64_t read_rest(int stale) {
    int64_t spent = 0, least = INT64_MAX, pause = FIRST_PAUSE;
    for (int left = stale ? LATE_TRIES : TRIES; left > 0; left--) {
        unsigned changes, later;
        int64_t small = outsize_small_bytes(&changes), begin = now_ns();
        if (stale || outsize_small_stands(changes)) {
            size_t shadow, all = count_beside(&shadow);
            int stands = outsize_small_stands(changes);
            int64_t after = outsize_small_bytes(&later);
            int64_t rest = (int64_t)(all - shadow) - (after < small ? after : small);
            spent += now_ns() - begin;
            if (shadow != MOVED && rest < least) least = rest;
            if (shadow != MOVED && stands) {
                meter.rest_bytes = rest;
                return spent;
            }
        }
        if (stale) {
            struct timespec time = {.tv_sec = 0, .tv_nsec = pause};
            nanosleep(&time, NULL); /* whoever was in the middle of a change may wait for a processor */
            pause *= 2;
        } else
            sched_yield();
    }
    if (stale && least != INT64_MAX) meter.rest_bytes = least;
    return spent;
}

/* Caller holds the lock. Reads the small remainder unless it was read less than `age` ns ago, then raises peaks. */
static void sample(int64_t age) {
    int64_t begin = now_ns();
    if (begin - meter.sampled_at >= age) {
        meter.cost = read_rest(begin - meter.sampled_at > STALE);
        meter.sampled_at = now_ns();
        meter.samples++;
        meter.spent += (uint64_t)meter.cost;
    }
    int64_t sum = meter.rest_bytes + outsize_arena_take_high();
    size_t high = sum > 0 ? (size_t)sum : 0;
    for (int i = 0; i < METERS; i++)
        if (meter.used[i] && high > meter.peak[i]) meter.peak[i] = high;
}

static void *run_sampler(void *unused) {
    (void)unused;
    pthread_mutex_lock(&meter.lock);
    while (meter.active > 0) {
        outsize_arena_give_way(); /* a limit on the address space may come in the middle of a step */
        sample(0);
        int64_t pause = meter.cost * meter.rest > meter.interval ? meter.cost * meter.rest : meter.interval;
        int64_t until = now_ns() + pause;
        struct timespec deadline = {.tv_sec = until / 1000000000, .tv_nsec = until % 1000000000};
        pthread_cond_timedwait(&meter.wake, &meter.lock, &deadline);
    }
    meter.running = 0;
    pthread_mutex_unlock(&meter.lock);
    return NULL;
}

static void make_wake(void) {
    pthread_condattr_t attributes;
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&meter.wake, &attributes);
    pthread_condattr_destroy(&attributes);
}

/* A fork must find both locks free; a reading takes the meter's, then the arena's, so this does as well. */
static void before_fork(void) {
    pthread_mutex_lock(&meter.lock);
    outsize_arena_lock();
}
static void after_fork_parent(void) {
    outsize_arena_unlock();
    pthread_mutex_unlock(&meter.lock);
}
static void after_fork_child(void) { /* the sampler did not come along: meters end here */
    meter.running = meter.active = 0;
    meter.forks++;
    memset(meter.used, 0, sizeof meter.used);
    outsize_small_settle();
    make_wake(); /* the sampler may have waited there */
    after_fork_parent();
}
static void guard_forks(void) { pthread_atfork(before_fork, after_fork_parent, after_fork_child); }

void outsize_guard_forks(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, guard_forks);
}

static void prepare(void) {
    make_wake();
    outsize_guard_forks();
}

/* A meter is a capsule, so that it ends when nobody holds it any more, wherever an interrupt struck. Its pointer is a
 * `handle`: the slot, and in which process, since a forked child's meters end with the fork. */
struct handle {
    int slot;      /* -1 once it has stopped */
    unsigned born; /* `meter.forks` then */
    size_t last;   /* its peak when it stopped */
};
static const char CAPSULE[] = "outsize.meter";

static int runs(const struct handle *h) { return h->slot >= 0 && h->born == meter.forks; }

/* Caller holds the lock. */
static void end_meter(struct handle *h) {
    if (runs(h)) {
        h->last = meter.peak[h->slot];
        meter.used[h->slot] = 0;
        if (--meter.active == 0) pthread_cond_signal(&meter.wake);
    }
    h->slot = -1;
}

static void drop_meter(PyObject *capsule) {
    struct handle *h = PyCapsule_GetPointer(capsule, CAPSULE);
    pthread_mutex_lock(&meter.lock); /* nobody who holds it waits for the interpreter's lock */
    end_meter(h);
    pthread_mutex_unlock(&meter.lock);
    free(h);
}

static struct handle *handle_of(PyObject *capsule) { return PyCapsule_GetPointer(capsule, CAPSULE); }

/* Caller holds the lock: a slot with a fresh peak, METERS if all are taken, -1 if there is no thread. */
static int begin_meter(long long interval, long long rest) {
    int slot = 0;
    while (slot < METERS && meter.used[slot]) slot++;
    if (slot == METERS) return slot;
    meter.interval = interval;
    meter.rest = rest;
    sample(0); /* closes the interval of the others, so that the arena's high-water mark starts here */
    meter.used[slot] = 1;
    meter.peak[slot] = 0;
    sample(INT64_MAX);
    meter.active++;
    if (!meter.running) {
        pthread_attr_t small; /* a stack is address space, which may be limited */
        pthread_attr_init(&small);
        pthread_attr_setstacksize(&small, STACK);
        int failed = pthread_create(&meter.thread, &small, run_sampler, NULL);
        pthread_attr_destroy(&small);
        if (failed) {
            meter.used[slot] = 0;
            meter.active--;
            return -1;
        }
        meter.running = 1;
        pthread_detach(meter.thread);
    }
    return slot;
}

/* meter_start(interval_ns, rest) -> a meter whose peak begins at the bytes in use now. */
static PyObject *meter_start(PyObject *self, PyObject *args) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    long long interval, rest;
    (void)self;
    if (!PyArg_ParseTuple(args, "LL", &interval, &rest)) return NULL;
    pthread_once(&once, prepare);
    struct handle *h = calloc(1, sizeof *h);
    if (h == NULL) return PyErr_NoMemory();
    int slot;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&meter.lock);
    slot = begin_meter(interval, rest);
    h->slot = slot == METERS ? -1 : slot;
    h->born = meter.forks;
    pthread_mutex_unlock(&meter.lock);
    Py_END_ALLOW_THREADS
    PyObject *capsule = h->slot >= 0 ? PyCapsule_New(h, CAPSULE, drop_meter) : NULL;
    if (capsule == NULL) {
        pthread_mutex_lock(&meter.lock);
        end_meter(h);
        pthread_mutex_unlock(&meter.lock);
        free(h);
        if (slot == METERS) return PyErr_Format(PyExc_RuntimeError, "more than %d memory meters run", METERS);
        if (slot < 0) return PyErr_Format(PyExc_RuntimeError, "no thread for the memory meter");
    }
    return capsule;
}

/* meter_runs(meter) -> bool: it was not stopped, and began in this process. */
static PyObject *meter_runs(PyObject *self, PyObject *capsule) {
    (void)self;
    const struct handle *h = handle_of(capsule);
    return h == NULL ? NULL : PyBool_FromLong(runs(h));
}

/* meter_mark(): a reading now, unless one was taken within the rest that the sampler keeps. */
static PyObject *meter_mark(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&meter.lock);
    if (meter.active > 0) sample(meter.cost * meter.rest / 2);
    pthread_mutex_unlock(&meter.lock);
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

/* meter_read(meter, reset) -> peak so far, with reset it begins anew; the last peak of one that has stopped. */
static PyObject *meter_read(PyObject *self, PyObject *args) {
    PyObject *capsule;
    int reset;
    (void)self;
    if (!PyArg_ParseTuple(args, "Op", &capsule, &reset)) return NULL;
    struct handle *h = handle_of(capsule);
    if (h == NULL) return NULL;
    size_t peak;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&meter.lock);
    if (runs(h)) {
        sample(0);
        h->last = meter.peak[h->slot];
        if (reset) {
            meter.peak[h->slot] = 0;
            sample(INT64_MAX);
        }
    }
    peak = h->last;
    pthread_mutex_unlock(&meter.lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(peak);
}

/* meter_stop(meter) -> peak since the start or the latest reset; again for one that has stopped. */
static PyObject *meter_stop(PyObject *self, PyObject *capsule) {
    (void)self;
    struct handle *h = handle_of(capsule);
    if (h == NULL) return NULL;
    size_t peak;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&meter.lock);
    if (runs(h)) sample(0);
    end_meter(h);
    peak = h->last;
    pthread_mutex_unlock(&meter.lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(peak);
}

/* meter_facts() -> (readings taken, ns that they took together, ns of the latest). */
static PyObject *meter_facts(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    return Py_BuildValue("KKL", (unsigned long long)meter.samples, (unsigned long long)meter.spent,
                         (long long)meter.cost);
}

/* bytes_in_use() -> int: small and heap chunks in use plus mapped chunks, over all heaps and threads. */
static PyObject *bytes_in_use(PyObject *self, PyObject *args) {
    (void)self, (void)args;
#ifndef __GLIBC__
    if (jemalloc_control == NULL && tcmalloc_property == NULL) {
        PyErr_SetString(PyExc_NotImplementedError, "the C library gives no count of the bytes in use");
        return NULL;
    }
#endif
    size_t count, shadow;
    Py_BEGIN_ALLOW_THREADS
    do count = count_beside(&shadow);
    while (shadow == MOVED);
    count += outsize_arena_in_use() - shadow; /* what the shadow's granule leaves out */
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(count);
}

/* Whether the object that serves malloc has this function as well: then it is its own. */
static void *of_malloc(const char *name) {
    void *serving = dlsym(RTLD_DEFAULT, "malloc"), *function = dlsym(RTLD_DEFAULT, name);
    Dl_info a, b;
    return serving && function && dladdr(serving, &a) && dladdr(function, &b) && a.dli_fbase == b.dli_fbase ? function
                                                                                                            : NULL;
}

/* malloc_owner() -> who serves malloc: 'jemalloc', 'tcmalloc', 'mimalloc', 'glibc' or 'other'; the first two only where
 * they count. */
static PyObject *malloc_owner(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    size_t bytes;
    void *function = of_malloc("mallctl");
    memcpy(&jemalloc_control, &function, sizeof function);
    if (function != NULL && !jemalloc_count(&bytes)) jemalloc_control = NULL;
    function = of_malloc("MallocExtension_GetNumericProperty");
    memcpy(&tcmalloc_property, &function, sizeof function);
    const char *name = "other";
    if (jemalloc_control != NULL) name = "jemalloc";
    else if (tcmalloc_property != NULL) name = "tcmalloc";
    else if (of_malloc("mi_malloc") != NULL) name = "mimalloc";
    else if (of_malloc("mallinfo2") != NULL) name = "glibc";
    return PyUnicode_FromString(name);
}

PyMethodDef outsize_memory_methods[] = {
    {"bytes_in_use", bytes_in_use, METH_NOARGS, "Bytes in use by the C allocator."},
    {"malloc_owner", malloc_owner, METH_NOARGS, "Who serves malloc."},
    {"meter_start", meter_start, METH_VARARGS, "Start a meter (interval in ns, rest as a multiple of cost)."},
    {"meter_mark", meter_mark, METH_NOARGS, "Take a reading at an operator boundary."},
    {"meter_runs", meter_runs, METH_O, "Whether a meter runs in this process."},
    {"meter_read", meter_read, METH_VARARGS, "Peak so far (meter, reset)."},
    {"meter_stop", meter_stop, METH_O, "End a meter; its peak."},
    {"meter_facts", meter_facts, METH_NOARGS, "(readings, their ns, ns of the latest)."},
    {NULL, NULL, 0, NULL}};
