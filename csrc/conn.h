/* One connection without Python: the state word, what waits to be sent, the receiving parser, and the
 * steps of the connection-state contract (ARCHITECTURE.md, I1-I4) that check the state and use the
 * socket or its queue in one go. Called by the thread that owns the connection, with the GIL held. */
#ifndef HW_CONN_H
#define HW_CONN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "outqueue.h"
#include "parser.h"
#include "state.h"
#include "wheel.h"
#include "word.h"

enum {
    HW_OK = 0,
    HW_E_CLOSED = -1,   /* the connection takes no more frames */
    HW_E_SLOW = -2,     /* more than the limit was waiting already: nothing was added */
    HW_E_MEMORY = -3,
    HW_E_FRAGMENT = -4, /* a continuation without a beginning, or a beginning inside another */
};

/* Deadlines of one connection. A connection stands in the wheel once, at the earliest of them. */
enum {
    HW_DUE_PING,    /* the next ping; while one is outstanding, the end of our patience */
    HW_DUE_WRITE,   /* the kernel has taken nothing for too long */
    HW_DUE_OPENING, /* the request head, later the first authentication, is overdue */
    HW_DUE_CLOSING, /* the closing handshake is overdue */
    HW_DUE_MESSAGE, /* a message that began is overdue */
    HW_DUE_READ,    /* the application's read deadline */
    HW_DUE_TOKEN,   /* the token expires, or is about to */
    HW_DUE_HANDLER, /* the application's handler is overdue */
    HW_DUE_COUNT,
};

/* Idle connections are many: what is rarely in use is a pointer. */
typedef struct {
    hw_state state;
    int fd;        /* -1 while a link without a descriptor carries the bytes */
    uint32_t slot; /* index in the reactor's table */
    hw_outqueue out;
    hw_outqueue *held;         /* owned: whole messages that wait for the end of a fragmented one (I4), or NULL */
    hw_word held_bytes;        /* what they are; other threads read it, unlike the queue */
    hw_word queued, sent;      /* bytes ever put into `out`, and ever taken by the kernel */
    uint64_t ping_end;         /* value of `sent` at which the last ping has left; 0: none */
    hw_parser *in;             /* owned: NULL while neither a frame nor a message is under way */
    hw_wheel_entry timer;
    uint32_t due[HW_DUE_COUNT]; /* milliseconds of the engine's clock; 0: none */
} hw_conn;

void hw_conn_init(hw_conn *c, int fd, uint32_t slot, uint32_t generation);

/* Frees what it holds. The descriptor is its link's. */
void hw_conn_free(hw_conn *c, hw_out_node *cork);

/* Verifies what holds between any two steps: the books agree with the queues, the flags with the phase. Debug
 * builds do after every step. Returns 0, or a negative number naming the first that is broken. */
int hw_conn_check(const hw_conn *c);

/* Bytes that wait to be sent; to other threads a recent value, never more than there were. They load `sent`
 * first: whatever was sent meanwhile had been queued before. */
static inline size_t hw_conn_waiting(const hw_conn *c) {
    uint64_t sent = hw_word_load(&c->sent);
    uint64_t queued = hw_word_load(&c->queued);
    return (size_t)(queued - sent + hw_word_load(&c->held_bytes));
}

/* Lends the receiving parser for one run over received bytes: what is under way moves to *p, or *p is made
 * as new. Give it back, in any state, by hw_conn_put_parser. */
void hw_conn_take_parser(hw_conn *c, hw_parser *p, bool rsv1);

/* Keeps what is under way in *p, and frees what is not. Returns HW_OK, or HW_E_MEMORY (all is freed then). */
int hw_conn_put_parser(hw_conn *c, hw_parser *p);

/* Queues one frame: state check and append in one step (I3). Control frames go between fragments;
 * a whole data message that meets an unfinished fragmented one is held until that ends (I4).
 * `limit` is compared with what was waiting before (0: no limit). */
int hw_conn_frame(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                  size_t n, size_t limit);

/* As hw_conn_frame for a large data message on a connection with a descriptor: sends at once, without copying
 * the payload; *sent is what the kernel took, or -errno. */
int hw_conn_frame_now(hw_conn *c, hw_out_node *cork, uint8_t opcode, uint8_t rsv, const uint8_t *payload,
                      size_t n, size_t limit, ptrdiff_t *sent);

/* Queues a frame that other connections share. As hw_conn_frame. */
int hw_conn_shared(hw_conn *c, hw_shared *frame, size_t limit);

/* Queues one fragment of a message: the first with the message's opcode, the others are
 * continuations by themselves; `fin` ends it and lets the held messages follow. */
int hw_conn_fragment(hw_conn *c, hw_out_node *cork, uint8_t opcode, int fin, const uint8_t *payload,
                     size_t n, size_t limit);

/* Queues a CLOSE frame and marks the state, once (I2); code 1005 sends an empty one. Held messages
 * are dropped. Returns HW_OK, or HW_E_CLOSED if one was queued before or the connection is CLOSED. */
int hw_conn_close_frame(hw_conn *c, hw_out_node *cork, uint16_t code, const uint8_t *reason, size_t n);

/* Queues bytes that are not frames: the HTTP answer of a connection that is still CONNECTING. */
int hw_conn_bytes(hw_conn *c, hw_out_node *cork, const uint8_t *p, size_t n);

/* Drops everything queued of which nothing was sent (slow consumer). */
void hw_conn_drop_queue(hw_conn *c, hw_out_node *cork);

/* Sends what it can on c->fd, unless the connection is CLOSED (HW_E_CLOSED is then -EPIPE).
 * Sets or clears HW_WRITE_BLOCKED. Returns the bytes sent, or -errno. */
ptrdiff_t hw_conn_flush(hw_conn *c, hw_out_node *cork);

/* Says that the kernel, or a link, took n bytes from the front of the queue. */
void hw_conn_sent(hw_conn *c, hw_out_node *cork, size_t n);

/* Receives up to n bytes from c->fd. Returns them, 0 at the end, or -errno; -ENOTCONN if CLOSED. */
ptrdiff_t hw_conn_recv(hw_conn *c, uint8_t *buf, size_t n);

/* The earliest deadline, 0 if there is none. `now` decides what is earlier when the clock wraps. */
uint32_t hw_conn_next_due(const hw_conn *c, uint32_t now);

/* a is at or before b, on a clock of 32 bits that wraps. */
static inline int hw_due_reached(uint32_t due, uint32_t now) { return (int32_t)(now - due) >= 0; }

#endif
