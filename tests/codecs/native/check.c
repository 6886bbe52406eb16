/* Every level against the portable one, over random bits, sizes, widths and damage; built with sanitizers, or
 * for another architecture under an emulator. `check SECONDS SEED` prints the number of cases, or what went
 * wrong. */
#include "levels.h"
#include "random.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static void fail(const char *what, const codec_job *job) {
    printf("%s: level %s, width %d, %lld elements\n", what, job->level->name, 1 << job->width,
           (long long)job->n);
    exit(1);
}


/* Exact-sized heap blocks, so that a sanitizer sees the first byte out of place. */
static codec_job encode(const codec_level *level, int width, int64_t n, enum operation operation,
                        const uint8_t *x, uint8_t *y, uint8_t *buffer, int64_t room) {
    static const uint64_t low[] = {~0ull, 0xFC00, 0xFF800000u, 0xFFF0000000000000u};
    size_t table = padded(4 * (size_t)((n + BLOCK - 1) / BLOCK)), bitmap = padded((size_t)(n + 7) / 8);
    codec_job job = {.level = level, .width = width, .threads = 1 + (int)(draw() % 3), .n = n};
    job.operation = operation, job.neg_inf = low[width], job.x = x, job.y = y, job.base = buffer;
    job.table = (uint32_t *)buffer, job.bitmap = buffer + table, job.values = buffer + table + bitmap;
    job.capacity = room;
    memset(buffer, 0, table);
    if (codec_run_encode(&job)) fail("out of memory", &job);
    return job;
}

static void one_case(const codec_level *level) {
    int width = (int)(draw() % 4);
    int64_t n = (int64_t)(draw() % (draw() % 8 ? 5000 : 200000));
    size_t bytes = (size_t)n << width,
           head = padded(4 * (size_t)((n + BLOCK - 1) / BLOCK)) + padded((size_t)(n + 7) / 8);
    uint8_t *x = malloc(bytes), *y = malloc(bytes), *expected = malloc(bytes), *plain_y = malloc(bytes);
    uint64_t run = 1 + draw() % 200, keep = draw() % 11, on = 1;
    for (int64_t i = 0; i < n; i++) {
        if ((uint64_t)i % run == 0) on = draw() % 10 < keep;
        uint64_t v = on ? draw() : 0;
        if (draw() % 50 == 0) v &= 1ull << (8 * (1 << width) - 1);
        memcpy(x + ((size_t)i << width), &v, (size_t)1 << width);
    }
    enum operation operation = draw() % 3 ? NONZERO : RELU;
    uint8_t *big = malloc(head + bytes);
    codec_job plain = encode(&codec_portable, width, n, operation, x, expected, big, n);
    size_t size = head + ((size_t)plain.nnz << width);
    memcpy(plain_y, expected, bytes);
    uint8_t *buffer = malloc(size);
    codec_job job = encode(level, width, n, operation, x, y, buffer, plain.nnz);
    if (job.nnz != plain.nnz || job.digest != plain.digest || job.negative != plain.negative ||
        memcmp(buffer, big, size) || (operation == RELU && memcmp(y, expected, bytes)))
        fail("encode", &job);
    if (codec_digest_bytes(level, buffer, size, 0) != job.digest) fail("digest", &job);
    if (operation == NONZERO) { /* the same in two steps: count, then copy */
        memset(buffer, 1, size);
        codec_job count = job, copy;
        memset(buffer, 0, (size_t)((uint8_t *)job.bitmap - buffer));
        count.values = NULL;
        codec_run_encode(&count);
        copy = count, copy.values = job.values;
        codec_run_copy(&copy);
        if (memcmp(buffer, big, size) || count.digest + copy.digest != plain.digest) fail("two steps", &job);
    }
    job.y = y;
    if (codec_run_decode(&job) || job.bad_block >= 0 || job.digest != plain.digest ||
        memcmp(y, operation == RELU ? expected : x, bytes))
        fail("decode", &job);
    job.x = x;
    codec_job other = job;
    other.level = &codec_portable, other.y = expected;
    codec_run_select(&job), codec_run_select(&other);
    if (memcmp(y, expected, bytes) || job.digest != other.digest) fail("select", &job);
    if (plain.nnz) { /* a planned buffer that is too small */
        int64_t room = (int64_t)(draw() % (uint64_t)plain.nnz);
        uint8_t *small = malloc(head + ((size_t)room << width));
        if (encode(level, width, n, operation, x, y, small, room).nnz != plain.nnz) fail("overflow", &job);
        free(small);
    }
    if (size) { /* damage: any answer but a wrong access, and the right tensor if the digest is right */
        for (uint64_t i = 0; i <= draw() % 4; i++) buffer[draw() % size] ^= (uint8_t)(1u << draw() % 8);
        codec_job damaged = job;
        damaged.nnz = plain.nnz, damaged.digest = 0, damaged.y = y;
        int status = codec_run_decode(&damaged);
        if (!status && damaged.bad_block < 0 && damaged.digest == plain.digest &&
            memcmp(y, operation == RELU ? plain_y : x, bytes))
            fail("damage", &damaged);
    }
    free(x), free(y), free(expected), free(plain_y), free(big), free(buffer);
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    const codec_level *levels[3];
    int count = codec_levels_here(levels);
    long cases = 0;
    for (clock_t start = clock(); (double)(clock() - start) / CLOCKS_PER_SEC < seconds; cases++)
        one_case(levels[cases % count]);
    printf("%ld cases on %d levels, the last %s\n", cases, count, levels[count - 1]->name);
    return 0;
}
