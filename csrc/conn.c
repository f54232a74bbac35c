#define _GNU_SOURCE
#include "conn.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "frame.h"
#include "sockets.h"

void hw_conn_init(hw_conn *c, int fd, uint32_t slot, uint32_t generation) {
    memset(c, 0, sizeof *c);
    hw_state_init(&c->state, generation);
    c->fd = fd;
    c->slot = slot;
}

static void drop_held(hw_conn *c) {
    if (c->held) hw_out_clear(c->held, NULL);
    free(c->held);
    c->held = NULL;
    hw_word_store(&c->held_bytes, 0);
}

/* Makes the queue of what is held. Returns 0, or -1 if memory is out. */
static int make_held(hw_conn *c) {
    if (!c->held) c->held = calloc(1, sizeof *c->held);
    return c->held ? 0 : -1;
}

void hw_conn_free(hw_conn *c, hw_out_node *cork) {
    hw_out_clear(&c->out, cork);
    drop_held(c);
    if (c->in) hw_parser_reset(c->in);
#ifndef HW_LEAK /* planted for `make valgrind`, which has to report it */
    free(c->in);
#endif
    c->in = NULL;
}

void hw_conn_take_parser(hw_conn *c, hw_parser *p, bool rsv1) {
    if (c->in) {
        *p = *c->in;
        free(c->in);
        c->in = NULL;
    } else {
        memset(p, 0, sizeof *p);
        p->rsv1 = rsv1;
    }
}

int hw_conn_put_parser(hw_conn *c, hw_parser *p) {
    if (hw_parser_idle(p)) {
        hw_parser_reset(p);
        return HW_OK;
    }
    c->in = malloc(sizeof *c->in);
    if (!c->in) {
        hw_parser_reset(p);
        return HW_E_MEMORY;
    }
    *c->in = *p;
    return HW_OK;
}

/* May a frame still be queued? OPEN, and no CLOSE before it (I2). A CLOSING connection to which the
 * peer said CLOSE first has CLOSE_SENT set in the same step, so phase and flag agree. */
static int writable(const hw_conn *c) {
    uint64_t word = hw_state_load(&c->state);
    return (word & HW_PHASE_MASK) == HW_OPEN && !(word & HW_CLOSE_SENT);
}

int hw_conn_check(const hw_conn *c) {
    uint64_t word = hw_state_load(&c->state);
    int phase = (int)(word & HW_PHASE_MASK);
    if (phase == HW_CLOSED) return 0; /* what was queued is on its way to be freed */
    if (word & HW_DETACHED) return -1;
    ptrdiff_t out = hw_out_check(&c->out), held = c->held ? hw_out_check(c->held) : 0;
    if (out < 0 || held < 0) return -2;
    if ((uint64_t)out != hw_word_load(&c->queued) - hw_word_load(&c->sent)) return -3;
    if ((uint64_t)held != hw_word_load(&c->held_bytes)) return -4;
    if (held && !(word & HW_FRAG_SENDING)) return -5; /* nothing will let them go (I4) */
    if (held && (word & HW_CLOSE_SENT)) return -6;    /* they would follow CLOSE (I2) */
    if (phase == HW_CONNECTING && word & (HW_CLOSE_SENT | HW_FRAG_SENDING | HW_PING_OUTSTANDING)) return -7;
    if (c->ping_end > hw_word_load(&c->queued)) return -8;
    return 0;
}

static int added(hw_conn *c, ptrdiff_t n) {
    if (n < 0) return HW_E_MEMORY;
    hw_word_grow(&c->queued, (uint64_t)n);
    assert(hw_conn_check(c) == 0);
    return HW_OK;
}

int hw_conn_frame(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                  size_t n, size_t limit) {
    if (!writable(c)) return HW_E_CLOSED;
    if (limit && hw_conn_waiting(c) > limit) return HW_E_SLOW;
    if (opcode < HW_OP_CLOSE && hw_state_has(&c->state, HW_FRAG_SENDING)) {
        ptrdiff_t held = make_held(c);
        if (held == 0) held = hw_out_frame(c->held, NULL, opcode, 1, rsv, payload, n);
        if (held < 0) return HW_E_MEMORY;
        hw_word_grow(&c->held_bytes, (uint64_t)held);
        assert(hw_conn_check(c) == 0);
        return HW_OK;
    }
    return added(c, hw_out_frame(&c->out, cork, opcode, 1, rsv, payload, n));
}

int hw_conn_frame_now(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                      size_t n, size_t limit, ptrdiff_t *sent) {
    *sent = 0;
    if (c->fd < 0 || hw_state_has(&c->state, HW_FRAG_SENDING | HW_WRITE_BLOCKED))
        return hw_conn_frame(c, cork, opcode, rsv, payload, n, limit);
    if (!writable(c)) return HW_E_CLOSED;
    if (limit && hw_conn_waiting(c) > limit) return HW_E_SLOW;
    size_t size;
    int blocked;
    *sent = hw_out_send_frame(&c->out, cork, c->fd, opcode, rsv, payload, n, &size, &blocked);
    hw_word_grow(&c->queued, size);
    if (*sent > 0) hw_word_grow(&c->sent, (uint64_t)*sent);
    if (blocked) hw_state_set(&c->state, HW_WRITE_BLOCKED);
    return HW_OK;
}

int hw_conn_shared(hw_conn *c, hw_shared *frame, size_t limit) {
    if (!writable(c)) return HW_E_CLOSED;
    if (limit && hw_conn_waiting(c) > limit) return HW_E_SLOW;
    if (hw_state_has(&c->state, HW_FRAG_SENDING)) {
        ptrdiff_t held = make_held(c);
        if (held == 0) held = hw_out_shared(c->held, frame);
        if (held < 0) return HW_E_MEMORY;
        hw_word_grow(&c->held_bytes, (uint64_t)held);
        assert(hw_conn_check(c) == 0);
        return HW_OK;
    }
    return added(c, hw_out_shared(&c->out, frame));
}

int hw_conn_fragment(hw_conn *c, hw_out_node *cork, uint8_t opcode, int fin, const uint8_t *payload,
                     size_t n, size_t limit) {
    if (!writable(c)) return HW_E_CLOSED;
    if (limit && hw_conn_waiting(c) > limit) return HW_E_SLOW;
    int inside = hw_state_has(&c->state, HW_FRAG_SENDING);
    if (inside != (opcode == HW_OP_CONT)) return HW_E_FRAGMENT;
    int rc = added(c, hw_out_frame(&c->out, cork, opcode, fin, 0, payload, n));
    if (rc != HW_OK) return rc;
    if (!fin) {
        hw_state_set(&c->state, HW_FRAG_SENDING);
    } else {
        hw_state_clear(&c->state, HW_FRAG_SENDING);
        if (c->held) hw_out_append(&c->out, c->held);
        uint64_t held = hw_word_load(&c->held_bytes);
        drop_held(c); /* before, or another thread counts its bytes twice */
        hw_word_grow(&c->queued, held);
        assert(hw_conn_check(c) == 0);
    }
    return HW_OK;
}

int hw_conn_close_frame(hw_conn *c, hw_out_node *cork, uint16_t code, const uint8_t *reason, size_t n) {
    uint8_t payload[125];
    if (hw_state_phase(&c->state) == HW_CLOSED) return HW_E_CLOSED;
    if (!hw_state_set(&c->state, HW_CLOSE_SENT)) return HW_E_CLOSED;
    drop_held(c);
    if (n > sizeof payload - 2) {
        n = sizeof payload - 2;
        while (n && (reason[n] & 0xC0) == 0x80) n--; /* do not cut a UTF-8 sequence */
    }
    payload[0] = (uint8_t)(code >> 8);
    payload[1] = (uint8_t)code;
    if (n) memcpy(payload + 2, reason, n);
    size_t size = code == 1005 ? 0 : n + 2;
    return added(c, hw_out_frame(&c->out, cork, HW_OP_CLOSE, 1, 0, payload, size));
}

int hw_conn_bytes(hw_conn *c, hw_out_node *cork, const uint8_t *p, size_t n) {
    if (hw_state_phase(&c->state) != HW_CONNECTING) return HW_E_CLOSED;
    return added(c, hw_out_bytes(&c->out, cork, p, n));
}

void hw_conn_drop_queue(hw_conn *c, hw_out_node *cork) {
    hw_word_grow(&c->queued, -(uint64_t)hw_out_truncate(&c->out, cork));
    drop_held(c);
    assert(hw_conn_check(c) == 0);
}

void hw_conn_sent(hw_conn *c, hw_out_node *cork, size_t n) {
    hw_out_consume(&c->out, cork, n);
    hw_word_grow(&c->sent, n);
    assert(hw_conn_check(c) == 0);
}

ptrdiff_t hw_conn_flush(hw_conn *c, hw_out_node *cork) {
    int blocked = 0;
    if (hw_state_phase(&c->state) == HW_CLOSED) return -EPIPE;
    ptrdiff_t n = hw_out_send(&c->out, cork, c->fd, &blocked);
    if (n > 0) hw_word_grow(&c->sent, (uint64_t)n);
    if (blocked)
        hw_state_set(&c->state, HW_WRITE_BLOCKED);
    else if (hw_out_empty(&c->out))
        hw_state_clear(&c->state, HW_WRITE_BLOCKED);
    assert(hw_conn_check(c) == 0);
    return blocked && n < 0 ? 0 : n;
}

ptrdiff_t hw_conn_recv(hw_conn *c, uint8_t *buf, size_t n) {
    if (hw_state_phase(&c->state) == HW_CLOSED) return -ENOTCONN;
#if HW_SOCKETS
    for (;;) {
        ptrdiff_t got = recv(c->fd, buf, n, MSG_DONTWAIT);
        if (got >= 0) return got;
        if (errno != EINTR) return -errno;
    }
#else
    (void)buf, (void)n;
    return -ENOTSOCK;
#endif
}

uint32_t hw_conn_next_due(const hw_conn *c, uint32_t now) {
    uint32_t first = 0;
    for (int i = 0; i < HW_DUE_COUNT; i++) {
        uint32_t due = c->due[i];
        if (due && (!first || (int32_t)(due - now) < (int32_t)(first - now))) first = due;
    }
    return first;
}
