/* The codec's kernels in portable C, and the byte tables that the vector versions share. */
#include "codec.h"

#include <string.h>

uint8_t codec_order[256][8], codec_rank[256][8];

void codec_byte_tables(void) {
    for (int m = 0; m < 256; m++)
        for (int i = 0, k = 0; i < 8; i++) {
            codec_rank[m][i] = m >> i & 1 ? (uint8_t)k : 0x80;
            if (m >> i & 1) codec_order[m][k++] = (uint8_t)i;
        }
}

#define DEFINE(T, S)                                                                                         \
    static int nonzero_##T(const void *xv, size_t groups, uint64_t *bits) {                                  \
        const T *x = xv;                                                                                     \
        T any = 0;                                                                                           \
        for (size_t g = 0; g < groups; g++, x += GROUP) {                                                    \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i++) word |= (uint64_t)(x[i] != 0) << i, any |= x[i];                 \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return (S)any < 0;                                                                                   \
    }                                                                                                        \
    static void gate_##T(const void *xv, size_t groups, uint64_t *bits, uint64_t neg_inf) {                  \
        const T *x = xv, low = (T)neg_inf;                                                                   \
        for (size_t g = 0; g < groups; g++, x += GROUP) {                                                    \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i++) word |= (uint64_t)(((S)x[i] > 0) | (x[i] > low)) << i;           \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    static int relu_##T(const void *xv, void *yv, size_t groups, uint64_t *bits, uint64_t neg_inf) {         \
        const T *x = xv, low = (T)neg_inf, zero = (T)((T)1 << (sizeof(T) * 8 - 1));                          \
        T *y = yv, any = 0;                                                                                  \
        for (size_t g = 0; g < groups; g++, x += GROUP, y += GROUP) {                                        \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i++) {                                                                \
                T v = x[i];                                                                                  \
                int keep = ((S)v > 0) | (v > low) | ((v == zero) & (low != (T) ~(T)0));                      \
                word |= (uint64_t)keep << i;                                                                 \
                y[i] = (T)(v & (T)(0 - (T)keep));                                                            \
                any |= y[i];                                                                                 \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return (S)any < 0;                                                                                   \
    }                                                                                                        \
    static int squeeze_##T(const void *xv, size_t groups, uint64_t *bits, void *to) {                        \
        const T *x = xv;                                                                                     \
        T *y = to, any = 0;                                                                                  \
        for (size_t g = 0; g < groups; g++, x += GROUP) {                                                    \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i++) {                                                                \
                *y = x[i];                                                                                   \
                y += x[i] != 0;                                                                              \
                word |= (uint64_t)(x[i] != 0) << i, any |= x[i];                                             \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return (S)any < 0;                                                                                   \
    }                                                                                                        \
    static void pack_##T(const void *xv, const uint64_t *bits, size_t groups, void *to) {                    \
        const T *x = xv;                                                                                     \
        T *y = to;                                                                                           \
        for (size_t g = 0; g < groups; g++, x += GROUP)                                                      \
            for (int i = 0; i < GROUP; i++) {                                                                \
                *y = x[i];                                                                                   \
                y += bits[g] >> i & 1;                                                                       \
            }                                                                                                \
    }                                                                                                        \
    static void unpack_##T(const void *from, const uint64_t *bits, size_t groups, void *yv) {                \
        const T *x = from;                                                                                   \
        T *y = yv;                                                                                           \
        for (size_t g = 0; g < groups; g++, y += GROUP)                                                      \
            for (int i = 0; i < GROUP; i++) {                                                                \
                T keep = (T)(bits[g] >> i & 1);                                                              \
                y[i] = (T)(*x & (T)(0 - keep));                                                              \
                x += keep;                                                                                   \
            }                                                                                                \
    }                                                                                                        \
    static void select_##T(const void *xv, const uint64_t *bits, size_t groups, void *yv) {                  \
        const T *x = xv;                                                                                     \
        T *y = yv;                                                                                           \
        for (size_t g = 0; g < groups; g++, x += GROUP, y += GROUP)                                          \
            for (int i = 0; i < GROUP; i++) y[i] = (T)(x[i] & (T)(0 - (T)(bits[g] >> i & 1)));               \
    }

DEFINE(uint8_t, int8_t)
DEFINE(uint16_t, int16_t)
DEFINE(uint32_t, int32_t)
DEFINE(uint64_t, int64_t)

static uint64_t digest(const loose_word *words, size_t count, uint32_t key) {
    uint64_t sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += (uint64_t)words[i] * (uint32_t)((key + (uint32_t)i * DIGEST_KEY) | 1);
    return sum;
}

static int64_t count(const uint64_t *bits, size_t groups) {
    int64_t sum = 0;
    for (size_t g = 0; g < groups; g++) sum += __builtin_popcountll(bits[g]);
    return sum;
}

static void stream(void *to, const void *from, size_t lines) { memcpy(to, from, 64 * lines); }

#define EACH(f) {f##_uint8_t, f##_uint16_t, f##_uint32_t, f##_uint64_t}
const codec_level codec_portable = {
    "portable", EACH(nonzero), EACH(relu), EACH(gate), EACH(squeeze), EACH(pack), EACH(unpack), EACH(select),
    count,      digest,        stream};
