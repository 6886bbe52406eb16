/* Shared by the .c files of this folder: Python's limited API and the method tables. */
#ifndef OUTSIZE_NATIVE_H
#define OUTSIZE_NATIVE_H

#ifndef PY_SSIZE_T_CLEAN
#define PY_SSIZE_T_CLEAN
#endif
#include <Python.h>
#include <stdint.h>

extern PyMethodDef outsize_memory_methods[]; /* memory.c: bytes in use and their peak */
extern PyMethodDef outsize_arena_methods[];  /* arena.c: the pages of large blocks */

/* redirect.c: let loaded objects call `to` instead of the imported function `name`. */
struct outsize_redirect {
    const char *name;
    void *to;
};
int outsize_redirect_symbols(const char *const *prefixes, int prefix_count,
                             const struct outsize_redirect *redirects, int redirect_count);

extern PyMethodDef outsize_npi_methods[];    /* npi.c: programs/npi over compiled tables */
extern PyMethodDef outsize_trees_methods[];  /* trees.c: sums over children */
int outsize_ranges_within(const int64_t *first, const int64_t *count, int64_t rows); /* trees.c: all in 0 … rows */
extern PyMethodDef outsize_tree_layer_methods[]; /* tree_layer.c: a rerooted layer after its products */
extern PyMethodDef outsize_plan_evict_methods[]; /* evict.c: one eviction pass of the search */
extern PyMethodDef outsize_plan_place_methods[]; /* place.c: edges of its swaps */
extern PyMethodDef outsize_plan_score_methods[]; /* score.c: what a candidate plan costs */

/* arena.c: all zero while the arena is not installed. */
size_t outsize_arena_in_use(void);    /* bytes of the blocks handed out */
size_t outsize_arena_shadow(void);    /* the part of them that glibc's own count includes */
unsigned outsize_arena_version(void); /* changes with that part, and is odd while it is changing */
int64_t outsize_arena_take_high(void); /* highest in_use + small since the previous call */
void outsize_arena_note_high(void);    /* after a small block came */
int outsize_arena_give_way(void);      /* whether it left address space to others just now */

/* small.c: the smaller blocks of the same libraries, which glibc serves. */
int64_t outsize_small_bytes(unsigned *version); /* change in their bytes, which may be below 0 */
int outsize_small_stands(unsigned version);     /* whether none of them has changed since, or is changing */
void outsize_small_settle(void);                /* a fork left no change under way */
int outsize_small_memalign(void **out, size_t alignment, size_t bytes);
void outsize_small_free(void *block);
void *outsize_small_realloc(void *block, size_t bytes);
void outsize_lane_changed(int64_t bytes); /* lanes.c: this thread came to hold so many bytes more */
extern PyMethodDef outsize_lane_methods[];
int outsize_small_redirect(const char *const *prefixes, int prefix_count); /* slots, -1 after a failure */
extern PyMethodDef outsize_codec_methods[];  /* codec_python.c: zero suppression and bit masks */
extern PyMethodDef outsize_sync_methods[];   /* sync.c: futex waits in shared memory */
extern PyMethodDef outsize_update_methods[]; /* update.c: sum over workers + update */
void outsize_arena_lock(void);
void outsize_arena_unlock(void);
void outsize_guard_forks(void); /* memory.c: both locks are free in a forked child */

#endif
