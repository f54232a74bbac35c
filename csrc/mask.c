/* Most messages are 16 to 256 bytes, so the head and the tail matter as much as the loop: both are
 * whole vectors that overlap the loop's range. They are loaded before the loop may have changed what
 * they cover (dst == src) and stored after it. */
#include "mask.h"

#include "bits.h"

#if HW_X86
#include <immintrin.h>
#endif

#define HIGH_BITS UINT64_C(0x8080808080808080)

/* The key as it stands `offset` bytes further on. */
HW_INLINE uint32_t key_at(uint32_t key, size_t offset) {
    unsigned bits = (unsigned)(offset & 3) * 8;
#if HW_BIG_ENDIAN
    return key << bits | key >> ((32 - bits) & 31);
#else
    return key >> bits | key << ((32 - bits) & 31);
#endif
}

HW_INLINE uint64_t twice(uint32_t key) { return (uint64_t)key << 32 | key; }

/* n < 16 */
HW_INLINE uint8_t mask_short(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key) {
    if (n >= 8) {
        uint64_t head = hw_load64(src) ^ twice(key);
        uint64_t tail = hw_load64(src + n - 8) ^ twice(key_at(key, n));
        hw_store64(dst, head);
        hw_store64(dst + n - 8, tail);
        return (head | tail) & HIGH_BITS ? 0x80 : 0;
    }
    if (n >= 4) {
        uint32_t head = hw_load32(src) ^ key;
        uint32_t tail = hw_load32(src + n - 4) ^ key_at(key, n);
        hw_store32(dst, head);
        hw_store32(dst + n - 4, tail);
        return (head | tail) & (uint32_t)HIGH_BITS ? 0x80 : 0;
    }
    uint8_t seen = 0;
    for (size_t i = 0; i < n; i++) {
        uint8_t byte;
        uint32_t rotated = key_at(key, i);
        memcpy(&byte, &rotated, 1);
        byte ^= src[i];
        dst[i] = byte;
        seen |= byte;
    }
    return seen & 0x80;
}

#if HW_X86

enum { WIDE_MIN = 256 }; /* below this the wider registers win nothing */

HW_INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
HW_INLINE void store16(uint8_t *p, __m128i v) { _mm_storeu_si128((__m128i *)(void *)p, v); }

/* n >= 16 */
HW_INLINE uint8_t mask_16(uint8_t *dst, const uint8_t *src, size_t n, uint32_t key) {
    const __m128i k = _mm_set1_epi32((int)key);
    const __m128i tail = _mm_xor_si128(load16(src + n - 16), _mm_set1_epi32((int)key_at(key, n)));
    __m128i seen = tail;
    size_t i = 0;
    for (; i + 64 < n; i += 64) {
        __m128i a = _mm_xor_si128(load16(src + i), k), b = _mm_xor_si128(load16(src + i + 16), k);
        __m128i c = _mm_xor_si128(load16(src + i + 32), k), d = _mm_xor_si128(load16(src + i + 48), k);
        store16(dst + i, a);
        store16(dst + i + 16, b);
        store16(dst + i + 32, c);
        store16(dst + i + 48, d);
        seen = _mm_or_si128(seen, _mm_or_si128(_mm_or_si128(a, b), _mm_or_si128(c, d)));
    }
    for (; i + 16 < n; i += 16) {
        __m128i a = _mm_xor_si128(load16(src + i), k);
        store16(dst + i, a);
        seen = _mm_or_si128(seen, a);
    }
    store16(dst + n - 16, tail);
    return _mm_movemask_epi8(seen) ? 0x80 : 0;
}

#define load32(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define store32(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), (v))

/* n >= 64. The stores of the loop are aligned: a payload begins 2 to 14 bytes into a frame, so that
 * every second store would otherwise cross a cache line. */
__attribute__((target("avx2"))) static uint8_t mask_32(uint8_t *dst, const uint8_t *src, size_t n,
                                                       uint32_t key) {
    const __m256i head = _mm256_xor_si256(load32(src), _mm256_set1_epi32((int)key));
    const __m256i tail = _mm256_xor_si256(load32(src + n - 32), _mm256_set1_epi32((int)key_at(key, n)));
    size_t i = 32 - ((uintptr_t)dst & 31);
    const __m256i k = _mm256_set1_epi32((int)key_at(key, i));
    __m256i seen = _mm256_or_si256(head, tail);
    for (; i + 128 < n; i += 128) {
        __m256i a = _mm256_xor_si256(load32(src + i), k), b = _mm256_xor_si256(load32(src + i + 32), k);
        __m256i c = _mm256_xor_si256(load32(src + i + 64), k), d = _mm256_xor_si256(load32(src + i + 96), k);
        store32(dst + i, a);
        store32(dst + i + 32, b);
        store32(dst + i + 64, c);
        store32(dst + i + 96, d);
        seen = _mm256_or_si256(seen, _mm256_or_si256(_mm256_or_si256(a, b), _mm256_or_si256(c, d)));
    }
    for (; i + 32 < n; i += 32) {
        __m256i a = _mm256_xor_si256(load32(src + i), k);
        store32(dst + i, a);
        seen = _mm256_or_si256(seen, a);
    }
    store32(dst, head);
    store32(dst + n - 32, tail);
    return _mm256_movemask_epi8(seen) ? 0x80 : 0;
}

uint8_t hw_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4], size_t pos) {
    const uint32_t k = key_at(hw_load32(key), pos);
    if (n < 16)
        return mask_short(dst, src, n, k);
    if (n >= WIDE_MIN && __builtin_cpu_supports("avx2"))
        return mask_32(dst, src, n, k);
    return mask_16(dst, src, n, k);
}

#else

uint8_t hw_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4], size_t pos) {
    const uint32_t k = key_at(hw_load32(key), pos);
    if (n < 16)
        return mask_short(dst, src, n, k);
    const uint64_t kk = twice(k);
    const uint64_t tail = hw_load64(src + n - 8) ^ twice(key_at(k, n));
    uint64_t seen = tail;
    size_t i = 0;
    for (; i + 32 < n; i += 32) {
        uint64_t a = hw_load64(src + i) ^ kk, b = hw_load64(src + i + 8) ^ kk;
        uint64_t c = hw_load64(src + i + 16) ^ kk, d = hw_load64(src + i + 24) ^ kk;
        hw_store64(dst + i, a);
        hw_store64(dst + i + 8, b);
        hw_store64(dst + i + 16, c);
        hw_store64(dst + i + 24, d);
        seen |= a | b | c | d;
    }
    for (; i + 8 < n; i += 8) {
        uint64_t a = hw_load64(src + i) ^ kk;
        hw_store64(dst + i, a);
        seen |= a;
    }
    hw_store64(dst + n - 8, tail);
    return seen & HIGH_BITS ? 0x80 : 0;
}

#endif
