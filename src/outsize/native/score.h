/* What a candidate plan costs: lowered and simulated in one call, without a schedule and a timeline.
 *
 * The search over plans asks thousands of times for the seconds and the peak of a few decisions on one step.
 * plan/schedule/lower.py and simulate.py say what is right, and these files give their answers bit for bit: the same
 * entries in the same order (but for neighbouring drops, whose order changes no figure), the same additions of doubles.
 * The step comes as one block of 64-bit integers (addresses and sizes), packed once; a plan is a list of rows of the
 * table of decisions. Seconds of transfers and codecs are worked out in Python, so that the rates' formulas stand once.
 *
 * score_lower.c     decisions by position, and the entries that they become
 * score_simulate.c  seconds and bytes of the entries
 * score.c           what comes in is measured and laid out; Python's door
 *
 * Entries have the numbers 2, 4, 6, …, and the drops that `with_drops` puts after an entry take the odd number that
 * follows; 0 is "never". Lists of decisions hold an index + 1, so that memory of zeros is a fresh start.
 *
 * s: the plan; p: position of an op; x: index of a storage; d: row of a decision; i: its index + 1. */
#ifndef OUTSIZE_SCORE_H
#define OUTSIZE_SCORE_H

#include "native.h"

#include <stddef.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* a fused product and sum would be another number than Python's */
#endif

enum { /* words of the block, in order; plan/schedule/score.py writes them by these positions */
    OPS, STORAGES, READ_AT, READS, WRITE_AT, WRITES, CHANGE_AT, CHANGES, SECONDS, WORKSPACE, /* of ops */
    SIZE, TRANSIENT, HELD, PRODUCER, LAST_USE, OUT, BACK, DRAG,                                 /* of storages */
    SHARED, RESIDENT, ROWS, CODINGS, REGIONS, SCRATCH, SCRATCH_BYTES
};
enum { STORAGE, ACTION, AFTER, FREE, FETCH, BEFORE, ENCODED, CODING, REGION, LENGTH, ROW }; /* columns of a decision */
enum { TO_ENCODE, TO_DECODE, CODED_OUT, CODED_BACK, CODED_DRAG, CODED };                    /* columns of a coding */
enum { SWAP, RECOMPUTE, ENCODE, ENCODE_SWAP, ACTIONS }; /* values/actions.py: score_number */
enum { RUN, CLONE, WRITE, SETTLE, COMPRESS, DROP, READ, WAIT, EXPAND }; /* kinds of entries */
enum { NEED, CREATE, DROPPED };                                        /* what happens to a storage that is remade */
enum { NO_PLAN = -1 };
enum { MOST = 1 << 28 }; /* entries and storages: numbers and indices fit into 32 bits */

typedef struct { int32_t after, free, fetch, wait, decode, clone; } heads; /* first decision of a position's lists */
typedef struct { int32_t after, free, fetch, wait, storage; } links;       /* next one; fetch: decode and clone too */
typedef struct { int32_t kind, what, after; } entry; /* what: op, decision or storage; after: first of `drops` */
typedef struct { int32_t storage, next; } drop;

typedef struct {
    const int64_t *w; /* the block */
    int64_t ops, storages, count;
    const int64_t *read_at, *reads, *write_at, *writes, *size;
    const uint8_t *transient;
    int64_t entry_room, region_room, drop_room;
    /* scratch: zeros at first, then copies, then what is written before it is read */
    heads *head;                                              /* [ops] */
    int32_t *of_storage, *version, *copied, *copied_as;       /* [storages]; copied: version + 1 in the tier */
    int32_t *wanted, *going, *reader, *event, *last_wait;     /* wanted, going: position + 1 */
    int64_t *encoded, *stored;                                /* bytes of the encoded form, in the tier */
    double *written_at, *read_back_at;
    uint8_t *writing, *remade, *started;
    uint64_t *bits;                                           /* [ops / 64 + 1] */
    int32_t *last, *kept;                                     /* last need; last position that keeps it unmade */
    uint8_t *held;
    const int64_t **row;                                      /* [count] */
    links *next;
    int32_t *group_at, *group, *begin;                        /* [ops + 1], [region_room], [ops + 1] */
    entry *entries;
    drop *drops;
    int32_t made, dropped;
    /* simulation */
    double now, lane[2];
    int64_t alive, peak, total, tier_peak, *curve;
    double *spent;
} plan;

static inline const void *word(const plan *s, int at) { return (const void *)(uintptr_t)s->w[at]; }

static inline int32_t number_of(int32_t index) { return 2 * index + 2; }

/* score_lower.c */
void score_sort_decisions(plan *s, const int64_t *chosen); /* by position, each list in the plan's order */
void score_gather_groups(plan *s);                         /* the ops that run again before each position */
void score_lower(plan *s);                                 /* fills `entries` */

/* score_simulate.c */
int score_simulate(plan *s); /* NO_PLAN where an entry waits for a transfer that nobody has started */

#endif
