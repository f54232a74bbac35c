# Between a connection and the world. See link.pyx.

from libc.stdint cimport uint8_t, uint32_t

from heartwire._core.csrc cimport hw_limits, hw_rate
from heartwire._core.engine cimport Endpoint


cdef enum:
    HOLD = 1  # a Sink's answer to a message: stop reading until resume()


# What every connection of a server has in common, as the core needs it.
cdef struct Settings:
    hw_limits limits
    hw_limits gated_limits      # of connections that are not authenticated yet
    size_t send_limit
    size_t deflate_from         # messages this long are compressed, where that was negotiated
    size_t head_limit
    uint32_t ping_interval_ms
    uint32_t ping_timeout_ms
    bint ping_always
    uint32_t close_timeout_ms
    uint32_t handshake_timeout_ms
    uint32_t message_timeout_ms
    bint limited                # one of the two rates is set
    hw_rate message_rate        # of each client
    hw_rate byte_rate           # the same, in bytes of complete messages after inflating
    bint proxy_header           # connections may begin with a header of the PROXY protocol


cdef class Link:
    cdef ssize_t push(self, Endpoint conn) noexcept
    cdef void want(self, Endpoint conn) noexcept
    cdef void shutdown(self, Endpoint conn) noexcept
    cdef void detach(self, Endpoint conn) noexcept
    cdef bint pending_input(self, Endpoint conn) noexcept


cdef class Sink:
    cdef Settings settings
    cdef int text(self, Endpoint conn, uint8_t *p, size_t n) noexcept
    cdef int binary(self, Endpoint conn, uint8_t *p, size_t n) noexcept


cdef uint32_t milliseconds(seconds) except? 0xFFFFFFFF
