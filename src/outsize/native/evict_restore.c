/* What an op reads and is not there: brought back, or made again by a region of ops. */
#include "evict.h"

int pass_ascending(const void *a, const void *b) {
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

/* The ops of the region (marked in `inside`) that the storage is made of, ascending. */
static void restored(Pass *w, int32_t s, int32_t p, const int32_t *region, int32_t length, int32_t inside) {
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

static int run_region(Pass *w, int32_t p, int32_t length, int32_t inside, int64_t before) {
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
        if (!pass_make_room(w, p, need)) return 0;
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
            if (w->away[s] && w->gone[s].option < 0 && w->until[s] > p) {
                restored(w, s, p, region, length, inside);
                w->soft[s] = 1;
                pass_offer(w, s, p);
            } else {
                pass_vanish(w, s);
            }
        }
        held = kept;
        for (int32_t k = g->in_at[op]; k < g->in_at[op + 1]; k++) {
            int32_t s = g->in[k];
            if (w->reader_of[s] == op && w->touched[s] == p && w->resident[s] && w->wanted[s] != stamp)
                pass_offer(w, s, p);
        }
    }
    for (int32_t k = 0; k < held; k++) {
        w->held_flag[w->held[k]] = 0;
        if (w->away[w->held[k]]) restored(w, w->held[k], p, region, length, inside);
    }
    return 1;
}

/* Ops to run again (ascending, marked in `inside`) and storages to bring back so that all that op p reads is there. */
static int32_t missing_ops(Pass *w, int32_t p, int32_t inside, int32_t *fetched_count) {
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
    qsort(w->region, (size_t)length, sizeof *w->region, pass_ascending);
    *fetched_count = fetched;
    return length;
}

/* Where room may be short, what the region makes again anyway need not be there twice. */
static void replace(Pass *w, int32_t length, int64_t before) {
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
            if (!w->resident[s] || g->acted_from[s] > w->touched[s]) continue;
            w->exact_option[s] = -1;
            pass_evict(w, s);
        }
    }
}

/* Remade storages that this position waits for: those that its op reads, else those on the way to them. */
static void note_remade(Pass *w, int32_t p, int32_t length) {
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

int pass_restore(Pass *w, int32_t p) {
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
    qsort(touches, (size_t)count, sizeof *touches, pass_ascending);
    for (int32_t k = 0; k < count; k++)
        if ((!k || touches[k] != touches[k - 1]) && w->resident[touches[k]]) pass_touch(w, touches[k], p);
    int64_t staged = 0;
    for (int32_t k = 0; k < fetched; k++) staged += g->option[3 * w->gone[w->fetched[k]].option + 2];
    for (int32_t k = 0; k < fetched; k++) {
        int32_t s = w->fetched[k];
        const int64_t *option = g->option + 3 * w->gone[s].option;
        if (!pass_make_room(w, p, before + g->size[s] + staged)) return 0;
        staged -= option[2];
        w->alive += g->size[s] - option[1];
        restored(w, s, p, NULL, 0, 0);
        pass_touch(w, s, p);
    }
    return !length || run_region(w, p, length, inside, before);
}
