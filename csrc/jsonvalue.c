/* 64 bytes at a time become one bit mask for each class of byte, and the grammar is arithmetic on the masks: what may
 * follow what is a shift by one, what holds along a string or a run of digits is the carry of an addition. Only
 * brackets are looked at one by one: it takes a stack to tell an object's comma from an array's.
 *
 * Everything is exact up to the first byte that is wrong, and nothing after it matters. */
#include "jsonvalue.h"

#include "jsonbits.h"

#if HW_X86

enum { STACK_BITS = 64 };

static const uint8_t TRUE[4] = {'t', 'r', 'u', 'e'}, NUL[4] = {'n', 'u', 'l', 'l'};

/* Of the bytes of one block. */
typedef struct {
    uint64_t quotes, backslashes, controls, openers, closers, braces, colons, commas, digits, zeros, dots, minuses;
} classes;

/* What a block passes on to the one after it. */
typedef struct {
    uint64_t stack; /* the containers that are open, the innermost in bit 0: an object is 1 */
    unsigned depth, max_depth;
    uint64_t in_string; /* all ones or zero */
    uint64_t literal;   /* the bits of the next block that a literal takes */
    /* Each 0 or 1. Of the block's last byte: */
    uint64_t beginner, opened, opened_object, comma, scalar, letter, minus, dot, digit, lone_zero, key_end;
    /* Of the first byte of the next one: it is escaped; a key, or the digits behind a dot, go on up to it. */
    uint64_t escaped, key, fraction;
} walk;

HW_TARGET_AVX2 HW_INLINE uint64_t at_most(__m256i a, __m256i b, char most) {
    const __m256i top = _mm256_set1_epi8(most);
    return hw_high_bits(_mm256_cmpeq_epi8(_mm256_min_epu8(a, top), a),
                        _mm256_cmpeq_epi8(_mm256_min_epu8(b, top), b));
}

HW_TARGET_AVX2 HW_INLINE classes classify(const uint8_t *p) {
    const __m256i a = _mm256_loadu_si256((const __m256i *)(const void *)p);
    const __m256i b = _mm256_loadu_si256((const __m256i *)(const void *)(p + 32));
    /* `[` and `{`, and `]` and `}`, differ in bit 5 alone, and with it set no other byte equals them. */
    const __m256i fold = _mm256_set1_epi8(0x20), zero = _mm256_set1_epi8('0');
    const __m256i folded_a = _mm256_or_si256(a, fold), folded_b = _mm256_or_si256(b, fold);
    return (classes){
        .quotes = hw_equal_bytes(a, b, '"'),
        .backslashes = hw_equal_bytes(a, b, '\\'),
        .controls = at_most(a, b, 0x1F),
        .openers = hw_equal_bytes(folded_a, folded_b, '{'),
        .closers = hw_equal_bytes(folded_a, folded_b, '}'),
        .braces = hw_high_bits(_mm256_slli_epi16(a, 2), _mm256_slli_epi16(b, 2)), /* bit 5: of brackets, braces */
        .colons = hw_equal_bytes(a, b, ':'),
        .commas = hw_equal_bytes(a, b, ','),
        .digits = at_most(_mm256_sub_epi8(a, zero), _mm256_sub_epi8(b, zero), 9),
        .zeros = hw_equal_bytes(a, b, '0'),
        .dots = hw_equal_bytes(a, b, '.'),
        .minuses = hw_equal_bytes(a, b, '-'),
    };
}

/* The bytes that come after those of v. *carry: the last byte of the block before was one. */
HW_INLINE uint64_t after(uint64_t v, uint64_t *carry) {
    const uint64_t next = v << 1 | *carry;
    *carry = v >> 63;
    return next;
}

/* The byte behind each run of ones in `runs` that begins in `starts`. *carry: such a run came up to this block. */
HW_INLINE uint64_t behind_runs(uint64_t runs, uint64_t starts, uint64_t *carry) {
    uint64_t sum;
    unsigned over = __builtin_add_overflow(runs, starts, &sum);
    over |= __builtin_add_overflow(sum, *carry, &sum);
    *carry = over;
    return sum & ~runs;
}

/* Are all of them escapes of one character? */
static int short_escapes(const uint8_t *p, uint64_t escaped) {
    for (; escaped; escaped &= escaped - 1)
        if (!memchr("\"\\/bfnrt", p[hw_lowest_bit(escaped)], 8))
            return 0;
    return 1;
}

/* The letters of true, false and null where letters begin at `starts`; none at all if something else stands there. */
HW_INLINE uint64_t literals(walk *w, const uint8_t *p, const uint8_t *end, uint64_t starts) {
    uint64_t taken = w->literal;
    w->literal = 0;
    for (; starts; starts &= starts - 1) {
        const unsigned at = hw_lowest_bit(starts);
        const uint8_t *text = p + at;
        if (end - text < 5)
            return 0;
        const unsigned len = hw_load32(text) == hw_load32(TRUE) || hw_load32(text) == hw_load32(NUL) ? 4 : 5;
        if (len == 5 && memcmp(text, "false", 5) != 0)
            return 0;
        const uint64_t bits = (UINT64_C(1) << len) - 1;
        taken |= bits << at;
        if (at + len > 64)
            w->literal = bits >> (64 - at);
    }
    return taken;
}

/* Follows the brackets of a block. Returns the bytes that are within an object, themselves brackets or not; in
 * *value those up to the value's end. *fine becomes 0 if one does not match or is too deep. */
HW_INLINE uint64_t nest(walk *w, uint64_t openers, uint64_t closers, uint64_t braces, uint64_t *value, int *fine) {
    uint64_t in_object = 0 - (w->stack & 1);
    *value = UINT64_MAX;
    for (uint64_t both = openers | closers; both; both &= both - 1) {
        const uint64_t bit = both & (~both + 1), up_to = bit | (bit - 1);
        const uint64_t outer = w->stack & 1, object = (braces & bit) != 0;
        if (openers & bit) {
            if (w->depth == w->max_depth) {
                *fine = 0;
                break;
            }
            w->depth++;
            w->stack = w->stack << 1 | object;
        } else {
            if (outer != object) {
                *fine = 0;
                break;
            }
            w->depth--;
            w->stack >>= 1;
            if (w->depth == 0) {
                *value = up_to;
                break;
            }
        }
        if ((w->stack & 1) != outer)
            in_object ^= ~up_to;
    }
    return in_object;
}

/* Checks 64 bytes. Returns the bytes up to the value's end, all ones if it is not among them, 0 in case of doubt. */
HW_TARGET_AVX2 HW_INLINE uint64_t check(walk *w, const uint8_t *p, const uint8_t *end) {
    const classes c = classify(p);
    if (w->in_string && (c.quotes | c.backslashes | c.controls | w->escaped) == 0)
        return UINT64_MAX; /* a string goes on: nothing else can be wrong, or change */
    int fine = 1;
    const uint64_t escaped = c.backslashes | w->escaped ? hw_escaped_bytes(c.backslashes, &w->escaped) : 0;
    const uint64_t quotes = c.quotes & ~escaped;
    const uint64_t strings = hw_prefix_parity(quotes) ^ w->in_string; /* with their first quote, without the last */
    w->in_string = 0 - (strings >> 63);
    const uint64_t outside = ~(strings | quotes), string_starts = quotes & strings;
    const uint64_t openers = c.openers & outside, closers = c.closers & outside;
    const uint64_t commas = c.commas & outside, colons = c.colons & outside;
    const uint64_t scalars = outside & ~(openers | closers | commas | colons);
    uint64_t value;
    const uint64_t in_object = nest(w, openers, closers, c.braces, &value, &fine);

    const uint64_t after_beginner = after(openers | commas | colons, &w->beginner); /* else a value has ended */
    const uint64_t after_object = after(openers & c.braces, &w->opened_object);
    const uint64_t after_opener = after(openers, &w->opened);
    const uint64_t before_key = after(commas, &w->comma) & in_object;
    const uint64_t scalar_starts = scalars & ~after(scalars, &w->scalar);
    const uint64_t keys = string_starts & (after_object | before_key);
    uint64_t wrong = c.controls & strings;
    wrong |= string_starts & ~after_beginner;
    wrong |= (scalar_starts | openers) & (~after_beginner | after_object);
    wrong |= commas & after_beginner;
    wrong |= closers & after_beginner & ~after_opener;
    wrong |= before_key & ~string_starts;
    wrong |= colons ^ after(behind_runs(strings, keys, &w->key), &w->key_end); /* behind keys, and only there */

    const uint64_t digits = c.digits & scalars, dots = c.dots & scalars, minuses = c.minuses & scalars;
    const uint64_t letters = scalars & ~(digits | dots | minuses);
    const uint64_t after_minus = after(minuses, &w->minus), after_dot = after(dots, &w->dot);
    const uint64_t lone_zeros = c.zeros & digits & (scalar_starts | after_minus);
    wrong |= minuses & ~scalar_starts;
    wrong |= (after_minus | after_dot) & ~digits;
    wrong |= dots & (~after(digits, &w->digit) | behind_runs(digits, after_dot & digits, &w->fraction));
    wrong |= digits & after(lone_zeros, &w->lone_zero);
    wrong |= (scalars & ~letters) & after(letters, &w->letter);
    if (letters)
        wrong |= letters ^ literals(w, p, end, letters & scalar_starts & value);
    return fine && (wrong & value) == 0 && short_escapes(p, escaped & value) ? value : 0;
}

HW_TARGET_AVX2 static size_t measure(const uint8_t *p, size_t n, unsigned max_depth) {
    walk w = {.beginner = 1, .max_depth = max_depth < STACK_BITS ? max_depth : STACK_BITS};
    size_t at = 0;
    for (; n - at >= 64; at += 64) {
        const uint64_t value = check(&w, p + at, p + n);
        if (value != UINT64_MAX)
            return value ? at + (size_t)__builtin_popcountll(value) : 0;
        if (w.depth == 0)
            return at + 64;
    }
    uint8_t padded[64] = {0};
    memcpy(padded, p + at, n - at);
    const uint64_t value = check(&w, padded, padded + 64);
    return value && w.depth == 0 ? at + (size_t)__builtin_popcountll(value) : 0;
}

#endif

size_t hw_json_container(const uint8_t *p, size_t n, unsigned max_depth) {
#if HW_X86
    if (n >= 2 && (*p == '{' || *p == '[') && hw_has_avx2())
        return measure(p, n, max_depth);
#endif
    (void)p;
    (void)n;
    (void)max_depth;
    return 0;
}

/* Returns where the string that begins at `at` ends; 0 if it has escapes, or there is none. */
static size_t behind_string(const uint8_t *p, size_t n, size_t at) {
    if (at >= n || p[at] != '"')
        return 0;
    for (at++; at < n && p[at] != '"'; at++)
        if (p[at] == '\\')
            return 0;
    return at < n ? at + 1 : 0;
}

static size_t behind_digits(const uint8_t *p, size_t n, size_t at) {
    while (at < n && p[at] >= '0' && p[at] <= '9')
        at++;
    return at;
}

static int is_key(const uint8_t *p, size_t n, const char *quoted) {
    return n == strlen(quoted) && memcmp(p, quoted, n) == 0;
}

size_t hw_json_data(const uint8_t *p, size_t n, unsigned max_depth, size_t *len) {
    const size_t head = n < HW_JSON_HEAD_MOST ? n : HW_JSON_HEAD_MOST;
    int action = 0;
    size_t at = 0; /* of the comma before a member, or the brace */
    while (at < head && p[at] == (at ? ',' : '{')) {
        const size_t key = at + 1, colon = behind_string(p, head, key);
        if (colon == 0 || colon >= head || p[colon] != ':')
            return 0;
        at = colon + 1;
        if (is_key(p + key, colon - key, "\"data\"")) {
            *len = action && max_depth ? hw_json_container(p + at, n - at, max_depth - 1) : 0;
            return *len ? at : 0;
        }
        action |= is_key(p + key, colon - key, "\"action\"");
        at = at < head && p[at] == '"' ? behind_string(p, head, at) : behind_digits(p, head, at);
        if (at == 0)
            return 0;
    }
    return 0;
}
