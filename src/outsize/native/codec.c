/* The codec's drivers: blocks in parallel, one reading of memory.
 *
 * Chunks of blocks are taken in order by the threads. A thread counts its chunk (bitmap and table; the input
 * is now in its cache), learns where its values start from the chunk before it, tells the chunk after it
 * where to start, and only then copies: so the scan runs along the chunks while the copies overlap, and the
 * input is read from memory once. Large outputs are written past the cache, which saves reading them first.
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

/* 32 blocks are 128 KiB of fp32: with its packed values half of a 1 MiB second-level cache. */
enum { CHUNK = 32, MAX_THREADS = 64, SPINS = 2000, STAGE = 64 + BLOCK * 8 + SLACK };
/* Outputs from this size on bypass the cache: they would not stay in a last-level cache anyway. */
static const int64_t STREAM_BYTES = 8 << 20;

typedef struct shared {
    codec_job *job;
    void (*work)(struct shared *, int64_t chunk, uint64_t *digest);
    int64_t chunks;
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

/* Bitmap, table entry and digest of one block; its number of values. */
static int64_t count_block(const codec_job *job, int64_t block, uint64_t *bits, uint64_t *digest,
                           int *negative) {
    place p = place_of(job, block);
    size_t from = (size_t)p.first << job->width, split = p.whole * GROUP << job->width;
    *negative |= mark(job, job->x + from, job->y ? job->y + from : NULL, p.whole, bits);
    if (p.rest) {
        uint8_t in[GROUP * 8] = {0}, out[GROUP * 8];
        memcpy(in, job->x + from + split, p.rest << job->width);
        *negative |= mark(job, in, out, 1, bits + p.whole);
        if (job->operation == RELU) memcpy(job->y + from + split, out, p.rest << job->width);
    }
    uint8_t *at = job->bitmap + block * (BLOCK / 8);
    memcpy(at, bits, 8 * p.groups);
    if (p.groups % 2) memset(at + 8 * p.groups, 0, 8); /* the region is padded to 16 bytes */
    *digest += codec_digest_bytes(job->level, at, 8 * p.groups, (uint64_t)(at - job->base));
    int64_t count = job->level->count(bits, p.groups);
    if (job->table) {
        uint32_t entry = (uint32_t)count;
        job->table[block] = entry;
        *digest += codec_term(entry, (uint64_t)((uint8_t *)(job->table + block) - job->base) / 4);
    }
    return count;
}

/* Where a chunk's packed bytes go: straight to memory, or in whole lines past the cache from a stage. */
typedef struct {
    uint8_t *to, *end, *stage;
    size_t fill, skip; /* bytes in the stage; of the first line, how many are someone else's */
    int streams;
} sink;

static void drain(sink *s, const codec_level *level, int last) {
    size_t lines = s->fill / 64, done = 0;
    if (s->skip && (lines || last)) {
        size_t upto = last && !lines ? s->fill : 64;
        memcpy(s->to, s->stage + s->skip, upto - s->skip);
        s->to += upto - s->skip, s->skip = 0, done = upto;
        if (lines) lines--;
    }
    level->stream(s->to, s->stage + done, lines);
    s->to += 64 * lines, done += 64 * lines;
    if (last)
        memcpy(s->to, s->stage + done, s->fill - done);
    else
        memmove(s->stage, s->stage + done, s->fill - done);
    s->fill -= done;
}

static void pack_block(const codec_job *job, int64_t block, const uint64_t *bits, sink *s, uint64_t *digest) {
    place p = place_of(job, block);
    const uint8_t *x = (job->operation == RELU ? job->y : job->x) + ((size_t)p.first << job->width);
    uint8_t staged[STAGE], *at = s->streams ? s->stage + s->fill : s->to;
    size_t split = p.whole * GROUP << job->width;
    size_t bytes = (size_t)job->level->count(bits, p.groups) << job->width;
    int direct = s->streams || (s->end - s->to >= (ptrdiff_t)(bytes + SLACK));
    if (!direct) at = staged;
    job->level->pack[job->width](x, bits, p.whole, at);
    if (p.rest) {
        uint8_t in[GROUP * 8] = {0}, out[GROUP * 8 + SLACK];
        size_t tail = (size_t)job->level->count(bits + p.whole, 1) << job->width;
        memcpy(in, x + split, p.rest << job->width);
        job->level->pack[job->width](in, bits + p.whole, 1, out);
        memcpy(at + bytes - tail, out, tail);
    }
    if (!direct) memcpy(s->to, staged, bytes);
    uint8_t *home = s->streams ? s->to - s->skip + s->fill : s->to;
    if (job->base) *digest += codec_digest_bytes(job->level, at, bytes, (uint64_t)(home - job->base));
    if (s->streams) {
        s->fill += bytes;
        drain(s, job->level, 0);
    } else {
        s->to += bytes;
    }
}

/* Starts the reading of a block that this thread will probably count next, while it is busy writing. */
static void ask_for(const codec_job *job, int64_t block) {
    int64_t first = block * BLOCK;
    if (first + BLOCK > job->n) return;
    const uint8_t *x = job->x + ((size_t)first << job->width);
    for (size_t at = 0; at < (size_t)BLOCK << job->width; at += 64) __builtin_prefetch(x + at, 0, 2);
}

static void pack_chunk(const codec_job *job, int64_t chunk, const uint64_t *bits, int64_t start,
                       int64_t count, uint64_t *digest) {
    if (start + count > job->capacity) return; /* an overflow: the caller learns it from nnz */
    _Alignas(64) uint8_t stage[STAGE + 64];
    int64_t end = at_most((chunk + 1) * CHUNK, (job->n + BLOCK - 1) / BLOCK);
    uint8_t *to = job->values + ((size_t)start << job->width);
    sink s = {.to = to, .end = to + ((size_t)count << job->width), .stage = stage};
    s.streams = job->n << job->width >= STREAM_BYTES;
    if (s.streams) s.fill = s.skip = (uintptr_t)to % 64;
    for (int64_t b = chunk * CHUNK; b < end; b++, bits += GROUPS) {
        ask_for(job, b + (int64_t)CHUNK * job->threads);
        pack_block(job, b, bits, &s, digest);
    }
    if (s.streams) drain(&s, job->level, 1);
}

static void encode_chunk(shared *all, int64_t chunk, uint64_t *digest) {
    const codec_job *job = all->job;
    uint64_t bits[CHUNK * GROUPS];
    int64_t end = at_most((chunk + 1) * CHUNK, (job->n + BLOCK - 1) / BLOCK), count = 0, start;
    int negative = 0;
    for (int64_t b = chunk * CHUNK; b < end; b++)
        count += count_block(job, b, bits + (b - chunk * CHUNK) * GROUPS, digest, &negative);
    if (negative) atomic_store_explicit(&all->negative, 1, memory_order_relaxed);
    for (int spins = 0; (start = atomic_load_explicit(&all->start[chunk], memory_order_acquire)) < 0;)
        if (++spins > SPINS) yield();
    atomic_store_explicit(&all->start[chunk + 1], start + count, memory_order_release);
    if (job->values) pack_chunk(job, chunk, bits, start, count, digest);
}

static void copy_chunk(shared *all, int64_t chunk, uint64_t *digest) {
    const codec_job *job = all->job;
    uint64_t bits[CHUNK * GROUPS];
    int64_t first = chunk * CHUNK,
            groups = at_most(CHUNK * GROUPS, (job->n + GROUP - 1) / GROUP - first * GROUPS);
    memcpy(bits, job->bitmap + first * (BLOCK / 8), 8 * (size_t)groups);
    pack_chunk(job, chunk, bits, all->start[chunk], all->start[chunk + 1] - all->start[chunk], digest);
}

/* One block back to dense; 0 if its bitmap and count disagree. `values` is the address of its first value. */
static int unpack_block(const codec_job *job, int64_t block, const uint8_t *values, uint64_t *digest) {
    place p = place_of(job, block);
    uint64_t bits[GROUPS];
    uint8_t *at = job->bitmap + block * (BLOCK / 8), *y = job->y + ((size_t)p.first << job->width);
    memcpy(bits, at, 8 * p.groups);
    int64_t count = job->level->count(bits, p.groups);
    if (count != (int64_t)job->table[block] || (p.rest && bits[p.whole] >> p.rest)) return 0;
    size_t bytes = (size_t)count << job->width, size = (size_t)p.count << job->width;
    *digest += codec_digest_bytes(job->level, at, 8 * p.groups, (uint64_t)(at - job->base));
    *digest += codec_digest_bytes(job->level, values, bytes, (uint64_t)(values - job->base));
    _Alignas(64) uint8_t from[STAGE], to[STAGE];
    if (values + bytes + SLACK > job->values + ((size_t)job->nnz << job->width)) {
        memcpy(from, values, bytes); /* reading past the last values would leave the buffer */
        values = from;
    }
    int streams = job->n << job->width >= STREAM_BYTES && (uintptr_t)y % 64 == 0;
    int staged = p.rest || streams;
    job->level->unpack[job->width](values, bits, p.groups, staged ? to : y);
    if (streams && !p.rest)
        job->level->stream(y, to, size / 64);
    else if (staged)
        memcpy(y, to, size);
    return 1;
}

static void decode_chunk(shared *all, int64_t chunk, uint64_t *digest) {
    const codec_job *job = all->job;
    int64_t end = at_most((chunk + 1) * CHUNK, (job->n + BLOCK - 1) / BLOCK), index = all->start[chunk];
    for (int64_t b = chunk * CHUNK; b < end; index += job->table[b++])
        if (!unpack_block(job, b, job->values + ((size_t)index << job->width), digest)) {
            int64_t none = -1; /* one bad block is enough to refuse the whole */
            atomic_compare_exchange_strong(&all->bad_block, &none, b);
            return;
        }
    *digest += codec_digest_bytes(job->level, (uint8_t *)(job->table + chunk * CHUNK),
                                  4 * (size_t)(end - chunk * CHUNK),
                                  (uint64_t)((uint8_t *)(job->table + chunk * CHUNK) - job->base));
}

static void select_chunk(shared *all, int64_t chunk, uint64_t *digest) {
    const codec_job *job = all->job;
    int64_t end = at_most((chunk + 1) * CHUNK, (job->n + BLOCK - 1) / BLOCK);
    uint8_t ones[GROUP * 8];
    for (int i = 0; i < GROUP; i++)
        memcpy(ones + ((size_t)i << job->width), &job->one, (size_t)1 << job->width);
    for (int64_t b = chunk * CHUNK; b < end; b++) {
        place p = place_of(job, b);
        uint64_t bits[GROUPS];
        uint8_t *at = job->bitmap + b * (BLOCK / 8), *y = job->y + ((size_t)p.first << job->width);
        const uint8_t *x = job->x ? job->x + ((size_t)p.first << job->width) : NULL;
        memcpy(bits, at, 8 * p.groups);
        *digest += codec_digest_bytes(job->level, at, 8 * p.groups, (uint64_t)(at - job->base));
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
    uint64_t digest = 0;
    for (int64_t chunk; (chunk = atomic_fetch_add(&all->next, 1)) < all->chunks;)
        all->work(all, chunk, &digest);
#if defined(__x86_64__)
    __builtin_ia32_sfence(); /* streamed stores become visible before the thread is joined */
#endif
    atomic_fetch_add(&all->digest, digest);
    return NULL;
}

static void run(shared *all) {
    codec_job *job = all->job;
    int64_t threads = at_most(at_most(job->threads, MAX_THREADS), (all->chunks + 1) / 2);
#if !defined(_WIN32)
    pthread_t others[MAX_THREADS];
    int64_t started = 0;
    while (started < threads - 1 && !pthread_create(&others[started], NULL, worker, all)) started++;
    worker(all);
    while (started) pthread_join(others[--started], NULL);
#else
    (void)threads;
    worker(all);
#endif
    job->digest = all->digest;
    job->bad_block = all->bad_block;
    job->negative = all->negative;
}

static int prepare(shared *all, codec_job *job, void (*work)(shared *, int64_t, uint64_t *)) {
    memset(all, 0, sizeof *all);
    all->job = job, all->work = work, all->bad_block = -1;
    all->chunks = (job->n + (int64_t)BLOCK * CHUNK - 1) / ((int64_t)BLOCK * CHUNK);
    all->start = malloc(sizeof *all->start * (size_t)(all->chunks + 1));
    return all->start ? 0 : -1;
}

/* Starts of the chunks from the table; the table's sum. */
static uint64_t scan_table(shared *all) {
    int64_t blocks = (all->job->n + BLOCK - 1) / BLOCK;
    uint64_t sum = 0;
    for (int64_t b = 0; b < blocks; b++) {
        if (b % CHUNK == 0) all->start[b / CHUNK] = (int64_t)sum;
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
