/* The door to scores: what comes in is measured, laid out, lowered and simulated. */
#include "score.h"

/* Finds the rows, refuses what lower.py would refuse and what would lead out of an array; sizes the scratch. */
static int measure(plan *s, const int64_t *chosen) {
    const int64_t *rows = word(s, ROWS), *regions = word(s, REGIONS);
    s->region_room = 0;
    s->drop_room = s->write_at[s->ops] + 2 * s->count;
    for (int64_t i = 0; i < s->count; i++) {
        const int64_t *d = rows + chosen[i] * ROW;
        if (d[ACTION] < 0 || d[ACTION] >= ACTIONS || d[STORAGE] < 0 || d[STORAGE] >= s->storages) return NO_PLAN;
        if (!s->transient[d[STORAGE]] || d[AFTER] < 0 || d[AFTER] >= d[FREE] || d[FREE] > d[FETCH]) return NO_PLAN;
        if (d[FETCH] > d[BEFORE] || d[BEFORE] >= s->ops) return NO_PLAN;
        if (d[ACTION] != RECOMPUTE) continue;
        for (int64_t k = 0; k < d[LENGTH]; k++) {
            int64_t op = regions[d[REGION] + k];
            if (op < 0 || op >= s->ops) return NO_PLAN;
            s->drop_room += s->write_at[op + 1] - s->write_at[op];
            s->region_room += 1 + s->read_at[op + 1] - s->read_at[op]; /* a clone, and drops after it */
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

static PyObject *plan_score(PyObject *self, PyObject *args) {
    unsigned long long block, chosen, curve, spent;
    long long count;
    size_t zeros, bytes;
    (void)self;
    if (!PyArg_ParseTuple(args, "KKLKK", &block, &chosen, &count, &curve, &spent)) return NULL;
    plan s = {.w = (const int64_t *)(uintptr_t)block, .count = count};
    s.ops = s.w[OPS], s.storages = s.w[STORAGES], s.size = word(&s, SIZE), s.transient = word(&s, TRANSIENT);
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
    for (int64_t x = 0; x < s.storages; x++) s.last[x] = s.transient[x] ? 0 : INT32_MAX;
    score_sort_decisions(&s, (const int64_t *)(uintptr_t)chosen);
    score_gather_groups(&s);
    score_lower(&s);
    if (score_simulate(&s)) return Py_BuildValue("i", NO_PLAN);
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
