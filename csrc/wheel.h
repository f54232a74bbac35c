/* A hashed timing wheel: O(1) add and remove, intrusive entries, no allocation after init.
 * Time is a count of ticks; what a tick is, the owner decides. One thread at a time. */
#ifndef HW_WHEEL_H
#define HW_WHEEL_H

#include <stddef.h>
#include <stdint.h>

typedef struct hw_wheel_entry {
    struct hw_wheel_entry *prev, *next; /* both NULL while not in a wheel */
    uint64_t deadline;                  /* absolute tick */
} hw_wheel_entry;

typedef struct {
    hw_wheel_entry *slots;   /* owned: ring heads, one per slot */
    uint64_t *occupied;      /* owned: one bit per slot, set if the slot may hold entries */
    hw_wheel_entry expired;  /* ring head of what is due and not popped yet */
    uint64_t now;            /* last tick that was advanced to */
    uint64_t mask;           /* slot count - 1 */
    size_t count;            /* entries linked, the expired ones included */
} hw_wheel;

/* slot_count: a power of two >= 64. Returns 0, or -1 if memory is out. */
int hw_wheel_init(hw_wheel *w, size_t slot_count, uint64_t now);

/* Unlinks every entry and frees the wheel's own memory. */
void hw_wheel_free(hw_wheel *w);

/* Links e to expire at `deadline` (at once, on the next advance or pop, if that is not after now).
 * e must be zeroed or have been unlinked. An entry that is linked is moved. */
void hw_wheel_add(hw_wheel *w, hw_wheel_entry *e, uint64_t deadline);

/* Unlinks e; nothing happens if it is not linked. */
void hw_wheel_remove(hw_wheel *w, hw_wheel_entry *e);

static inline int hw_wheel_linked(const hw_wheel_entry *e) { return e->next != NULL; }

/* Moves time to `now` (never backwards) and everything due by then to the expired ring. Visits each
 * slot at most once, however far time jumped. */
void hw_wheel_advance(hw_wheel *w, uint64_t now);

/* Unlinks and returns an expired entry, NULL if there is none. Entries expire in tick order, up to
 * the order within one advance. It is legal to add and remove entries between pops. */
hw_wheel_entry *hw_wheel_pop(hw_wheel *w);

/* The earliest tick at which hw_wheel_advance may find something due (it can be early by whole turns of
 * the wheel, never late); w->now if something has expired already; UINT64_MAX if the wheel is empty. */
uint64_t hw_wheel_next(const hw_wheel *w);

/* Verifies every invariant of the structure. Returns 0, or a negative number naming the first broken. */
int hw_wheel_check(const hw_wheel *w);

/* The same as an assertion of debug builds, which make one after every batch. */
#ifdef NDEBUG
static inline void hw_wheel_verify(const hw_wheel *w) { (void)w; }
#else
void hw_wheel_verify(const hw_wheel *w);
#endif

#endif
