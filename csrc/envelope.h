/* What stands in every event of the server: an id, an instant, short texts. Numbers and texts to JSON, where
 * that needs no decision; what does (a text with something to escape) is left to a JSON library. */
#ifndef HW_ENVELOPE_H
#define HW_ENVELOPE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    HW_HEX_MOST = 16,
    HW_INSTANT_LEN = 24,
};

/* Counts from 1; any thread. */
typedef struct {
    _Atomic uint64_t last;
} hw_counter;

static inline uint64_t hw_counter_next(hw_counter *c) {
    return atomic_fetch_add_explicit(&c->last, 1, memory_order_relaxed) + 1;
}

/* Writes v in lower-case hexadecimal without leading zeros. Returns the digits, 1 to HW_HEX_MOST. */
size_t hw_write_hex(char *out, uint64_t v);

/* Writes Unix milliseconds of the years 1970 to 9999 as RFC 3339 in UTC: HW_INSTANT_LEN characters, such as
 * 2026-11-26T06:20:11.042Z. */
void hw_write_instant(char *out, uint64_t unix_ms);

/* True if UTF-8 text may stand in a JSON string as it is (RFC 8259 section 7): no quote, backslash or
 * character below U+0020. */
bool hw_text_is_plain(const uint8_t *p, size_t n);

#endif
