# One WebSocket connection. See connection.pyx.

cimport cython
from libc.stdint cimport uint8_t, uint16_t

from heartwire._core.receiving cimport Receiving


@cython.no_gc
cdef class Connection(Receiving):
    cdef readonly double opened_at      # Unix time, 0 before it was OPEN
    cdef uint8_t peer_address[16]
    cdef uint16_t peer_port
    cdef uint8_t peer_family            # 4, 6, or 0: a Unix socket

    cdef void settle(self) noexcept
    cdef void note_ipv6(self, const uint8_t *address) noexcept
