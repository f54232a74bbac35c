# What a connection receives. See receiving.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from heartwire._core.csrc cimport hw_event, hw_event_kind
from heartwire._core.sending cimport Sending


@cython.no_gc
cdef class Receiving(Sending):
    cdef uint8_t *pending               # owned: bytes received and not yet parsed, NULL if none
    cdef uint32_t pending_len
    cdef uint32_t pending_start
    cdef uint64_t messages_full_at      # hw_bucket, in nanoseconds of the engine's clock
    cdef uint64_t bytes_full_at
    cdef uint64_t bytes_in
    cdef uint32_t messages_in
    cdef uint32_t paused_at             # engine.now_ms when reading was paused, 0: it is not
    cdef uint32_t linger_left           # bytes that are still thrown away
    cdef public uint8_t introduced      # a header of the PROXY protocol was read, or is not expected

    cdef void receive(self, uint8_t *p, size_t n) noexcept
    cdef void receive_eof(self) noexcept
    cdef void receive_head(self, uint8_t *p, size_t n) noexcept
    cdef bint introduce(self) noexcept
    cdef size_t pump(self, uint8_t *p, size_t n) noexcept
    cdef bint admit(self, hw_event_kind kind, hw_event *ev) noexcept
    cdef void keep(self, const uint8_t *p, size_t n) noexcept
    cdef void pump_pending(self) noexcept
    cdef void close_received(self, uint16_t code, const uint8_t *reason, size_t n) noexcept
