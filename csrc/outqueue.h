/* What waits to be sent on one connection: whole frames, in order.
 *
 * A node holds either bytes of its own (many small frames run together, so that they leave in one
 * system call) or a reference to one encoded frame that many queues share. Every node begins at a
 * frame boundary; an HTTP answer may stand before the first. An empty queue owns no memory. */
#ifndef HW_OUTQUEUE_H
#define HW_OUTQUEUE_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

/* One encoded frame (header and payload), immutable once shared. */
typedef struct {
    _Atomic uint32_t refs;
    size_t len;
    uint8_t data[];
} hw_shared;

typedef struct hw_out_node {
    struct hw_out_node *next;
    hw_shared *shared; /* one reference owned; NULL: the bytes stand in data */
    size_t start, end; /* unsent bytes; those before start are kept, for hw_out_truncate */
    size_t cap;        /* of data */
    size_t lead;       /* bytes at its beginning that are not frames (an HTTP answer) */
    uint8_t data[];
} hw_out_node;

typedef struct {
    hw_out_node *head, *tail;
} hw_outqueue;

/* A shared frame of one reference with room for the payload behind its header, NULL if memory is
 * out. *payload is where the n payload bytes belong. */
hw_shared *hw_shared_new(uint8_t opcode, uint8_t rsv, size_t n, uint8_t **payload);
void hw_shared_drop(hw_shared *s);

/* Appends a frame, copying its payload. Returns the bytes added, or -1 if memory is out.
 * `cork`: a node lent by the engine, used if the queue is empty and the frame fits; NULL for none. */
ptrdiff_t hw_out_frame(hw_outqueue *q, hw_out_node *cork, uint8_t opcode, int fin, uint8_t rsv,
                       const uint8_t *payload, size_t n);

/* Sends what is queued and one more frame behind it in one system call, without copying its payload; what
 * the kernel does not take of the frame is copied to the queue. For payloads so large that the copy costs
 * more than the call. *added is the size of the frame. Returns as hw_out_send; -ENOMEM if the rest of
 * the frame could not be kept (part of it may have left: the connection is unusable). */
ptrdiff_t hw_out_send_frame(hw_outqueue *q, hw_out_node *cork, int fd, uint8_t opcode, uint8_t rsv,
                            const uint8_t *payload, size_t n, size_t *added, int *blocked);

/* Appends bytes that are not frames (an HTTP answer). As hw_out_frame. */
ptrdiff_t hw_out_bytes(hw_outqueue *q, hw_out_node *cork, const uint8_t *p, size_t n);

/* Appends a shared frame, taking a reference of its own. As hw_out_frame. */
ptrdiff_t hw_out_shared(hw_outqueue *q, hw_shared *s);

/* Sends what it can. Returns the bytes the kernel took, or -errno if it took none because of an error
 * (-EAGAIN included). `blocked` is set if bytes are left because the socket is full. */
ptrdiff_t hw_out_send(hw_outqueue *q, hw_out_node *cork, int fd, int *blocked);

/* Drops n bytes from the front, as sent. */
void hw_out_consume(hw_outqueue *q, hw_out_node *cork, size_t n);

/* Moves what still stands in the cork to memory of the queue's own, so that the engine can lend the cork
 * to another. Returns 0, or -1 if memory is out. */
int hw_out_uncork(hw_outqueue *q, hw_out_node *cork);

/* Drops every frame of which nothing was sent yet. Returns the bytes dropped. */
size_t hw_out_truncate(hw_outqueue *q, hw_out_node *cork);

/* Moves all of `from` behind `q`. */
void hw_out_append(hw_outqueue *q, hw_outqueue *from);

void hw_out_clear(hw_outqueue *q, hw_out_node *cork);

static inline int hw_out_empty(const hw_outqueue *q) { return q->head == NULL; }

/* Verifies every invariant of the structure. Returns the unsent bytes, or a negative number naming the first
 * that is broken. */
ptrdiff_t hw_out_check(const hw_outqueue *q);

/* The first contiguous unsent bytes, for links that are not sockets. NULL if empty. */
const uint8_t *hw_out_front(const hw_outqueue *q, size_t *n);

#endif
