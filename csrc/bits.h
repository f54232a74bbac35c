/* Bit operations that C11 lacks, and whether the x86-64 vector paths are compiled.
 *
 * HW_X86: SSE2 is there without asking (it is part of x86-64), AVX2 is asked for at run time.
 * Define HW_PORTABLE to build the plain-integer paths anywhere, so that they can be tested. */
#ifndef HW_BITS_H
#define HW_BITS_H

#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__) && !defined(HW_PORTABLE)
#define HW_X86 1
#else
#define HW_X86 0
#endif

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
#define HW_BIG_ENDIAN 1
#else
#define HW_BIG_ENDIAN 0
#endif

#if defined(_MSC_VER) && !defined(__clang__)
#include <intrin.h>
#endif

#if defined(__GNUC__)
#define HW_INLINE static inline __attribute__((always_inline))
#else
#define HW_INLINE static inline
#endif

/* Index of the lowest set bit. v must not be 0. */
HW_INLINE unsigned hw_lowest_bit(uint64_t v) {
#if defined(__GNUC__)
    return (unsigned)__builtin_ctzll(v);
#elif defined(_MSC_VER) && defined(_WIN64)
    unsigned long index;
    _BitScanForward64(&index, v);
    return index;
#else
    unsigned index = 0;
    while (!(v & 1)) {
        v >>= 1;
        index++;
    }
    return index;
#endif
}

/* Without the POPCNT instruction (which only code for a named target may use). */
HW_INLINE unsigned hw_count_bits(uint64_t v) {
    v = v - ((v >> 1) & UINT64_C(0x5555555555555555));
    v = (v & UINT64_C(0x3333333333333333)) + ((v >> 2) & UINT64_C(0x3333333333333333));
    v = (v + (v >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F);
    return (unsigned)((v * UINT64_C(0x0101010101010101)) >> 56);
}

HW_INLINE uint32_t hw_load32(const uint8_t *p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

HW_INLINE uint64_t hw_load64(const uint8_t *p) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

HW_INLINE void hw_store32(uint8_t *p, uint32_t v) { memcpy(p, &v, sizeof v); }
HW_INLINE void hw_store64(uint8_t *p, uint64_t v) { memcpy(p, &v, sizeof v); }

#endif
