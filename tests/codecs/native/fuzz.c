/* libFuzzer's entry: an arbitrary buffer, decoded by every level. The first bytes are width, count and nnz.
 */
#include "../../../src/outsize/native/codec.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const codec_level *levels[] = {&codec_portable, &codec_avx2, &codec_avx512};
    codec_byte_tables();
    codec_x86_tables();
    if (size < 6) return 0;
    int width = data[0] & 3;
    int64_t n = data[1] | data[2] << 8, nnz = data[3] | data[4] << 8;
    const codec_level *level =
        levels[data[5] % (__builtin_cpu_supports("avx512vbmi2") ? 3 : 1 + !!__builtin_cpu_supports("avx2"))];
    size_t table = ((size_t)(n + BLOCK - 1) / BLOCK * 4 + 15) / 16 * 16,
           bitmap = ((size_t)(n + 7) / 8 + 15) / 16 * 16;
    size_t whole = table + bitmap + ((size_t)nnz << width);
    uint8_t *buffer = calloc(whole + !whole, 1), *y = malloc(((size_t)n << width) + 1);
    memcpy(buffer, data + 6, size - 6 < whole ? size - 6 : whole);
    codec_job job = {.level = level, .width = width, .threads = 1, .n = n, .nnz = nnz, .base = buffer};
    job.table = (uint32_t *)buffer, job.bitmap = buffer + table, job.values = buffer + table + bitmap,
    job.y = y;
    codec_run_decode(&job);
    job.x = NULL, job.one = 1;
    codec_run_select(&job);
    free(buffer), free(y);
    return 0;
}
