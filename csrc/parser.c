#include "parser.h"

#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "mask.h"
#include "utf8.h"

bool hw_close_code_valid(unsigned code) {
    if (code >= 3000) return code <= 4999;
    return (code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014);
}

void hw_parser_reset(hw_parser *p) {
    free(p->message);
    free(p->control);
    memset(p, 0, sizeof *p);
}

size_t hw_parser_memory(const hw_parser *p) {
    size_t n = 0;
    if (p->message) n += sizeof(hw_run) + p->message->cap;
    if (p->control) n += sizeof(hw_run) + p->control->cap;
    return n;
}

static hw_event_kind fail(hw_event *ev, uint16_t code, const char *reason) {
    ev->code = code;
    ev->reason = reason;
    return HW_EV_ERROR;
}

/* Makes room for n more bytes. `coming` is how many of the frame are known to follow (n included):
 * growth doubles, but never beyond what was announced, and announced bytes that never arrive cost
 * nothing. Returns 0 or -1. */
static int reserve(hw_run **run, size_t n, uint64_t coming) {
    size_t len = *run ? (*run)->len : 0;
    size_t cap = *run ? (*run)->cap : 0;
    if (len + n <= cap) return 0;
    size_t want = cap * 2;
    if (want > len + coming) want = len + (size_t)coming;
    if (want < len + n) want = len + n;
    if (want < 128) want = 128;
    hw_run *grown = realloc(*run, sizeof(hw_run) + want);
    if (!grown) return -1;
    grown->len = len;
    grown->cap = want;
    *run = grown;
    return 0;
}

/* Judges what the first two header bytes tell. NULL if they are in order. */
static const char *judge(const hw_parser *p, const uint8_t *h) {
    uint8_t opcode = h[0] & 0x0f, rsv = (h[0] >> 4) & 7, len7 = h[1] & 0x7f;
    if (rsv & ~(p->rsv1 ? HW_RSV1 : 0)) return "reserved bits set";
    if (opcode >= 8) {
        if (opcode > HW_OP_PONG) return "reserved opcode";
        if (!(h[0] & 0x80)) return "fragmented control frame";
        if (len7 > 125) return "control frame too long";
        if (rsv) return "compressed control frame";
    } else {
        if (opcode > HW_OP_BINARY) return "reserved opcode";
        if (opcode == HW_OP_CONT && !p->kind) return "continuation without a message";
        if (opcode != HW_OP_CONT && p->kind) return "new message inside a fragmented one";
        if (opcode == HW_OP_CONT && rsv) return "RSV1 on a continuation";
    }
    if (!(h[1] & 0x80)) return "frame not masked";
    return NULL;
}

/* Reads the header, part of which may stand in p->header. Returns 1 when it is complete, 0 when the
 * input ran out, -1 with *ev filled. */
static int read_header(hw_parser *p, const hw_limits *limits, const uint8_t *buf, size_t n,
                       size_t *used, hw_event *ev) {
    hw_frame_header h;
    const uint8_t *at = buf;
    size_t have = n;
    if (p->header_len) {
        size_t take = sizeof p->header - p->header_len;
        if (take > n) take = n;
        memcpy(p->header + p->header_len, buf, take);
        at = p->header;
        have = p->header_len + take;
    }
    if (have >= 2) {
        const char *wrong = judge(p, at);
        if (wrong) return (void)fail(ev, 1002, wrong), -1;
    }
    int size = hw_frame_parse(at, have, &h);
    if (size < 0) return (void)fail(ev, 1002, "payload length not in its shortest form"), -1;
    if (size == 0) {
        if (at == buf) memcpy(p->header, buf, n);
        p->header_len = (uint8_t)have;
        *used += n;
        return 0;
    }
    *used += (size_t)size - p->header_len;
    p->header_len = 0;
    if (h.opcode < 8) {
        size_t so_far = p->message ? p->message->len : 0;
        size_t most = limits->max_message;
        /* What cannot be compressed grows a little; the limit itself is enforced while inflating. */
        if (h.opcode == HW_OP_CONT ? p->compressed : (h.rsv & HW_RSV1)) most += (most >> 8) + 64;
        if (h.length > most || so_far > most - h.length)
            return (void)fail(ev, 1009, "message too big"), -1;
        if (h.opcode != HW_OP_CONT) {
            p->kind = h.opcode;
            p->compressed = (h.rsv & HW_RSV1) != 0;
            p->fragments = 0;
            p->utf8 = HW_UTF8_ACCEPT;
            p->high = 0;
        }
        if (++p->fragments > limits->max_fragments)
            return (void)fail(ev, 1009, "message in too many fragments"), -1;
    }
    memcpy(p->key, h.key, 4);
    p->key_pos = 0;
    p->opcode = h.opcode;
    p->fin = h.fin;
    p->remaining = h.length;
    p->in_frame = 1;
    return 1;
}

static hw_event_kind control_event(hw_parser *p, uint8_t *data, size_t len, hw_event *ev) {
    ev->data = data;
    ev->len = len;
    p->in_frame = 0;
    if (p->opcode == HW_OP_PING) return HW_EV_PING;
    if (p->opcode == HW_OP_PONG) return HW_EV_PONG;
    ev->code = 1005;
    if (len == 1) return fail(ev, 1002, "close frame with half a code");
    if (len >= 2) {
        uint32_t state = HW_UTF8_ACCEPT;
        ev->code = (uint16_t)(data[0] << 8 | data[1]);
        ev->data += 2;
        ev->len -= 2;
        if (!hw_close_code_valid(ev->code)) return fail(ev, 1002, "invalid close code");
        if (hw_utf8(&state, ev->data, ev->len) != 0 || state != HW_UTF8_ACCEPT)
            return fail(ev, 1007, "close reason is not UTF-8");
    }
    return HW_EV_CLOSE;
}

static hw_event_kind read_control(hw_parser *p, uint8_t *buf, size_t n, size_t *used, hw_event *ev) {
    size_t take = p->remaining < n ? (size_t)p->remaining : n;
    if (!p->control && take == p->remaining) { /* whole, where it lies */
        hw_mask(buf, buf, take, p->key, 0);
        *used += take;
        return control_event(p, buf, take, ev);
    }
    if (!take) return HW_EV_NONE; /* the input ended with the header */
    if (reserve(&p->control, take, p->remaining) < 0) return HW_EV_MEMORY;
    hw_mask(p->control->data + p->control->len, buf, take, p->key, p->key_pos);
    p->control->len += take;
    p->key_pos = (uint8_t)((p->key_pos + take) & 3);
    p->remaining -= take;
    *used += take;
    if (p->remaining) return HW_EV_NONE;
    p->stale = 1;
    return control_event(p, p->control->data, p->control->len, ev);
}

/* Checks the text bytes just unmasked. Returns false if no valid UTF-8 can begin like that. */
static bool text_valid(hw_parser *p, const uint8_t *data, size_t n, uint8_t high) {
    p->high |= high;
    if (!high && p->utf8 == HW_UTF8_ACCEPT) return true;
    return hw_utf8(&p->utf8, data, n) == 0;
}

static hw_event_kind message_event(hw_parser *p, uint8_t *data, size_t len, hw_event *ev) {
    hw_event_kind kind = p->kind == HW_OP_TEXT ? HW_EV_TEXT : HW_EV_BINARY;
    ev->data = data;
    ev->len = len;
    ev->ascii = !p->high;
    ev->compressed = p->compressed != 0;
    p->kind = 0;
    if (kind == HW_EV_TEXT && !ev->compressed && p->utf8 != HW_UTF8_ACCEPT)
        return fail(ev, 1007, "text ends inside a UTF-8 sequence");
    return kind;
}

static hw_event_kind read_data(hw_parser *p, uint8_t *buf, size_t n, size_t *used, hw_event *ev) {
    static uint8_t nothing[1];
    size_t take = p->remaining < n ? (size_t)p->remaining : n;
    bool check = p->kind == HW_OP_TEXT && !p->compressed;
    bool whole = !p->message && p->fin && take == p->remaining;
    uint8_t *dst = buf;
    if (!whole && take) {
        if (reserve(&p->message, take, p->remaining) < 0) return HW_EV_MEMORY;
        dst = p->message->data + p->message->len;
        p->message->len += take;
    }
    uint8_t high = take ? hw_mask(dst, buf, take, p->key, p->key_pos) : 0;
    *used += take;
    p->key_pos = (uint8_t)((p->key_pos + take) & 3);
    p->remaining -= take;
    if (check && !text_valid(p, dst, take, high)) return fail(ev, 1007, "text is not UTF-8");
    if (p->remaining) return HW_EV_NONE;
    p->in_frame = 0;
    if (!p->fin) return HW_EV_NONE;
    if (!p->message) return message_event(p, take ? dst : nothing, take, ev);
    p->stale = 1;
    return message_event(p, p->message->data, p->message->len, ev);
}

hw_event_kind hw_parser_next(hw_parser *p, const hw_limits *limits, uint8_t *buf, size_t n,
                             size_t *used, hw_event *ev) {
    *used = 0;
    if (p->stale) {
        /* A control frame may have come between the fragments of `message`: only what was handed out goes. */
        if (p->control) {
            free(p->control);
            p->control = NULL;
        } else {
            free(p->message);
            p->message = NULL;
        }
        p->stale = 0;
    }
    for (;;) {
        if (!p->in_frame) {
            if (*used == n) return HW_EV_NONE;
            int got = read_header(p, limits, buf + *used, n - *used, used, ev);
            if (got < 0) return HW_EV_ERROR;
            if (got == 0) return HW_EV_NONE;
        } else if (*used == n) {
            return HW_EV_NONE;
        }
        hw_event_kind kind = p->opcode >= 8 ? read_control(p, buf + *used, n - *used, used, ev)
                                            : read_data(p, buf + *used, n - *used, used, ev);
        if (kind != HW_EV_NONE) return kind;
    }
}
