/* 64 bytes at a time become four bit masks (bit i: byte i is a quote, an opener, ...), and everything
 * after that is integer arithmetic on the masks.
 *
 * Where the text is not JSON, "outside strings" means: a quote opens or closes a string, unless an odd
 * number of backslashes stands before it (inside a string or not), and a closer at depth 0 does nothing.
 * Up to the first syntax error this is what every decoder sees, and none goes deeper after it. */
#include "jsonscan.h"

#include "jsonbits.h"

/* `[` and `{`, and `]` and `}`, differ in bit 5 alone, and with it set no other byte equals them. */
enum { FOLD = 0x20, OPENER = '{', CLOSER = '}' };

static const char ACTION_KEY[8] = {'"', 'a', 'c', 't', 'i', 'o', 'n', '"'};

typedef struct {
    uint64_t quotes, openers, closers, backslashes;
} masks;

/* What differs between instruction sets; inlined into each copy of `scan`. */
typedef masks read_block(const uint8_t *p); /* 64 bytes */
typedef unsigned count_bits(uint64_t v);
typedef uint64_t prefix_parity(uint64_t v); /* bit i: the parity of the bits up to and with i */

/* What a block passes on to the one after it. */
typedef struct {
    uint64_t in_string; /* all ones or zero */
    uint64_t escaped;   /* 1 if the first byte comes after a live backslash */
    unsigned depth;
} walk;

#if HW_X86

HW_INLINE masks masks_16(__m128i v) {
    const __m128i folded = _mm_or_si128(v, _mm_set1_epi8(FOLD));
    return (masks){
        .quotes = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('"'))),
        .openers = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(folded, _mm_set1_epi8(OPENER))),
        .closers = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(folded, _mm_set1_epi8(CLOSER))),
        .backslashes = (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
    };
}

HW_INLINE void put(masks *to, masks part, unsigned at) {
    to->quotes |= part.quotes << at;
    to->openers |= part.openers << at;
    to->closers |= part.closers << at;
    to->backslashes |= part.backslashes << at;
}

HW_INLINE __m128i load16(const uint8_t *p) { return _mm_loadu_si128((const __m128i *)(const void *)p); }
HW_INLINE __m128i load8(const uint8_t *p) { return _mm_loadl_epi64((const __m128i *)(const void *)p); }

HW_INLINE masks read_64(const uint8_t *p) {
    masks m = masks_16(load16(p));
    put(&m, masks_16(load16(p + 16)), 16);
    put(&m, masks_16(load16(p + 32)), 32);
    put(&m, masks_16(load16(p + 48)), 48);
    return m;
}

/* 8 <= n < 64. Vectors may overlap: a bit that is put twice is the same bit. */
HW_INLINE masks read_short(const uint8_t *p, unsigned n) {
    if (n < 16) {
        masks m = masks_16(load8(p));
        put(&m, masks_16(load8(p + n - 8)), n - 8);
        return m;
    }
    masks m = masks_16(load16(p + n - 16));
    m = (masks){m.quotes << (n - 16), m.openers << (n - 16), m.closers << (n - 16),
                m.backslashes << (n - 16)};
    for (unsigned i = 0; i + 16 < n; i += 16)
        put(&m, masks_16(load16(p + i)), i);
    return m;
}

#else

/* One bit per byte that equals the one repeated in `pattern`, the byte at the lowest address first. */
HW_INLINE uint64_t equal_bytes(uint64_t v, uint64_t pattern) {
    const uint64_t low7 = UINT64_C(0x7F7F7F7F7F7F7F7F);
    uint64_t x = v ^ pattern;
    x = ~(((x & low7) + low7) | x | low7) >> 7;
#if HW_BIG_ENDIAN
    return (x * UINT64_C(0x8040201008040201)) >> 56;
#else
    return (x * UINT64_C(0x0102040810204080)) >> 56;
#endif
}

HW_INLINE uint64_t repeat(uint8_t byte) { return byte * UINT64_C(0x0101010101010101); }

HW_INLINE void put_8(masks *to, const uint8_t *p, unsigned at) {
    const uint64_t v = hw_load64(p), folded = v | repeat(FOLD);
    to->quotes |= equal_bytes(v, repeat('"')) << at;
    to->openers |= equal_bytes(folded, repeat(OPENER)) << at;
    to->closers |= equal_bytes(folded, repeat(CLOSER)) << at;
    to->backslashes |= equal_bytes(v, repeat('\\')) << at;
}

HW_INLINE masks read_64(const uint8_t *p) {
    masks m = {0, 0, 0, 0};
    for (unsigned i = 0; i < 64; i += 8)
        put_8(&m, p + i, i);
    return m;
}

HW_INLINE masks read_short(const uint8_t *p, unsigned n) {
    masks m = {0, 0, 0, 0};
    for (unsigned i = 0; i + 8 < n; i += 8)
        put_8(&m, p + i, i);
    put_8(&m, p + n - 8, n - 8);
    return m;
}

#endif

/* n < 64. Fewer than 8 bytes are padded with zeros, which mean nothing. */
HW_INLINE masks read_last(const uint8_t *p, unsigned n) {
    if (n >= 8)
        return read_short(p, n);
    uint8_t padded[8] = {0};
    for (unsigned i = 0; i < n; i++)
        padded[i] = p[i];
    return read_short(padded, 8);
}

HW_INLINE uint64_t parity_by_shifts(uint64_t v) {
    for (unsigned shift = 1; shift < 64; shift *= 2)
        v ^= v << shift;
    return v;
}

/* Returns 0 if the block goes deeper than max_depth. */
HW_INLINE int walk_block(walk *w, masks m, unsigned max_depth, count_bits *count, prefix_parity *parity) {
    uint64_t in_string = m.quotes;
    if (m.backslashes | w->escaped)
        in_string &= ~hw_escaped_bytes(m.backslashes, &w->escaped);
    in_string = parity(in_string) ^ w->in_string;
    w->in_string = in_string >> 63 ? UINT64_MAX : 0;

    const uint64_t openers = m.openers & ~in_string, closers = m.closers & ~in_string;
    const unsigned up = count(openers), down = count(closers);
    if (up <= max_depth - w->depth && down <= w->depth) {
        w->depth += up - down;
        return 1;
    }
    for (uint64_t both = openers | closers; both; both &= both - 1) {
        if (both & (~both + 1) & closers) {
            w->depth -= w->depth > 0;
        } else if (w->depth == max_depth) {
            return 0;
        } else {
            w->depth++;
        }
    }
    return 1;
}

/* quotes_before: the quotes of the 64 bytes before p. A candidate ends in a quote and has another one
 * seven bytes earlier. */
HW_INLINE int has_action(const uint8_t *p, uint64_t quotes, uint64_t quotes_before) {
    uint64_t ends = quotes & (quotes << 7 | quotes_before >> 57);
    for (; ends; ends &= ends - 1)
        if (memcmp(p + hw_lowest_bit(ends) - 7, ACTION_KEY, 8) == 0)
            return 1;
    return 0;
}

/* Both passes look for the action; they differ in how they see to the depth. */

/* Returns a HW_JSON_ code; HW_JSON_DEEP here says only that there are more openers than max_depth. */
HW_INLINE int count_openers(const uint8_t *p, size_t n, unsigned max_depth, read_block *read, count_bits *count) {
    uint64_t quotes_before = 0;
    size_t openers = 0;
    int action = 0;
    for (; n >= 64; p += 64, n -= 64) {
        const masks m = read(p);
        openers += count(m.openers);
        if (!action)
            action = m.backslashes != 0 || has_action(p, m.quotes, quotes_before);
        quotes_before = m.quotes;
    }
    if (n) {
        const masks m = read_last(p, (unsigned)n);
        openers += count(m.openers);
        if (!action)
            action = m.backslashes != 0 || has_action(p, m.quotes, quotes_before);
    }
    if (openers > max_depth)
        return HW_JSON_DEEP;
    return action ? HW_JSON_ACTION : HW_JSON_OK;
}

/* Returns a HW_JSON_ code, exactly. */
HW_INLINE int walk_text(const uint8_t *p, size_t n, unsigned max_depth, read_block *read, count_bits *count,
                        prefix_parity *parity) {
    walk w = {0, 0, 0};
    uint64_t quotes_before = 0;
    int action = 0;
    for (; n >= 64; p += 64, n -= 64) {
        const masks m = read(p);
        if (!walk_block(&w, m, max_depth, count, parity))
            return HW_JSON_DEEP;
        if (!action)
            action = m.backslashes != 0 || has_action(p, m.quotes, quotes_before);
        quotes_before = m.quotes;
    }
    if (n) {
        const masks m = read_last(p, (unsigned)n);
        if (!walk_block(&w, m, max_depth, count, parity))
            return HW_JSON_DEEP;
        if (!action)
            action = m.backslashes != 0 || has_action(p, m.quotes, quotes_before);
    }
    return action ? HW_JSON_ACTION : HW_JSON_OK;
}

/* A short text rarely has more openers than it may be deep, and counting them is cheaper; a long one has
 * them nearly always, and would be read twice. */
enum { LONG_TEXT = 4096 };

HW_INLINE int scan(const uint8_t *p, size_t n, unsigned max_depth, read_block *read, count_bits *count,
                   prefix_parity *parity) {
    if (n < LONG_TEXT) {
        int found = count_openers(p, n, max_depth, read, count);
        if (found != HW_JSON_DEEP)
            return found;
    }
    return walk_text(p, n, max_depth, read, count, parity);
}

#if HW_X86

HW_TARGET_AVX2 HW_INLINE masks read_64_avx2(const uint8_t *p) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    const __m256i fold = _mm256_set1_epi8(FOLD);
    const __m256i fa = _mm256_or_si256(a, fold), fb = _mm256_or_si256(b, fold);
    return (masks){
        .quotes = hw_equal_bytes(a, b, '"'),
        .openers = hw_equal_bytes(fa, fb, OPENER),
        .closers = hw_equal_bytes(fa, fb, CLOSER),
        .backslashes = hw_equal_bytes(a, b, '\\'),
    };
}

HW_TARGET_AVX2 HW_INLINE unsigned count_popcnt(uint64_t v) { return (unsigned)__builtin_popcountll(v); }

HW_TARGET_AVX2 static int scan_avx2(const uint8_t *p, size_t n, unsigned max_depth) {
    return scan(p, n, max_depth, read_64_avx2, count_popcnt, hw_prefix_parity);
}

#endif

int hw_jsonscan(const uint8_t *p, size_t n, unsigned max_depth) {
#if HW_X86
    if (n >= 64 && hw_has_avx2())
        return scan_avx2(p, n, max_depth);
#endif
    return scan(p, n, max_depth, read_64, hw_count_bits, parity_by_shifts);
}
