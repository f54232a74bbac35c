/* Fuzzes the parts of csrc that read a client's bytes, without Python: libFuzzer with AddressSanitizer and
 * UndefinedBehaviorSanitizer. Every buffer handed over is exactly as long as what is in it.
 *
 * The first byte says what: the parser with and without permessage-deflate, the native head, or a JSON text: the scan,
 * what decides whether it needs escapes, and what measures a value without decoding it.
 * Contract: no memory error, no undefined behaviour, an end; and the parser says the same however its input
 * is cut. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "deflate.h"
#include "envelope.h"
#include "head.h"
#include "jsonscan.h"
#include "jsonvalue.h"
#include "parser.h"
#include "utf8.h"

static void check(int ok, const char *what) {
    if (ok) return;
    fprintf(stderr, "broken: %s\n", what);
    abort();
}

/* FNV-1a over everything the parser said. */
static uint64_t mix(uint64_t h, const uint8_t *p, size_t n) {
    for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 1099511628211u;
    return h;
}

static uint64_t mix_number(uint64_t h, uint64_t value) { return mix(h, (uint8_t *)&value, sizeof value); }

/* Parses pieces of at most `step` bytes, as Connection.pump does. */
static uint64_t parse(const uint8_t *data, size_t size, size_t step, int deflate, int takeover) {
    static const hw_limits limits = {.max_message = 4000, .max_fragments = 16};
    hw_parser parser;
    hw_zip zip;
    memset(&parser, 0, sizeof parser);
    memset(&zip, 0, sizeof zip);
    parser.rsv1 = (uint8_t)deflate;
    hw_zip_peer *peer = hw_zip_peer_new(15, 15, takeover, takeover);
    check(peer != NULL, "memory");
    uint64_t said = 14695981039346656037u;
    int ended = 0;
    for (size_t at = 0; at < size && !ended; at += step) {
        size_t n = size - at < step ? size - at : step;
        uint8_t *buf = malloc(n); /* its own, so that a byte too far is seen */
        memcpy(buf, data + at, n);
        for (size_t done = 0; !ended;) {
            size_t used;
            hw_event ev;
            hw_run *lent = NULL;
            memset(&ev, 0, sizeof ev);
            hw_event_kind kind = hw_parser_next(&parser, &limits, buf + done, n - done, &used, &ev);
            check(used <= n - done, "more used than there was");
            done += used;
            if ((kind == HW_EV_TEXT || kind == HW_EV_BINARY) && ev.compressed)
                kind = hw_zip_event(&zip, peer, limits.max_message, kind, &ev, &lent);
            if (kind == HW_EV_NONE) {
                check(done == n, "input was left");
                break;
            }
            check(kind != HW_EV_MEMORY, "memory");
            said = mix_number(said, (uint64_t)kind);
            if (kind == HW_EV_ERROR) {
                check(ev.code == 1002 || ev.code == 1007 || ev.code == 1009, "code of an error");
                said = mix(said, (const uint8_t *)ev.reason, strlen(ev.reason));
                ended = 1;
                continue;
            }
            said = mix(mix_number(said, ev.len), ev.data, ev.len);
            if (kind == HW_EV_CLOSE) {
                said = mix_number(said, ev.code);
                ended = 1;
            } else if (kind == HW_EV_TEXT || kind == HW_EV_BINARY) {
                check(ev.len <= limits.max_message, "a message beyond the limit");
                if (kind == HW_EV_TEXT) {
                    uint32_t state = HW_UTF8_ACCEPT;
                    check(hw_utf8(&state, ev.data, ev.len) == 0 && state == HW_UTF8_ACCEPT, "text is not UTF-8");
                    for (size_t i = 0; ev.ascii && i < ev.len; i++) check(ev.data[i] < 0x80, "not ASCII");
                }
                const uint8_t *out;
                size_t len;
                if (deflate && hw_zip_deflate(&zip, peer, ev.data, ev.len, &out, &len)) said = mix(said, out, len);
            }
            if (lent) hw_zip_return(&zip, lent);
        }
        check(hw_parser_memory(&parser) <= 2 * (limits.max_message + 1024), "the parser keeps too much");
        free(buf);
    }
    hw_parser_reset(&parser);
    hw_zip_peer_free(peer);
    hw_zip_free(&zip);
    return said;
}

static void check_span(hw_span span, size_t n) {
    check(span.at <= n && span.len <= n - span.at, "a span beyond the head");
}

static void read_head(const uint8_t *data, size_t size) {
    uint8_t *buf = malloc(size ? size : 1);
    hw_head head;
    memcpy(buf, data, size);
    if (hw_head_read(buf, size, &head)) {
        check_span(head.path, size);
        check_span(head.query_token, size);
        check_span(head.host, size);
        check_span(head.key, size);
        check_span(head.origin, size);
        check_span(head.bearer, size);
        check_span(head.cookie, size);
        check_span(head.user_agent, size);
        check(head.key.len == 24 && head.path.len && head.host.len, "an ordinary head without its fields");
    }
    free(buf);
}

/* The scan's slow twin: see jsonscan.c for what it means where the text is not JSON. */
static void scan(const uint8_t *data, size_t size) {
    enum { MOST = 8 };
    uint8_t *buf = malloc(size ? size : 1);
    unsigned depth = 0;
    int inside = 0, escaped = 0, deep = 0, may = 0, plain = 1;
    memcpy(buf, data, size);
    for (size_t i = 0; i < size; i++) plain &= data[i] >= 0x20 && data[i] != '"' && data[i] != '\\';
    check(hw_text_is_plain(buf, size) == plain, "plain text and its twin differ");
    int found = hw_jsonscan(buf, size, MOST);
    for (size_t i = 0; i < size; i++) {
        uint8_t c = data[i];
        int quote = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        may |= c == '\\' || (i + 8 <= size && memcmp(data + i, "\"action\"", 8) == 0);
        if (quote) inside = !inside;
        else if (!inside && (c == '[' || c == '{')) deep |= ++depth > MOST;
        else if (!inside && (c == ']' || c == '}')) depth -= depth > 0;
        if (deep) break;
    }
    check(found == (deep ? HW_JSON_DEEP : may ? HW_JSON_ACTION : HW_JSON_OK), "the scan and its twin differ");
    free(buf);
}

/* The slow twin of hw_json_container: a parser by the grammar of RFC 8259, without space. */
typedef struct {
    const uint8_t *p, *end;
} reader;

static int byte_at(const reader *r) { return r->p < r->end ? *r->p : -1; }
static int take(reader *r, int byte) { return byte_at(r) == byte ? (r->p++, 1) : 0; }
static int is_digit(int byte) { return byte >= '0' && byte <= '9'; }

static int take_word(reader *r, const char *word) {
    size_t n = strlen(word);
    if ((size_t)(r->end - r->p) < n || memcmp(r->p, word, n) != 0) return 0;
    r->p += n;
    return 1;
}

static int take_string(reader *r) {
    if (!take(r, '"')) return 0;
    while (byte_at(r) >= 0x20) {
        if (take(r, '"')) return 1;
        if (take(r, '\\') && (r->p == r->end || !memchr("\"\\/bfnrt", *r->p, 8))) return 0;
        r->p++;
    }
    return 0;
}

static int take_digits(reader *r) {
    if (!is_digit(byte_at(r))) return 0;
    while (is_digit(byte_at(r))) r->p++;
    return 1;
}

static int take_value(reader *r, unsigned depth) {
    int opener = byte_at(r), closer = opener == '{' ? '}' : ']';
    if (opener == '"') return take_string(r);
    if (opener == '-' || is_digit(opener)) {
        take(r, '-');
        if (!take(r, '0') && !take_digits(r)) return 0;
        return take(r, '.') ? take_digits(r) : 1;
    }
    if (opener != '{' && opener != '[') return take_word(r, "true") || take_word(r, "false") || take_word(r, "null");
    r->p++;
    if (depth == 0) return 0;
    if (take(r, closer)) return 1;
    do {
        if (opener == '{' && !(take_string(r) && take(r, ':'))) return 0;
        if (!take_value(r, depth - 1)) return 0;
    } while (take(r, ','));
    return take(r, closer);
}

static void measure(const uint8_t *data, size_t size) {
    enum { MOST = 8 };
    uint8_t *buf = malloc(size ? size : 1);
    reader r = {buf, buf + size};
    size_t len = 0;
    memcpy(buf, data, size);
    size_t ours = hw_json_container(buf, size, MOST);
    int container = size && (*buf == '{' || *buf == '[') && take_value(&r, MOST);
    check(ours == (container && hw_json_container((const uint8_t *)"[]", 2, MOST) ? (size_t)(r.p - buf) : 0),
          "what was measured and its twin differ");
    size_t at = hw_json_data(buf, size, MOST, &len);
    if (at) {
        r = (reader){buf + at, buf + size};
        check(at < size && len <= size - at, "a member beyond the text");
        check(take_value(&r, MOST - 1) && r.p == buf + at + len, "a member that is no value");
    }
    free(buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (!size) return 0;
    uint8_t what = data[0];
    data++;
    size--;
    if ((what & 3) == 0) {
        read_head(data, size);
    } else if ((what & 3) == 1) {
        scan(data, size);
        measure(data, size);
    } else {
        int deflate = what & 1, takeover = what >> 2 & 1;
        uint64_t whole = parse(data, size, size ? size : 1, deflate, takeover);
        check(parse(data, size, 1, deflate, takeover) == whole, "cut into single bytes, it reads otherwise");
        check(parse(data, size, (size_t)(what >> 3) + 2, deflate, takeover) == whole, "cut, it reads otherwise");
    }
    return 0;
}
