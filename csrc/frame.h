/* The RFC 6455 5.2 frame header: parse and build. */
#ifndef HW_FRAME_H
#define HW_FRAME_H

#include <stddef.h>
#include <stdint.h>

enum {
    HW_OP_CONT = 0x0,
    HW_OP_TEXT = 0x1,
    HW_OP_BINARY = 0x2,
    HW_OP_CLOSE = 0x8,
    HW_OP_PING = 0x9,
    HW_OP_PONG = 0xA,
};

enum {
    HW_HEADER_MAX = 14, /* 2 + 8 extended length + 4 masking key */
    HW_RSV1 = 4,
    HW_RSV2 = 2,
    HW_RSV3 = 1,
};

typedef struct {
    uint64_t length; /* payload bytes */
    uint8_t fin;     /* 0 or 1 */
    uint8_t rsv;     /* HW_RSV1 | HW_RSV2 | HW_RSV3 */
    uint8_t opcode;  /* 0..15, not judged here */
    uint8_t masked;  /* 0 or 1 */
    uint8_t key[4];  /* zero if not masked */
} hw_frame_header;

/* Reads a header from the n bytes at p.
 * Returns its size (2..14), 0 if more bytes are needed, -1 if the length is not in its shortest
 * form or has its top bit set (told as soon as the length bytes are there, before the key is). */
int hw_frame_parse(const uint8_t *p, size_t n, hw_frame_header *out);

/* Writes an unmasked header (what a server sends) into out. Returns its size: 2, 4 or 10. */
size_t hw_frame_build(uint8_t out[10], uint8_t opcode, int fin, uint8_t rsv, uint64_t length);

#endif
