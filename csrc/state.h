/* The connection-state word: one C11 atomic 64-bit integer per connection.
 *
 *   bits 0-1    phase: CONNECTING -> OPEN -> CLOSING -> CLOSED, only ever growing
 *   bits 2-31   flags
 *   bits 32-63  generation of the slot the connection lives in
 *
 * The contract (ARCHITECTURE.md, I1): each phase transition is one compare-and-swap and only its
 * winner runs the side effect. Nothing else in the tree writes the phase. Header-only, no globals.
 */
#ifndef HW_STATE_H
#define HW_STATE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum {
    HW_CONNECTING = 0,
    HW_OPEN = 1,
    HW_CLOSING = 2,
    HW_CLOSED = 3,
    HW_PHASE_MASK = 3,
};

enum {
    HW_CLOSE_SENT = 1 << 2,       /* a CLOSE frame is queued: no frame may follow it (I2) */
    HW_CLOSE_RCVD = 1 << 3,       /* the peer's CLOSE frame has been read */
    HW_EOF = 1 << 4,              /* the peer shut down its sending side */
    HW_WRITE_BLOCKED = 1 << 5,    /* the socket took less than was offered */
    HW_FRAG_SENDING = 1 << 6,     /* between the first and last fragment of a message we send (I4) */
    HW_PING_OUTSTANDING = 1 << 7, /* a ping left, and nothing was received since */
    HW_READ_PAUSED = 1 << 8,      /* a handler is running: the peer is not read from */
    HW_IN_CALLBACK = 1 << 9,      /* user code runs on behalf of this connection */
    HW_DETACHED = 1 << 10,        /* the socket was handed to another owner (HTTP) */
};

typedef struct {
    _Atomic uint64_t word;
} hw_state;

static inline void hw_state_init(hw_state *s, uint32_t generation) {
    atomic_init(&s->word, (uint64_t)generation << 32);
}

static inline uint64_t hw_state_load(const hw_state *s) {
    return atomic_load_explicit(&((hw_state *)s)->word, memory_order_acquire);
}

static inline int hw_state_phase(const hw_state *s) {
    return (int)(hw_state_load(s) & HW_PHASE_MASK);
}

static inline uint32_t hw_state_generation(const hw_state *s) {
    return (uint32_t)(hw_state_load(s) >> 32);
}

static inline bool hw_state_has(const hw_state *s, uint32_t flag) {
    return (hw_state_load(s) & flag) != 0;
}

/* Moves the phase forward to `to`. Returns true only for the one caller whose
 * compare-and-swap made the move; false if the phase is already `to` or beyond. */
static inline bool hw_state_advance(hw_state *s, int to) {
    uint64_t old = atomic_load_explicit(&s->word, memory_order_acquire);
    while ((int)(old & HW_PHASE_MASK) < to) {
        uint64_t want = (old & ~(uint64_t)HW_PHASE_MASK) | (uint64_t)to;
        if (atomic_compare_exchange_weak_explicit(&s->word, &old, want, memory_order_acq_rel,
                                                  memory_order_acquire))
            return true;
    }
    return false;
}

/* As hw_state_advance, but only from exactly `from` (so that a connection that is
 * already CLOSED, or not yet OPEN, is left alone). */
static inline bool hw_state_step(hw_state *s, int from, int to) {
    uint64_t old = atomic_load_explicit(&s->word, memory_order_acquire);
    while ((int)(old & HW_PHASE_MASK) == from) {
        uint64_t want = (old & ~(uint64_t)HW_PHASE_MASK) | (uint64_t)to;
        if (atomic_compare_exchange_weak_explicit(&s->word, &old, want, memory_order_acq_rel,
                                                  memory_order_acquire))
            return true;
    }
    return false;
}

/* Sets a flag. Returns true if it was clear, that is, if this caller set it. */
static inline bool hw_state_set(hw_state *s, uint32_t flag) {
    return (atomic_fetch_or_explicit(&s->word, flag, memory_order_acq_rel) & flag) == 0;
}

/* Clears a flag. Returns true if it was set, that is, if this caller cleared it. */
static inline bool hw_state_clear(hw_state *s, uint32_t flag) {
    return (atomic_fetch_and_explicit(&s->word, ~(uint64_t)flag, memory_order_acq_rel) & flag) != 0;
}

#endif
