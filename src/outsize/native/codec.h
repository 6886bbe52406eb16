/* Zero suppression and bit masks over flat arrays: what every instruction set supplies, and the digest.
 *
 * Elements are bit patterns of 1, 2, 4 or 8 bytes (index `w` = log2 of the width). They are handled in groups
 * of 64, so that one group is one 64-bit word of the bitmap; bit i of a word is element i (little endian).
 * A level's functions may write up to 64 bytes past their last packed element and read as far past the source
 * of an unpack: the driver (codec.c) hands them staging memory wherever that could leave the caller's memory.
 */
#ifndef OUTSIZE_CODEC_H
#define OUTSIZE_CODEC_H

#include <stddef.h>
#include <stdint.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the bitmap's layout is little endian"
#endif

/* 32 bits at any address, of any object. */
typedef uint32_t __attribute__((aligned(1), may_alias)) loose_word;

/* AHEAD: bytes from what is read to what is asked for; a processor's own prefetching ends at every page. */
enum { AHEAD = 4096 };
enum { GROUP = 64, BLOCK = 1024, GROUPS = BLOCK / GROUP, SLACK = 64 };

/* Which elements a scan marks. NONZERO: any bit set. GATE: above zero or NaN, where a ReLU lets the gradient
 * through. RELU: as GATE, and −0.0 too, which torch.relu keeps; the others are written as zero. */
enum operation { NONZERO = 0, RELU = 1, GATE = 2 };

typedef struct {
    const char *name;
    /* Both say whether any element that they mark has its sign bit set. */
    int (*nonzero[4])(const void *x, size_t groups, uint64_t *bits);
    int (*relu[4])(const void *x, void *y, size_t groups, uint64_t *bits, uint64_t neg_inf);
    /* neg_inf (here and above): the bits of −inf of the element's type; all ones for integers. */
    void (*gate[4])(const void *x, size_t groups, uint64_t *bits, uint64_t neg_inf);
    /* nonzero and pack in one reading; it asks for what lies AHEAD bytes further. */
    int (*squeeze[4])(const void *x, size_t groups, uint64_t *bits, void *to);
    void (*pack[4])(const void *x, const uint64_t *bits, size_t groups, void *to);
    void (*unpack[4])(const void *from, const uint64_t *bits, size_t groups, void *y);
    void (*select[4])(const void *x, const uint64_t *bits, size_t groups, void *y);
    int64_t (*count)(const uint64_t *bits, size_t groups); /* set bits */
    uint64_t (*digest)(const loose_word *words, size_t count, uint32_t key);
    void (*stream)(void *to, const void *from,
                   size_t lines); /* whole, aligned 64-byte lines past the cache */
} codec_level;

extern const codec_level codec_portable;
#if defined(__x86_64__)
extern codec_level codec_avx2, codec_avx512;
void codec_x86_tables(void);
#elif defined(__aarch64__)
extern codec_level codec_neon;
void codec_neon_tables(void);
#endif

/* The digest is linear: Σ word[k] · (k·KEY | 1) mod 2⁶⁴ over the 32-bit words of the whole buffer, so threads
 * and blocks add up their parts in any order. Odd factors make every single flipped bit visible. */
#define DIGEST_KEY 0x9E3779B1u
static inline uint64_t codec_term(uint32_t word, uint64_t k) {
    return (uint64_t)word * ((uint32_t)k * DIGEST_KEY | 1);
}

/* order[m] lists the set bits of the byte m; rank[m][i] is the rank of bit i among them, 0x80 where unset. */
extern uint8_t codec_order[256][8], codec_rank[256][8];
void codec_byte_tables(void);

/* codec.c: the parallel drivers. Addresses of a buffer's regions; `base` is where its digest's word 0 lies.
 */
typedef struct {
    const codec_level *level;
    int width;   /* log2 of the element's bytes */
    int threads; /* at least 1 */
    int64_t n;
    enum operation operation;
    uint64_t neg_inf;
    const uint8_t *x; /* dense input, or NULL for a select of `one` */
    uint64_t one;
    uint8_t *y; /* dense output */
    uint8_t *base;
    uint32_t *table; /* may be NULL: no counts wanted */
    uint8_t *bitmap;
    uint8_t *values;  /* may be NULL: no values wanted */
    int64_t capacity; /* elements that fit at `values` */
    int64_t nnz;
    uint64_t digest;
    int negative;      /* encode: whether a marked element has its sign bit set */
    int64_t bad_block; /* decode: first block whose count and bitmap disagree, or −1 */
} codec_job;

int codec_run_encode(codec_job *job); /* one pass: bitmap, table, scan, values; 0 or −1 out of memory */
int codec_run_copy(codec_job *job);   /* values only, from a table and bitmap made before */
int codec_run_decode(codec_job *job); /* 0, −1 out of memory, 1 the table does not add up to nnz */
int codec_run_select(codec_job *job);
uint64_t codec_digest_bytes(const codec_level *level, const uint8_t *at, size_t bytes, uint64_t offset);

#endif
