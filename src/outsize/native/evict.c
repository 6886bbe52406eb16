/* The positions of a pass in order, and Python's door to it. */
#include "evict.h"

/* What is done as soon as the storage has been touched, needed or not. */
static void force(Pass *w, int32_t s, int32_t p) {
    const Step *g = w->g;
    if (!isfinite(w->unit[s])) return;
    int32_t use = next_use(w, s, p), first, end;
    if (pass_may_remake(w, s, p) && isfinite(pass_chain_seconds(w, s, use, 0.0)) &&
        has(w->t->forced, w->t->forced_count, key_of(w, s, p, RECOMPUTE))) {
        w->exact_option[s] = -1;
        pass_evict(w, s);
        return;
    }
    pass_ways(w, s, &first, &end);
    for (int32_t o = first; o < end; o++) {
        const int64_t *option = g->option + 3 * o;
        if (pass_barred(w, s, p, (int)option[0])) continue;
        if (!has(w->t->forced, w->t->forced_count, key_of(w, s, p, (int)option[0]))) continue;
        if (option[2] + option[1] <= w->room_after[p]) {
            w->exact_option[s] = o;
            pass_evict(w, s);
        }
        return;
    }
}

/* What it was retained for is there: it goes, on the device or encoded. */
static void expire(Pass *w, int32_t s) {
    pass_vanish(w, s);
    if (w->away[s] && w->gone[s].option >= 0) w->alive -= w->g->option[3 * w->gone[s].option + 1];
    w->away[s] = 0;
}

static int run_op(Pass *w, int32_t p) {
    const Step *g = w->g;
    int64_t need = g->fixed[p] + g->workspace[p];
    int32_t out = g->out_at[p], out_end = g->out_at[p + 1];
    for (int32_t k = g->expire_at[p]; k < g->expire_at[p + 1]; k++)
        if (w->t->flags[g->expire[k]] & RETAIN) expire(w, g->expire[k]);
    for (int32_t k = out; k < out_end; k++) need += g->size[g->out[k]];
    if (!pass_make_room(w, p, need)) return 0;
    for (int32_t k = out; k < out_end; k++) {
        int32_t s = g->out[k];
        w->alive += g->size[s];
        w->resident[s] = 1;
        w->touched[s] = p;
    }
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++)
        if (w->until[g->in[k]] <= p) pass_vanish(w, g->in[k]);
    for (int32_t k = out; k < out_end; k++)
        if (w->until[g->out[k]] <= p) pass_vanish(w, g->out[k]);
    w->room_after[p] = w->t->budget - w->alive - g->fixed[p];
    for (int32_t k = 0; k < w->now_count; k++)
        if (w->resident[w->now[k]]) pass_offer(w, w->now[k], p);
    for (int32_t k = out; k < out_end; k++)
        if (w->resident[g->out[k]]) pass_offer(w, g->out[k], p);
    if (w->t->forced_count) {
        qsort(w->now, (size_t)w->now_count, sizeof *w->now, pass_ascending);
        for (int32_t k = 0; k < w->now_count; k++) force(w, w->now[k], p);
        for (int32_t k = out; k < out_end; k++) force(w, g->out[k], p);
    }
    w->now_count = 0;
    return 1;
}

static int position(Pass *w, int32_t p) {
    const Step *g = w->g;
    int there = 1;
    w->stuck_count = 0;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) there &= w->resident[g->in[k]];
    if (!there && !pass_restore(w, p)) return 0;
    for (int32_t k = g->in_at[p]; k < g->in_at[p + 1]; k++) {
        if (!w->resident[g->in[k]]) return 0;
        pass_touch(w, g->in[k], p);
    }
    return run_op(w, p);
}

/* One block for all arrays of a pass: two passes over the same list, first to count, then to hand out. */
static size_t lay_out(Pass *w, char *block) {
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
    TAKE(until, n); TAKE(touched, n); TAKE(live_at, n); TAKE(live, n); TAKE(exact_option, n); TAKE(wanted, n);
    TAKE(reader_of, n); TAKE(reader_stamp, n); TAKE(exact_moves, n); TAKE(gone, n);
    TAKE(room_after, ops); TAKE(seen, ops); TAKE(inside, ops); TAKE(kept_op, ops);
    TAKE(reads, ops); TAKE(sums, ops); TAKE(spare, ops);
    TAKE(now, n); TAKE(stack, list); TAKE(weights, list); TAKE(region, ops); TAKE(fetched, n); TAKE(held, n);
    TAKE(list, list); TAKE(stuck, n);
#undef TAKE
    return used;
}

/* Where a pass ended: how many keys of remade storages, those, how many of encoded forms that stay here, those. */
static void tell_stuck(Pass *w) {
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

static PyObject *plan_evict(PyObject *self, PyObject *args) {
    (void)self;
    long long step, taste, rows, row_room, regions, region_room;
    if (!PyArg_ParseTuple(args, "LLLLLL", &step, &taste, &rows, &row_room, &regions, &region_room)) return NULL;
    Pass w = {.g = (const Step *)(intptr_t)step, .t = (const Policy *)(intptr_t)taste,
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
        w.until[s] = w.t->flags[s] & RETAIN && w.g->reach[s] > w.g->last[s] ? w.g->reach[s] : w.g->last[s];
    }
    w.spare_from = w.g->ops;
    for (int32_t p = 0; p < w.g->ops && through && !w.full; p++) through = position(&w, p);
    if (!through && !w.full) tell_stuck(&w);
    free(block);
    Py_END_ALLOW_THREADS
    if (w.full) return PyLong_FromLong(-2);
    return PyLong_FromLongLong(through ? w.row_count : -1);
}

PyMethodDef outsize_plan_evict_methods[] = {
    {"plan_evict", plan_evict, METH_VARARGS,
     "plan_evict(step, taste, rows, row_room, regions, region_room) -> decisions, -1 no way through (the regions say why), -2 no room for rows"},
    {NULL, NULL, 0, NULL},
};
