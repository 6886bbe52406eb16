/* The codec's kernels for 64-bit ARM: NEON, with the byte shuffles looked up by the mask's bytes. */
#include "codec.h"

#if defined(__aarch64__)
#include <arm_neon.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))

/* Byte controls for a table lookup of 16 bytes, by the mask of its lanes; 0xFF gives a zero byte. */
static uint8_t order_16[256][16], rank_16[256][16], order_32[16][16], rank_32[16][16], order_64[4][16],
    rank_64[4][16];

static void controls(uint8_t (*order)[16], uint8_t (*rank)[16], int masks, int bytes) {
    for (int m = 0; m < masks; m++)
        for (int i = 0; i < 16; i++) {
            uint8_t lane = codec_order[m][i / bytes], place = codec_rank[m][i / bytes];
            order[m][i] = (uint8_t)(lane * bytes + i % bytes);
            rank[m][i] = place & 0x80 ? 0xFF : (uint8_t)(place * bytes + i % bytes);
        }
}

void codec_neon_tables(void) {
    controls(order_16, rank_16, 256, 2);
    controls(order_32, rank_32, 16, 4);
    controls(order_64, rank_64, 4, 8);
}

/* The bits of a vector whose bytes are all ones or all zeros: weigh the bytes and add up each half. */
INLINE uint64_t mark_8(uint8x16_t v) {
    const uint8x16_t weight = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    v = vandq_u8(v, weight);
    return (uint64_t)vaddv_u8(vget_low_u8(v)) | (uint64_t)vaddv_u8(vget_high_u8(v)) << 8;
}
INLINE uint64_t mark_16(uint8x16_t v) {
    const uint16x8_t weight = {1, 2, 4, 8, 16, 32, 64, 128};
    return vaddvq_u16(vandq_u16(vreinterpretq_u16_u8(v), weight));
}
INLINE uint64_t mark_32(uint8x16_t v) {
    const uint32x4_t weight = {1, 2, 4, 8};
    return vaddvq_u32(vandq_u32(vreinterpretq_u32_u8(v), weight));
}
INLINE uint64_t mark_64(uint8x16_t v) {
    const uint64x2_t weight = {1, 2};
    return vaddvq_u64(vandq_u64(vreinterpretq_u64_u8(v), weight));
}

INLINE uint8x16_t lanes_8(uint32_t m) {
    const uint8x16_t weight = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    return vtstq_u8(vcombine_u8(vdup_n_u8((uint8_t)m), vdup_n_u8((uint8_t)(m >> 8))), weight);
}
INLINE uint8x16_t lanes_16(uint32_t m) {
    const uint16x8_t weight = {1, 2, 4, 8, 16, 32, 64, 128};
    return vreinterpretq_u8_u16(vtstq_u16(vdupq_n_u16((uint16_t)m), weight));
}
INLINE uint8x16_t lanes_32(uint32_t m) {
    const uint32x4_t weight = {1, 2, 4, 8};
    return vreinterpretq_u8_u32(vtstq_u32(vdupq_n_u32(m), weight));
}
INLINE uint8x16_t lanes_64(uint32_t m) {
    const uint64x2_t weight = {1, 2};
    return vreinterpretq_u8_u64(vtstq_u64(vdupq_n_u64(m), weight));
}

INLINE size_t ones(uint32_t m) { return (size_t)__builtin_popcount(m); }

/* emit_W: one vector's marked lanes, in order, at `to`; fill_W: the reverse. Both say how many elements. */
INLINE size_t emit_8(uint8_t *to, uint8x16_t v, uint32_t m) {
    size_t low = ones(m & 255);
    vst1_u8(to, vtbl1_u8(vget_low_u8(v), vld1_u8(codec_order[m & 255])));
    vst1_u8(to + low, vtbl1_u8(vget_high_u8(v), vld1_u8(codec_order[m >> 8])));
    return low + ones(m >> 8);
}
INLINE size_t fill_8(const uint8_t *from, uint8x16_t *v, uint32_t m) {
    size_t low = ones(m & 255);
    uint8x8_t a = vtbl1_u8(vld1_u8(from), vld1_u8(codec_rank[m & 255]));
    *v = vcombine_u8(a, vtbl1_u8(vld1_u8(from + low), vld1_u8(codec_rank[m >> 8])));
    return low + ones(m >> 8);
}
#define DEFINE_MOVES(W)                                                                                      \
    INLINE size_t emit_##W(uint8_t *to, uint8x16_t v, uint32_t m) {                                          \
        vst1q_u8(to, vqtbl1q_u8(v, vld1q_u8(order_##W[m])));                                                 \
        return ones(m) * (W / 8);                                                                            \
    }                                                                                                        \
    INLINE size_t fill_##W(const uint8_t *from, uint8x16_t *v, uint32_t m) {                                 \
        *v = vqtbl1q_u8(vld1q_u8(from), vld1q_u8(rank_##W[m]));                                              \
        return ones(m) * (W / 8);                                                                            \
    }
DEFINE_MOVES(16)
DEFINE_MOVES(32)
DEFINE_MOVES(64)

#define LANES(W) (128 / W)
#define vreinterpretq_u8_u8(v) (v) /* for the macros below; arm_neon.h has no such name */
#define BITS(W, word, i) ((uint32_t)((word) >> (i)) & ((1u << LANES(W)) - 1))
#define AS_U(W, v) vreinterpretq_u##W##_u8(v)
#define AS_S(W, v) vreinterpretq_s##W##_u8(v)
#define BYTES(W, v) vreinterpretq_u8_u##W(v)

#define DEFINE(W)                                                                                            \
    INLINE uint8x16_t open_##W(uint8x16_t v, uint64_t neg_inf) {                                             \
        return vorrq_u8(BYTES(W, vcgtq_s##W(AS_S(W, v), vdupq_n_s##W(0))),                                   \
                        BYTES(W, vcgtq_u##W(AS_U(W, v), vdupq_n_u##W((uint##W##_t)neg_inf))));               \
    }                                                                                                        \
    static int nonzero_##W(const void *xv, size_t groups, uint64_t *bits) {                                  \
        const uint8_t *x = xv;                                                                               \
        uint8x16_t any = vdupq_n_u8(0);                                                                      \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16) {                                             \
                uint8x16_t v = vld1q_u8(x);                                                                  \
                any = vorrq_u8(any, v);                                                                      \
                word |= mark_##W(BYTES(W, vtstq_u##W(AS_U(W, v), AS_U(W, v)))) << i;                         \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return mark_##W(BYTES(W, vcltq_s##W(AS_S(W, any), vdupq_n_s##W(0)))) != 0;                           \
    }                                                                                                        \
    static void gate_##W(const void *xv, size_t groups, uint64_t *bits, uint64_t neg_inf) {                  \
        const uint8_t *x = xv;                                                                               \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16)                                               \
                word |= mark_##W(open_##W(vld1q_u8(x), neg_inf)) << i;                                       \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    static int relu_##W(const void *xv, void *yv, size_t groups, uint64_t *bits, uint64_t neg_inf) {         \
        const uint8_t *x = xv;                                                                               \
        uint8_t *y = yv;                                                                                     \
        uint8x16_t any = vdupq_n_u8(0);                                                                      \
        uint##W##_t sign = (uint##W##_t)neg_inf == (uint##W##_t) ~0ull ? 0 : (uint##W##_t)(1ull << (W - 1)); \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16, y += 16) {                                    \
                uint8x16_t v = vld1q_u8(x), minus = BYTES(W, vceqq_u##W(AS_U(W, v), vdupq_n_u##W(sign)));    \
                v = vandq_u8(v, vorrq_u8(open_##W(v, neg_inf), minus));                                      \
                any = vorrq_u8(any, v);                                                                      \
                vst1q_u8(y, v);                                                                              \
                word |= mark_##W(BYTES(W, vtstq_u##W(AS_U(W, v), AS_U(W, v)))) << i;                         \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return mark_##W(BYTES(W, vcltq_s##W(AS_S(W, any), vdupq_n_s##W(0)))) != 0;                           \
    }                                                                                                        \
    static int squeeze_##W(const void *xv, size_t groups, uint64_t *bits, void *to) {                        \
        const uint8_t *x = xv;                                                                               \
        uint8_t *y = to;                                                                                     \
        uint8x16_t any = vdupq_n_u8(0);                                                                      \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16) {                                             \
                uint8x16_t v = vld1q_u8(x);                                                                  \
                if (i * W % 512 == 0) __builtin_prefetch(x + AHEAD);                                         \
                uint64_t m = mark_##W(BYTES(W, vtstq_u##W(AS_U(W, v), AS_U(W, v))));                         \
                any = vorrq_u8(any, v);                                                                      \
                y += emit_##W(y, v, (uint32_t)m);                                                            \
                word |= m << i;                                                                              \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return mark_##W(BYTES(W, vcltq_s##W(AS_S(W, any), vdupq_n_s##W(0)))) != 0;                           \
    }                                                                                                        \
    static void pack_##W(const void *xv, const uint64_t *bits, size_t groups, void *to) {                    \
        const uint8_t *x = xv;                                                                               \
        uint8_t *y = to;                                                                                     \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16)                                               \
                y += emit_##W(y, vld1q_u8(x), BITS(W, bits[g], i));                                          \
    }                                                                                                        \
    static void unpack_##W(const void *from, const uint64_t *bits, size_t groups, void *yv) {                \
        const uint8_t *x = from;                                                                             \
        uint8_t *y = yv;                                                                                     \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), y += 16) {                                             \
                uint8x16_t v;                                                                                \
                x += fill_##W(x, &v, BITS(W, bits[g], i));                                                   \
                vst1q_u8(y, v);                                                                              \
            }                                                                                                \
    }                                                                                                        \
    static void select_##W(const void *xv, const uint64_t *bits, size_t groups, void *yv) {                  \
        const uint8_t *x = xv;                                                                               \
        uint8_t *y = yv;                                                                                     \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), x += 16, y += 16)                                      \
                vst1q_u8(y, vandq_u8(vld1q_u8(x), lanes_##W(BITS(W, bits[g], i))));                          \
    }

DEFINE(8)
DEFINE(16)
DEFINE(32)
DEFINE(64)

static int64_t count(const uint64_t *bits, size_t groups) {
    int64_t sum = 0;
    for (size_t g = 0; g < groups; g++) sum += vaddv_u8(vcnt_u8(vcreate_u8(bits[g])));
    return sum;
}

static uint64_t digest(const loose_word *words, size_t count, uint32_t key) {
    uint64_t sum = 0; /* the compiler turns this into widening multiplications of whole vectors */
    for (size_t i = 0; i < count; i++) sum += (uint64_t)words[i] * ((key + (uint32_t)i * DIGEST_KEY) | 1);
    return sum;
}

static void stream(void *to, const void *from, size_t lines) { memcpy(to, from, 64 * lines); }

#define EACH(f) {f##_8, f##_16, f##_32, f##_64}
codec_level codec_neon = {"neon",       EACH(nonzero), EACH(relu), EACH(gate), EACH(squeeze), EACH(pack),
                          EACH(unpack), EACH(select),  count,      digest,     stream};
#else
typedef int codec_neon_unused;
#endif
