# What a connection sends. See sending.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint32_t

from heartwire._core.csrc cimport hw_shared, hw_word, hw_word32, hw_zip_peer
from heartwire._core.ending cimport Ending


cdef enum:
    PONG_ID = 4  # payload bytes of our pings


@cython.no_gc
cdef class Sending(Ending):
    cdef hw_zip_peer *zip               # owned: NULL unless permessage-deflate was negotiated
    cdef list drain_waiters             # futures, None while nobody waits
    cdef uint32_t accounted             # its share of engine.totals.queued_bytes
    cdef uint32_t messages_out
    cdef uint32_t last_tx               # engine.now_ms when the kernel last took bytes
    cdef uint32_t last_rx               # engine.now_ms of the last byte received
    cdef uint32_t ping_us               # when the ping under way was handed over, low 32 bits
    cdef hw_word32 rtt_us               # of the last answered ping, 0: none yet
    cdef hw_word posted_bytes           # of messages that other threads have handed over, not queued yet

    cpdef send(self, uint8_t opcode, data)
    cdef int queue(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept
    cdef int queue_shared(self, hw_shared *frame) noexcept
    cdef int queue_deflated(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept
    cdef bint offer(self) noexcept
    cdef int check(self, int rc) except -1
    cdef void flush(self) noexcept
    cdef void account(self, size_t waiting) noexcept
    cdef void progress(self, ssize_t n) noexcept
    cdef void wake_drained(self, object error) noexcept
    cdef void slow(self) noexcept
    cdef void send_ping(self) noexcept
    cdef void ping_left(self) noexcept
    cdef void expire(self) noexcept
    cdef bint passed(self, int which, uint32_t now) noexcept
