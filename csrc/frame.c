#include "frame.h"

#include <string.h>

int hw_frame_parse(const uint8_t *p, size_t n, hw_frame_header *out) {
    if (n < 2)
        return 0;
    out->fin = p[0] >> 7;
    out->rsv = (p[0] >> 4) & 7;
    out->opcode = p[0] & 0x0F;
    out->masked = p[1] >> 7;

    uint64_t length = p[1] & 0x7F;
    size_t size = 2;
    if (length == 126) {
        size = 4;
        if (n < size)
            return 0;
        length = (uint64_t)p[2] << 8 | p[3];
        if (length < 126)
            return -1;
    } else if (length == 127) {
        size = 10;
        if (n < size)
            return 0;
        length = 0;
        for (size_t i = 2; i < 10; i++)
            length = length << 8 | p[i];
        if (length < 65536 || length >> 63)
            return -1;
    }
    out->length = length;

    if (!out->masked) {
        memset(out->key, 0, sizeof out->key);
        return (int)size;
    }
    if (n < size + 4)
        return 0;
    memcpy(out->key, p + size, sizeof out->key);
    return (int)(size + 4);
}

size_t hw_frame_build(uint8_t out[10], uint8_t opcode, int fin, uint8_t rsv, uint64_t length) {
    out[0] = (uint8_t)((fin ? 0x80u : 0u) | (rsv & 7u) << 4 | (opcode & 0x0Fu));
    if (length < 126) {
        out[1] = (uint8_t)length;
        return 2;
    }
    if (length < 65536) {
        out[1] = 126;
        out[2] = (uint8_t)(length >> 8);
        out[3] = (uint8_t)length;
        return 4;
    }
    out[1] = 127;
    for (int i = 0; i < 8; i++)
        out[2 + i] = (uint8_t)(length >> (56 - 8 * i));
    return 10;
}
