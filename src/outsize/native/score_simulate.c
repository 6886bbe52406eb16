/* Seconds and bytes of the entries, as plan/schedule/simulate.py has them. */
#include "score.h"

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

int score_simulate(plan *s) {
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
            for (int32_t i = e->after; i; i = s->drops[i - 1].next) release(s, s->drops[i - 1].storage);
        }
        if (s->curve) s->curve[p] = most;
        if (most > s->peak) s->peak = most;
    }
    return 0;
}
