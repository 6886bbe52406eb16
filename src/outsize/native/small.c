/* Blocks of torch's libraries that glibc serves: the bytes that they hold, counted at every change.
 *
 * The meter samples glibc's own count, which misses what lives for a fraction of a sample: the columns of a strided
 * 1x1 convolution's backward come from `operator new`, are 800 KB for some tens of microseconds, and stand at the
 * peak of the step. So the same objects whose large blocks the arena serves count their other blocks here, whichever
 * function they ask. Only changes count, since some blocks are older than the redirection, and some are made in one
 * library and freed in another; the sampled count sets that right. */
#include "native.h"

#if defined(__linux__) && defined(__GLIBC__) && defined(__LP64__)
#include <dlfcn.h>
#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { LEAST_COUNTED = 1024 };

static _Atomic int64_t small_bytes;
/* Threads between glibc's part of a change and ours, and how many changes there were. */
static _Atomic unsigned changing, changes;

int64_t outsize_small_bytes(unsigned *version) {
    *version = atomic_load(&changes);
    return atomic_load(&small_bytes);
}

int outsize_small_stands(unsigned version) { return atomic_load(&changing) == 0 && atomic_load(&changes) == version; }

/* In a forked child: the threads that were in the middle of a change are not there. */
void outsize_small_settle(void) { atomic_store(&changing, 0); }

static size_t held_by(void *block) {
    size_t bytes = block != NULL ? malloc_usable_size(block) : 0;
    return bytes >= LEAST_COUNTED ? bytes : 0;
}

static void count(size_t more, size_t less) {
    atomic_fetch_add(&changes, 1);
    atomic_fetch_add(&small_bytes, (int64_t)more - (int64_t)less);
    outsize_lane_changed((int64_t)more - (int64_t)less);
    if (more > less) outsize_arena_note_high();
}

/* glibc may wait for a lock that whoever reads its count holds; between `begin` and `end` no reading is relied on. */
static void begin(void) { atomic_fetch_add(&changing, 1); }
static void end(void) { atomic_fetch_sub(&changing, 1); }

/* A block's usable size is at most twice what was asked, from half the least on. */
static int counts(size_t bytes) { return bytes >= LEAST_COUNTED / 2; }

/* The end of a change that `begin` began, by which this block came. */
static void *came(void *block) {
    size_t bytes = held_by(block);
    if (bytes) count(bytes, 0);
    end();
    return block;
}

int outsize_small_memalign(void **out, size_t alignment, size_t bytes) {
    if (!counts(bytes)) return posix_memalign(out, alignment, bytes);
    begin();
    int error = posix_memalign(out, alignment, bytes);
    came(error == 0 ? *out : NULL);
    return error;
}

void outsize_small_free(void *block) {
    size_t bytes = held_by(block);
    if (!bytes) {
        free(block);
        return;
    }
    begin();
    count(0, bytes);
    free(block);
    end();
}

void *outsize_small_realloc(void *block, size_t bytes) {
    begin();
    size_t old = held_by(block);
    void *moved = realloc(block, bytes);
    if (moved != NULL || bytes == 0) count(held_by(moved), old);
    end();
    return moved;
}

static void *counted_malloc(size_t bytes) {
    if (!counts(bytes)) return malloc(bytes);
    begin();
    void *block = malloc(bytes);
    if (block == NULL && outsize_arena_give_way()) block = malloc(bytes);
    return came(block);
}

static void *counted_calloc(size_t items, size_t size) {
    begin();
    void *block = calloc(items, size);
    if (block == NULL && outsize_arena_give_way()) block = calloc(items, size);
    return came(block);
}

/* C++'s: malloc's block while there is one, else whatever a failure of theirs does (a handler, an exception). */
static void *(*plain_new)(size_t), *(*plain_new_array)(size_t);

static void *counted_new(size_t bytes) {
    void *block = counted_malloc(bytes ? bytes : 1);
    return block != NULL ? block : plain_new(bytes);
}

static void *counted_new_array(size_t bytes) {
    void *block = counted_malloc(bytes ? bytes : 1);
    return block != NULL ? block : plain_new_array(bytes);
}

static void counted_delete(void *block) { outsize_small_free(block); }
static void counted_delete_sized(void *block, size_t bytes) { (void)bytes, outsize_small_free(block); }

static int same_object(void *one, void *other) {
    Dl_info a, b;
    return one && other && dladdr(one, &a) && dladdr(other, &b) && a.dli_fbase == b.dli_fbase;
}

/* Whether `new` is libstdc++'s own, over malloc, or comes with the allocator that serves malloc: then a block of
 * malloc() may stand for one of `new`. */
static int find_new(void) {
    void *library = dlopen("libstdc++.so.6", RTLD_LAZY | RTLD_NOLOAD);
    if (library == NULL) return 0;
    void *own = dlsym(library, "_Znwm"), *serving = dlsym(RTLD_DEFAULT, "_Znwm");
    *(void **)&plain_new = serving != NULL ? serving : own;
    *(void **)&plain_new_array = dlsym(serving != NULL ? RTLD_DEFAULT : library, "_Znam");
    dlclose(library); /* torch keeps it */
    if (plain_new == NULL || plain_new_array == NULL) return 0;
    return serving == NULL || serving == own || same_object(serving, dlsym(RTLD_DEFAULT, "malloc"));
}

#define TO(function) ((void *)(uintptr_t)(function))

int outsize_small_redirect(const char *const *prefixes, int prefix_count) {
    const struct outsize_redirect c[] = {{"malloc", TO(counted_malloc)}, {"calloc", TO(counted_calloc)}};
    const struct outsize_redirect cpp[] = {
        {"_ZdlPv", TO(counted_delete)},        {"_ZdaPv", TO(counted_delete)},
        {"_ZdlPvm", TO(counted_delete_sized)}, {"_ZdaPvm", TO(counted_delete_sized)},
        {"_Znwm", TO(counted_new)},            {"_Znam", TO(counted_new_array)}};
    int slots = outsize_redirect_symbols(prefixes, prefix_count, c, 2);
    if (slots < 0 || !find_new()) return slots;
    int more = outsize_redirect_symbols(prefixes, prefix_count, cpp, 6);
    return more < 0 ? more : slots + more;
}

#else

int64_t outsize_small_bytes(unsigned *version) {
    *version = 0;
    return 0;
}
int outsize_small_stands(unsigned version) { return version == 0; }
void outsize_small_settle(void) {}

#endif
