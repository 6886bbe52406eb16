/* The codec's levels that this processor runs, the portable one first. */
#include "../../../src/outsize/native/codec.h"

static inline int codec_levels_here(const codec_level *levels[3]) {
    int count = 0;
    codec_byte_tables();
    levels[count++] = &codec_portable;
#if defined(__x86_64__)
    codec_x86_tables();
    if (__builtin_cpu_supports("avx2")) levels[count++] = &codec_avx2;
    if (__builtin_cpu_supports("avx512vbmi2")) levels[count++] = &codec_avx512;
#elif defined(__aarch64__)
    codec_neon_tables();
    levels[count++] = &codec_neon;
#endif
    return count;
}

/* Regions of a buffer begin at multiples of 16 bytes. */
static inline size_t padded(size_t n) { return (n + 15) / 16 * 16; }
