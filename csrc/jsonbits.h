/* What the passes over JSON share: 64 bytes of text as one bit mask for each class of byte (bit i: byte i is one). */
#ifndef HW_JSONBITS_H
#define HW_JSONBITS_H

#include <stdint.h>

#include "bits.h"

/* The bytes that come after a backslash which is not itself escaped. *carry: 1 if the block's first byte, afterwards
 * the next block's, is one. */
HW_INLINE uint64_t hw_escaped_bytes(uint64_t backslashes, uint64_t *carry) {
    uint64_t escaped = *carry;
    *carry = 0;
    for (backslashes &= ~escaped; backslashes; backslashes &= backslashes - 1) {
        unsigned at = hw_lowest_bit(backslashes);
        if (at == 63) {
            *carry = 1;
            break;
        }
        escaped |= UINT64_C(2) << at;
        backslashes &= ~(UINT64_C(2) << at);
    }
    return escaped;
}

#if HW_X86

#include <immintrin.h>

#define HW_TARGET_AVX2 __attribute__((target("avx2,popcnt,pclmul,bmi")))

HW_INLINE int hw_has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("pclmul") &&
           __builtin_cpu_supports("bmi");
}

/* The highest bit of each byte: a, then b. */
HW_TARGET_AVX2 HW_INLINE uint64_t hw_high_bits(__m256i a, __m256i b) {
    return (uint32_t)_mm256_movemask_epi8(a) | (uint64_t)(uint32_t)_mm256_movemask_epi8(b) << 32;
}

HW_TARGET_AVX2 HW_INLINE uint64_t hw_equal_bytes(__m256i a, __m256i b, char byte) {
    const __m256i wanted = _mm256_set1_epi8(byte);
    return hw_high_bits(_mm256_cmpeq_epi8(a, wanted), _mm256_cmpeq_epi8(b, wanted));
}

/* Bit i: the parity of the bits up to and with i. A carry-less product with all ones is that. */
HW_TARGET_AVX2 HW_INLINE uint64_t hw_prefix_parity(uint64_t v) {
    const __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)v), _mm_set1_epi8(-1), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

#endif
#endif
