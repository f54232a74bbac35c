/* RFC 6455 5.3 masking: byte i of the payload is XORed with key[i % 4]. */
#ifndef HW_MASK_H
#define HW_MASK_H

#include <stddef.h>
#include <stdint.h>

/* XORs n bytes of src with the key, starting at payload offset pos (only pos % 4 matters), into
 * dst. dst == src works; any other overlap does not. No alignment is needed.
 * Returns 0x80 if a byte of the RESULT has its high bit set, else 0 (the payload is ASCII). */
uint8_t hw_mask(uint8_t *dst, const uint8_t *src, size_t n, const uint8_t key[4], size_t pos);

#endif
