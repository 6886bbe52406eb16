/* One walk over the step that never leaves the budget: plan/walk.py in C, decision for decision.
 *
 * The Python text explains the method and is the oracle of the tests; here stand the same operations on the same
 * doubles in the same order. The search makes hundreds of walks, and a walk asks for the cheapest storage thousands of
 * times: of those that may go now, which are kept in a dense list. */
#include "native.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { SWAP, ENCODE, ENCODE_SWAP, RECOMPUTE };
enum { BANNED = 1, REMAKE = 2 };
enum { LONGEST = 400 }; /* chains._LONGEST */

/* plan/walker.py fills this: sizes, and addresses of arrays, all as int64. */
typedef struct {
    int64_t ops, storages;
    const double *seconds;         /* [ops] */
    const int64_t *workspace;      /* [ops] bytes */
    const uint8_t *repeats;        /* [ops] */
    const int32_t *in_at, *in;     /* activations that an op reads */
    const int32_t *out_at, *out;   /* and makes */
    const int64_t *second_copies;  /* [ops] bytes */
    const int32_t *producer, *last; /* [storages] positions */
    const int64_t *size;           /* [storages] bytes */
    const int32_t *use_at, *use;   /* positions that read a storage, ascending */
    const uint8_t *acted_on;       /* [storages] */
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
    const uint8_t *flags;                               /* [storages] BANNED, REMAKE */
    const double *weight;                               /* [storages] */
    const int64_t *barred;                              /* sorted keys: (storage · ops + touch) · 4 + action */
    int64_t barred_count;
    const int64_t *forced;
    int64_t forced_count;
    double lane_price, share;
} Taste;

/* Decisions, a row each: storage, action, after, before, restored, option, region's place, region's length. */
enum { ROW = 8 };

typedef struct {
    int32_t after, option, restored; /* option: -1 for recompute */
    int64_t region, region_length;
} Gone;

typedef struct {
    const Step *g;
    const Taste *t;
    int64_t alive, moves;
    int64_t *rows, *regions;
    int64_t row_count, row_room, region_count, region_room;
    int full;
    /* Per storage. */
    uint8_t *resident, *soft, *written, *away, *has_return, *held_flag;
    double *returns, *unit, *due;
    int32_t *touched, *live_at, *live, *exact_option, *wanted, *reader_of, *reader_stamp;
    int64_t *exact_moves;
    Gone *gone;
    int32_t live_count;
    /* Per op. */
    int64_t *room_behind;
    int32_t *seen, *inside, *kept_op;
    double *reads, *sums, *spare;
    double out_free;
    int64_t sums_from;  /* sums are right before this op */
    int64_t spare_from; /* spare is right from this op on, ops if nowhere */
    int32_t stamp;
    /* Lists. */
    int32_t *now, now_count, *stack, *region, *fetched, *held, *list;
    int64_t *stuck; /* keys of what was to be made again at this position: what `repaired` would bar */
    int64_t stuck_count;
    double *weights, *values;
} Walk;

static int has(const int64_t *keys, int64_t count, int64_t key) {
    int64_t low = 0, high = count;
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (keys[middle] < key) low = middle + 1;
        else high = middle;
    }
    return low < count && keys[low] == key;
}

static int64_t key_of(const Walk *w, int32_t s, int32_t touch, int action) {
    return ((int64_t)s * w->g->ops + touch) * 4 + action;
}

static int is_barred(const Walk *w, int32_t s, int32_t touch, int action) {
    return w->t->barred_count && has(w->t->barred, w->t->barred_count, key_of(w, s, touch, action));
}

static int32_t next_use(const Step *g, int32_t s, int32_t position) {
    int32_t low = g->use_at[s], high = g->use_at[s + 1], end = high;
    while (low < high) {
        int32_t middle = (low + high) / 2;
        if (g->use[middle] <= position) low = middle + 1;
        else high = middle;
    }
    return low < end ? g->use[low] : -1;
}

/* What may go now. A price that is not finite is no offer. */
static void set_unit(Walk *w, int32_t s, double value) {
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

static double chain_seconds(Walk *w, int32_t storage, int32_t use, double share) {
    const Step *g = w->g;
    double total = 0.0;
    int count = 0, depth = 0, stamp = ++w->stamp;
    w->stack[0] = g->producer[storage];
    w->weights[depth++] = 1.0;
    while (depth) {
        int32_t op = w->stack[--depth];
        double weight = w->weights[depth];
        if (w->seen[op] == stamp) continue;
        w->seen[op] = stamp;
        if (!g->repeats[op] || ++count > LONGEST) return INFINITY;
        total += weight * g->seconds[op];
        for (int32_t k = g->in_at[op]; k < g->in_at[op + 1]; k++) {
            int32_t source = g->in[k];
            if (g->last[source] < use) {
                w->stack[depth] = g->producer[source];
                w->weights[depth++] = weight;
            } else if (!w->resident[source]) {
                if (w->has_return[source]) {
                    total += share != 0.0 ? weight * share * w->returns[source] : 0.0; /* it may be infinite */
                } else {
                    w->stack[depth] = g->producer[source];
                    w->weights[depth++] = weight * share;
                }
            }
        }
    }
    return total;
}

static int may_remake(const Walk *w, int32_t s, int32_t touch) {
    if (w->soft[s]) return w->t->recompute != 0;
    if (!w->t->recompute || w->t->flags[s] & BANNED || is_barred(w, s, touch, RECOMPUTE)) return 0;
    return !w->t->remakes || w->t->flags[s] & REMAKE;
}

/* The options of a storage, by index; none where it is to be remade. */
static void ways(const Walk *w, int32_t s, int32_t *first, int32_t *end) {
    if (w->t->remakes && w->t->flags[s] & REMAKE) {
        *first = *end = 0;
        return;
    }
    const int32_t *at = w->g->option_at + 2 * s + w->written[s];
    *first = at[0], *end = at[1];
}

static double lane_seconds(const Step *g, int32_t option) {
    return g->price[3 * option] + g->price[3 * option + 1];
}

/* What the taste says that the transfers are worth, 0 without any. */
static double lane_cost(const Walk *w, int32_t option) {
    double seconds = lane_seconds(w->g, option);
    return seconds != 0.0 ? w->t->lane_price * seconds : 0.0;
}

static double scaled(const Walk *w, int32_t s, double cost) {
    double small = w->g->size[s] < w->g->min_bytes ? 1e6 : 1.0;
    return small * w->t->weight[s] * (cost + 1e-9);
}

/* From now on the storage may go; its price so far is a lower bound. */
static void offer(Walk *w, int32_t s, int32_t p) {
    const Step *g = w->g;
    int32_t following = next_use(g, s, p), first, end;
    if (following < 0 || !g->acted_on[s]) return;
    double cost = may_remake(w, s, p) ? g->seconds[g->producer[s]] : INFINITY;
    ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        if (is_barred(w, s, p, (int)g->option[3 * o])) continue;
        double other = g->price[3 * o + 2] + lane_cost(w, o);
        if (other < cost) cost = other;
    }
    set_unit(w, s, scaled(w, s, cost) / (double)g->size[s]);
    w->due[s] = g->starts[following];
    w->exact_moves[s] = -1;
}

/* Lanes. `spare[use]` + now is the room for a read between now and its deadline, given the reads promised so far. */
static void promise(Walk *w, int32_t option, double release, int32_t use) {
    const double *price = w->g->price + 3 * option;
    if (price[0] != 0.0) w->out_free = (w->out_free > release ? w->out_free : release) + price[0];
    w->reads[use] += price[1];
    if (use < w->sums_from) w->sums_from = use;
    w->spare_from = w->g->ops;
}

static double spare(Walk *w, int32_t use) {
    int64_t ops = w->g->ops;
    for (int64_t i = w->sums_from; i < ops; i++) w->sums[i] = (i ? w->sums[i - 1] : 0.0) + w->reads[i];
    w->sums_from = ops;
    for (int64_t i = w->spare_from - 1; i >= use; i--) {
        double here = w->g->starts[i] - w->sums[i];
        w->spare[i] = i + 1 < ops && w->spare[i + 1] < here ? w->spare[i + 1] : here;
    }
    if (use < w->spare_from) w->spare_from = use;
    return w->spare[use];
}

static double exposed(Walk *w, int32_t option, double release, double now, int32_t use) {
    const double *price = w->g->price + 3 * option;
    double late = 0.0;
    if (price[0] != 0.0) {
        late = (w->out_free > release ? w->out_free : release) + price[0] - now;
        if (!(late > 0.0)) late = 0.0;
    }
    double missing = price[1] - (spare(w, use) - now);
    if (!(missing > 0.0)) missing = 0.0;
    return late + (missing < price[1] ? missing : price[1]);
}

/* Seconds per byte freed of the best way to take the storage away now. */
static double best_price(Walk *w, int32_t s, int32_t p, int32_t *chosen) {
    const Step *g = w->g;
    int32_t touch = w->touched[s], use = next_use(g, s, touch), first, end;
    int32_t place = use < 0 ? (int32_t)g->ops - 1 : use;
    double best = INFINITY;
    *chosen = -1;
    if (may_remake(w, s, touch)) best = chain_seconds(w, s, use, w->t->share) / (double)g->size[s];
    if (w->soft[s] || touch >= p) return best;
    double release = g->starts[touch] + g->seconds[touch];
    ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        const int64_t *option = g->option + 3 * o;
        if (is_barred(w, s, touch, (int)option[0])) continue;
        if (option[2] + option[1] > w->room_behind[touch]) continue;
        double lane = 0.0;
        if (g->price[3 * o + 1] != 0.0) {
            double shown;
            if (w->t->crowded) {
                shown = exposed(w, o, release, g->starts[p], place);
            } else {
                shown = lane_seconds(g, o) - (g->starts[place] - release);
                if (!(shown > 0.0)) shown = 0.0;
            }
            lane = lane_cost(w, o) + shown;
        }
        double price = (g->price[3 * o + 2] + lane) / (double)(g->size[s] - option[1]);
        if (price < best) best = price, *chosen = o;
    }
    return best;
}

static void evict(Walk *w, int32_t s) {
    const Step *g = w->g;
    int32_t option = w->exact_option[s];
    w->exact_moves[s] = -1;
    w->resident[s] = 0;
    set_unit(w, s, INFINITY);
    w->alive -= g->size[s];
    w->moves++;
    Gone *gone = &w->gone[s];
    if (w->soft[s] && w->away[s]) {
        w->soft[s] = 0;
        gone->restored = -1, gone->region_length = 0;
        return;
    }
    w->away[s] = 1;
    *gone = (Gone){.after = w->touched[s], .option = option, .restored = -1};
    if (option < 0) return;
    const int64_t *way = g->option + 3 * option;
    const double *price = g->price + 3 * option;
    w->alive += way[1];
    w->room_behind[w->touched[s]] -= way[2] + way[1];
    w->returns[s] = (price[2] + lane_cost(w, option)) / 2;
    w->has_return[s] = 1;
    if (way[0] == SWAP) w->written[s] = 1;
    if (price[1] != 0.0) {
        int32_t touch = w->touched[s], use = next_use(g, s, touch);
        promise(w, option, g->starts[touch] + g->seconds[touch], use < 0 ? (int32_t)g->ops - 1 : use);
    }
}

static double worth(const Walk *w, int32_t s, double now, double missing) {
    double left = w->due[s] - now, wait = 1.0;
    if (!(left > 1e-9)) left = 1e-9;
    double root = sqrt(sqrt(left));
    for (int64_t k = 0; k < w->t->quarters; k++) wait *= root;
    if (w->t->fit) {
        double over = (double)w->g->size[s] / missing;
        wait /= over > 1.0 ? over : 1.0;
    }
    return wait;
}

static int32_t cheapest(Walk *w, int32_t p, int64_t missing) {
    const Step *g = w->g;
    double now = g->starts[p];
    for (int32_t k = 0; k < w->live_count; k++)
        w->values[w->live[k]] = w->unit[w->live[k]] / worth(w, w->live[k], now, (double)missing);
    while (w->live_count) {
        int32_t s = w->live[0], option;
        for (int32_t k = 1; k < w->live_count; k++) {
            int32_t other = w->live[k];
            if (w->values[other] < w->values[s] || (w->values[other] == w->values[s] && other < s)) s = other;
        }
        if (w->exact_moves[s] == w->moves) return s;
        double raised = scaled(w, s, best_price(w, s, p, &option));
        int worse = raised > w->unit[s] * 1.0000001;
        w->exact_moves[s] = w->moves;
        w->exact_option[s] = option;
        if (!worse && isfinite(raised)) return s;
        set_unit(w, s, raised);
        if (isfinite(raised)) w->values[s] = raised / worth(w, s, now, (double)missing);
    }
    return -1;
}

static int make_room(Walk *w, int32_t p, int64_t need) {
    while (w->alive + need > w->t->budget) {
        int32_t s = cheapest(w, p, w->alive + need - w->t->budget);
        if (s < 0) return 0;
        evict(w, s);
    }
    return 1;
}

static void vanish(Walk *w, int32_t s) {
    if (w->resident[s]) {
        w->resident[s] = 0;
        w->alive -= w->g->size[s];
    }
    set_unit(w, s, INFINITY);
    w->soft[s] = 0;
}

static void decide(Walk *w, int32_t s, int32_t before) {
    Gone *gone = &w->gone[s];
    w->away[s] = 0;
    if (w->row_count == w->row_room) {
        w->full = 1;
        return;
    }
    int64_t *row = w->rows + ROW * w->row_count++;
    row[0] = s;
    row[1] = gone->option < 0 ? RECOMPUTE : w->g->option[3 * gone->option];
    row[2] = gone->after, row[3] = before, row[4] = gone->restored, row[5] = gone->option;
    row[6] = gone->region, row[7] = gone->region_length;
}

static void touch(Walk *w, int32_t s, int32_t p) {
    if (w->away[s]) decide(w, s, p);
    w->soft[s] = 0;
    w->touched[s] = p;
    set_unit(w, s, INFINITY);
    for (int32_t k = 0; k < w->now_count; k++)
        if (w->now[k] == s) return;
    w->now[w->now_count++] = s;
}

static int ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The ops of the region (marked in `inside`) that the storage is made of, ascending. */
static void restored(Walk *w, int32_t s, int32_t p, const int32_t *region, int32_t length, int32_t inside) {
    const Step *g = w->g;
    w->resident[s] = 1;
    w->has_return[s] = 0;
    w->moves++;
    Gone *gone = &w->gone[s];
    gone->restored = p;
    gone->region = w->region_count, gone->region_length = 0;
    if (!length) return;
    int32_t stamp = ++w->stamp, depth = 0;
    w->stack[depth++] = g->producer[s];
    while (depth) {
        int32_t op = w->stack[--depth];
        if (w->inside[op] != inside || w->kept_op[op] == stamp) continue;
        w->kept_op[op] = stamp;
        for (int32_t k = g->in_at[op]; k < g->in_at[op + 1]; k++) w->stack[depth++] = g->producer[g->in[k]];
    }
    for (int32_t k = 0; k < length; k++) {
        if (w->kept_op[region[k]] != stamp) continue;
        if (w->region_count == w->region_room) {
            w->full = 1;
            return;
        }
        w->regions[w->region_count++] = region[k];
        gone->region_length++;
    }
}

static int run_region(Walk *w, int32_t p, int32_t length, int32_t inside, int64_t before) {
    const Step *g = w->g;
    const int32_t *region = w->region;
    int32_t held = 0, stamp = ++w->stamp;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) w->wanted[g->in[k]] = stamp;
    for (int32_t r = 0; r < length; r++)
        for (int32_t k = g->in_at[region[r]]; k < g->in_at[region[r] + 1]; k++)
            w->reader_of[g->in[k]] = region[r], w->reader_stamp[g->in[k]] = stamp;
    for (int32_t r = 0; r < length; r++) {
        int32_t op = region[r], fresh = 0, kept = 0;
        int64_t need = before + g->second_copies[op] + g->workspace[op];
        for (int32_t k = g->out_at[op]; k < g->out_at[op + 1]; k++) {
            need += g->size[g->out[k]];
            if (!w->resident[g->out[k]]) w->list[fresh++] = g->out[k];
        }
        if (!make_room(w, p, need)) return 0;
        for (int32_t k = 0; k < fresh; k++) {
            int32_t s = w->list[k];
            w->alive += g->size[s];
            w->resident[s] = 1;
            w->touched[s] = p;
            set_unit(w, s, INFINITY);
            if (!w->held_flag[s]) w->held_flag[s] = 1, w->held[held++] = s;
        }
        for (int32_t k = 0; k < held; k++) {
            int32_t s = w->held[k], reader = w->reader_stamp[s] == stamp ? w->reader_of[s] : -1;
            if (reader > op || w->wanted[s] == stamp) {
                w->held[kept++] = s;
                continue;
            }
            w->held_flag[s] = 0;
            if (w->away[s] && w->gone[s].option < 0 && g->last[s] > p) {
                restored(w, s, p, region, length, inside);
                w->soft[s] = 1;
                offer(w, s, p);
            } else {
                vanish(w, s);
            }
        }
        held = kept;
        for (int32_t k = g->in_at[op]; k < g->in_at[op + 1]; k++) {
            int32_t s = g->in[k];
            if (w->reader_of[s] == op && w->touched[s] == p && w->resident[s] && w->wanted[s] != stamp)
                offer(w, s, p);
        }
    }
    for (int32_t k = 0; k < held; k++) {
        w->held_flag[w->held[k]] = 0;
        if (w->away[w->held[k]]) restored(w, w->held[k], p, region, length, inside);
    }
    return 1;
}

/* Ops to run again (ascending, marked in `inside`) and storages to bring back so that all that op p reads is there. */
static int32_t missing_ops(Walk *w, int32_t p, int32_t inside, int32_t *fetched_count) {
    const Step *g = w->g;
    int32_t depth = 0, length = 0, fetched = 0;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++)
        if (!w->resident[g->in[k]]) w->stack[depth++] = g->in[k];
    while (depth) {
        int32_t s = w->stack[--depth];
        if (w->away[s] && w->gone[s].option >= 0) {
            int32_t k = 0;
            while (k < fetched && w->fetched[k] != s) k++;
            if (k == fetched) w->fetched[fetched++] = s;
            continue;
        }
        int32_t op = g->producer[s];
        if (w->inside[op] == inside) continue;
        w->inside[op] = inside;
        w->region[length++] = op;
        for (int32_t k = g->in_at[op]; k < g->in_at[op + 1]; k++)
            if (!w->resident[g->in[k]]) w->stack[depth++] = g->in[k];
    }
    qsort(w->region, (size_t)length, sizeof *w->region, ascending);
    *fetched_count = fetched;
    return length;
}

/* Where room may be short, what the region makes again anyway need not be there twice. */
static void replace(Walk *w, int32_t length, int64_t before) {
    const Step *g = w->g;
    int64_t made = 0, most = 0;
    for (int32_t r = 0; r < length; r++) {
        int32_t op = w->region[r];
        for (int32_t k = g->out_at[op]; k < g->out_at[op + 1]; k++) made += g->size[g->out[k]];
        int64_t extra = g->workspace[op] + g->second_copies[op];
        if (extra > most) most = extra;
    }
    if (w->alive + before + made + most <= w->t->budget) return;
    for (int32_t r = 0; r < length; r++) {
        int32_t op = w->region[r];
        for (int32_t k = g->out_at[op]; k < g->out_at[op + 1]; k++) {
            int32_t s = g->out[k];
            if (!w->resident[s] || !g->acted_on[s]) continue;
            w->exact_option[s] = -1;
            evict(w, s);
        }
    }
}

/* Remade storages that this position waits for: those that its op reads, else those on the way to them. */
static void note_remade(Walk *w, int32_t p, int32_t length) {
    const Step *g = w->g;
    for (int direct = 1; direct >= 0 && !w->stuck_count; direct--)
        for (int32_t r = 0; r < length; r++)
            for (int32_t k = g->out_at[w->region[r]]; k < g->out_at[w->region[r] + 1]; k++) {
                int32_t s = g->out[k], read = !direct;
                if (!w->away[s] || w->gone[s].option >= 0) continue;
                for (int32_t i = g->in_at[p]; i < g->in_at[p + 1] && !read; i++) read = g->in[i] == s;
                if (read) w->stuck[w->stuck_count++] = key_of(w, s, w->gone[s].after, RECOMPUTE);
            }
}

static int restore(Walk *w, int32_t p) {
    const Step *g = w->g;
    int64_t before = g->fixed[p ? p - 1 : 0];
    int32_t fetched, count = 0, inside = ++w->stamp;
    int32_t length = missing_ops(w, p, inside, &fetched);
    note_remade(w, p, length);
    if (length) replace(w, length, before);
    int32_t *touches = w->list;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) touches[count++] = g->in[k];
    for (int32_t k = 0; k < fetched; k++) touches[count++] = w->fetched[k];
    for (int32_t r = 0; r < length; r++)
        for (int32_t k = g->in_at[w->region[r]]; k < g->in_at[w->region[r] + 1]; k++) {
            int32_t s = g->in[k];
            if (w->inside[g->producer[s]] != inside || w->resident[s]) touches[count++] = s;
        }
    qsort(touches, (size_t)count, sizeof *touches, ascending);
    for (int32_t k = 0; k < count; k++)
        if ((!k || touches[k] != touches[k - 1]) && w->resident[touches[k]]) touch(w, touches[k], p);
    int64_t staged = 0;
    for (int32_t k = 0; k < fetched; k++) staged += g->option[3 * w->gone[w->fetched[k]].option + 2];
    for (int32_t k = 0; k < fetched; k++) {
        int32_t s = w->fetched[k];
        const int64_t *option = g->option + 3 * w->gone[s].option;
        if (!make_room(w, p, before + g->size[s] + staged)) return 0;
        staged -= option[2];
        w->alive += g->size[s] - option[1];
        restored(w, s, p, NULL, 0, 0);
        touch(w, s, p);
    }
    return !length || run_region(w, p, length, inside, before);
}

/* What is done as soon as the storage has been touched, needed or not. */
static void force(Walk *w, int32_t s, int32_t p) {
    const Step *g = w->g;
    if (!isfinite(w->unit[s])) return;
    int32_t use = next_use(g, s, p), first, end;
    if (may_remake(w, s, p) && isfinite(chain_seconds(w, s, use, 0.0)) &&
        has(w->t->forced, w->t->forced_count, key_of(w, s, p, RECOMPUTE))) {
        w->exact_option[s] = -1;
        evict(w, s);
        return;
    }
    ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        const int64_t *option = g->option + 3 * o;
        if (is_barred(w, s, p, (int)option[0])) continue;
        if (!has(w->t->forced, w->t->forced_count, key_of(w, s, p, (int)option[0]))) continue;
        if (option[2] + option[1] <= w->room_behind[p]) {
            w->exact_option[s] = o;
            evict(w, s);
        }
        return;
    }
}

static int run_op(Walk *w, int32_t p) {
    const Step *g = w->g;
    int64_t need = g->fixed[p] + g->workspace[p];
    int32_t out = g->out_at[p], out_end = g->out_at[p + 1];
    for (int32_t k = out; k < out_end; k++) need += g->size[g->out[k]];
    if (!make_room(w, p, need)) return 0;
    for (int32_t k = out; k < out_end; k++) {
        int32_t s = g->out[k];
        w->alive += g->size[s];
        w->resident[s] = 1;
        w->touched[s] = p;
    }
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++)
        if (g->last[g->in[k]] <= p) vanish(w, g->in[k]);
    for (int32_t k = out; k < out_end; k++)
        if (g->last[g->out[k]] <= p) vanish(w, g->out[k]);
    w->room_behind[p] = w->t->budget - w->alive - g->fixed[p];
    for (int32_t k = 0; k < w->now_count; k++)
        if (w->resident[w->now[k]]) offer(w, w->now[k], p);
    for (int32_t k = out; k < out_end; k++)
        if (w->resident[g->out[k]]) offer(w, g->out[k], p);
    if (w->t->forced_count) {
        qsort(w->now, (size_t)w->now_count, sizeof *w->now, ascending);
        for (int32_t k = 0; k < w->now_count; k++) force(w, w->now[k], p);
        for (int32_t k = out; k < out_end; k++) force(w, g->out[k], p);
    }
    w->now_count = 0;
    return 1;
}

static int position(Walk *w, int32_t p) {
    const Step *g = w->g;
    int there = 1;
    w->stuck_count = 0;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) there &= w->resident[g->in[k]];
    if (!there && !restore(w, p)) return 0;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) {
        if (!w->resident[g->in[k]]) return 0;
        touch(w, g->in[k], p);
    }
    return run_op(w, p);
}

/* One block for all arrays of a walk: two passes over the same list, first to count, then to hand out. */
static size_t lay_out(Walk *w, char *block) {
    const Step *g = w->g;
    size_t used = 0, n = (size_t)g->storages, ops = (size_t)g->ops;
    size_t reads = (size_t)g->in_at[ops] + 1, list = 2 * reads + n + 1;
#define TAKE(field, count)                                       \
    do {                                                         \
        if (block) w->field = (void *)(block + used);            \
        used += ((count) * sizeof *w->field + 15) / 16 * 16;     \
    } while (0)
    TAKE(resident, n); TAKE(soft, n); TAKE(written, n); TAKE(away, n); TAKE(has_return, n); TAKE(held_flag, n);
    TAKE(returns, n); TAKE(unit, n); TAKE(due, n); TAKE(values, n);
    TAKE(touched, n); TAKE(live_at, n); TAKE(live, n); TAKE(exact_option, n); TAKE(wanted, n);
    TAKE(reader_of, n); TAKE(reader_stamp, n); TAKE(exact_moves, n); TAKE(gone, n);
    TAKE(room_behind, ops); TAKE(seen, ops); TAKE(inside, ops); TAKE(kept_op, ops);
    TAKE(reads, ops); TAKE(sums, ops); TAKE(spare, ops);
    TAKE(now, n); TAKE(stack, list); TAKE(weights, list); TAKE(region, ops); TAKE(fetched, n); TAKE(held, n);
    TAKE(list, list); TAKE(stuck, n);
#undef TAKE
    return used;
}

/* Where a walk ended: how many keys of remade storages, those, how many of encoded forms that stay here, those. */
static void tell_stuck(Walk *w) {
    const Step *g = w->g;
    if (w->region_room < 2 + w->stuck_count + g->storages) {
        w->full = 1;
        return;
    }
    int64_t *told = w->regions;
    *told++ = w->stuck_count;
    for (int64_t k = 0; k < w->stuck_count; k++) *told++ = w->stuck[k];
    int64_t *kept = told++;
    *kept = 0;
    for (int32_t s = 0; s < g->storages; s++) {
        const int64_t *option = g->option + 3 * w->gone[s].option;
        if (!w->away[s] || w->gone[s].option < 0 || !option[1]) continue;
        *told++ = key_of(w, s, w->gone[s].after, (int)option[0]);
        ++*kept;
    }
}

static PyObject *plan_walk(PyObject *self, PyObject *args) {
    (void)self;
    long long step, taste, rows, row_room, regions, region_room;
    if (!PyArg_ParseTuple(args, "LLLLLL", &step, &taste, &rows, &row_room, &regions, &region_room)) return NULL;
    Walk w = {.g = (const Step *)(intptr_t)step, .t = (const Taste *)(intptr_t)taste,
              .rows = (int64_t *)(intptr_t)rows, .regions = (int64_t *)(intptr_t)regions,
              .row_room = row_room, .region_room = region_room};
    char *block = calloc(lay_out(&w, NULL) + 1, 1);
    if (block == NULL) return PyErr_NoMemory();
    int through = 1;
    Py_BEGIN_ALLOW_THREADS
    lay_out(&w, block);
    for (int64_t s = 0; s < w.g->storages; s++) {
        w.unit[s] = INFINITY;
        w.touched[s] = w.live_at[s] = w.exact_option[s] = -1;
        w.exact_moves[s] = -1;
    }
    w.spare_from = w.g->ops;
    for (int32_t p = 0; p < w.g->ops && through && !w.full; p++) through = position(&w, p);
    if (!through && !w.full) tell_stuck(&w);
    free(block);
    Py_END_ALLOW_THREADS
    if (w.full) return PyLong_FromLong(-2);
    return PyLong_FromLongLong(through ? w.row_count : -1);
}

PyMethodDef outsize_plan_walk_methods[] = {
    {"plan_walk", plan_walk, METH_VARARGS,
     "plan_walk(step, taste, rows, row_room, regions, region_room) -> decisions, -1 no way through (the regions say why), -2 no room for rows"},
    {NULL, NULL, 0, NULL},
};
