/* One pass over a JSON text before it is decoded: what the decoder cannot be asked cheaply. */
#ifndef HW_JSONSCAN_H
#define HW_JSONSCAN_H

#include <stddef.h>
#include <stdint.h>

enum {
    HW_JSON_OK = 0,
    HW_JSON_ACTION = 1, /* a key "action" may be there (never missed; may be wrong) */
    HW_JSON_DEEP = -1,  /* nested deeper than max_depth */
};

/* Counts nesting outside strings and looks for a key that could be "action". The text need not be
 * valid JSON. One vector pass, 64 bytes at a time; a text under 4 KiB with more openers in all than
 * max_depth takes a second. A backslash anywhere counts as "may hold an action", since the key can be
 * written with escapes.
 * Returns HW_JSON_OK, HW_JSON_ACTION or HW_JSON_DEEP. */
int hw_jsonscan(const uint8_t *p, size_t n, unsigned max_depth);

#endif
