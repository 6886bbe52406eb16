/* A small fuzzing engine for compilers without libFuzzer: the codec is built with -fsanitize-coverage=trace-pc
 * and calls `__sanitizer_cov_trace_pc` at every branch; an input that takes a new path is kept and mutated on.
 * `engine SECONDS SEED` prints the number of runs and of inputs kept. */
#include "random.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PLACES = 1 << 16, LONGEST = 9000, MOST = 4096 };

static uint8_t seen[PLACES];
static uint8_t counts[PLACES];
static struct {
    uint8_t *bytes;
    size_t size;
} kept[MOST];
static size_t kept_count;
void __sanitizer_cov_trace_pc(void) {
    uint64_t here = (uint64_t)__builtin_return_address(0);
    uint8_t *count = &counts[(here ^ here >> 16) % PLACES];
    *count += *count < 255;
}

/* Whether the run took a branch that no run took before, or took one far more often. */
static int is_new(void) {
    int found = 0;
    for (int i = 0; i < PLACES; i++) {
        if (!counts[i]) continue;
        uint8_t often = (uint8_t)(1 << (31 - __builtin_clz(counts[i])));
        found |= (seen[i] | often) != seen[i];
        seen[i] |= often;
    }
    return found;
}

static size_t mutate(uint8_t *at, size_t size) {
    static const uint8_t telling[] = {0, 1, 2, 3, 4, 127, 128, 255};
    for (uint64_t i = 0; i <= draw() % 6; i++) {
        size_t from = size ? draw() % size : 0, length = size ? 1 + draw() % (size - from) : 0;
        switch (draw() % 7) {
        case 0:
            if (size) at[from] ^= (uint8_t)(1u << draw() % 8);
            break;
        case 1:
            if (size) at[from] = telling[draw() % sizeof telling];
            break;
        case 2:
            if (size) at[draw() % (size < 6 ? size : 6)] = (uint8_t)draw();
            break;
        case 3: /* a run of one value */
            if (size) memset(at + from, (int)draw(), length);
            break;
        case 4: /* random bytes */
            for (size_t k = 0; size && k < length; k++) at[from + k] = (uint8_t)draw();
            break;
        case 5: { /* longer */
            size_t more = draw() % 600;
            if (size + more > LONGEST) more = LONGEST - size;
            memset(at + size, draw() % 2 ? (int)draw() : 0, more);
            size += more;
            break;
        }
        default: /* shorter */
            size = draw() % 4 ? size : from;
        }
    }
    return size;
}

int main(int argc, char **argv) {
    double seconds = argc > 1 ? atof(argv[1]) : 1;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    long runs = 0;
    for (clock_t start = clock(); (double)(clock() - start) / CLOCKS_PER_SEC < seconds; runs++) {
        uint8_t *input = malloc(LONGEST);
        size_t size = 0;
        if (kept_count) {
            size_t chosen = draw() % kept_count;
            memcpy(input, kept[chosen].bytes, size = kept[chosen].size);
        }
        size = mutate(input, size);
        uint8_t *exact = malloc(size); /* so that a sanitizer sees the first byte past the input */
        memcpy(exact, input, size);
        memset(counts, 0, sizeof counts);
        LLVMFuzzerTestOneInput(exact, size);
        free(input);
        if (is_new() && kept_count < MOST)
            kept[kept_count].bytes = exact, kept[kept_count++].size = size;
        else
            free(exact);
    }
    printf("%ld runs, %zu inputs kept\n", runs, kept_count);
    while (kept_count) free(kept[--kept_count].bytes);
    return 0;
}
