/* The pages of large blocks: one reserved range, reused without new faults, given back when idle.
 *
 * glibc either keeps freed tensors in its heap, so that the process never shrinks, or maps each one anew, so that
 * every step pays for its pages again (first touch is slower than a disk). Here blocks of `threshold` bytes or more
 * come from one reserved range: the tightest hole serves, the lowest on a tie, and freed neighbours merge. A page
 * that was touched stays mapped while the touched pages together stay within `slack` of the highest in-use count of
 * this step and the one before; beyond that the idle ones go back to the kernel first. So the resident set follows
 * the bytes in use, and a step that repeats itself pays for no page twice.
 *
 * glibc's count must stay true for whoever reads `mallinfo2`: one untouched glibc block, the shadow, is kept as long
 * as the bytes in use (realloc of a mapped block moves no page), so they appear there to within `granule`. Another
 * allocator's realloc may move pages, so there is no shadow beside it.
 *
 * The range is address space that others need where that is limited (RLIMIT_AS). A limit may come at any time, so it is
 * looked for at each block: then the arena retires, hands out no more, and unmaps whatever is or comes free. */
#include "native.h"

#if defined(__linux__) && defined(__GLIBC__) && defined(__LP64__)
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Range FIRST begins at page 0 always: a split keeps the lower part and a merge the lower range. */
enum { PAGE = 4096, HUGE_PAGES = 512, LEAST_PURGE = 2048, RANGES = 1 << 17, NONE = 0, FIRST = 1 };

/* A run of pages, in use or free. Neighbours by address are linked; free ones are also in the free list. */
struct range {
    uint32_t start, pages;
    uint32_t touched; /* pages that were handed out since the kernel last took them back */
    uint32_t below, above;
    uint32_t previous, next;
    uint32_t free;
};

static struct {
    pthread_mutex_t lock;
    _Atomic(uintptr_t) base, end; /* 0 while not installed */
    size_t threshold, floor_pages;
    uint32_t slack; /* thousandths */
    uint32_t pages, top; /* of the range; one past the highest page ever handed out */
    uint32_t *index; /* first page of a block in use -> its range */
    uint64_t *touched, *used; /* one bit a page; used: in use at some time of this step */
    struct range *ranges;
    uint32_t spare, made, first_free;
    size_t in_use, high, step_high, last_high, touched_pages, blocks; /* in pages */
    void *shadow; /* NULL for none */
    size_t shadow_bytes;
    int retired;
    uint64_t allocations, misses, purges, purged_pages, fresh_pages, shadow_moves;
} arena = {.lock = PTHREAD_MUTEX_INITIALIZER};

static _Atomic size_t in_use_bytes, shadow_counted;
/* The high-water mark is that of the arena's blocks and the smaller ones (small.c) together: the small gradients at the
 * end of a step are not there at its peak. */
static _Atomic int64_t interval_high;
static _Atomic unsigned shadow_version; /* odd while the shadow is being moved */

size_t outsize_arena_in_use(void) { return atomic_load(&in_use_bytes); }
size_t outsize_arena_shadow(void) { return atomic_load(&shadow_counted); }
unsigned outsize_arena_version(void) { return atomic_load(&shadow_version); }

static int64_t together(void) {
    unsigned version;
    return (int64_t)atomic_load(&in_use_bytes) + outsize_small_bytes(&version);
}

void outsize_arena_note_high(void) {
    int64_t now = together(), high = atomic_load(&interval_high);
    while (now > high && !atomic_compare_exchange_weak(&interval_high, &high, now)) {}
}

int64_t outsize_arena_take_high(void) {
    int64_t high = atomic_exchange(&interval_high, together());
    outsize_arena_note_high();
    return high;
}

/* -- bits: count, set or clear those of [start, start + pages) */

static uint64_t mask_of(uint32_t word, uint32_t start, uint32_t end) {
    uint64_t mask = ~0ull;
    if (word == start / 64) mask &= ~0ull << (start % 64);
    if (word == (end - 1) / 64) mask &= ~0ull >> (63 - (end - 1) % 64);
    return mask;
}

static uint32_t count_bits(const uint64_t *bits, uint32_t start, uint32_t pages) {
    uint32_t count = 0, end = start + pages;
    for (uint32_t w = start / 64; pages && w <= (end - 1) / 64; w++)
        count += (uint32_t)__builtin_popcountll(bits[w] & mask_of(w, start, end));
    return count;
}

static void set_bits(uint64_t *bits, uint32_t start, uint32_t pages, int value) {
    uint32_t end = start + pages;
    for (uint32_t w = start / 64; pages && w <= (end - 1) / 64; w++) {
        uint64_t mask = mask_of(w, start, end);
        bits[w] = value ? bits[w] | mask : bits[w] & ~mask;
    }
}

/* -- ranges */

static uint32_t new_range(void) {
    uint32_t r = arena.spare;
    if (r != NONE) arena.spare = arena.ranges[r].next;
    else if (arena.made + 1 < RANGES) r = ++arena.made;
    return r;
}

static void drop_range(uint32_t r) {
    arena.ranges[r].next = arena.spare;
    arena.spare = r;
}

static void list_free(uint32_t r) {
    struct range *it = &arena.ranges[r];
    it->free = 1;
    it->previous = NONE;
    it->next = arena.first_free;
    if (it->next != NONE) arena.ranges[it->next].previous = r;
    arena.first_free = r;
}

static void unlist_free(uint32_t r) {
    struct range *it = &arena.ranges[r];
    it->free = 0;
    if (it->previous != NONE) arena.ranges[it->previous].next = it->next;
    else arena.first_free = it->next;
    if (it->next != NONE) arena.ranges[it->next].previous = it->previous;
}

/* Give the touched pages of [start, end) back to the kernel. */
static size_t purge(uint32_t start, uint32_t end) {
    uint32_t gone = end > start ? count_bits(arena.touched, start, end - start) : 0;
    if (gone == 0 || madvise((void *)(arena.base + (size_t)start * PAGE), (size_t)(end - start) * PAGE, MADV_DONTNEED))
        return 0;
    set_bits(arena.touched, start, end - start, 0);
    arena.touched_pages -= gone;
    arena.purges++;
    arena.purged_pages += gone;
    return gone;
}

/* Give back about `wanted` touched pages of a free range, from its upper end down, by whole huge pages if it can. */
static void shrink(struct range *it, size_t wanted) {
    uint32_t end = it->start + it->pages, stop = end < arena.top ? end : arena.top, at = stop;
    size_t found = 0;
    while (at > it->start && found < wanted) {
        uint32_t next = (at - 1) / HUGE_PAGES * HUGE_PAGES;
        if (next < it->start) next = it->start;
        found += count_bits(arena.touched, next, at - next);
        at = next;
    }
    it->touched -= (uint32_t)purge(at, stop);
}

/* Touched pages may exceed the highest in-use count by the slack; shrink the largest idle ranges until they fit. */
static void make_room(size_t fresh) {
    size_t high = arena.step_high > arena.last_high ? arena.step_high : arena.last_high;
    size_t limit = high + high * arena.slack / 1000 + arena.floor_pages;
    while (arena.touched_pages + fresh > limit) {
        uint32_t best = NONE;
        for (uint32_t r = arena.first_free; r != NONE; r = arena.ranges[r].next)
            if (arena.ranges[r].touched > (best ? arena.ranges[best].touched : 0)) best = r;
        if (best == NONE) return;
        size_t over = arena.touched_pages + fresh - limit;
        size_t before = arena.touched_pages;
        shrink(&arena.ranges[best], over > LEAST_PURGE ? over : LEAST_PURGE);
        if (arena.touched_pages == before) return; /* the kernel refused */
    }
}

static uint32_t tightest(uint32_t pages) {
    uint32_t best = NONE;
    for (uint32_t r = arena.first_free; r != NONE; r = arena.ranges[r].next) {
        const struct range *it = &arena.ranges[r], *to = &arena.ranges[best];
        if (it->pages < pages) continue;
        if (best == NONE || it->pages < to->pages || (it->pages == to->pages && it->start < to->start)) best = r;
    }
    return best;
}

/* Keep glibc's count within the granule of the bytes in use: 0.4 %, at least 512 KiB. */
static void follow(void) {
    size_t want = arena.in_use * PAGE, granule = want / 256 > 524288 ? want / 256 : 524288;
    size_t off = want > arena.shadow_bytes ? want - arena.shadow_bytes : arena.shadow_bytes - want;
    if (arena.shadow != NULL && (off > granule || (want == 0 && off))) {
        size_t size = want > PAGE ? want : PAGE;
        atomic_fetch_add(&shadow_version, 1);
        void *moved = realloc(arena.shadow, size - 64);
        if (moved != NULL) {
            arena.shadow = moved;
            arena.shadow_bytes = want;
            arena.shadow_moves++;
        }
        atomic_store(&shadow_counted, arena.shadow_bytes);
        atomic_fetch_add(&shadow_version, 1);
    }
    atomic_store(&in_use_bytes, want);
}

static int limited(int resource) {
    struct rlimit found;
    return getrlimit(resource, &found) == 0 && found.rlim_cur != RLIM_INFINITY;
}

/* Caller holds the lock. The pages of a free range are no longer ours. */
static void unmap(struct range *it) {
    uint32_t end = it->start + it->pages, stop = end < arena.top ? end : arena.top;
    if (munmap((void *)(arena.base + (size_t)it->start * PAGE), (size_t)it->pages * PAGE)) return;
    if (stop > it->start) set_bits(arena.touched, it->start, stop - it->start, 0);
    arena.touched_pages -= it->touched;
    it->touched = 0;
}

/* The part of a table that stands for pages which were never handed out. */
static void unmap_rest(void *table, size_t used, size_t all) {
    size_t kept = (used + PAGE - 1) / PAGE * PAGE;
    if (kept < all) munmap((char *)table + kept, all - kept);
}

/* Caller holds the lock. Whether the arena has retired just now, since address space is limited. */
static int heed_limits(void) {
    if (arena.base == 0 || arena.retired || !(limited(RLIMIT_AS) || limited(RLIMIT_DATA))) return 0;
    arena.retired = 1;
    atomic_store(&arena.end, arena.base + (size_t)arena.top * PAGE);
    for (uint32_t r = arena.first_free; r != NONE; r = arena.ranges[r].next) unmap(&arena.ranges[r]);
    size_t bits = ((size_t)arena.pages / 64 + 1) * 8, kept = ((size_t)arena.top / 64 + 1) * 8;
    unmap_rest(arena.index, (size_t)arena.top * sizeof *arena.index, (size_t)arena.pages * sizeof *arena.index);
    unmap_rest(arena.touched, kept, bits);
    unmap_rest(arena.used, kept, bits);
    atomic_fetch_add(&shadow_version, 1);
    free(arena.shadow); /* it is as large as the bytes in use */
    arena.shadow = NULL;
    arena.shadow_bytes = 0;
    atomic_store(&shadow_counted, 0);
    atomic_fetch_add(&shadow_version, 1);
    return 1;
}

int outsize_arena_give_way(void) {
    pthread_mutex_lock(&arena.lock);
    int retired = heed_limits();
    pthread_mutex_unlock(&arena.lock);
    return retired;
}

static void *take(size_t bytes) {
    if (bytes > (size_t)arena.pages * PAGE || arena.retired) return NULL;
    uint32_t pages = (uint32_t)((bytes + PAGE - 1) / PAGE);
    void *result = NULL;
    pthread_mutex_lock(&arena.lock);
    heed_limits();
    uint32_t r = arena.retired ? NONE : tightest(pages);
    if (r == NONE) goto done;
    struct range *it = &arena.ranges[r];
    if (it->pages > pages) {
        uint32_t rest = new_range();
        if (rest == NONE) goto done;
        struct range *other = &arena.ranges[rest];
        *other = (struct range){.start = it->start + pages, .pages = it->pages - pages, .below = r, .above = it->above};
        if (other->above != NONE) arena.ranges[other->above].below = rest;
        it->above = rest;
        it->pages = pages;
        uint32_t kept = count_bits(arena.touched, it->start, pages);
        other->touched = it->touched - kept;
        it->touched = kept;
        list_free(rest);
    }
    unlist_free(r);
    size_t fresh = pages - it->touched;
    arena.in_use += pages;
    if (arena.in_use > arena.step_high) arena.step_high = arena.in_use;
    if (arena.in_use > arena.high) arena.high = arena.in_use;
    if (fresh) make_room(fresh);
    if (it->start + pages > arena.top) arena.top = it->start + pages;
    set_bits(arena.touched, it->start, pages, 1);
    set_bits(arena.used, it->start, pages, 1);
    it->touched = pages;
    arena.touched_pages += fresh;
    arena.fresh_pages += fresh;
    arena.index[it->start] = r;
    arena.blocks++;
    arena.allocations++;
    outsize_lane_changed((int64_t)pages * PAGE);
    follow();
    outsize_arena_note_high();
    result = (void *)(arena.base + (size_t)it->start * PAGE);
done:
    if (result == NULL) arena.misses++;
    pthread_mutex_unlock(&arena.lock);
    return result;
}

static void merge(uint32_t low, uint32_t high) {
    struct range *a = &arena.ranges[low], *b = &arena.ranges[high];
    a->pages += b->pages;
    a->touched += b->touched;
    a->above = b->above;
    if (a->above != NONE) arena.ranges[a->above].below = low;
    drop_range(high);
}

/* 0 where the block is somebody else's, who mapped what a retired arena gave back. */
static int give(void *pointer) {
    pthread_mutex_lock(&arena.lock);
    uint32_t page = (uint32_t)(((uintptr_t)pointer - arena.base) / PAGE), r = arena.index[page];
    if (r == NONE && arena.retired) {
        pthread_mutex_unlock(&arena.lock);
        return 0;
    }
    if (r == NONE || arena.ranges[r].start != page || (uintptr_t)pointer % PAGE) {
        static const char text[] = "outsize: free() of a pointer that is no block of the arena\n";
        (void)!write(2, text, sizeof text - 1);
        abort();
    }
    arena.index[page] = NONE;
    struct range *it = &arena.ranges[r];
    arena.in_use -= it->pages;
    outsize_lane_changed(-(int64_t)it->pages * PAGE);
    arena.blocks--;
    if (arena.retired) unmap(it);
    if (it->above != NONE && arena.ranges[it->above].free) {
        unlist_free(it->above);
        merge(r, it->above);
    }
    if (it->below != NONE && arena.ranges[it->below].free) merge(it->below, r);
    else list_free(r);
    follow();
    pthread_mutex_unlock(&arena.lock);
    return 1;
}

/* -- what the patched objects call */

static int ours(const void *pointer) {
    uintptr_t at = (uintptr_t)pointer;
    return at >= atomic_load_explicit(&arena.base, memory_order_relaxed) &&
           at < atomic_load_explicit(&arena.end, memory_order_relaxed);
}

int outsize_posix_memalign(void **out, size_t alignment, size_t bytes) {
    if (bytes >= arena.threshold && alignment <= PAGE && alignment >= sizeof(void *) &&
        (alignment & (alignment - 1)) == 0) {
        void *block = take(bytes);
        if (block != NULL) {
            *out = block;
            return 0;
        }
    }
    int error = outsize_small_memalign(out, alignment, bytes);
    return error == ENOMEM && outsize_arena_give_way() ? outsize_small_memalign(out, alignment, bytes) : error;
}

void outsize_free(void *pointer) {
    int kept = errno, given = ours(pointer) && give(pointer);
    errno = kept;
    if (!given) outsize_small_free(pointer);
}

void *outsize_realloc(void *pointer, size_t bytes) {
    uint32_t r = ours(pointer) ? arena.index[((uintptr_t)pointer - arena.base) / PAGE] : NONE;
    if (r == NONE) return outsize_small_realloc(pointer, bytes);
    if (bytes == 0) {
        outsize_free(pointer);
        return NULL;
    }
    size_t old = (size_t)arena.ranges[r].pages * PAGE;
    void *moved = outsize_small_realloc(NULL, bytes);
    if (moved == NULL) return NULL;
    memcpy(moved, pointer, old < bytes ? old : bytes);
    outsize_free(pointer);
    return moved;
}

/* -- set-up */

void outsize_arena_lock(void) { pthread_mutex_lock(&arena.lock); }
void outsize_arena_unlock(void) { pthread_mutex_unlock(&arena.lock); }

static void *reserve(size_t bytes) {
    void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return at == MAP_FAILED ? NULL : at;
}

/* The untouched glibc block that stands for the arena's bytes: beyond glibc's largest threshold, so mapped. */
static int make_shadow(void) {
    size_t before = mallinfo2().hblkhd;
    void *block = malloc((size_t)64 << 20);
    if (block == NULL) return 0;
    if (mallinfo2().hblkhd < before + ((size_t)64 << 20)) { /* someone forbade mapping: the count cannot follow */
        free(block);
        return 0;
    }
    arena.shadow = realloc(block, PAGE - 64);
    return arena.shadow != NULL;
}

/* arena_reserve(bytes, threshold, slack in thousandths, floor bytes, huge, shadow) -> bool: whether it is there. */
static PyObject *arena_reserve(PyObject *self, PyObject *args) {
    unsigned long long bytes, threshold, floor_bytes;
    unsigned int slack;
    int huge, shadow;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKIKpp", &bytes, &threshold, &slack, &floor_bytes, &huge, &shadow)) return NULL;
    if (arena.base != 0) Py_RETURN_TRUE;
    size_t unit = (size_t)HUGE_PAGES * PAGE, size = (size_t)bytes / unit * unit;
    if (size == 0 || size / PAGE > UINT32_MAX / 2) Py_RETURN_FALSE;
    size_t pages = size / PAGE, bits = (pages / 64 + 1) * 8;
    char *range = reserve(size + unit);
    arena.index = reserve(pages * sizeof *arena.index);
    arena.touched = reserve(bits);
    arena.used = reserve(bits);
    arena.ranges = reserve(sizeof(struct range) * RANGES);
    if (!range || !arena.index || !arena.touched || !arena.used || !arena.ranges || (shadow && !make_shadow()))
        Py_RETURN_FALSE;
    uintptr_t base = ((uintptr_t)range + unit - 1) / unit * unit;
    madvise((void *)base, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
    arena.threshold = (size_t)threshold;
    arena.slack = slack;
    arena.floor_pages = (size_t)floor_bytes / PAGE;
    arena.pages = (uint32_t)pages;
    uint32_t all = new_range();
    arena.ranges[all] = (struct range){.start = 0, .pages = arena.pages};
    list_free(all);
    outsize_guard_forks();
    atomic_store(&arena.end, base + size);
    atomic_store(&arena.base, base);
    Py_RETURN_TRUE;
}

/* Purge the parts of a free range that this step never used, in runs of whole huge pages. */
static size_t trim_range(struct range *it, int everything) {
    size_t gone = 0;
    uint32_t end = it->start + it->pages, at = it->start, run = at;
    if (end > arena.top) end = arena.top;
    while (at < end) {
        uint32_t stop = (at / HUGE_PAGES + 1) * HUGE_PAGES < end ? (at / HUGE_PAGES + 1) * HUGE_PAGES : end;
        if (!everything && count_bits(arena.used, at, stop - at) != 0) {
            gone += purge(run, at);
            run = stop;
        }
        at = stop;
    }
    gone += purge(run, end);
    it->touched -= (uint32_t)gone;
    return gone;
}

/* arena_trim(everything) -> bytes given back: idle pages that this step never used, or all idle pages. */
static PyObject *arena_trim(PyObject *self, PyObject *args) {
    int everything;
    (void)self;
    if (!PyArg_ParseTuple(args, "p", &everything)) return NULL;
    if (arena.base == 0) return PyLong_FromLong(0);
    size_t gone = 0;
    Py_BEGIN_ALLOW_THREADS
    pthread_mutex_lock(&arena.lock);
    heed_limits();
    for (uint32_t r = arena.first_free; r != NONE; r = arena.ranges[r].next)
        if (arena.ranges[r].touched) gone += trim_range(&arena.ranges[r], everything);
    memset(arena.used, 0, (arena.top / 64 + 1) * 8);
    for (uint32_t r = FIRST; r != NONE; r = arena.ranges[r].above) /* what lives on is used by the coming step */
        if (!arena.ranges[r].free) set_bits(arena.used, arena.ranges[r].start, arena.ranges[r].pages, 1);
    arena.last_high = arena.step_high;
    arena.step_high = arena.in_use;
    pthread_mutex_unlock(&arena.lock);
    Py_END_ALLOW_THREADS
    return PyLong_FromSize_t(gone * PAGE);
}

/* arena_serves() -> bool: whether large blocks come from the arena; a limit on the address space ends that. */
static PyObject *arena_serves(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    outsize_arena_give_way();
    return PyBool_FromLong(arena.base != 0 && !arena.retired);
}

/* arena_stats() -> dict of counters, in bytes and counts. */
static PyObject *arena_stats(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    pthread_mutex_lock(&arena.lock);
    unsigned long long free_ranges = 0;
    for (uint32_t r = arena.first_free; r != NONE; r = arena.ranges[r].next) free_ranges++;
    PyObject *stats = Py_BuildValue(
        "{s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K,s:K}",
        "in_use_bytes", (unsigned long long)arena.in_use * PAGE,
        "high_bytes", (unsigned long long)arena.high * PAGE,
        "touched_bytes", (unsigned long long)arena.touched_pages * PAGE,
        "shadow_bytes", (unsigned long long)arena.shadow_bytes,
        "extent_bytes", (unsigned long long)arena.top * PAGE,
        "blocks", (unsigned long long)arena.blocks,
        "free_ranges", free_ranges,
        "allocations", (unsigned long long)arena.allocations,
        "misses", (unsigned long long)arena.misses,
        "fresh_bytes", (unsigned long long)arena.fresh_pages * PAGE,
        "purged_bytes", (unsigned long long)arena.purged_pages * PAGE,
        "purges", (unsigned long long)arena.purges,
        "shadow_moves", (unsigned long long)arena.shadow_moves);
    pthread_mutex_unlock(&arena.lock);
    return stats;
}

/* arena_redirect(prefixes) -> slots: objects whose file names begin so allocate large blocks from the arena. */
static PyObject *arena_redirect(PyObject *self, PyObject *prefixes) {
    (void)self;
    const char *names[16];
    Py_ssize_t count = PyTuple_Check(prefixes) ? PyTuple_Size(prefixes) : -1;
    if (count < 1 || count > 16) return PyErr_Format(PyExc_TypeError, "give a tuple of 1 to 16 file name prefixes");
    for (Py_ssize_t i = 0; i < count; i++)
        if ((names[i] = PyUnicode_AsUTF8AndSize(PyTuple_GetItem(prefixes, i), NULL)) == NULL) return NULL;
    /* Whoever may free a block must know it before the first block exists. */
    const struct outsize_redirect first[] = {
        {"free", (void *)(uintptr_t)outsize_free}, {"realloc", (void *)(uintptr_t)outsize_realloc}};
    const struct outsize_redirect second[] = {{"posix_memalign", (void *)(uintptr_t)outsize_posix_memalign}};
    int slots = outsize_redirect_symbols(names, (int)count, first, 2);
    int entries = slots > 0 ? outsize_redirect_symbols(names, (int)count, second, 1) : 0;
    int counted = entries > 0 ? outsize_small_redirect(names, (int)count) : 0;
    if (counted < 0) entries = counted;
    else slots += counted;
    return Py_BuildValue("(ii)", slots, entries);
}

#else

size_t outsize_arena_in_use(void) { return 0; }
size_t outsize_arena_shadow(void) { return 0; }
unsigned outsize_arena_version(void) { return 0; }
void outsize_arena_note_high(void) {}
int64_t outsize_arena_take_high(void) { return 0; }
void outsize_arena_lock(void) {}
void outsize_arena_unlock(void) {}
int outsize_arena_give_way(void) { return 0; }

static PyObject *absent(PyObject *self, PyObject *args) {
    (void)self, (void)args;
    PyErr_SetString(PyExc_NotImplementedError, "the arena needs glibc on 64-bit Linux");
    return NULL;
}
#define arena_reserve absent
#define arena_trim absent
#define arena_stats absent
#define arena_serves absent
#define arena_redirect absent
#endif

PyMethodDef outsize_arena_methods[] = {
    {"arena_reserve", arena_reserve, METH_VARARGS, "Reserve the range (bytes, threshold, slack, floor, huge, shadow)."},
    {"arena_redirect", arena_redirect, METH_O, "Let objects of these name prefixes allocate from the arena."},
    {"arena_trim", arena_trim, METH_VARARGS, "End of a step: give idle pages back (everything)."},
    {"arena_serves", arena_serves, METH_NOARGS, "Whether large blocks come from it."},
    {"arena_stats", arena_stats, METH_NOARGS, "Counters."},
    {NULL, NULL, 0, NULL}};
