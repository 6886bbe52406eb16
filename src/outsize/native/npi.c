/* The programmer-interpreter's machine over compiled tables: one execution after the other, explicit stacks.
 *
 * The same semantics as programs/npi/{machine,memory}.py, which is the oracle in the tests. Everything comes in one
 * block of 64-bit integers (addresses and sizes); what happened goes out through its last words. */
#include "native.h"

#include <stdlib.h>
#include <string.h>

enum { /* words of the block, in order; programs/npi/compiled.py writes them by these positions */
    EXECUTIONS, ARITY, CELLS, OFFSET, LENGTH, TAPE, POSITION, START, ACT, FOLLOW, OPS, OP_WIDTH, PRIMITIVES,
    PRIMITIVE_WIDTH, MAX_STEPS, MAX_DEPTH, POINTERS, VALUES, STATES, ACTIONS, SLOTS, PROGRAMS, /* in */
    STEPS, ERROR, EXECUTION, DETAIL_A, DETAIL_B, DEEPEST, WORDS /* out */
};
enum { READ, WRITE, TEST, RIGHT, LEFT, AT_END, AT_START, BEFORE, MEETS, GOTO, COPY, MIDDLE, SEEK, CALL, TAIL, RETURN,
       COMPUTE };
enum { FINE, OFF_TAPE, OUTSIDE, TOO_LONG, TOO_DEEP, NO_ANSWER, NO_MEMORY, INTERRUPTED, UNSOUND, OFF_CELLS };
enum { MOST_OPERANDS = 250 };
enum { CALL_EVERY = (1 << 22) - 1 }; /* steps between looks at Ctrl-C: about 0.1 s */

typedef struct { int64_t tape, position; } pointer;
typedef struct { int64_t base; int32_t program, state, pointers, values; } header;

typedef struct {
    int64_t *w;                  /* the block */
    pointer *pointers;           /* stack of pointers; registers index it */
    int64_t top, capacity;
    char *frames;                /* header, pointer registers (int64), value registers (int64) */
    int64_t stride, depth, room;
} machine;

static header *frame_at(machine *m, int64_t i) { return (header *)(m->frames + i * m->stride); }
static int64_t *registers(header *f) { return (int64_t *)(f + 1); }

static int grow_frames(machine *m) {
    if (m->depth + 2 <= m->room) return FINE;
    char *frames = realloc(m->frames, (size_t)(2 * m->room * m->stride));
    if (frames == NULL) return NO_MEMORY;
    m->frames = frames, m->room *= 2;
    return FINE;
}

static int grow_pointers(machine *m, int64_t to) { /* room for `to` pointers */
    if (to <= m->capacity) return FINE;
    pointer *pointers = realloc(m->pointers, (size_t)(2 * to) * sizeof *pointers);
    if (pointers == NULL) return NO_MEMORY;
    m->pointers = pointers, m->capacity = 2 * to;
    return FINE;
}

static int fail(machine *m, int code, int64_t a, int64_t b) {
    m->w[ERROR] = code, m->w[DETAIL_A] = a, m->w[DETAIL_B] = b;
    return code;
}

/* Whether each of `count` operands names one of the `known` registers of its kind. */
static int names(const int32_t *operands, int count, int32_t known) {
    for (int i = 0; i < count; i++)
        if (operands[i] < 0 || operands[i] >= known) return 0;
    return 1;
}

/* A value's rank in an input's domain, or -1. Input: low, size, ranks, stride; where the domain is too wide for an array
 * of ranks, the size is minus the number of its values and `ranks` are these themselves, ascending. */
static int64_t rank_of(const int64_t *input, int64_t value) {
    if (input[1] < 0) {
        const int64_t *values = (const int64_t *)input[2];
        int64_t low = 0, high = -input[1];
        while (low < high) {
            int64_t middle = (low + high) / 2;
            if (values[middle] < value) low = middle + 1;
            else high = middle;
        }
        return low < -input[1] && values[low] == value ? low : -1;
    }
    /* Unsigned, so that a distance of more than 63 bits is large and not an overflow. */
    uint64_t offset = (uint64_t)value - (uint64_t)input[0];
    return offset < (uint64_t)input[1] ? ((const int32_t *)input[2])[offset] : -1;
}

/* A primitive's answer from its table. Row: number of inputs (-1: the value itself), table, its length, then the inputs
 * (see `rank_of`). */
static int answer(machine *m, int32_t slot, const int32_t *operands, int count, header *f, int64_t *out) {
    const int64_t *values = registers(f) + m->w[POINTERS];
    if (slot < 0 || slot >= m->w[SLOTS] || count < 0 || !names(operands, count, f->values))
        return fail(m, UNSOUND, slot, count);
    const int64_t *row = (const int64_t *)m->w[PRIMITIVES] + slot * m->w[PRIMITIVE_WIDTH];
    if (count != (row[0] < 0 ? 1 : row[0])) return fail(m, UNSOUND, slot, count);
    if (row[0] < 0) return *out = values[operands[0]], FINE;
    int64_t index = 0;
    for (int i = 0; i < count; i++) {
        const int64_t *input = row + 3 + 4 * i;
        int64_t rank = rank_of(input, values[operands[i]]);
        if (rank < 0) return fail(m, OUTSIDE, slot, values[operands[i]]);
        index += rank * input[3];
    }
    if (index < 0 || index >= row[2]) return fail(m, UNSOUND, slot, index);
    *out = ((const int64_t *)row[1])[index]; /* the least integer: the program has no answer (slots.UNDEFINED) */
    return *out == INT64_MIN ? fail(m, OUTSIDE, slot, count ? values[operands[0]] : 0) : FINE;
}

static int place(machine *m, pointer *p, int64_t position) {
    if (position < -1 || position > ((int64_t *)m->w[LENGTH])[p->tape])
        return fail(m, OFF_TAPE, position, ((int64_t *)m->w[LENGTH])[p->tape]);
    p->position = position;
    return FINE;
}

static int64_t *cell(machine *m, const pointer *p) {
    if (p->position < 0 || p->position >= ((int64_t *)m->w[LENGTH])[p->tape]) {
        fail(m, OFF_CELLS, p->position, ((int64_t *)m->w[LENGTH])[p->tape] - 1);
        return NULL;
    }
    return (int64_t *)m->w[CELLS] + ((int64_t *)m->w[OFFSET])[p->tape] + p->position;
}

static int64_t *values_of(machine *m, header *f) { return registers(f) + m->w[POINTERS]; }

/* A new value register; there is room for as many as `sound.py` found that calls use. */
static int keep(machine *m, header *f, int64_t datum) {
    if (f->values >= m->w[VALUES]) return fail(m, UNSOUND, f->program, f->values);
    values_of(m, f)[f->values++] = datum;
    return FINE;
}

/* A call: `count` pointers and then `passed` values become the callee's first registers. */
static int enter(machine *m, header **frame, int32_t program, const int32_t *operands, int count, int passed, int tail) {
    header *f = *frame;
    int64_t rows[MOST_OPERANDS], given[MOST_OPERANDS];
    if (program < 0 || program >= m->w[PROGRAMS] || count > m->w[POINTERS] || passed < 0 || passed > m->w[VALUES] ||
        !names(operands, count, f->pointers) || !names(operands + count, passed, f->values))
        return fail(m, UNSOUND, program, count);
    for (int i = 0; i < passed; i++) given[i] = values_of(m, f)[operands[count + i]];
    for (int i = 0; i < count; i++) rows[i] = registers(f)[operands[i]];
    if (tail) { /* keep the frame's own pointers that are passed on, moved down to its base */
        pointer kept[MOST_OPERANDS];
        int64_t top = f->base;
        if (grow_pointers(m, top + count)) return fail(m, NO_MEMORY, top, 0);
        for (int i = 0; i < count; i++) kept[i] = m->pointers[rows[i]];
        for (int i = 0; i < count; i++)
            if (rows[i] >= f->base) m->pointers[rows[i] = top++] = kept[i];
        m->top = top;
    } else {
        if (grow_frames(m)) return fail(m, NO_MEMORY, m->depth, 0);
        if (++m->depth >= m->w[MAX_DEPTH]) return fail(m, TOO_DEEP, m->depth, m->w[MAX_DEPTH]);
        if (m->depth > m->w[DEEPEST]) m->w[DEEPEST] = m->depth;
        f = *frame = frame_at(m, m->depth);
        f->base = m->top;
    }
    f->program = program, f->state = -1, f->pointers = count, f->values = passed;
    memcpy(registers(f), rows, (size_t)count * sizeof *rows);
    memcpy(values_of(m, f), given, (size_t)passed * sizeof *given);
    return FINE;
}

/* One action; *seen is its observation. Returns an error code, and *frame follows calls and returns. */
static int act(machine *m, header **frame, const int32_t *op, int *seen) {
    header *f = *frame;
    int32_t verb = op[0], slot = op[1], program = op[2], count = op[3];
    const int32_t *operands = op + 4;
    int64_t *r = registers(f), *values = values_of(m, f), datum, *target;
    if (count < 0 || count > MOST_OPERANDS || count > m->w[OP_WIDTH] - 4) return fail(m, UNSOUND, verb, count);
    /* Of these the first operand alone, or none, is a pointer; of the others all are. */
    int pointers = verb == TEST || verb >= CALL ? 0 : verb == WRITE || verb == SEEK ? count > 0 : count;
    int least = verb == WRITE ? 1 : verb == SEEK || (verb >= BEFORE && verb <= GOTO) || verb == MIDDLE ? 2
              : verb == AT_END || verb == AT_START || verb == COPY ? 1 : 0;
    if (count < least || !names(operands, pointers, f->pointers)) return fail(m, UNSOUND, verb, count);
    if (verb == SEEK && !names(operands + 1, 1, f->values)) return fail(m, UNSOUND, verb, count);
    pointer *p = pointers ? &m->pointers[r[operands[0]]] : NULL;
    pointer *q = pointers > 1 && verb >= BEFORE && verb <= MIDDLE ? &m->pointers[r[operands[1]]] : NULL;
    *seen = 0;
    switch (verb) {
    case READ:
        for (int i = 0; i < count; i++) {
            if ((target = cell(m, &m->pointers[r[operands[i]]])) == NULL) return OFF_TAPE;
            if (keep(m, f, *target)) return UNSOUND;
        }
        return FINE;
    case WRITE:
        if (answer(m, slot, operands + 1, count - 1, f, &datum)) return OUTSIDE;
        if ((target = cell(m, p)) == NULL) return OFF_TAPE;
        *target = datum;
        return FINE;
    case TEST:
        if (answer(m, slot, operands, count, f, &datum)) return OUTSIDE;
        *seen = 1 + (datum != 0);
        return FINE;
    case RIGHT:
    case LEFT:
        for (int i = 0; i < count; i++) {
            pointer *one = &m->pointers[r[operands[i]]];
            if (place(m, one, one->position + (verb == RIGHT ? 1 : -1))) return OFF_TAPE;
        }
        return FINE;
    case AT_END: *seen = 1 + (p->position >= ((int64_t *)m->w[LENGTH])[p->tape]); return FINE;
    case AT_START: *seen = 1 + (p->position < 0); return FINE;
    case BEFORE: *seen = 1 + (p->position < q->position); return FINE;
    case MEETS: *seen = 1 + (p->position == q->position); return FINE;
    case GOTO: return place(m, p, q->position);
    case SEEK: return place(m, p, values[operands[1]]);
    case COPY:
    case MIDDLE: {
        pointer made = *p;
        if (f->pointers >= m->w[POINTERS]) return fail(m, UNSOUND, verb, f->pointers);
        if (verb == MIDDLE && place(m, &made, (p->position + q->position) >> 1)) return OFF_TAPE;
        if (grow_pointers(m, m->top + 1)) return fail(m, NO_MEMORY, m->top, 0);
        m->pointers[m->top] = made;
        r[f->pointers++] = m->top++;
        return FINE;
    }
    case CALL:
    case TAIL:
        if (slot < 0 || slot > count) return fail(m, UNSOUND, verb, slot);
        return enter(m, frame, program, operands, slot, count - slot, verb == TAIL);
    case COMPUTE:
        if (answer(m, slot, operands, count, f, &datum)) return OUTSIDE;
        return keep(m, f, datum);
    case RETURN: /* its observation is in `program`, the value that it returns is its operand */
        if (count > 1 || !names(operands, count, f->values)) return fail(m, UNSOUND, verb, count);
        datum = count ? values[operands[0]] : 0;
        m->top = f->base;
        *seen = program;
        m->depth--;
        *frame = f = m->depth >= 0 ? frame_at(m, m->depth) : NULL;
        return count && f != NULL ? keep(m, f, datum) : FINE;
    default: return fail(m, UNSOUND, verb, count);
    }
}

/* Whether Ctrl-C was pressed; the exception is set then. */
static int interrupted(void) {
    PyGILState_STATE state = PyGILState_Ensure();
    int stop = PyErr_CheckSignals();
    PyGILState_Release(state);
    return stop;
}

static int execute(machine *m, int64_t e) {
    int64_t *w = m->w, arity = w[ARITY];
    const int32_t *start = (const int32_t *)w[START], *acts = (const int32_t *)w[ACT];
    const int32_t(*follow)[3] = (const int32_t(*)[3])w[FOLLOW];
    m->depth = 0, m->top = arity;
    header *f = frame_at(m, 0);
    *f = (header){.base = arity, .program = 0, .state = -1, .pointers = (int32_t)arity, .values = 0};
    for (int64_t i = 0; i < arity; i++) {
        m->pointers[i] = (pointer){((int64_t *)w[TAPE])[e * arity + i], ((int64_t *)w[POSITION])[e * arity + i]};
        registers(f)[i] = i;
    }
    int seen = 0, code = FINE;
    int64_t steps = 0;
    while (f != NULL && code == FINE) {
        if (w[MAX_STEPS] >= 0 && steps >= w[MAX_STEPS]) code = fail(m, TOO_LONG, steps, 0);
        else {
            f->state = f->state < 0 ? start[f->program] : follow[f->state][seen];
            if (f->state < 0) code = fail(m, NO_ANSWER, f->program, seen);
            else if (f->state >= w[STATES] || acts[f->state] < 0 || acts[f->state] >= w[ACTIONS])
                code = fail(m, UNSOUND, f->state, seen);
            else code = act(m, &f, (const int32_t *)w[OPS] + acts[f->state] * w[OP_WIDTH], &seen), steps++;
        }
        if ((steps & CALL_EVERY) == CALL_EVERY && interrupted()) code = fail(m, INTERRUPTED, steps, 0);
    }
    w[STEPS] += steps;
    for (int64_t i = 0; i < arity; i++) ((int64_t *)w[POSITION])[e * arity + i] = m->pointers[i].position;
    return code;
}

static PyObject *npi_run(PyObject *self, PyObject *args) {
    unsigned long long address;
    (void)self;
    if (!PyArg_ParseTuple(args, "K", &address)) return NULL;
    int64_t *w = (int64_t *)(uintptr_t)address;
    machine m = {.w = w, .capacity = 64 + w[ARITY] + w[POINTERS], .room = 64};
    m.stride = (int64_t)sizeof(header) + 8 * (w[POINTERS] + w[VALUES]);
    m.pointers = malloc((size_t)m.capacity * sizeof *m.pointers);
    m.frames = malloc((size_t)(m.room * m.stride));
    if (m.pointers == NULL || m.frames == NULL) w[ERROR] = NO_MEMORY;
    else {
        Py_BEGIN_ALLOW_THREADS
        for (int64_t e = 0; e < w[EXECUTIONS] && w[ERROR] == FINE; e++)
            if (execute(&m, e)) w[EXECUTION] = e;
        Py_END_ALLOW_THREADS
    }
    free(m.pointers);
    free(m.frames);
    if (w[ERROR] == INTERRUPTED) return NULL;
    Py_RETURN_NONE;
}

PyMethodDef outsize_npi_methods[] = {
    {"npi_run", npi_run, METH_VARARGS, "Run executions over compiled tables; the argument is the block's address."},
    {NULL, NULL, 0, NULL},
};
