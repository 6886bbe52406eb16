/* Decisions become entries, as plan/schedule/lower.py has them. */
#include "score.h"

/* Decisions by position, each list in the plan's order; the fetches of one position by their deadline. */
void score_sort_decisions(plan *s, const int64_t *chosen) {
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
void score_gather_groups(plan *s) {
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
                s->remade[s->writes[k]] = s->transient[s->writes[k]];
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

static void need_at(plan *s, int64_t storage, int32_t number) {
    if (s->last[storage] < number) s->last[storage] = number; /* what never dies has the largest number */
}

/* `with_drops`: a residency that ends neither in a drop nor with the step gets one after its last event. */
static void note(plan *s, int64_t storage, int32_t index, int what) {
    int32_t before = s->event[storage];
    s->event[storage] = 4 * (index + 1) + what;
    if (what != CREATE || !before || (before & 3) == DROPPED) return;
    entry *e = &s->entries[before / 4 - 1];
    s->drops[s->dropped] = (drop){(int32_t)storage, e->after};
    e->after = ++s->dropped;
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

void score_lower(plan *s) {
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
