# What the connections of one event loop share. See engine.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from heartwire._core.csrc cimport hw_conn, hw_histogram, hw_out_node, hw_wheel, hw_word, hw_zip
from heartwire._core.mailbox cimport Mailbox
from heartwire._core.refs cimport Refs


cdef enum:
    PING_GRID_MS = 100


# Totals since the engine was made. Read at scrape time; written only by the owning thread.
cdef struct Totals:
    uint64_t opened
    uint64_t closed
    uint64_t messages_in
    uint64_t messages_out
    uint64_t bytes_in
    uint64_t bytes_out
    uint64_t pings
    uint64_t pongs
    uint64_t stalls
    uint64_t stalled_ms
    uint64_t slow_consumers
    uint64_t queued_bytes       # not a total: what waits to be sent at this moment, on all connections


@cython.no_gc
cdef class Endpoint:
    cdef hw_conn c
    cdef Engine engine          # owned, for good: other threads read it
    cdef uint8_t dirty             # stands in engine.dirty
    cdef uint8_t watching          # its link should deliver input, unless HW_READ_PAUSED
    cdef uint8_t armed_read        # its link does: the link's own notes
    cdef uint8_t on_grid           # its pings are so rare that they leave in bursts
    cdef bint armed_write
    cdef hw_out_node *cork(self) noexcept
    cdef void flush(self) noexcept
    cdef void expire(self) noexcept
    cdef void settle(self) noexcept


cdef class Engine:
    # time
    cdef hw_wheel wheel
    cdef uint32_t tick_ms
    cdef readonly uint32_t now_ms       # wraps after 49 days; 0 never stands for an instant
    cdef uint64_t now_us
    cdef uint64_t epoch_us
    cdef uint32_t late_ms               # of the timers being judged, because we were stalled; 0: on time
    cdef uint64_t armed_tick            # the tick at which the loop will call us; UINT64_MAX: none
    cdef uint64_t armed_us              # when that is, on the clock of now_us
    cdef uint64_t messages_seen         # totals.messages_in at the end of the last on_timer
    cdef object clock                   # () -> seconds, or None for CLOCK_MONOTONIC
    cdef object call_later              # (seconds, callback) -> handle with cancel()
    cdef object timer_handle
    # batches
    cdef Refs dirty                     # endpoints with something to send
    cdef Refs ended                     # endpoints to settle
    cdef bint in_batch
    cdef bint overrun                   # fan-out outpaces the sends: nothing is read until they caught up
    cdef bint flush_pending
    cdef object call_soon
    # shared buffers
    cdef hw_out_node *cork              # owned
    cdef Endpoint corked                # borrowed meaning: who may use the cork now
    cdef uint8_t *buffer                # owned: buffer_size bytes, every receive of this loop
    cdef size_t buffer_size
    cdef hw_zip zip                     # owned streams: compression without context takeover
    # other threads
    cdef hw_word thread_id
    cdef Mailbox mailbox                # closed when the engine is stopped
    cdef object call_soon_threadsafe
    cdef public object error_handler    # (exception) -> None: the server logs it
    cdef uint64_t random
    cdef Totals totals
    cdef hw_histogram rtt                  # microseconds between a ping and its pong
    cdef hw_histogram lag                  # microseconds by which the loop called us late
    cdef hw_histogram fanout               # recipients of a fan-out

    cdef bint foreign(self) noexcept
    cdef void update_clock(self) noexcept
    cdef bint begin(self) noexcept
    cdef void end(self, bint outermost) noexcept
    cdef void mark_dirty(self, Endpoint endpoint) noexcept
    cdef void mark_ended(self, Endpoint endpoint) noexcept
    cdef void set_due(self, Endpoint endpoint, int which, uint32_t delay_ms) noexcept
    cdef void rearm(self, Endpoint endpoint) noexcept
    cdef void arm_timer(self) noexcept
    cdef uint32_t draw(self, uint32_t below) noexcept
    cdef void flush_dirty(self) noexcept
    cdef void settle_ended(self) noexcept
    cdef void request_flush(self) noexcept
    cdef uint64_t ticks_until(self, uint32_t due) noexcept
    cdef void note_rtt(self, uint64_t us) noexcept
    cdef void note_fanout(self, uint64_t recipients) noexcept
    cpdef void on_error(self, error) noexcept
