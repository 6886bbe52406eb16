/* One eviction pass over the step: plan/evict/reference.py in C, decision for decision.
 *
 * The Python text explains the method and is the oracle of the tests; here stand the same operations on the same
 * doubles in the same order. The search makes hundreds of passes, and a pass asks for the cheapest storage thousands of
 * times: of those that may go now, which are kept in a dense list.
 *
 * evict_prices.c  what it costs to take a storage away, and how crowded the lanes are
 * evict_room.c    which storage goes, and what is noted when it goes or is touched
 * evict_restore.c what an op reads is brought back or made again
 * evict.c         the positions in order, and Python's door
 *
 * s, storage: index of a storage; p: position of an op; o, option: index of an option, -1 for recomputation; touch: last
 * position that touched a storage. Lists of lists are flat: row i of `in` is in[in_at[i]] to in[in_at[i + 1] - 1]. */
#ifndef OUTSIZE_EVICT_H
#define OUTSIZE_EVICT_H

#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SWAP, ENCODE, ENCODE_SWAP, RECOMPUTE, KINDS }; /* values/actions.py: pass_number */
enum { BANNED = 1, REMAKE = 2, RETAIN = 4 };
enum { LONGEST = 400 }; /* chains.LONGEST */

/* evict/passes.py fills this: sizes, and addresses of arrays, all as int64. */
typedef struct {
    int64_t ops, storages;
    const double *seconds;         /* [ops] */
    const int64_t *workspace;      /* [ops] bytes */
    const uint8_t *repeats;        /* [ops] */
    const int32_t *in_at, *in;     /* activations that an op reads */
    const int32_t *out_at, *out;   /* and makes */
    const int64_t *second_copies;  /* [ops] bytes */
    const int32_t *producer, *last, *reach; /* [storages] positions: made, last read, last wanted where ops run again */
    const int32_t *expire_at, *expire; /* storages by the position at which they go if they are retained */
    const int64_t *size;           /* [storages] bytes */
    const int32_t *use_at, *use;   /* positions that read a storage, ascending */
    const int32_t *acted_from;     /* [storages] position of the first touch after which it may go */
    const int64_t *fixed;          /* [ops] bytes */
    const double *starts;          /* [ops] seconds */
    const int32_t *option_at;      /* [2 storages + 1]: options of storage s, bytes written before or not: 2 s + written */
    const int64_t *option;         /* [options][3]: action, kept, staged */
    const double *price;           /* [options][3]: out, in, compute seconds */
    int64_t min_bytes;
} Step;

typedef struct {
    int64_t budget;
    int64_t crowded, recompute, remakes, fit, quarters; /* quarters: of the exponent of the time to the next use */
    const uint8_t *flags;                               /* [storages] BANNED, REMAKE, RETAIN */
    const double *weight;                               /* [storages] */
    const int64_t *barred;                              /* sorted keys: (storage · ops + touch) · KINDS + action */
    int64_t barred_count;
    const int64_t *forced;
    int64_t forced_count;
    double lane_price, share;
} Policy;

/* Decisions, a row each: storage, action, after, before, restored, option, region's place, region's length. */
enum { ROW = 8 };

typedef struct {
    int32_t after, option, restored; /* option: -1 for recompute */
    int64_t region, region_length;
} Gone;

typedef struct {
    const Step *g;
    const Policy *t;
    int64_t alive, moves;
    int64_t *rows, *regions;
    int64_t row_count, row_room, region_count, region_room;
    int full;
    /* Per storage. */
    uint8_t *resident, *soft, *written, *away, *has_return, *held_flag;
    double *returns, *unit, *due;
    int32_t *until; /* last position at which it is wanted: `reach` of what is retained, `last` of the rest */
    int32_t *touched, *live_at, *live, *exact_option, *wanted, *reader_of, *reader_stamp;
    int64_t *exact_moves;
    Gone *gone;
    int32_t live_count;
    /* Per op. */
    int64_t *room_after;
    int32_t *seen, *inside, *kept_op;
    double *reads, *sums, *spare;
    double out_free;
    int64_t sums_from;  /* sums are right before this op */
    int64_t spare_from; /* spare is right from this op on, ops if nowhere */
    int32_t stamp;
    /* Lists. */
    int32_t *now, now_count, *stack, *region, *fetched, *held, *list;
    int64_t *stuck; /* keys of what was to be made again at this position: what `Evictor.repaired` would bar */
    int64_t stuck_count;
    double *weights, *values;
} Pass;

static inline int has(const int64_t *keys, int64_t count, int64_t key) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low < count && keys[low] == key;
}

static inline int64_t key_of(const Pass *w, int32_t s, int32_t touch, int action) {
    return ((int64_t)s * w->g->ops + touch) * KINDS + action;
}

/* First position after this one at which it is wanted, -1 for none. */
static inline int32_t next_use(const Pass *w, int32_t s, int32_t position) {
    const Step *g = w->g;
    int32_t low = g->use_at[s], high = g->use_at[s + 1], end = high;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (g->use[middle] <= position) low = middle + 1;
        else high = middle;
    }
    if (low < end) return g->use[low];
    return w->until[s] > position ? w->until[s] : -1;
}

/* What may go now. A price that is not finite is no offer. */
static inline void set_unit(Pass *w, int32_t s, double value) {
    w->unit[s] = value;
    int listed = w->live_at[s] >= 0, offered = isfinite(value);
    if (offered && !listed) {
        w->live_at[s] = w->live_count;
        w->live[w->live_count++] = s;
    } else if (!offered && listed) {
        int32_t moved = w->live[--w->live_count];
        w->live[w->live_at[s]] = moved;
        w->live_at[moved] = w->live_at[s];
        w->live_at[s] = -1;
    }
}

/* evict_prices.c */
int pass_barred(const Pass *w, int32_t s, int32_t touch, int action);
int pass_may_remake(const Pass *w, int32_t s, int32_t touch);
double pass_chain_seconds(Pass *w, int32_t storage, int32_t use, double share);
void pass_ways(const Pass *w, int32_t s, int32_t *first, int32_t *end); /* its options, by index */
double pass_lane_cost(const Pass *w, int32_t option);
void pass_offer(Pass *w, int32_t s, int32_t p);
void pass_promise(Pass *w, int32_t option, double release, int32_t use);
double pass_price(Pass *w, int32_t s, int32_t p, int32_t *chosen);
double pass_scaled(const Pass *w, int32_t s, double cost);

/* evict_room.c */
void pass_evict(Pass *w, int32_t s);
int pass_make_room(Pass *w, int32_t p, int64_t need); /* 0 where nothing more may go */
void pass_vanish(Pass *w, int32_t s);
void pass_touch(Pass *w, int32_t s, int32_t p);

/* evict_restore.c */
int pass_ascending(const void *a, const void *b); /* qsort's order of int32_t */
int pass_restore(Pass *w, int32_t p); /* 0 where there is no room for it */

#endif
