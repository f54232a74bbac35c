/* Numbers that one thread writes and others read, and sums that several threads add to.
 *
 * A reader who sees a number of 64 bits sees what its writer had written before it, too. On x86-64 all but
 * hw_word_add are plain moves. Header-only, no globals.
 */
#ifndef HW_WORD_H
#define HW_WORD_H

#include <stdatomic.h>
#include <stdint.h>

typedef struct {
    _Atomic uint64_t value;
} hw_word;

static inline uint64_t hw_word_load(const hw_word *w) {
    return atomic_load_explicit(&((hw_word *)w)->value, memory_order_acquire);
}

/* By the only thread that writes it. */
static inline void hw_word_store(hw_word *w, uint64_t value) {
    atomic_store_explicit(&w->value, value, memory_order_release);
}

/* Adds, by the only thread that writes it: others see the old sum or the new one. */
static inline void hw_word_grow(hw_word *w, uint64_t by) {
    hw_word_store(w, atomic_load_explicit(&w->value, memory_order_relaxed) + by);
}

/* As many bits as a round-trip time needs: a connection has no bytes to spare. */
typedef struct {
    _Atomic uint32_t value;
} hw_word32;

static inline uint32_t hw_word32_load(const hw_word32 *w) {
    return atomic_load_explicit(&((hw_word32 *)w)->value, memory_order_relaxed);
}

/* By the only thread that writes it. */
static inline void hw_word32_store(hw_word32 *w, uint32_t value) {
    atomic_store_explicit(&w->value, value, memory_order_relaxed);
}

/* Adds, by any thread. */
static inline void hw_word_add(hw_word *w, uint64_t by) {
#ifdef HW_RACE /* planted for `make tsan`, which has to report it */
    *(uint64_t *)(void *)&w->value += by;
#else
    atomic_fetch_add_explicit(&w->value, by, memory_order_relaxed);
#endif
}

#endif
