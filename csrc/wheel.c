#include "wheel.h"

#include <assert.h>
#include <stdlib.h>

#include "bits.h"

static void ring_init(hw_wheel_entry *head) {
    head->prev = head->next = head;
    head->deadline = 0;
}

static int ring_is_empty(const hw_wheel_entry *head) { return head->next == head; }

static void link_last(hw_wheel_entry *head, hw_wheel_entry *e) {
    e->prev = head->prev;
    e->next = head;
    head->prev->next = e;
    head->prev = e;
}

static void take_out(hw_wheel_entry *e) {
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->prev = e->next = NULL;
}

static void set_occupied(hw_wheel *w, uint64_t slot) {
    w->occupied[slot >> 6] |= UINT64_C(1) << (slot & 63);
}

static void clear_occupied(hw_wheel *w, uint64_t slot) {
    w->occupied[slot >> 6] &= ~(UINT64_C(1) << (slot & 63));
}

/* How many ticks after `tick` the first occupied slot comes; `limit` if that is not before `limit`. */
static uint64_t occupied_after(const hw_wheel *w, uint64_t tick, uint64_t offset, uint64_t limit) {
    while (offset < limit) {
        uint64_t slot = (tick + offset) & w->mask;
        uint64_t bits = w->occupied[slot >> 6] >> (slot & 63);
        if (bits) {
            offset += hw_lowest_bit(bits);
            return offset < limit ? offset : limit;
        }
        offset += 64 - (slot & 63);
    }
    return limit;
}

int hw_wheel_init(hw_wheel *w, size_t slot_count, uint64_t now) {
    assert(slot_count >= 64 && (slot_count & (slot_count - 1)) == 0);
    w->slots = calloc(slot_count, sizeof *w->slots);
    w->occupied = calloc(slot_count / 64, sizeof *w->occupied);
    w->now = now;
    w->mask = slot_count - 1;
    w->count = 0;
    ring_init(&w->expired);
    if (!w->slots || !w->occupied) {
        free(w->slots);
        free(w->occupied);
        w->slots = NULL;
        w->occupied = NULL;
        return -1;
    }
    for (size_t i = 0; i < slot_count; i++)
        ring_init(&w->slots[i]);
    return 0;
}

void hw_wheel_free(hw_wheel *w) {
    if (!w->slots)
        return;
    while (!ring_is_empty(&w->expired))
        take_out(w->expired.next);
    for (uint64_t i = 0; i <= w->mask; i++)
        while (!ring_is_empty(&w->slots[i]))
            take_out(w->slots[i].next);
    free(w->slots);
    free(w->occupied);
    w->slots = NULL;
    w->occupied = NULL;
    w->count = 0;
}

void hw_wheel_add(hw_wheel *w, hw_wheel_entry *e, uint64_t deadline) {
    hw_wheel_remove(w, e);
    e->deadline = deadline;
    if (deadline <= w->now) {
        link_last(&w->expired, e);
    } else {
        uint64_t slot = deadline & w->mask;
        link_last(&w->slots[slot], e);
        set_occupied(w, slot);
    }
    w->count++;
}

void hw_wheel_remove(hw_wheel *w, hw_wheel_entry *e) {
    if (!hw_wheel_linked(e))
        return;
    /* Alone in its ring, its neighbour on both sides is the head. A slot's bit is cleared with its last
     * entry, or a timer that is mostly cancelled would wake its owner for nothing. */
    if (e->prev == e->next && e->next != &w->expired)
        clear_occupied(w, e->deadline & w->mask);
    take_out(e);
    w->count--;
}

void hw_wheel_advance(hw_wheel *w, uint64_t now) {
    if (now <= w->now)
        return;
    const uint64_t first = w->now + 1, turn = w->mask + 1;
    const uint64_t ticks = now - w->now < turn ? now - w->now : turn;
    w->now = now;
    for (uint64_t i = occupied_after(w, first, 0, ticks); i < ticks;
         i = occupied_after(w, first, i + 1, ticks)) {
        const uint64_t slot = (first + i) & w->mask;
        hw_wheel_entry *head = &w->slots[slot];
        for (hw_wheel_entry *e = head->next, *next; e != head; e = next) {
            next = e->next;
            if (e->deadline <= now) {
                take_out(e);
                link_last(&w->expired, e);
            }
        }
        if (ring_is_empty(head))
            clear_occupied(w, slot);
    }
}

hw_wheel_entry *hw_wheel_pop(hw_wheel *w) {
    if (ring_is_empty(&w->expired))
        return NULL;
    hw_wheel_entry *e = w->expired.next;
    take_out(e);
    w->count--;
    return e;
}

uint64_t hw_wheel_next(const hw_wheel *w) {
    if (!ring_is_empty(&w->expired))
        return w->now;
    if (w->count == 0)
        return UINT64_MAX;
    return w->now + 1 + occupied_after(w, w->now + 1, 0, w->mask + 1);
}

/* Returns how many entries the ring has, -1 if a link is not matched by its counterpart or the ring has
 * more than `most` (it may not be closed). */
static int64_t ring_length(const hw_wheel_entry *head, size_t most) {
    const hw_wheel_entry *e = head;
    size_t length = 0;
    for (; e->next != head; e = e->next) {
        if (!e->next || e->next->prev != e || length == most)
            return -1;
        length++;
    }
    return head->prev == e ? (int64_t)length : -1;
}

int hw_wheel_check(const hw_wheel *w) {
    const uint64_t slot_count = w->mask + 1;
    if (slot_count < 64 || (slot_count & w->mask) != 0 || !w->slots || !w->occupied)
        return -1;

    int64_t length = ring_length(&w->expired, w->count);
    if (length < 0)
        return -2;
    uint64_t total = (uint64_t)length;
    for (const hw_wheel_entry *e = w->expired.next; e != &w->expired; e = e->next)
        if (e->deadline > w->now)
            return -3; /* expired before its time */

    for (uint64_t slot = 0; slot < slot_count; slot++) {
        const hw_wheel_entry *head = &w->slots[slot];
        length = ring_length(head, w->count);
        if (length < 0)
            return -4;
        total += (uint64_t)length;
        for (const hw_wheel_entry *e = head->next; e != head; e = e->next) {
            if ((e->deadline & w->mask) != slot)
                return -5; /* in the wrong slot */
            if (e->deadline <= w->now)
                return -6; /* missed */
        }
        if ((w->occupied[slot >> 6] >> (slot & 63) & 1) != (length != 0))
            return -7;
    }
    return total == w->count ? 0 : -8;
}

#ifndef NDEBUG
void hw_wheel_verify(const hw_wheel *w) { assert(hw_wheel_check(w) == 0); }
#endif
