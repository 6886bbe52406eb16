/* What it costs to take a storage away: by making it again, or over the lanes and through codecs. */
#include "evict.h"

int pass_barred(const Pass *w, int32_t s, int32_t touch, int action) {
    return w->t->barred_count && has(w->t->barred, w->t->barred_count, key_of(w, s, touch, action));
}

double pass_chain_seconds(Pass *w, int32_t storage, int32_t use, double share) {
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
            if (w->until[source] < use) {
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

int pass_may_remake(const Pass *w, int32_t s, int32_t touch) {
    if (w->soft[s]) return w->t->recompute != 0;
    if (!w->t->recompute || w->t->flags[s] & BANNED || pass_barred(w, s, touch, RECOMPUTE)) return 0;
    return !w->t->remakes || w->t->flags[s] & REMAKE;
}

/* The options of a storage, by index; none where it is to be remade. */
void pass_ways(const Pass *w, int32_t s, int32_t *first, int32_t *end) {
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
double pass_lane_cost(const Pass *w, int32_t option) {
    double seconds = lane_seconds(w->g, option);
    return seconds != 0.0 ? w->t->lane_price * seconds : 0.0;
}

double pass_scaled(const Pass *w, int32_t s, double cost) {
    double small = w->g->size[s] < w->g->min_bytes ? 1e6 : 1.0;
    return small * w->t->weight[s] * (cost + 1e-9);
}

/* From now on the storage may go; its price so far is a lower bound. */
void pass_offer(Pass *w, int32_t s, int32_t p) {
    const Step *g = w->g;
    int32_t following = next_use(w, s, p), first, end;
    if (following < 0 || g->acted_from[s] > p) return;
    double cost = pass_may_remake(w, s, p) ? g->seconds[g->producer[s]] : INFINITY;
    pass_ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        if (pass_barred(w, s, p, (int)g->option[3 * o])) continue;
        double other = g->price[3 * o + 2] + pass_lane_cost(w, o);
        if (other < cost) cost = other;
    }
    set_unit(w, s, pass_scaled(w, s, cost) / (double)g->size[s]);
    w->due[s] = g->starts[following];
    w->exact_moves[s] = -1;
}

/* Lanes. `spare[use]` + now is the room for a read between now and its deadline, given the reads promised so far. */
void pass_promise(Pass *w, int32_t option, double release, int32_t use) {
    const double *price = w->g->price + 3 * option;
    if (price[0] != 0.0) w->out_free = (w->out_free > release ? w->out_free : release) + price[0];
    w->reads[use] += price[1];
    if (use < w->sums_from) w->sums_from = use;
    w->spare_from = w->g->ops;
}

static double spare(Pass *w, int32_t use) {
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

static double exposed(Pass *w, int32_t option, double release, double now, int32_t use) {
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
double pass_price(Pass *w, int32_t s, int32_t p, int32_t *chosen) {
    const Step *g = w->g;
    int32_t touch = w->touched[s], use = next_use(w, s, touch), first, end;
    int32_t place = use < 0 ? (int32_t)g->ops - 1 : use;
    double best = INFINITY;
    *chosen = -1;
    if (pass_may_remake(w, s, touch)) best = pass_chain_seconds(w, s, use, w->t->share) / (double)g->size[s];
    if (w->soft[s] || touch >= p) return best;
    double release = g->starts[touch] + g->seconds[touch];
    pass_ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        const int64_t *option = g->option + 3 * o;
        if (pass_barred(w, s, touch, (int)option[0])) continue;
        if (option[2] + option[1] > w->room_after[touch]) continue;
        double lane = 0.0;
        if (g->price[3 * o + 1] != 0.0) {
            double shown;
            if (w->t->crowded) {
                shown = exposed(w, o, release, g->starts[p], place);
            } else {
                shown = lane_seconds(g, o) - (g->starts[place] - release);
                if (!(shown > 0.0)) shown = 0.0;
            }
            lane = pass_lane_cost(w, o) + shown;
        }
        double price = (g->price[3 * o + 2] + lane) / (double)(g->size[s] - option[1]);
        if (price < best) best = price, *chosen = o;
    }
    return best;
}
