/* The two sweeps of plan/swaps/placement.py that hand out room to transfers under way: the same doubles, in the same order. */
#include "native.h"

#include <stdlib.h>

#define AT(type, address) ((type *)(intptr_t)(address))

/* From which position on each item's bytes are gone: `swaps/placement.py:_gone`. */
static PyObject *plan_gone(PyObject *self, PyObject *args) {
    (void)self;
    long long n, positions, seconds_at, release_at, order_at, limit_at, nbytes_at, length_at, room_at, gone_at;
    if (!PyArg_ParseTuple(args, "LLLLLLLLLL", &n, &positions, &seconds_at, &release_at, &order_at, &limit_at,
                          &nbytes_at, &length_at, &room_at, &gone_at))
        return NULL;
    const double *seconds = AT(const double, seconds_at), *length = AT(const double, length_at);
    const int64_t *release = AT(const int64_t, release_at), *order = AT(const int64_t, order_at);
    const int64_t *limit = AT(const int64_t, limit_at), *nbytes = AT(const int64_t, nbytes_at);
    const int64_t *room = AT(const int64_t, room_at);
    int64_t *gone = AT(int64_t, gone_at);
    /* Items by limit, as lists: `first[position]`, `next[item]`; then the queue of the lane with its ends. */
    int64_t *first = malloc((size_t)(positions + 1 + 2 * n + 1) * sizeof *first);
    double *end = malloc((size_t)(n + 1) * sizeof *end);
    char *waiting = calloc((size_t)n + 1, 1);
    if (first == NULL || end == NULL || waiting == NULL) {
        free(first), free(end), free(waiting);
        return PyErr_NoMemory();
    }
    int64_t *next = first + positions + 1, *pending = next + n;
    for (int64_t p = 0; p <= positions; p++) first[p] = -1;
    for (int64_t i = 0; i < n; i++) {
        gone[i] = limit[i];
        if (limit[i] < 0 || limit[i] > positions) continue;
        next[i] = first[limit[i]];
        first[limit[i]] = i;
    }
    double now = 0.0, lane = 0.0;
    int64_t held = 0, following = 0, head = 0, tail = 0;
    for (int64_t p = 0; p < positions; p++) {
        for (int64_t i = first[p]; i >= 0; i = next[i])
            if (waiting[i]) waiting[i] = 0, held -= nbytes[i];
        while (head < tail && (!waiting[pending[head]] || end[pending[head]] <= now || held > room[p])) {
            int64_t i = pending[head++];
            if (!waiting[i]) continue;
            waiting[i] = 0;
            held -= nbytes[i];
            if (end[i] > now) now = end[i];
            gone[i] = p;
        }
        now += seconds[p];
        while (following < n && release[order[following]] == p) {
            int64_t i = order[following++];
            if (length[i] == 0.0) {
                gone[i] = p + 1 < limit[i] ? p + 1 : limit[i];
                continue;
            }
            lane = (lane > now ? lane : now) + length[i];
            end[i] = lane;
            pending[tail++] = i;
            waiting[i] = 1;
            held += nbytes[i];
        }
    }
    free(first), free(end), free(waiting);
    Py_RETURN_NONE;
}

/* Reads issued earlier than they strictly need, where room is left: `placement.py:_lead`; `room` is used up. */
static PyObject *plan_lead(PyObject *self, PyObject *args) {
    (void)self;
    long long n, positions, starts_at, order_at, free_at, fetch_at, nbytes_at, back_at, room_at, result_at;
    double lead;
    if (!PyArg_ParseTuple(args, "LLLLLLLLLLd", &n, &positions, &starts_at, &order_at, &free_at, &fetch_at, &nbytes_at,
                          &back_at, &room_at, &result_at, &lead))
        return NULL;
    const double *starts = AT(const double, starts_at), *back = AT(const double, back_at);
    const int64_t *order = AT(const int64_t, order_at), *gone = AT(const int64_t, free_at);
    const int64_t *fetch = AT(const int64_t, fetch_at), *nbytes = AT(const int64_t, nbytes_at);
    int64_t *room = AT(int64_t, room_at), *result = AT(int64_t, result_at);
    int64_t earliest = 0;
    for (int64_t k = 0; k < n; k++) {
        int64_t i = order[k], position = fetch[i], low = 0, high = positions;
        double wish = starts[position] - (lead - 1) * back[i];
        while (low < high) { /* first start behind the wish */
            int64_t middle = (low + high) / 2;
            if (starts[middle] <= wish) low = middle + 1;
            else high = middle;
        }
        int64_t lowest = low - 1;
        if (gone[i] > lowest) lowest = gone[i];
        if (earliest > lowest) lowest = earliest;
        result[i] = position;
        if (lowest < position && gone[i] < position) {
            int64_t start = position;
            while (start > lowest && room[start - 1] >= nbytes[i]) start--;
            for (int64_t p = start; p < position; p++) room[p] -= nbytes[i];
            result[i] = start;
        }
        if (result[i] > earliest) earliest = result[i];
    }
    Py_RETURN_NONE;
}

PyMethodDef outsize_plan_place_methods[] = {
    {"plan_gone", plan_gone, METH_VARARGS,
     "plan_gone(n, positions, seconds, release, order, limit, nbytes, length, room, gone): fills gone"},
    {"plan_lead", plan_lead, METH_VARARGS,
     "plan_lead(n, positions, starts, order, free, fetch, nbytes, back, room, result, lead): fills result"},
    {NULL, NULL, 0, NULL},
};
