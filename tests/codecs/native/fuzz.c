/* The fuzzers' entry: arbitrary bytes, as a buffer to decode or as a tensor to encode. The first six bytes are
 * width, number of elements, number of values, and how to read the rest: as it is, with a table made to agree
 * with the bitmap (few inputs would come past the table otherwise) and the number of values set or not, or as a
 * dense tensor. Every level must do what the portable one does, and touch no byte outside exact-sized heap
 * blocks. */
#include "levels.h"

#include <stdlib.h>
#include <string.h>

enum { AS_IT_IS, TABLE_AGREES, ALL_AGREES, DENSE, WAYS };

static const codec_level *levels[3];
static int level_count;

static void prepare(void) {
    if (!level_count) level_count = codec_levels_here(levels);
}

static void expect(int holds) {
    if (!holds) abort();
}

static size_t table_bytes(int64_t n) { return padded(4 * (size_t)((n + BLOCK - 1) / BLOCK)); }

static size_t head_bytes(int64_t n) { return table_bytes(n) + padded((size_t)(n + 7) / 8); }

static codec_job job_of(const codec_level *level, int width, int64_t n, uint8_t *buffer) {
    codec_job job = {.level = level, .width = width, .threads = 1, .n = n, .base = buffer};
    job.table = (uint32_t *)buffer, job.bitmap = buffer + table_bytes(n), job.values = buffer + head_bytes(n);
    return job;
}

static void decode(int width, int64_t n, int64_t nnz, uint8_t *buffer) {
    size_t dense = (size_t)n << width;
    uint8_t *y = malloc(dense), *expected = malloc(dense);
    codec_job plain = job_of(&codec_portable, width, n, buffer);
    plain.nnz = nnz, plain.y = expected;
    int status = codec_run_decode(&plain);
    for (int i = 0; i < level_count; i++) {
        codec_job job = job_of(levels[i], width, n, buffer);
        job.nnz = nnz, job.y = y;
        expect(codec_run_decode(&job) == status);
        expect(status || (job.bad_block < 0) == (plain.bad_block < 0));
        if (!status && job.bad_block < 0) expect(job.digest == plain.digest && !memcmp(y, expected, dense));
        job.one = 1;
        codec_run_select(&job);
    }
    free(y), free(expected);
}

static void encode(int width, int64_t n, const uint8_t *x) {
    size_t dense = (size_t)n << width;
    size_t head = head_bytes(n);
    uint8_t *y = malloc(dense);
    for (int i = 0; i < level_count; i++) {
        uint8_t *none = calloc(head + !head, 1);
        codec_job count = job_of(levels[i], width, n, none);
        count.x = x, count.values = NULL;
        expect(!codec_run_encode(&count));
        uint8_t *buffer = calloc(head + ((size_t)count.nnz << width) + 1, 1);
        codec_job job = job_of(levels[i], width, n, buffer);
        job.x = x, job.y = y, job.capacity = count.nnz;
        expect(!codec_run_encode(&job) && job.nnz == count.nnz);
        uint64_t digest = job.digest;
        expect(!codec_run_decode(&job) && job.bad_block < 0 && job.digest == digest && !memcmp(x, y, dense));
        free(none), free(buffer);
    }
    free(y);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    prepare();
    if (size < 6) return 0;
    int width = data[0] & 3, how = data[5] % WAYS;
    int64_t n = data[1] | data[2] << 8, nnz = data[3] | data[4] << 8;
    data += 6, size -= 6;
    if (how == DENSE) {
        size_t dense = (size_t)n << width;
        uint8_t *x = calloc(dense + !dense, 1);
        memcpy(x, data, size < dense ? size : dense);
        encode(width, n, x);
        free(x);
        return 0;
    }
    size_t head = head_bytes(n);
    uint8_t *buffer = calloc(head + !head, 1);
    memcpy(buffer, data, size < head ? size : head);
    if (how != AS_IT_IS) {
        codec_job job = job_of(&codec_portable, width, n, buffer);
        if (n % 8) job.bitmap[n / 8] &= (uint8_t)((1 << n % 8) - 1);
        memset(job.bitmap + (n + 7) / 8, 0, (size_t)(job.values - job.bitmap) - (size_t)(n + 7) / 8);
        int64_t sum = 0;
        for (int64_t b = 0, bits; b * BLOCK < n; b++, sum += bits) {
            bits = 0;
            for (int64_t i = b * (BLOCK / 8); i < (b + 1) * (BLOCK / 8) && i < (n + 7) / 8; i++)
                bits += __builtin_popcount(job.bitmap[i]);
            job.table[b] = (uint32_t)bits;
        }
        if (how == ALL_AGREES) nnz = sum;
    }
    size_t whole = head + ((size_t)nnz << width);
    buffer = realloc(buffer, whole + !whole);
    memset(buffer + head, 0x5A, whole - head);
    if (size > head) memcpy(buffer + head, data + head, size - head < whole - head ? size - head : whole - head);
    decode(width, n, nnz, buffer);
    free(buffer);
    return 0;
}
