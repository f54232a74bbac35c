/* Incremental UTF-8 validation (RFC 3629: no overlong forms, no surrogates, nothing above U+10FFFF),
 * failing at the first byte that no valid text can have there. */
#ifndef HW_UTF8_H
#define HW_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { HW_UTF8_ACCEPT = 0 };

/* Checks n more bytes. *state starts as HW_UTF8_ACCEPT and is carried from call to call.
 * Returns 0 if the bytes so far can be the beginning of valid text (the text is complete when
 * *state == HW_UTF8_ACCEPT), -1 if they cannot. */
int hw_utf8(uint32_t *state, const uint8_t *p, size_t n);

#endif
