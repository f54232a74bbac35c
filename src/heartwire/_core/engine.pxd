# What the connections of one event loop share. See engine.pyx.

cimport cython
from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from heartwire._core.csrc cimport hw_conn, hw_out_node, hw_wheel, hw_word, hw_zip


# What the GIL is on the other builds: PyMutex where there is none, and nothing where there is.
cdef extern from *:
    """
    #ifdef Py_GIL_DISABLED
    typedef PyMutex hw_lock;
    #define hw_lock_take(lock) PyMutex_Lock(lock)
    #define hw_lock_give(lock) PyMutex_Unlock(lock)
    #else
    typedef char hw_lock;
    #define hw_lock_take(lock) ((void)(lock))
    #define hw_lock_give(lock) ((void)(lock))
    #endif
    """
    ctypedef struct Lock "hw_lock":
        pass
    void take "hw_lock_take"(Lock *lock) noexcept
    void give "hw_lock_give"(Lock *lock) noexcept


# A list of owned references that costs nothing while empty.
cdef struct Refs:
    PyObject **items  # owned, each one reference
    size_t count
    size_t capacity


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


cdef enum:
    HISTOGRAM_BOUNDS = 13


# How often a value was at most a bound, by bound (not cumulated); the last count is of what is above all.
cdef struct Histogram:
    uint64_t counts[HISTOGRAM_BOUNDS + 1]
    uint64_t sum


@cython.no_gc
cdef class Endpoint:
    cdef hw_conn c
    cdef Engine engine          # owned, for good: other threads read it
    cdef uint8_t dirty             # stands in engine.dirty
    cdef uint8_t watching          # its link should deliver input, unless HW_READ_PAUSED
    cdef uint8_t armed_read        # its link does: the link's own notes
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
    cdef object posted                  # collections.deque of (callable, args)
    cdef object call_soon_threadsafe
    cdef Lock posting                   # held to change `posted` together with the next two
    cdef bint wake_pending
    cdef bint stopped
    cdef public object error_handler    # (exception) -> None: the server logs it
    cdef uint64_t random
    cdef Totals totals
    cdef Histogram rtt                  # microseconds between a ping and its pong
    cdef Histogram lag                  # microseconds by which the loop called us late
    cdef Histogram fanout               # recipients of a fan-out

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
