/* The codec's drivers: blocks in parallel, one reading of memory.
 *
 * Chunks of blocks are taken in order by the threads. A thread reads its chunk once: bitmap, table, and the
 * values packed into room of its own. It learns where its values start from the chunk before it, tells the
 * chunk after it where to start, and only then moves them there: so the scan runs along the chunks while all
 * else overlaps. Large outputs are written past the cache, which saves reading them first.
 */
#include "codec.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if defined(_WIN32)
#define yield() ((void)0)
#else
#include <pthread.h>
#include <sched.h>
#define yield() sched_yield()
#endif

/* Dense bytes of a chunk. Its packed values take as much at most, on the thread's stack and in its cache. */
enum { CHUNK_BYTES = 64 << 10 };
enum { MAX_THREADS = 64, SPINS = 2000, PIECE = 4096, STAGE = 64 + BLOCK * 8 + SLACK };
/* Outputs from this size on bypass the cache: they would not stay in a last-level cache anyway. */
#ifndef STREAM_BYTES /* a test sets a small one */
#define STREAM_BYTES (8 << 20)
#endif

/* A thread's own: what it has added up, and room for the values of a chunk. */
typedef struct {
    uint64_t digest;
    int negative;
    _Alignas(64) uint8_t values[CHUNK_BYTES + SLACK];
} lane;

typedef struct shared {
    codec_job *job;
    void (*work)(struct shared *, int64_t chunk, lane *own);
    int64_t blocks, chunks, in_chunk, threads; /* in_chunk: blocks of a chunk */
    _Atomic int64_t next;
    _Atomic int64_t *start; /* encode: chunks + 1 of them, −1 while unknown; others: known beforehand */
    _Atomic uint64_t digest;
    _Atomic int64_t bad_block;
    _Atomic int negative;
} shared;

static inline int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

uint64_t codec_digest_bytes(const codec_level *level, const uint8_t *at, size_t bytes, uint64_t offset) {
    uint64_t sum = 0, word = offset / 4;
    uint32_t part = 0;
    size_t head = at_most((4 - offset % 4) % 4, bytes);
    if (head) {
        memcpy((uint8_t *)&part + offset % 4, at, head);
        sum += codec_term(part, word++);
        at += head, bytes -= head;
    }
    sum += level->digest((const loose_word *)at, bytes / 4, (uint32_t)word * DIGEST_KEY);
    if (bytes % 4) {
        part = 0, word += bytes / 4;
        memcpy(&part, at + bytes / 4 * 4, bytes % 4);
        sum += codec_term(part, word);
    }
    return sum;
}

/* A block's place: its elements, whole groups and the elements of a last, partial group. */
typedef struct {
    int64_t first, count;
    size_t groups, whole, rest;
} place;

static place place_of(const codec_job *job, int64_t block) {
    place p = {.first = block * BLOCK};
    p.count = at_most(BLOCK, job->n - p.first);
    p.groups = (size_t)(p.count + GROUP - 1) / GROUP, p.whole = (size_t)p.count / GROUP;
    p.rest = (size_t)p.count % GROUP;
    return p;
}

static int mark(const codec_job *job, const uint8_t *x, uint8_t *y, size_t groups, uint64_t *bits) {
    const codec_level *level = job->level;
    if (job->operation == NONZERO) return level->nonzero[job->width](x, groups, bits);
    if (job->operation == RELU) return level->relu[job->width](x, y, groups, bits, job->neg_inf);
    level->gate[job->width](x, groups, bits, job->neg_inf);
    return 0;
}

/* Starts the reading of a later block. */
static void ask_for(const codec_job *job, int64_t block) {
    int64_t first = block * BLOCK;
    if (first + BLOCK > job->n) return;
    const uint8_t *x = job->x + ((size_t)first << job->width);
    for (size_t at = 0; at < (size_t)BLOCK << job->width; at += 64) __builtin_prefetch(x + at, 0, 3);
}

/* Writes whole lines past the cache where `to` lies on one, the rest as usual. */
static void put(const codec_level *level, uint8_t *to, const uint8_t *from, size_t bytes, int streams) {
    size_t head = streams ? (size_t)at_most((int64_t)((64 - (uintptr_t)to % 64) % 64), (int64_t)bytes) : bytes;
    memcpy(to, from, head);
    size_t lines = (bytes - head) / 64;
    if (lines) level->stream(to + head, from + head, lines);
    memcpy(to + head + 64 * lines, from + head + 64 * lines, bytes - head - 64 * lines);
}

static int streams(const codec_job *job) { return job->n << job->width >= STREAM_BYTES; }

/* Marks one block: its bits, its values at `to` if any are wanted, and in the fused form the activation. */
static void mark_block(const codec_job *job, const place *p, uint64_t *bits, uint8_t *to, lane *own) {
    _Alignas(64) uint8_t stage[BLOCK * 8];
    const uint8_t *x = job->x + ((size_t)p->first << job->width);
    uint8_t *y = job->operation == RELU ? job->y + ((size_t)p->first << job->width) : NULL;
    size_t size = (size_t)p->count << job->width;
    if (p->rest) { /* only the last block: a copy that ends in zeros */
        memset(stage + size, 0, (GROUP - p->rest) << job->width);
        x = memcpy(stage, x, size);
    }
    if (job->operation == NONZERO && to) {
        own->negative |= job->level->squeeze[job->width](x, p->groups, bits, to);
        return;
    }
    uint8_t *made = y && !p->rest && !streams(job) ? y : stage;
    own->negative |= mark(job, x, made, p->groups, bits);
    if (y && made != y) put(job->level, y, made, size, streams(job));
    if (to) job->level->pack[job->width](made, bits, p->groups, to);
}

/* Bitmap and table entry of one block, and their digest; its number of values. */
static int64_t count_block(const codec_job *job, int64_t block, const place *p, const uint64_t *bits,
                           lane *own) {
    uint8_t *at = job->bitmap + block * (BLOCK / 8);
    memcpy(at, bits, 8 * p->groups);
    if (p->groups % 2) memset(at + 8 * p->groups, 0, 8); /* the region is padded to 16 bytes */
    own->digest += codec_digest_bytes(job->level, at, 8 * p->groups, (uint64_t)(at - job->base));
    int64_t count = job->level->count(bits, p->groups);
    if (job->table) {
        uint32_t entry = (uint32_t)count;
        job->table[block] = entry;
        own->digest += codec_term(entry, (uint64_t)((uint8_t *)(job->table + block) - job->base) / 4);
    }
    return count;
}

/* A chunk's packed values to where they belong. */
static void put_values(const codec_job *job, int64_t start, int64_t count, lane *own) {
    if (start + count > job->capacity) return; /* an overflow: the caller learns it from nnz */
    uint8_t *to = job->values + ((size_t)start << job->width), *from = own->values;
    size_t bytes = (size_t)count << job->width;
    size_t first = PIECE - (uintptr_t)to % 64;
    for (size_t done = 0, part; done < bytes; done += part) {
        part = (size_t)at_most((int64_t)(done ? PIECE : first), (int64_t)(bytes - done));
        own->digest += codec_digest_bytes(job->level, from + done, part, (uint64_t)(to + done - job->base));
        put(job->level, to + done, from + done, part, streams(job));
    }
}

static void encode_chunk(shared *all, int64_t chunk, lane *own) {
    const codec_job *job = all->job;
    uint64_t bits[GROUPS];
    int64_t first = chunk * all->in_chunk, end = at_most(first + all->in_chunk, all->blocks);
    int64_t count = 0, start;
    for (int64_t b = first; b < end; b++) {
        place p = place_of(job, b);
        mark_block(job, &p, bits, job->values ? own->values + ((size_t)count << job->width) : NULL, own);
        count += count_block(job, b, &p, bits, own);
    }
    for (int spins = 0; (start = atomic_load_explicit(&all->start[chunk], memory_order_acquire)) < 0;)
        if (++spins > SPINS) yield();
    atomic_store_explicit(&all->start[chunk + 1], start + count, memory_order_release);
    if (job->values) put_values(job, start, count, own);
}

static void copy_chunk(shared *all, int64_t chunk, lane *own) {
    const codec_job *job = all->job;
    uint64_t bits[GROUPS];
    _Alignas(64) uint8_t stage[BLOCK * 8];
    int64_t first = chunk * all->in_chunk, end = at_most(first + all->in_chunk, all->blocks);
    int64_t start = all->start[chunk], count = 0;
    for (int64_t b = first; b < end; b++) {
        place p = place_of(job, b);
        const uint8_t *x = job->x + ((size_t)p.first << job->width);
        if (p.rest) x = memcpy(stage, x, (size_t)p.count << job->width);
        ask_for(job, b + 1);
        memcpy(bits, job->bitmap + b * (BLOCK / 8), 8 * p.groups);
        job->level->pack[job->width](x, bits, p.groups, own->values + ((size_t)count << job->width));
        count += job->level->count(bits, p.groups);
    }
    put_values(job, start, count, own);
}

/* One block back to dense; 0 if its bitmap and count disagree. `values` is the address of its first value. */
static int unpack_block(const codec_job *job, int64_t block, const uint8_t *values, lane *own) {
    place p = place_of(job, block);
    uint64_t bits[GROUPS];
    uint8_t *at = job->bitmap + block * (BLOCK / 8), *y = job->y + ((size_t)p.first << job->width);
    memcpy(bits, at, 8 * p.groups);
    int64_t count = job->level->count(bits, p.groups);
    if (count != (int64_t)job->table[block] || (p.rest && bits[p.whole] >> p.rest)) return 0;
    size_t bytes = (size_t)count << job->width, size = (size_t)p.count << job->width;
    own->digest += codec_digest_bytes(job->level, at, 8 * p.groups, (uint64_t)(at - job->base));
    own->digest += codec_digest_bytes(job->level, values, bytes, (uint64_t)(values - job->base));
    _Alignas(64) uint8_t from[STAGE], to[STAGE];
    if (values + bytes + SLACK > job->values + ((size_t)job->nnz << job->width)) {
        memcpy(from, values, bytes); /* reading past the last values would leave the buffer */
        values = from;
    }
    uint8_t *made = !p.rest && !streams(job) ? y : to;
    job->level->unpack[job->width](values, bits, p.groups, made);
    if (made != y) put(job->level, y, made, size, streams(job));
    return 1;
}

static void decode_chunk(shared *all, int64_t chunk, lane *own) {
    const codec_job *job = all->job;
    int64_t first = chunk * all->in_chunk, end = at_most(first + all->in_chunk, all->blocks);
    int64_t index = all->start[chunk];
    for (int64_t b = first; b < end; index += job->table[b++])
        if (!unpack_block(job, b, job->values + ((size_t)index << job->width), own)) {
            int64_t none = -1; /* one bad block is enough to refuse the whole */
            atomic_compare_exchange_strong(&all->bad_block, &none, b);
            return;
        }
    own->digest += codec_digest_bytes(job->level, (uint8_t *)(job->table + first), 4 * (size_t)(end - first),
                                  (uint64_t)((uint8_t *)(job->table + first) - job->base));
}

static void select_chunk(shared *all, int64_t chunk, lane *own) {
    const codec_job *job = all->job;
    int64_t first = chunk * all->in_chunk, end = at_most(first + all->in_chunk, all->blocks);
    uint8_t ones[GROUP * 8];
    for (int i = 0; i < GROUP; i++)
        memcpy(ones + ((size_t)i << job->width), &job->one, (size_t)1 << job->width);
    for (int64_t b = first; b < end; b++) {
        place p = place_of(job, b);
        uint64_t bits[GROUPS];
        uint8_t *at = job->bitmap + b * (BLOCK / 8), *y = job->y + ((size_t)p.first << job->width);
        const uint8_t *x = job->x ? job->x + ((size_t)p.first << job->width) : NULL;
        memcpy(bits, at, 8 * p.groups);
        own->digest += codec_digest_bytes(job->level, at, 8 * p.groups, (uint64_t)(at - job->base));
        if (x) job->level->select[job->width](x, bits, p.whole, y);
        size_t step = (size_t)GROUP << job->width;
        for (size_t g = x ? p.whole : 0; g < p.groups; g++) {
            uint8_t in[GROUP * 8] = {0}, out[GROUP * 8];
            size_t bytes = g < p.whole ? step : p.rest << job->width;
            if (x) memcpy(in, x + g * step, bytes);
            job->level->select[job->width](x ? in : ones, bits + g, 1, out);
            memcpy(y + g * step, out, bytes);
        }
    }
}

static void *worker(void *argument) {
    shared *all = argument;
    lane own;
    own.digest = 0, own.negative = 0;
    for (int64_t chunk; (chunk = atomic_fetch_add(&all->next, 1)) < all->chunks;) all->work(all, chunk, &own);
#if defined(__x86_64__)
    __builtin_ia32_sfence(); /* streamed stores become visible before the thread is joined */
#endif
    atomic_fetch_add(&all->digest, own.digest);
    if (own.negative) atomic_store_explicit(&all->negative, 1, memory_order_relaxed);
    return NULL;
}

static void run(shared *all) {
    codec_job *job = all->job;
#if !defined(_WIN32)
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    while (started < all->threads - 1 && !pthread_create(&others[started], NULL, worker, all)) started++;
    worker(all);
    while (started) pthread_join(others[--started], NULL);
#else
    worker(all);
#endif
    job->digest = all->digest;
    job->bad_block = all->bad_block;
    job->negative = all->negative;
}

static int prepare(shared *all, codec_job *job, void (*work)(shared *, int64_t, lane *)) {
    memset(all, 0, sizeof *all);
    all->job = job, all->work = work, all->bad_block = -1;
    all->blocks = (job->n + BLOCK - 1) / BLOCK;
    all->in_chunk = CHUNK_BYTES / (BLOCK << job->width);
    all->chunks = (all->blocks + all->in_chunk - 1) / all->in_chunk;
    all->threads = at_most(at_most(job->threads, MAX_THREADS), (all->chunks + 1) / 2);
    all->start = malloc(sizeof *all->start * (size_t)(all->chunks + 1));
    return all->start ? 0 : -1;
}

/* Starts of the chunks from the table; the table's sum. */
static uint64_t scan_table(shared *all) {
    uint64_t sum = 0;
    for (int64_t b = 0; b < all->blocks; b++) {
        if (b % all->in_chunk == 0) all->start[b / all->in_chunk] = (int64_t)sum;
        sum += all->job->table[b];
    }
    all->start[all->chunks] = (int64_t)sum;
    return sum;
}

int codec_run_encode(codec_job *job) {
    shared all;
    if (prepare(&all, job, encode_chunk)) return -1;
    for (int64_t c = 0; c <= all.chunks; c++) all.start[c] = c ? -1 : 0;
    run(&all);
    job->nnz = all.start[all.chunks];
    free(all.start);
    return 0;
}

int codec_run_copy(codec_job *job) {
    shared all;
    if (prepare(&all, job, copy_chunk)) return -1;
    job->nnz = (int64_t)scan_table(&all);
    run(&all);
    free(all.start);
    return 0;
}

int codec_run_decode(codec_job *job) {
    shared all;
    if (prepare(&all, job, decode_chunk)) return -1;
    int off = scan_table(&all) != (uint64_t)job->nnz;
    if (!off) run(&all);
    free(all.start);
    return off;
}

int codec_run_select(codec_job *job) {
    shared all;
    if (prepare(&all, job, select_chunk)) return -1;
    run(&all);
    free(all.start);
    return 0;
}
