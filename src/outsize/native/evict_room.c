/* Which storage goes where an op does not fit, and what is noted of it. */
#include "evict.h"

void pass_evict(Pass *w, int32_t s) {
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
    w->room_after[w->touched[s]] -= way[2] + way[1];
    w->returns[s] = (price[2] + pass_lane_cost(w, option)) / 2;
    w->has_return[s] = 1;
    if (way[0] == SWAP) w->written[s] = 1;
    if (price[1] != 0.0) {
        int32_t touch = w->touched[s], use = next_use(w, s, touch);
        pass_promise(w, option, g->starts[touch] + g->seconds[touch], use < 0 ? (int32_t)g->ops - 1 : use);
    }
}

static double worth(const Pass *w, int32_t s, double now, double missing) {
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

static int32_t cheapest(Pass *w, int32_t p, int64_t missing) {
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
        double raised = pass_scaled(w, s, pass_price(w, s, p, &option));
        int worse = raised > w->unit[s] * 1.0000001;
        w->exact_moves[s] = w->moves;
        w->exact_option[s] = option;
        if (!worse && isfinite(raised)) return s;
        set_unit(w, s, raised);
        if (isfinite(raised)) w->values[s] = raised / worth(w, s, now, (double)missing);
    }
    return -1;
}

int pass_make_room(Pass *w, int32_t p, int64_t need) {
    while (w->alive + need > w->t->budget) {
        int32_t s = cheapest(w, p, w->alive + need - w->t->budget);
        if (s < 0) return 0;
        pass_evict(w, s);
    }
    return 1;
}

void pass_vanish(Pass *w, int32_t s) {
    if (w->resident[s]) {
        w->resident[s] = 0;
        w->alive -= w->g->size[s];
    }
    set_unit(w, s, INFINITY);
    w->soft[s] = 0;
}

static void decide(Pass *w, int32_t s, int32_t before) {
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

void pass_touch(Pass *w, int32_t s, int32_t p) {
    if (w->away[s]) decide(w, s, p);
    w->soft[s] = 0;
    w->touched[s] = p;
    set_unit(w, s, INFINITY);
    for (int32_t k = 0; k < w->now_count; k++)
        if (w->now[k] == s) return;
    w->now[w->now_count++] = s;
}
