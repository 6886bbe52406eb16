/* The codec's kernels for x86-64: AVX-512 (with VBMI2, so that all four widths compress in a register) and
 * AVX2 (shuffles looked up by the mask's bytes). Compressed registers are stored whole: a compressing store
 * to memory is microcoded on some processors and many times slower. */
#include "codec.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define V4 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2,bmi,bmi2,popcnt")))
#define V3 __attribute__((target("avx2,bmi,bmi2,popcnt")))
#define INLINE static inline __attribute__((always_inline))

#define DEFINE_V4(W)                                                                                         \
    V4 static int v4_nonzero_##W(const void *xv, size_t groups, uint64_t *bits) {                            \
        const uint##W##_t *x = xv;                                                                           \
        __m512i any = _mm512_setzero_si512();                                                                \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W) {                                         \
                __m512i v = _mm512_loadu_si512(x);                                                           \
                any = _mm512_or_si512(any, v);                                                               \
                word |= (uint64_t)_mm512_test_epi##W##_mask(v, v) << i;                                      \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return _mm512_movepi##W##_mask(any) != 0;                                                            \
    }                                                                                                        \
    V4 static void v4_gate_##W(const void *xv, size_t groups, uint64_t *bits, uint64_t neg_inf) {            \
        const uint##W##_t *x = xv;                                                                           \
        __m512i zero = _mm512_setzero_si512(), low = _mm512_set1_epi##W((int##W##_t)neg_inf);                \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W) {                                         \
                __m512i v = _mm512_loadu_si512(x);                                                           \
                word |= (uint64_t)(_mm512_cmpgt_epi##W##_mask(v, zero) | _mm512_cmpgt_epu##W##_mask(v, low)) \
                        << i;                                                                                \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    V4 static int v4_relu_##W(const void *xv, void *yv, size_t groups, uint64_t *bits, uint64_t neg_inf) {   \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = yv;                                                                                 \
        uint##W##_t sign = (uint##W##_t)neg_inf == (uint##W##_t) ~0ull ? 0 : (uint##W##_t)(1ull << (W - 1)); \
        __m512i zero = _mm512_setzero_si512(), low = _mm512_set1_epi##W((int##W##_t)neg_inf);                \
        __m512i minus = _mm512_set1_epi##W((int##W##_t)sign), any = zero;                                    \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W, y += 512 / W) {                           \
                __m512i v = _mm512_loadu_si512(x);                                                           \
                __mmask##W##_lanes keep =                                                                    \
                    _mm512_cmpgt_epi##W##_mask(v, zero) | _mm512_cmpgt_epu##W##_mask(v, low) |               \
                    (_mm512_cmpeq_epi##W##_mask(v, minus) & _mm512_test_epi##W##_mask(v, v));                \
                v = _mm512_maskz_mov_epi##W(keep, v);                                                        \
                any = _mm512_or_si512(any, v);                                                               \
                _mm512_storeu_si512(y, v);                                                                   \
                word |= (uint64_t)keep << i;                                                                 \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return _mm512_movepi##W##_mask(any) != 0;                                                            \
    }                                                                                                        \
    V4 static int v4_squeeze_##W(const void *xv, size_t groups, uint64_t *bits, void *to) {                  \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = to;                                                                                 \
        __m512i any = _mm512_setzero_si512();                                                                \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W) {                                         \
                __m512i v = _mm512_loadu_si512(x);                                                           \
                __mmask##W##_lanes keep = _mm512_test_epi##W##_mask(v, v);                                   \
                _mm_prefetch((const char *)x + AHEAD, _MM_HINT_T0);                                          \
                any = _mm512_or_si512(any, v);                                                               \
                _mm512_storeu_si512(y, _mm512_maskz_compress_epi##W(keep, v));                               \
                y += _mm_popcnt_u64((uint64_t)keep);                                                         \
                word |= (uint64_t)keep << i;                                                                 \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return _mm512_movepi##W##_mask(any) != 0;                                                            \
    }                                                                                                        \
    V4 static void v4_pack_##W(const void *xv, const uint64_t *bits, size_t groups, void *to) {              \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = to;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W) {                                         \
                __mmask##W##_lanes keep = (__mmask##W##_lanes)(bits[g] >> i);                                \
                _mm512_storeu_si512(y, _mm512_maskz_compress_epi##W(keep, _mm512_loadu_si512(x)));           \
                y += _mm_popcnt_u64((uint64_t)keep);                                                         \
            }                                                                                                \
    }                                                                                                        \
    V4 static void v4_unpack_##W(const void *from, const uint64_t *bits, size_t groups, void *yv) {          \
        const uint##W##_t *x = from;                                                                         \
        uint##W##_t *y = yv;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += 512 / W, y += 512 / W) {                                         \
                __mmask##W##_lanes keep = (__mmask##W##_lanes)(bits[g] >> i);                                \
                _mm512_storeu_si512(y, _mm512_maskz_expand_epi##W(keep, _mm512_loadu_si512(x)));             \
                x += _mm_popcnt_u64((uint64_t)keep);                                                         \
            }                                                                                                \
    }                                                                                                        \
    V4 static void v4_select_##W(const void *xv, const uint64_t *bits, size_t groups, void *yv) {            \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = yv;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += 512 / W, x += 512 / W, y += 512 / W)                             \
                _mm512_storeu_si512(                                                                         \
                    y, _mm512_maskz_mov_epi##W((__mmask##W##_lanes)(bits[g] >> i), _mm512_loadu_si512(x)));  \
    }

#define __mmask8_lanes __mmask64
#define __mmask16_lanes __mmask32
#define __mmask32_lanes __mmask16
#define __mmask64_lanes __mmask8
DEFINE_V4(8)
DEFINE_V4(16)
DEFINE_V4(32)
DEFINE_V4(64)

#define DEFINE_COUNT(NAME, TARGET)                                                                           \
    TARGET static int64_t NAME(const uint64_t *bits, size_t groups) {                                        \
        int64_t sum = 0;                                                                                     \
        for (size_t g = 0; g < groups; g++) sum += _mm_popcnt_u64(bits[g]);                                  \
        return sum;                                                                                          \
    }
DEFINE_COUNT(v4_count, V4)
DEFINE_COUNT(v3_count, V3)

/* The products of the even and of the odd words of each vector; whole vectors only, the rest one by one. */
V4 static uint64_t v4_digest(const loose_word *words, size_t count, uint32_t key) {
    __m512i index = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    __m512i factor = _mm512_mullo_epi32(index, _mm512_set1_epi32((int)DIGEST_KEY));
    __m512i step = _mm512_set1_epi32((int)(16 * DIGEST_KEY)), one = _mm512_set1_epi32(1);
    __m512i even = _mm512_setzero_si512(), odd = even;
    factor = _mm512_or_si512(_mm512_add_epi32(factor, _mm512_set1_epi32((int)key)), one);
    size_t i = 0;
    for (; i + 16 <= count; i += 16, factor = _mm512_add_epi32(factor, step)) { /* even: still odd */
        __m512i w = _mm512_loadu_si512(words + i);
        even = _mm512_add_epi64(even, _mm512_mul_epu32(w, factor));
        odd = _mm512_add_epi64(odd, _mm512_mul_epu32(_mm512_srli_epi64(w, 32), _mm512_srli_epi64(factor, 32)));
    }
    uint64_t part[8], sum = 0;
    _mm512_storeu_si512(part, _mm512_add_epi64(even, odd));
    for (int j = 0; j < 8; j++) sum += part[j];
    for (; i < count; i++) sum += (uint64_t)words[i] * ((key + (uint32_t)i * DIGEST_KEY) | 1);
    return sum;
}

V3 static uint64_t v3_digest(const loose_word *words, size_t count, uint32_t key) {
    __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i factor = _mm256_mullo_epi32(index, _mm256_set1_epi32((int)DIGEST_KEY));
    __m256i step = _mm256_set1_epi32((int)(8 * DIGEST_KEY)), one = _mm256_set1_epi32(1);
    __m256i even = _mm256_setzero_si256(), odd = even;
    factor = _mm256_or_si256(_mm256_add_epi32(factor, _mm256_set1_epi32((int)key)), one);
    size_t i = 0;
    for (; i + 8 <= count; i += 8, factor = _mm256_add_epi32(factor, step)) { /* even: still odd */
        __m256i w = _mm256_loadu_si256((const __m256i *)(words + i));
        even = _mm256_add_epi64(even, _mm256_mul_epu32(w, factor));
        odd = _mm256_add_epi64(odd, _mm256_mul_epu32(_mm256_srli_epi64(w, 32), _mm256_srli_epi64(factor, 32)));
    }
    uint64_t part[4], sum = 0;
    _mm256_storeu_si256((__m256i *)part, _mm256_add_epi64(even, odd));
    for (int j = 0; j < 4; j++) sum += part[j];
    for (; i < count; i++) sum += (uint64_t)words[i] * ((key + (uint32_t)i * DIGEST_KEY) | 1);
    return sum;
}

V4 static void v4_stream(void *to, const void *from, size_t lines) {
    __m512i *y = to;
    const __m512i *x = from;
    for (size_t i = 0; i < lines; i++) _mm512_stream_si512(y + i, _mm512_loadu_si512(x + i));
}

V3 static void v3_stream(void *to, const void *from, size_t lines) {
    __m256i *y = to;
    const __m256i *x = from;
    for (size_t i = 0; i < 2 * lines; i++) _mm256_stream_si256(y + i, _mm256_loadu_si256(x + i));
}

/* AVX2. `mark_W` turns a vector of all-ones or all-zero lanes into bits, `lanes_W` goes back. */
V3 INLINE uint32_t mark_8(__m256i v) { return (uint32_t)_mm256_movemask_epi8(v); }
V3 INLINE uint32_t mark_16(__m256i v) {
    __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    return (uint32_t)_mm_movemask_epi8(bytes);
}
V3 INLINE uint32_t mark_32(__m256i v) { return (uint32_t)_mm256_movemask_ps(_mm256_castsi256_ps(v)); }
V3 INLINE uint32_t mark_64(__m256i v) { return (uint32_t)_mm256_movemask_pd(_mm256_castsi256_pd(v)); }

V3 INLINE __m256i lanes_8(uint32_t bits) {
    __m256i which = _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303);
    __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(_mm256_set1_epi32((int)bits), which), bit),
                             bit);
}
V3 INLINE __m256i lanes_16(uint32_t bits) {
    __m256i bit =
        _mm256_setr_epi16(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, -32768);
    return _mm256_cmpeq_epi16(_mm256_and_si256(_mm256_set1_epi16((short)bits), bit), bit);
}
V3 INLINE __m256i lanes_32(uint32_t bits) {
    __m256i bit = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), bit), bit);
}
V3 INLINE __m256i lanes_64(uint32_t bits) {
    __m256i bit = _mm256_setr_epi64x(1, 2, 4, 8);
    return _mm256_cmpeq_epi64(_mm256_and_si256(_mm256_set1_epi64x((long long)bits), bit), bit);
}

/* Byte controls made once from codec_order and codec_rank: by mask of 8 lanes of 16 bits, of 4 lanes of 64.
 */
static uint8_t order_16[256][16], rank_16[256][16], order_64[16][8], rank_64[16][8];

void codec_x86_tables(void) {
    for (int m = 0; m < 256; m++)
        for (int i = 0; i < 16; i++) {
            uint8_t order = codec_order[m][i / 2], rank = codec_rank[m][i / 2];
            order_16[m][i] = (uint8_t)(2 * order + i % 2);
            rank_16[m][i] = rank & 0x80 ? 0x80 : (uint8_t)(2 * rank + i % 2);
        }
    for (int m = 0; m < 16; m++)
        for (int i = 0; i < 8; i++) {
            uint8_t order = codec_order[m][i / 2], rank = codec_rank[m][i / 2];
            order_64[m][i] = (uint8_t)(2 * order + i % 2);
            rank_64[m][i] = (uint8_t)((rank & 0x80) | (2 * (rank & 3) + i % 2));
        }
}

V3 INLINE __m256i permute(const uint8_t control[8], __m256i v) {
    return _mm256_permutevar8x32_epi32(v, _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)control)));
}

/* As permute, and zero where the control's top bit is set. */
V3 INLINE __m256i place(const uint8_t control[8], __m256i v) {
    __m256i at = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)control));
    return _mm256_andnot_si256(_mm256_srai_epi32(at, 31), _mm256_permutevar8x32_epi32(v, at));
}

/* emit_W: one vector's marked lanes, in order, at `to`; how many. */
V3 INLINE size_t emit_8(void *to, __m256i v, uint32_t m) {
    __m128i half[2] = {_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1)};
    uint8_t *y = to;
    for (int i = 0; i < 4; i++, m >>= 8) {
        __m128i eight = i % 2 ? _mm_unpackhi_epi64(half[i / 2], half[i / 2]) : half[i / 2];
        __m128i control = _mm_loadl_epi64((const __m128i *)codec_order[m & 255]);
        _mm_storel_epi64((__m128i *)y, _mm_shuffle_epi8(eight, control));
        y += _mm_popcnt_u32(m & 255);
    }
    return (size_t)(y - (uint8_t *)to);
}
V3 INLINE size_t emit_16(void *to, __m256i v, uint32_t m) {
    size_t low = (size_t)_mm_popcnt_u32(m & 255);
    __m128i a =
        _mm_shuffle_epi8(_mm256_castsi256_si128(v), _mm_loadu_si128((const __m128i *)order_16[m & 255]));
    __m128i b =
        _mm_shuffle_epi8(_mm256_extracti128_si256(v, 1), _mm_loadu_si128((const __m128i *)order_16[m >> 8]));
    _mm_storeu_si128((__m128i *)to, a);
    _mm_storeu_si128((__m128i *)((uint16_t *)to + low), b);
    return low + (size_t)_mm_popcnt_u32(m >> 8);
}
V3 INLINE size_t emit_32(void *to, __m256i v, uint32_t m) {
    _mm256_storeu_si256(to, permute(codec_order[m], v));
    return (size_t)_mm_popcnt_u32(m);
}
V3 INLINE size_t emit_64(void *to, __m256i v, uint32_t m) {
    _mm256_storeu_si256(to, permute(order_64[m], v));
    return (size_t)_mm_popcnt_u32(m);
}

/* fill_W: a vector whose marked lanes take the next elements at `from`, the others zero; how many were taken.
 */
V3 INLINE size_t fill_8(const void *from, __m256i *v, uint32_t m) {
    uint64_t eight[4];
    const uint8_t *x = from;
    for (int i = 0; i < 4; i++, m >>= 8) {
        __m128i control = _mm_loadl_epi64((const __m128i *)codec_rank[m & 255]);
        eight[i] =
            (uint64_t)_mm_cvtsi128_si64(_mm_shuffle_epi8(_mm_loadl_epi64((const __m128i *)x), control));
        x += _mm_popcnt_u32(m & 255);
    }
    *v = _mm256_setr_epi64x((long long)eight[0], (long long)eight[1], (long long)eight[2],
                            (long long)eight[3]);
    return (size_t)(x - (const uint8_t *)from);
}
V3 INLINE size_t fill_16(const void *from, __m256i *v, uint32_t m) {
    const uint16_t *x = from;
    size_t low = (size_t)_mm_popcnt_u32(m & 255);
    __m128i a = _mm_loadu_si128((const __m128i *)x), b = _mm_loadu_si128((const __m128i *)(x + low));
    a = _mm_shuffle_epi8(a, _mm_loadu_si128((const __m128i *)rank_16[m & 255]));
    b = _mm_shuffle_epi8(b, _mm_loadu_si128((const __m128i *)rank_16[m >> 8]));
    *v = _mm256_set_m128i(b, a);
    return low + (size_t)_mm_popcnt_u32(m >> 8);
}
V3 INLINE size_t fill_32(const void *from, __m256i *v, uint32_t m) {
    *v = place(codec_rank[m], _mm256_loadu_si256(from));
    return (size_t)_mm_popcnt_u32(m);
}
V3 INLINE size_t fill_64(const void *from, __m256i *v, uint32_t m) {
    *v = place(rank_64[m], _mm256_loadu_si256(from));
    return (size_t)_mm_popcnt_u32(m);
}

#define LANES(W) (256 / W)
#define BITS(W, word, i) ((uint32_t)((word) >> (i)) & (uint32_t)((1ull << LANES(W)) - 1))
#define set1_epi8 _mm256_set1_epi8
#define set1_epi16 _mm256_set1_epi16
#define set1_epi32 _mm256_set1_epi32
#define set1_epi64 _mm256_set1_epi64x

#define DEFINE_V3(W)                                                                                         \
    V3 static int v3_nonzero_##W(const void *xv, size_t groups, uint64_t *bits) {                            \
        const uint##W##_t *x = xv;                                                                           \
        __m256i any = _mm256_setzero_si256();                                                                \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W)) {                                       \
                __m256i v = _mm256_loadu_si256((const __m256i *)x);                                          \
                any = _mm256_or_si256(any, v);                                                               \
                word |= (uint64_t)mark_##W(_mm256_cmpeq_epi##W(v, _mm256_setzero_si256())) << i;             \
            }                                                                                                \
            bits[g] = ~word;                                                                                 \
        }                                                                                                    \
        return mark_##W(_mm256_cmpgt_epi##W(_mm256_setzero_si256(), any)) != 0;                              \
    }                                                                                                        \
    /* Unsigned "above" as signed: flip the sign bit on both sides. */                                       \
    V3 INLINE __m256i open_##W(__m256i v, uint64_t neg_inf) {                                                \
        __m256i sign = set1_epi##W((int##W##_t)(1ull << (W - 1)));                                           \
        __m256i low = _mm256_xor_si256(set1_epi##W((int##W##_t)neg_inf), sign);                              \
        return _mm256_or_si256(_mm256_cmpgt_epi##W(v, _mm256_setzero_si256()),                               \
                               _mm256_cmpgt_epi##W(_mm256_xor_si256(v, sign), low));                         \
    }                                                                                                        \
    V3 static void v3_gate_##W(const void *xv, size_t groups, uint64_t *bits, uint64_t neg_inf) {            \
        const uint##W##_t *x = xv;                                                                           \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W))                                         \
                word |= (uint64_t)mark_##W(open_##W(_mm256_loadu_si256((const __m256i *)x), neg_inf)) << i;  \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
    }                                                                                                        \
    V3 static int v3_relu_##W(const void *xv, void *yv, size_t groups, uint64_t *bits, uint64_t neg_inf) {   \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = yv;                                                                                 \
        uint64_t sign = (uint##W##_t)neg_inf == (uint##W##_t) ~0ull ? 0 : 1ull << (W - 1);                   \
        __m256i minus = set1_epi##W((int##W##_t)sign), any = _mm256_setzero_si256();                         \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W), y += LANES(W)) {                        \
                __m256i v = _mm256_loadu_si256((const __m256i *)x), kept;                                    \
                kept = _mm256_and_si256(                                                                     \
                    v, _mm256_or_si256(open_##W(v, neg_inf), _mm256_cmpeq_epi##W(v, minus)));                \
                _mm256_storeu_si256((__m256i *)y, kept);                                                     \
                any = _mm256_or_si256(any, kept);                                                            \
                word |= (uint64_t)mark_##W(_mm256_cmpeq_epi##W(kept, _mm256_setzero_si256())) << i;          \
            }                                                                                                \
            bits[g] = ~word;                                                                                 \
        }                                                                                                    \
        return mark_##W(_mm256_cmpgt_epi##W(_mm256_setzero_si256(), any)) != 0;                              \
    }                                                                                                        \
    V3 static int v3_squeeze_##W(const void *xv, size_t groups, uint64_t *bits, void *to) {                  \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = to;                                                                                 \
        __m256i any = _mm256_setzero_si256();                                                                \
        for (size_t g = 0; g < groups; g++) {                                                                \
            uint64_t word = 0;                                                                               \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W)) {                                       \
                __m256i v = _mm256_loadu_si256((const __m256i *)x);                                          \
                uint32_t m = BITS(W, ~mark_##W(_mm256_cmpeq_epi##W(v, _mm256_setzero_si256())), 0);          \
                if (i * W % 512 == 0) _mm_prefetch((const char *)x + AHEAD, _MM_HINT_T0);                    \
                any = _mm256_or_si256(any, v);                                                               \
                y += emit_##W(y, v, m);                                                                      \
                word |= (uint64_t)m << i;                                                                    \
            }                                                                                                \
            bits[g] = word;                                                                                  \
        }                                                                                                    \
        return mark_##W(_mm256_cmpgt_epi##W(_mm256_setzero_si256(), any)) != 0;                              \
    }                                                                                                        \
    V3 static void v3_pack_##W(const void *xv, const uint64_t *bits, size_t groups, void *to) {              \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = to;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W))                                         \
                y += emit_##W(y, _mm256_loadu_si256((const __m256i *)x), BITS(W, bits[g], i));               \
    }                                                                                                        \
    V3 static void v3_unpack_##W(const void *from, const uint64_t *bits, size_t groups, void *yv) {          \
        const uint##W##_t *x = from;                                                                         \
        uint##W##_t *y = yv;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), y += LANES(W)) {                                       \
                __m256i v;                                                                                   \
                x += fill_##W(x, &v, BITS(W, bits[g], i));                                                   \
                _mm256_storeu_si256((__m256i *)y, v);                                                        \
            }                                                                                                \
    }                                                                                                        \
    V3 static void v3_select_##W(const void *xv, const uint64_t *bits, size_t groups, void *yv) {            \
        const uint##W##_t *x = xv;                                                                           \
        uint##W##_t *y = yv;                                                                                 \
        for (size_t g = 0; g < groups; g++)                                                                  \
            for (int i = 0; i < GROUP; i += LANES(W), x += LANES(W), y += LANES(W))                          \
                _mm256_storeu_si256((__m256i *)y, _mm256_and_si256(_mm256_loadu_si256((const __m256i *)x),   \
                                                                   lanes_##W(BITS(W, bits[g], i))));         \
    }

DEFINE_V3(8)
DEFINE_V3(16)
DEFINE_V3(32)
DEFINE_V3(64)

#define EACH(f) {f##_8, f##_16, f##_32, f##_64}
codec_level codec_avx512 = {
    "avx512",         EACH(v4_nonzero), EACH(v4_relu),   EACH(v4_gate), EACH(v4_squeeze),
    EACH(v4_pack),    EACH(v4_unpack),  EACH(v4_select), v4_count,      v4_digest,
    v4_stream};
codec_level codec_avx2 = {
    "avx2",           EACH(v3_nonzero), EACH(v3_relu),   EACH(v3_gate), EACH(v3_squeeze),
    EACH(v3_pack),    EACH(v3_unpack),  EACH(v3_select), v3_count,      v3_digest,
    v3_stream};
#else
typedef int codec_x86_unused;
#endif
