/* What a candidate plan costs: lowered and simulated in one call, without a schedule and a timeline.
 *
 * The search over plans asks thousands of times for the seconds and the peak of a few decisions on one step.
 * plan/lower.py and plan/simulate.py say what is right, and this file gives their answers bit for bit: the same entries
 * in the same order (but for neighbouring drops, whose order changes no figure), the same additions of doubles. The
 * step comes as one block of 64-bit integers (addresses and sizes), packed once; a plan is a list of rows of the table
 * of decisions. Seconds of transfers and codecs are worked out in Python, so that the rates' formulas stand once.
 *
 * Entries have the numbers 2, 4, 6, …, and the drops that `with_drops` puts behind an entry take the odd number that
 * follows; 0 is "never". Lists of decisions hold an index + 1, so that memory of zeros is a fresh start. */
#include "native.h"

#include <stddef.h>
#include <string.h>

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF /* a fused product and sum would be another number than Python's */
#endif

enum { /* words of the block, in order; plan/score.py writes them by these positions */
    OPS, STORAGES, READ_AT, READS, WRITE_AT, WRITES, CHANGE_AT, CHANGES, SECONDS, WORKSPACE, /* of ops */
    SIZE, MORTAL, HELD, PRODUCER, LAST_USE, OUT, BACK, DRAG,                                 /* of storages */
    SHARED, RESIDENT, ROWS, CODINGS, REGIONS, SCRATCH, SCRATCH_BYTES
};
enum { STORAGE, ACTION, AFTER, FREE, FETCH, BEFORE, ENCODED, CODING, REGION, LENGTH, ROW }; /* columns of a decision */
enum { TO_ENCODE, TO_DECODE, CODED_OUT, CODED_BACK, CODED_DRAG, CODED };                    /* columns of a coding */
enum { SWAP, RECOMPUTE, ENCODE, ENCODE_SWAP, ACTIONS };
enum { RUN, CLONE, WRITE, SETTLE, COMPRESS, DROP, READ, WAIT, EXPAND }; /* kinds of entries */
enum { NEED, CREATE, DROPPED };                                        /* what happens to a storage that is remade */
enum { NO_PLAN = -1 };
enum { MOST = 1 << 28 }; /* entries and storages: numbers and indices fit into 32 bits */

typedef struct { int32_t after, free, fetch, wait, decode, clone; } heads; /* first decision of a position's lists */
typedef struct { int32_t after, free, fetch, wait, storage; } links;       /* next one; fetch: decode and clone too */
typedef struct { int32_t kind, what, behind; } entry; /* what: op, decision or storage; behind: first of `drops` */
typedef struct { int32_t storage, next; } drop;

typedef struct {
    const int64_t *w; /* the block */
    int64_t ops, storages, count;
    const int64_t *read_at, *reads, *write_at, *writes, *size;
    const uint8_t *mortal;
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

static const void *word(const plan *s, int at) { return (const void *)(uintptr_t)s->w[at]; }

/* ---- what comes in ---- */

/* Finds the rows, refuses what lower.py would refuse and what would lead out of an array; sizes the scratch. */
static int measure(plan *s, const int64_t *chosen) {
    const int64_t *rows = word(s, ROWS), *regions = word(s, REGIONS);
    s->region_room = 0;
    s->drop_room = s->write_at[s->ops] + 2 * s->count;
    for (int64_t i = 0; i < s->count; i++) {
        const int64_t *d = rows + chosen[i] * ROW;
        if (d[ACTION] < 0 || d[ACTION] >= ACTIONS || d[STORAGE] < 0 || d[STORAGE] >= s->storages) return NO_PLAN;
        if (!s->mortal[d[STORAGE]] || d[AFTER] < 0 || d[AFTER] >= d[FREE] || d[FREE] > d[FETCH]) return NO_PLAN;
        if (d[FETCH] > d[BEFORE] || d[BEFORE] >= s->ops) return NO_PLAN;
        if (d[ACTION] != RECOMPUTE) continue;
        for (int64_t k = 0; k < d[LENGTH]; k++) {
            int64_t op = regions[d[REGION] + k];
            if (op < 0 || op >= s->ops) return NO_PLAN;
            s->drop_room += s->write_at[op + 1] - s->write_at[op];
            s->region_room += 1 + s->read_at[op + 1] - s->read_at[op]; /* a clone, and drops behind it */
        }
    }
    s->entry_room = s->ops + s->region_room + 7 * s->count; /* encode and swap takes seven */
    return s->entry_room + s->drop_room + s->storages < MOST ? 0 : NO_PLAN;
}

static void *take(uintptr_t *at, size_t bytes) {
    void *taken = (void *)*at;
    *at += (bytes + 7) & ~(size_t)7;
    return taken;
}

#define TAKE(pointer, n) (pointer) = take(&at, (size_t)(n) * sizeof *(pointer))

/* Places the arrays from `base` on; where the zeros and where all of it end, in bytes. */
static size_t lay_out(plan *s, uintptr_t base, size_t *zeros) {
    uintptr_t at = base;
    int64_t n = s->storages;
    TAKE(s->head, s->ops);
    int32_t **of_storages[] = {&s->of_storage, &s->version, &s->copied, &s->copied_as, &s->wanted,
                               &s->going, &s->reader, &s->event, &s->last_wait};
    for (size_t i = 0; i < sizeof of_storages / sizeof *of_storages; i++) TAKE(*of_storages[i], n);
    TAKE(s->encoded, n), TAKE(s->stored, n);
    TAKE(s->writing, n), TAKE(s->remade, n), TAKE(s->started, n);
    TAKE(s->bits, s->ops / 64 + 1);
    *zeros = at - base;
    TAKE(s->written_at, n), TAKE(s->read_back_at, n);
    TAKE(s->last, n), TAKE(s->kept, n), TAKE(s->held, n);
    TAKE(s->row, s->count), TAKE(s->next, s->count);
    TAKE(s->group_at, s->ops + 1), TAKE(s->group, s->region_room), TAKE(s->begin, s->ops + 1);
    TAKE(s->entries, s->entry_room), TAKE(s->drops, s->drop_room);
    return at - base;
}

/* Decisions by position, each list in the plan's order; the fetches of one position by their deadline. */
static void sort_decisions(plan *s, const int64_t *chosen) {
    const int64_t *rows = word(s, ROWS);
    for (int64_t i = s->count - 1; i >= 0; i--) {
        const int64_t *d = s->row[i] = rows + chosen[i] * ROW;
        links *next = &s->next[i];
        int32_t me = (int32_t)i + 1, *list = &s->head[d[FETCH]].fetch;
#define PUSH(first, field) next->field = (first), (first) = me
        PUSH(s->of_storage[d[STORAGE]], storage);
        PUSH(s->head[d[AFTER]].after, after);
        if (d[ACTION] == RECOMPUTE) PUSH(s->head[d[FETCH]].clone, fetch);
        else if (d[ACTION] == ENCODE) PUSH(s->head[d[FETCH]].decode, fetch);
        else {
            PUSH(s->head[d[FREE]].free, free);
            PUSH(s->head[d[BEFORE]].wait, wait);
            while (*list && s->row[*list - 1][BEFORE] < d[BEFORE]) list = &s->next[*list - 1].fetch;
            PUSH(*list, fetch);
        }
#undef PUSH
    }
}

/* The ops that run again before each position, once each and in order; which storages that makes again, and the last
 * position that keeps each of them without making it. */
static void gather_groups(plan *s) {
    const int64_t *regions = word(s, REGIONS), *producer = word(s, PRODUCER);
    int32_t used = 0;
    for (int64_t p = 0; p < s->ops; p++) {
        int64_t low = s->ops, high = -1;
        int32_t first = s->group_at[p] = used;
        for (int32_t i = s->head[p].clone; i; i = s->next[i - 1].fetch) {
            const int64_t *d = s->row[i - 1], *op = regions + d[REGION];
            for (int64_t k = 0; k < d[LENGTH]; k++) {
                s->bits[op[k] >> 6] |= (uint64_t)1 << (op[k] & 63);
                if (op[k] < low) low = op[k];
                if (op[k] > high) high = op[k];
            }
        }
        for (int64_t k = low >> 6; k <= high >> 6 && high >= 0; k++)
            for (uint64_t left = s->bits[k]; left; left &= left - 1)
                s->group[used++] = (int32_t)(k * 64 + __builtin_ctzll(left));
        for (int32_t g = first; g < used; g++) {
            int32_t op = s->group[g];
            for (int64_t k = s->write_at[op]; k < s->write_at[op + 1]; k++)
                s->remade[s->writes[k]] = s->mortal[s->writes[k]];
            for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++) {
                int64_t x = s->reads[k], by = producer[x];
                int here = by >= 0 && (s->bits[by >> 6] >> (by & 63) & 1);
                if (!here && p > s->kept[x]) s->kept[x] = (int32_t)p;
            }
        }
        for (int64_t k = low >> 6; k <= high >> 6 && high >= 0; k++) s->bits[k] = 0;
    }
    s->group_at[s->ops] = used;
}

/* ---- lower.py ---- */

static int32_t number_of(int32_t index) { return 2 * index + 2; }

static void need_at(plan *s, int64_t storage, int32_t number) {
    if (s->last[storage] < number) s->last[storage] = number; /* what never dies has the largest number */
}

/* `with_drops`: a residency that ends neither in a drop nor with the step gets one behind its last event. */
static void note(plan *s, int64_t storage, int32_t index, int what) {
    int32_t before = s->event[storage];
    s->event[storage] = 4 * (index + 1) + what;
    if (what != CREATE || !before || (before & 3) == DROPPED) return;
    entry *e = &s->entries[before / 4 - 1];
    s->drops[s->dropped] = (drop){(int32_t)storage, e->behind};
    e->behind = ++s->dropped;
    need_at(s, storage, number_of(before / 4 - 1) + 1);
}

/* `_is_absent`: a rerun before p makes the storage, for nothing keeps it there. */
static int absent(const plan *s, int64_t storage, int64_t p) {
    if (p > s->kept[storage]) return 1;
    for (int32_t i = s->of_storage[storage]; i; i = s->next[i - 1].storage) {
        const int64_t *d = s->row[i - 1];
        int swaps = d[ACTION] == SWAP || d[ACTION] == ENCODE_SWAP;
        if (d[FREE] <= p && p <= d[FETCH] - swaps) return 1;
    }
    return 0;
}

static int32_t emit(plan *s, int32_t kind, int64_t what) {
    s->entries[s->made] = (entry){kind, (int32_t)what, 0};
    return s->made++;
}

static void emit_op(plan *s, int32_t kind, int64_t op, int64_t p) {
    int32_t index = emit(s, kind, op), number = number_of(index);
    for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++) {
        int64_t x = s->reads[k];
        need_at(s, x, number);
        if (s->remade[x]) note(s, x, index, NEED);
    }
    for (int64_t k = s->write_at[op]; k < s->write_at[op + 1]; k++) {
        int64_t x = s->writes[k];
        if (s->remade[x] && (kind == RUN || absent(s, x, p))) note(s, x, index, CREATE);
    }
}

static void emit_drop(plan *s, int64_t storage) {
    int32_t index = emit(s, DROP, storage);
    need_at(s, storage, number_of(index));
    if (s->remade[storage]) note(s, storage, index, DROPPED);
}

static void emit_move(plan *s, int32_t kind, int32_t i) {
    const int64_t *d = s->row[i - 1];
    int64_t x = d[STORAGE], dense = !d[ENCODED];
    int32_t index = emit(s, kind, i - 1);
    if (kind == COMPRESS || (dense && (kind == WRITE || kind == SETTLE))) need_at(s, x, number_of(index));
    if (kind == WAIT) s->last_wait[x] = number_of(index);
    if (!s->remade[x]) return;
    if (kind == EXPAND || (kind == READ && dense)) note(s, x, index, CREATE);
    else if (dense) note(s, x, index, NEED);
}

static void restore(plan *s, int32_t i, int64_t p, int wanted) {
    const int64_t *d = s->row[i - 1];
    if ((s->wanted[d[STORAGE]] == p + 1) != wanted) return;
    if (d[ACTION] != ENCODE) emit_move(s, WAIT, i);
    if (d[ACTION] != SWAP) emit_move(s, EXPAND, i);
}

static void restore_all(plan *s, int64_t p, int wanted) {
    for (int32_t i = s->head[p].decode; i; i = s->next[i - 1].fetch) restore(s, i, p, wanted);
    for (int32_t i = s->head[p].wait; i; i = s->next[i - 1].wait) restore(s, i, p, wanted);
}

static int touches(const plan *s, int64_t op, int64_t storage) {
    for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++)
        if (s->reads[k] == storage) return 1;
    for (int64_t k = s->write_at[op]; k < s->write_at[op + 1]; k++)
        if (s->writes[k] == storage) return 1;
    return 0;
}

/* The region before p: restores that it reads, its ops, and behind the last reader what goes at p untouched.
 * `reader` of what is going: last op of the group that reads it + 1, 0 for none, −1 once it is dropped. */
static void lower_group(plan *s, int64_t p) {
    int32_t from = s->group_at[p], to = s->group_at[p + 1];
    for (int32_t i = s->head[p].after; i; i = s->next[i - 1].after) {
        int64_t x = s->row[i - 1][STORAGE];
        if (s->row[i - 1][ACTION] != RECOMPUTE || touches(s, p, x)) continue;
        s->going[x] = (int32_t)p + 1, s->reader[x] = 0;
    }
    for (int32_t g = from; g < to; g++) {
        int32_t op = s->group[g];
        for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++) {
            int64_t x = s->reads[k];
            s->wanted[x] = (int32_t)p + 1;
            if (s->going[x] == p + 1) s->reader[x] = op + 1;
        }
    }
    restore_all(s, p, 1);
    for (int32_t g = from; g < to; g++) {
        int32_t op = s->group[g];
        emit_op(s, CLONE, op, p);
        for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++) {
            int64_t x = s->reads[k];
            if (s->going[x] != p + 1 || s->reader[x] != op + 1) continue;
            s->reader[x] = -1;
            emit_drop(s, x);
        }
    }
}

static void reduce(plan *s, int32_t i) {
    const int64_t *d = s->row[i - 1];
    int64_t x = d[STORAGE];
    if (d[ACTION] == ENCODE || d[ACTION] == ENCODE_SWAP) emit_move(s, COMPRESS, i);
    if (d[ACTION] != SWAP) emit_drop(s, x);
    if (d[ACTION] != SWAP && d[ACTION] != ENCODE_SWAP) return;
    if (d[ACTION] == SWAP && s->copied[x] == s->version[x] + 1 && s->copied_as[x] == d[CODING]) return;
    s->copied[x] = s->version[x] + 1, s->copied_as[x] = (int32_t)d[CODING];
    s->writing[x] = 1;
    emit_move(s, WRITE, i);
}

static void lower(plan *s) {
    const int64_t *change_at = word(s, CHANGE_AT), *changes = word(s, CHANGES);
    for (int64_t p = 0; p < s->ops; p++) {
        const heads *h = &s->head[p];
        s->begin[p] = s->made;
        for (int32_t i = h->free; i; i = s->next[i - 1].free) {
            const int64_t *d = s->row[i - 1];
            if (s->writing[d[STORAGE]]) s->writing[d[STORAGE]] = 0, emit_move(s, SETTLE, i);
            if (d[ACTION] == SWAP) emit_drop(s, d[STORAGE]);
        }
        for (int32_t i = h->fetch; i; i = s->next[i - 1].fetch) emit_move(s, READ, i);
        if (s->group_at[p] < s->group_at[p + 1]) lower_group(s, p);
        restore_all(s, p, 0);
        emit_op(s, RUN, p, p);
        for (int64_t k = change_at[p]; k < change_at[p + 1]; k++) s->version[changes[k]]++;
        for (int32_t i = h->after; i; i = s->next[i - 1].after) {
            int64_t x = s->row[i - 1][STORAGE];
            if (s->going[x] != p + 1 || s->reader[x] == 0) reduce(s, i);
        }
    }
    s->begin[s->ops] = s->made;
}

/* ---- simulate.py ---- */

static void busy(plan *s, int64_t p, double seconds) {
    double end = s->now + seconds;
    if (s->spent) s->spent[p] += end - s->now;
    s->now = end;
}

static void release(plan *s, int64_t storage) {
    if (!s->held[storage]) return;
    s->held[storage] = 0;
    s->alive -= s->size[storage];
}

static void free_if_over(plan *s, int64_t storage, int32_t number) {
    if (s->last[storage] <= number) release(s, storage);
}

static void hold(plan *s, int64_t storage) {
    if (s->held[storage]) return;
    s->held[storage] = 1;
    s->alive += s->size[storage];
}

static void hold_encoded(plan *s, int64_t storage, int64_t nbytes) {
    s->alive += nbytes - s->encoded[storage];
    s->encoded[storage] = nbytes;
}

static int64_t simulate_op(plan *s, int64_t op, int64_t p, int32_t number) {
    const double *seconds = word(s, SECONDS);
    const int64_t *workspace = word(s, WORKSPACE);
    int64_t second = 0;
    for (int64_t k = s->write_at[op]; k < s->write_at[op + 1]; k++) {
        if (s->held[s->writes[k]]) second += s->size[s->writes[k]];
        else hold(s, s->writes[k]);
    }
    int64_t peak = s->alive + second + workspace[op];
    busy(s, p, seconds[op]);
    for (int64_t k = s->read_at[op]; k < s->read_at[op + 1]; k++) free_if_over(s, s->reads[k], number);
    for (int64_t k = s->write_at[op]; k < s->write_at[op + 1]; k++) free_if_over(s, s->writes[k], number);
    return peak;
}

/* A transfer in direction `back` on its lane: dense seconds are the storage's, encoded ones the coding's. */
static void transfer(plan *s, const int64_t *d, int back, int64_t p) {
    const double *coding = (const double *)word(s, CODINGS) + d[CODING] * CODED;
    const double *dense = word(s, back ? BACK : OUT), *drags = word(s, DRAG);
    double *lane = &s->lane[back && !s->w[SHARED]];
    int coded = d[ACTION] != SWAP;
    double seconds = coded ? coding[back ? CODED_BACK : CODED_OUT] : dense[d[STORAGE]];
    double drag = coded ? coding[CODED_DRAG] : drags[d[STORAGE]];
    double start = *lane > s->now ? *lane : s->now;
    *lane = (back ? s->read_back_at : s->written_at)[d[STORAGE]] = start + seconds;
    s->started[d[STORAGE]] |= (uint8_t)(1 << back);
    if (drag != 0.0) busy(s, p, drag);
}

/* What the tier holds: from the start of a write to the end of the last read. */
static void store(plan *s, int64_t storage, int64_t nbytes) {
    s->total += nbytes - s->stored[storage];
    s->stored[storage] = nbytes;
    if (s->total > s->tier_peak) s->tier_peak = s->total;
}

static int stall(plan *s, int64_t storage, int back) {
    double moment = (back ? s->read_back_at : s->written_at)[storage];
    if (!(s->started[storage] >> back & 1)) return NO_PLAN;
    if (moment > s->now) s->now = moment;
    return 0;
}

/* Bytes while the entry runs; NO_PLAN where it waits for a transfer that nobody has started. */
static int64_t simulate_move(plan *s, int32_t kind, const int64_t *d, int64_t p, int32_t number) {
    const double *coding = (const double *)word(s, CODINGS) + d[CODING] * CODED;
    int64_t x = d[STORAGE], peak;
    switch (kind) {
    case WRITE:
        store(s, x, d[ENCODED] ? d[ENCODED] : s->size[x]);
        transfer(s, d, 0, p);
        break;
    case READ:
        if (d[ENCODED]) hold_encoded(s, x, d[ENCODED]);
        else hold(s, x);
        transfer(s, d, 1, p);
        break;
    case SETTLE:
    case WAIT:
        if (stall(s, x, kind == WAIT)) return NO_PLAN;
        if (kind == WAIT && s->last_wait[x] == number) s->total -= s->stored[x], s->stored[x] = 0;
        break;
    case COMPRESS:
        hold_encoded(s, x, d[ENCODED]);
        busy(s, p, coding[TO_ENCODE]);
        break;
    default: /* EXPAND */
        hold(s, x);
        busy(s, p, coding[TO_DECODE]);
    }
    peak = s->alive;
    if ((kind == SETTLE && d[ENCODED]) || kind == EXPAND) s->alive -= s->encoded[x], s->encoded[x] = 0;
    free_if_over(s, x, number);
    return peak;
}

static int simulate(plan *s) {
    s->alive = s->w[RESIDENT];
    for (int64_t p = 0; p < s->ops; p++) {
        int64_t most = 0;
        for (int32_t index = s->begin[p]; index < s->begin[p + 1]; index++) {
            const entry *e = &s->entries[index];
            int64_t peak = s->alive;
            if (e->kind <= CLONE) peak = simulate_op(s, e->what, p, number_of(index));
            else if (e->kind == DROP) release(s, e->what);
            else peak = simulate_move(s, e->kind, s->row[e->what], p, number_of(index));
            if (peak == NO_PLAN) return NO_PLAN;
            if (peak > most) most = peak;
            for (int32_t i = e->behind; i; i = s->drops[i - 1].next) release(s, s->drops[i - 1].storage);
        }
        if (s->curve) s->curve[p] = most;
        if (most > s->peak) s->peak = most;
    }
    return 0;
}

/* ---- Python's door ---- */

static PyObject *plan_score(PyObject *self, PyObject *args) {
    unsigned long long block, chosen, curve, spent;
    long long count;
    size_t zeros, bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKLKK", &block, &chosen, &count, &curve, &spent)) return NULL;
    plan s = {.w = (const int64_t *)(uintptr_t)block, .count = count};
    s.ops = s.w[OPS], s.storages = s.w[STORAGES], s.size = word(&s, SIZE), s.mortal = word(&s, MORTAL);
    s.read_at = word(&s, READ_AT), s.reads = word(&s, READS);
    s.write_at = word(&s, WRITE_AT), s.writes = word(&s, WRITES);
    s.curve = (int64_t *)(uintptr_t)curve, s.spent = (double *)(uintptr_t)spent;
    if (s.ops >= MOST || s.storages >= MOST || count < 0 || count >= MOST) return Py_BuildValue("i", NO_PLAN);
    if (measure(&s, (const int64_t *)(uintptr_t)chosen)) return Py_BuildValue("i", NO_PLAN);
    bytes = lay_out(&s, (uintptr_t)s.w[SCRATCH], &zeros);
    if (bytes > (size_t)s.w[SCRATCH_BYTES]) return Py_BuildValue("K", (unsigned long long)bytes);
    memset((void *)(uintptr_t)s.w[SCRATCH], 0, zeros);
    memcpy(s.held, word(&s, HELD), (size_t)s.storages);
    memcpy(s.kept, word(&s, LAST_USE), (size_t)s.storages * sizeof *s.kept);
    for (int64_t x = 0; x < s.storages; x++) s.last[x] = s.mortal[x] ? 0 : INT32_MAX;
    sort_decisions(&s, (const int64_t *)(uintptr_t)chosen);
    gather_groups(&s);
    lower(&s);
    if (simulate(&s)) return Py_BuildValue("i", NO_PLAN);
    double end = s.now;
    for (int i = 0; i < 2; i++)
        if (s.lane[i] > end) end = s.lane[i];
    return Py_BuildValue("dLL", end, (long long)s.peak, (long long)s.tier_peak);
}

PyMethodDef outsize_plan_score_methods[] = {
    {"plan_score", plan_score, METH_VARARGS,
     "plan_score(block, rows, count, curve, seconds): seconds, peak bytes and peak bytes of the tier of a plan.\n\n"
     "rows: indices of its decisions in the table. curve, seconds: addresses of one element per position, or 0;\n"
     "seconds is added to. An integer in place of the tuple: the bytes of scratch that it takes, or -1 where this is\n"
     "no plan."},
    {NULL, NULL, 0, NULL}};
