#include "head.h"

#include <string.h>

enum { FIELDS_MOST = 100 }; /* http_head's own limit is higher */

typedef struct {
    const uint8_t *name;
    uint32_t name_len;
    hw_span value;
} field;

static int is_alnum(uint8_t c) {
    return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

static uint8_t lower(uint8_t c) { return c >= 'A' && c <= 'Z' ? (uint8_t)(c | 0x20) : c; }

/* Does the text equal `word`, which is in lower case? */
static int is_word(const uint8_t *p, uint32_t n, const char *word) {
    if (n != strlen(word)) return 0;
    for (uint32_t i = 0; i < n; i++)
        if (lower(p[i]) != (uint8_t)word[i]) return 0;
    return 1;
}

/* The request line. Returns the offset behind it, 0 if it is not ordinary. */
static size_t read_target(const uint8_t *p, size_t n, hw_head *out) {
    size_t i = 4;
    if (n < 18 || memcmp(p, "GET /", 5) != 0) return 0;
    out->path.at = 4;
    while (i < n && (is_alnum(p[i]) || p[i] == '/' || p[i] == '-' || p[i] == '_' || p[i] == '.')) i++;
    out->path.len = (uint32_t)(i - 4);
    if (i < n && p[i] == '?') {
        size_t name = ++i;
        while (i < n && p[i] != ' ') {
            size_t begin = i, equals = 0;
            for (; i < n && p[i] != ' ' && p[i] != '&'; i++) {
                uint8_t c = p[i];
                if (c == '=' && !equals) equals = i;
                if (!(is_alnum(c) || c == '-' || c == '_' || c == '.' || c == '~' || c == '=')) return 0;
            }
            if (is_word(p + begin, (uint32_t)((equals ? equals : i) - begin), "token")) {
                if (out->query_token.at || !equals) return 0;
                out->query_token.at = (uint32_t)(equals + 1);
                out->query_token.len = (uint32_t)(i - equals - 1);
                if (memcmp(p + begin, "token", 5) != 0) return 0;
            }
            if (i < n && p[i] == '&') i++;
        }
        if (i == name) return 0;
    }
    if (n - i < 11 || memcmp(p + i, " HTTP/1.1\r\n", 11) != 0) return 0;
    return i + 11;
}

/* One field line at p[i]. Returns the offset behind it, 0 if it is not ordinary. */
static size_t read_field(const uint8_t *p, size_t n, size_t i, field *f) {
    size_t begin = i;
    while (i < n && (is_alnum(p[i]) || p[i] == '-' || p[i] == '_')) i++;
    if (i == begin || i >= n || p[i] != ':') return 0;
    f->name = p + begin;
    f->name_len = (uint32_t)(i - begin);
    i++;
    while (i < n && p[i] == ' ') i++;
    f->value.at = (uint32_t)i;
    while (i < n && p[i] >= 0x20 && p[i] <= 0x7e) i++;
    if (n - i < 2 || p[i] != '\r' || p[i + 1] != '\n') return 0;
    size_t end = i;
    while (end > f->value.at && p[end - 1] == ' ') end--;
    f->value.len = (uint32_t)(end - f->value.at);
    return i + 2;
}

/* The first occurrence of a field that must not be empty. */
static int take(hw_span *place, const field *f) {
    if (place->at || !f->value.len) return 0;
    *place = f->value;
    return 1;
}

static int is_host(const uint8_t *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (!is_alnum(p[i]) && p[i] != '.' && p[i] != '-' && p[i] != ':') return 0;
    /* A port, if any, is digits behind the only colon. */
    const uint8_t *colon = memchr(p, ':', n);
    if (!is_alnum(p[0])) return 0;
    if (!colon) return 1;
    if (colon + 1 == p + n || n - (uint32_t)(colon - p) > 6) return 0;
    for (const uint8_t *d = colon + 1; d < p + n; d++)
        if (*d < '0' || *d > '9') return 0;
    return 1;
}

/* base64 of 16 bytes: 22 characters, the last of which carries 4 zero bits, and `==`. */
static int is_key(const uint8_t *p, uint32_t n) {
    if (n != 24 || p[22] != '=' || p[23] != '=' || !memchr("AQgw", p[21], 4)) return 0;
    for (int i = 0; i < 21; i++)
        if (!is_alnum(p[i]) && p[i] != '+' && p[i] != '/') return 0;
    return 1;
}

static int is_token(const uint8_t *p, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (!is_alnum(p[i]) && p[i] != '-' && p[i] != '_' && p[i] != '.') return 0;
    return n > 0;
}

int hw_head_read(const uint8_t *p, size_t n, hw_head *out) {
    hw_span upgrade = {0, 0}, connection = {0, 0}, version = {0, 0}, authorization = {0, 0};
    int fields = 0;
    memset(out, 0, sizeof *out);
    size_t i = read_target(p, n, out);
    if (!i) return 0;
    for (; !(n - i == 2 && p[i] == '\r' && p[i + 1] == '\n');) {
        field f;
        if (++fields > FIELDS_MOST || !(i = read_field(p, n, i, &f))) return 0;
        switch (f.name_len) {
        case 4:
            if (is_word(f.name, 4, "host") && !take(&out->host, &f)) return 0;
            break;
        case 6:
            if (is_word(f.name, 6, "origin") && !take(&out->origin, &f)) return 0;
            if (is_word(f.name, 6, "cookie") && !take(&out->cookie, &f)) return 0;
            break;
        case 7:
            if (is_word(f.name, 7, "upgrade") && !take(&upgrade, &f)) return 0;
            break;
        case 10:
            if (is_word(f.name, 10, "connection") && !take(&connection, &f)) return 0;
            if (is_word(f.name, 10, "user-agent") && !take(&out->user_agent, &f)) return 0;
            break;
        case 13:
            if (is_word(f.name, 13, "authorization") && !take(&authorization, &f)) return 0;
            break;
        case 14:
            if (is_word(f.name, 14, "content-length")) return 0;
            break;
        case 17:
            if (is_word(f.name, 17, "transfer-encoding")) return 0;
            if (is_word(f.name, 17, "sec-websocket-key") && !take(&out->key, &f)) return 0;
            break;
        case 21:
            if (is_word(f.name, 21, "sec-websocket-version") && !take(&version, &f)) return 0;
            break;
        case 22:
            if (is_word(f.name, 22, "sec-websocket-protocol")) return 0;
            break;
        case 24:
            if (is_word(f.name, 24, "sec-websocket-extensions")) out->extensions = 1;
            break;
        default:
            break;
        }
    }
    if (!out->host.len || !is_host(p + out->host.at, out->host.len)) return 0;
    if (!out->key.len || !is_key(p + out->key.at, out->key.len)) return 0;
    if (!upgrade.len || !is_word(p + upgrade.at, upgrade.len, "websocket")) return 0;
    if (version.len != 2 || memcmp(p + version.at, "13", 2) != 0) return 0;
    if (!connection.len || !(is_word(p + connection.at, connection.len, "upgrade") ||
                             is_word(p + connection.at, connection.len, "keep-alive, upgrade")))
        return 0;
    if (authorization.len) {
        const uint8_t *v = p + authorization.at;
        if (authorization.len < 8 || memcmp(v, "Bearer ", 7) != 0 || !is_token(v + 7, authorization.len - 7))
            return 0;
        out->bearer.at = authorization.at + 7;
        out->bearer.len = authorization.len - 7;
    }
    return 1;
}
