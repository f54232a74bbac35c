/*
 * Sec-WebSocket-Accept (RFC 6455, 4.2.2) for the two benchmark programs, which must not
 * borrow heartwire's own code: they are what it is judged by.
 */
#ifndef ACCEPT_KEY_H
#define ACCEPT_KEY_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* at most 119 bytes of input: two blocks */
static inline void sha1_short(const uint8_t *m, size_t n, uint8_t out[20]) {
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    uint8_t b[128] = {0};
    if (n > 119) n = 119;
    memcpy(b, m, n);
    b[n] = 0x80;
    size_t tot = n + 9 <= 64 ? 64 : 128;
    uint64_t bits = (uint64_t)n * 8;
    for (size_t i = 0; i < 8; i++) b[tot - 1 - i] = (uint8_t)(bits >> (8 * i));
#define ROL(x, k) (((x) << (k)) | ((x) >> (32 - (k))))
    for (size_t o = 0; o < tot; o += 64) {
        uint32_t w[80], a = h[0], c1 = h[1], c = h[2], d = h[3], e = h[4];
        for (size_t i = 0; i < 16; i++)
            w[i] = (uint32_t)b[o + 4 * i] << 24 | (uint32_t)b[o + 4 * i + 1] << 16 |
                   (uint32_t)b[o + 4 * i + 2] << 8 | b[o + 4 * i + 3];
        for (size_t i = 16; i < 80; i++) w[i] = ROL(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
        for (size_t i = 0; i < 80; i++) {
            uint32_t f, k;
            if (i < 20) f = (c1 & c) | (~c1 & d), k = 0x5A827999;
            else if (i < 40) f = c1 ^ c ^ d, k = 0x6ED9EBA1;
            else if (i < 60) f = (c1 & c) | (c1 & d) | (c & d), k = 0x8F1BBCDC;
            else f = c1 ^ c ^ d, k = 0xCA62C1D6;
            uint32_t t = ROL(a, 5) + f + e + k + w[i];
            e = d, d = c, c = ROL(c1, 30), c1 = a, a = t;
        }
        h[0] += a, h[1] += c1, h[2] += c, h[3] += d, h[4] += e;
    }
#undef ROL
    for (size_t i = 0; i < 20; i++) out[i] = (uint8_t)(h[i / 4] >> (24 - 8 * (i % 4)));
}

/* out: 4 * ceil(n / 3) + 1 bytes */
static inline void base64(const uint8_t *in, size_t n, char *out) {
    static const char T[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        uint32_t b1 = i + 1 < n ? in[i + 1] : 0u, b2 = i + 2 < n ? in[i + 2] : 0u;
        uint32_t v = (uint32_t)in[i] << 16 | b1 << 8 | b2;
        *out++ = T[v >> 18];
        *out++ = T[v >> 12 & 63];
        *out++ = i + 1 < n ? T[v >> 6 & 63] : '=';
        *out++ = i + 2 < n ? T[v & 63] : '=';
    }
    *out = 0;
}

/* key64: the 24 characters of Sec-WebSocket-Key; out: 29 bytes */
static inline void accept_key(const char *key64, char *out) {
    char cat[80];
    uint8_t digest[20];
    int n = snprintf(cat, sizeof cat, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key64);
    sha1_short((const uint8_t *)cat, (size_t)n, digest);
    base64(digest, 20, out);
}
#endif
