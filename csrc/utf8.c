/* ASCII is skipped in vectors. The rest runs through a DFA whose transition table is one 64-bit word
 * per byte: a state is the bit position of its 6-bit field in that word, so a step is one load that
 * does not depend on the state, and one shift that does (the idea is Per Vognsen's). */
#include "utf8.h"

#include "bits.h"

#if HW_X86
#include <emmintrin.h>
#endif

/* What may come next. A state after a leading byte of a 3- or 4-byte sequence is apart where the second
 * byte's range is narrower than 80..BF (RFC 3629, section 4). */
enum {
    ACCEPT = HW_UTF8_ACCEPT,
    REJECT = 6,
    TAIL1 = 12,   /* one 80..BF */
    TAIL2 = 18,   /* two of them */
    TAIL3 = 24,   /* three */
    AFTER_E0 = 30, /* A0..BF, then one: no overlong form */
    AFTER_ED = 36, /* 80..9F, then one: no surrogate */
    AFTER_F0 = 42, /* 90..BF, then two: no overlong form */
    AFTER_F4 = 48, /* 80..8F, then two: nothing above U+10FFFF */
};

#define TO(from, to) ((uint64_t)(to) << (from))
#define NONE                                                                                        \
    (TO(REJECT, REJECT) | TO(TAIL1, REJECT) | TO(TAIL2, REJECT) | TO(TAIL3, REJECT) |               \
     TO(AFTER_E0, REJECT) | TO(AFTER_ED, REJECT) | TO(AFTER_F0, REJECT) | TO(AFTER_F4, REJECT))
#define LEAD(to) (NONE | TO(ACCEPT, to))
#define TAIL(e0, ed, f0, f4)                                                                        \
    (TO(ACCEPT, REJECT) | TO(REJECT, REJECT) | TO(TAIL1, ACCEPT) | TO(TAIL2, TAIL1) |               \
     TO(TAIL3, TAIL2) | TO(AFTER_E0, e0) | TO(AFTER_ED, ed) | TO(AFTER_F0, f0) | TO(AFTER_F4, f4))

#define X2(v) v, v
#define X4(v) X2(v), X2(v)
#define X8(v) X4(v), X4(v)
#define X16(v) X8(v), X8(v)
#define X32(v) X16(v), X16(v)

static const uint64_t STEP[256] = {
    X32(LEAD(ACCEPT)), X32(LEAD(ACCEPT)), X32(LEAD(ACCEPT)), X32(LEAD(ACCEPT)), /* 00..7F */
    X16(TAIL(REJECT, TAIL1, REJECT, TAIL2)),                                    /* 80..8F */
    X16(TAIL(REJECT, TAIL1, TAIL2, REJECT)),                                    /* 90..9F */
    X32(TAIL(TAIL1, REJECT, TAIL2, REJECT)),                                    /* A0..BF */
    X2(LEAD(REJECT)),                                                           /* C0..C1 */
    X16(LEAD(TAIL1)), X8(LEAD(TAIL1)), X4(LEAD(TAIL1)), X2(LEAD(TAIL1)),        /* C2..DF */
    LEAD(AFTER_E0),                                                             /* E0 */
    X8(LEAD(TAIL2)), X4(LEAD(TAIL2)),                                           /* E1..EC */
    LEAD(AFTER_ED),                                                             /* ED */
    X2(LEAD(TAIL2)),                                                            /* EE..EF */
    LEAD(AFTER_F0),                                                             /* F0 */
    X2(LEAD(TAIL3)), LEAD(TAIL3),                                               /* F1..F3 */
    LEAD(AFTER_F4),                                                             /* F4 */
    X8(LEAD(REJECT)), X2(LEAD(REJECT)), LEAD(REJECT),                           /* F5..FF */
};

/* The bits above a state's six are other fields: only (state & 63) means anything. */
HW_INLINE uint64_t step(uint64_t state, uint8_t byte) { return STEP[byte] >> (state & 63); }

HW_INLINE int is_ascii_16(const uint8_t *p) {
#if HW_X86
    return _mm_movemask_epi8(_mm_loadu_si128((const __m128i *)(const void *)p)) == 0;
#else
    return ((hw_load64(p) | hw_load64(p + 8)) & UINT64_C(0x8080808080808080)) == 0;
#endif
}

int hw_utf8(uint32_t *state, const uint8_t *p, size_t n) {
    const uint8_t *end = p + n;
    uint64_t s = *state;

    while (end - p >= 16) {
        if ((s & 63) == ACCEPT && is_ascii_16(p)) {
            while (end - p >= 64 && is_ascii_16(p) && is_ascii_16(p + 16) && is_ascii_16(p + 32) &&
                   is_ascii_16(p + 48))
                p += 64;
            while (end - p >= 16 && is_ascii_16(p))
                p += 16;
            continue;
        }
        for (int i = 0; i < 16; i++)
            s = step(s, p[i]);
        p += 16;
        if ((s & 63) == REJECT)
            break;
    }
    while (p < end && (s & 63) != REJECT)
        s = step(s, *p++);

    *state = (uint32_t)(s & 63);
    return *state == REJECT ? -1 : 0;
}
