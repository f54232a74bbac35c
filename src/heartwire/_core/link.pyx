"""Between a connection and the world: Link carries its bytes, Sink receives what they mean."""

import errno as _errno

from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport ceil
from libc.stdint cimport uint8_t, uint32_t

from heartwire._core.csrc cimport (
    HW_READ_PAUSED,
    HW_WRITE_BLOCKED,
    hw_conn_sent,
    hw_out_front,
    hw_state_clear,
    hw_state_has,
    hw_state_set,
)
from heartwire._core.engine cimport Endpoint

__all__ = ["Link", "Sink"]


cdef enum:
    PUSH_MOST = 262144  # of one call of `write`: what it does not take is copied again the next time


cdef class Link:
    """What carries a connection's bytes. Python subclasses override `def` methods; the reactor the C ones.

    A link with a descriptor leaves `write` alone: the core sends by itself.
    """

    cdef ssize_t push(self, Endpoint conn) noexcept:
        """Moves queued bytes out. Returns how many, or -errno."""
        cdef const uint8_t *p
        cdef size_t n
        cdef ssize_t total = 0
        cdef ssize_t took
        while True:
            p = hw_out_front(&conn.c.out, &n)
            if p == NULL:
                hw_state_clear(&conn.c.state, HW_WRITE_BLOCKED)
                return total
            n = min(n, <size_t>PUSH_MOST)
            try:
                took = self.write(conn, PyBytes_FromStringAndSize(<const char *>p, n))
            except BlockingIOError:
                took = 0
            except OSError as error:
                return -(error.errno or _errno.EIO)
            except Exception:
                return -_errno.EIO
            hw_conn_sent(&conn.c, conn.cork(), took)
            total += took
            if <size_t>took < n:
                hw_state_set(&conn.c.state, HW_WRITE_BLOCKED)
                return total

    cdef void want(self, Endpoint conn) noexcept:
        """Brings what is watched for in line with the connection's state."""
        cdef bint reading = conn.watching and not hw_state_has(&conn.c.state, HW_READ_PAUSED)
        cdef bint writing = hw_state_has(&conn.c.state, HW_WRITE_BLOCKED)
        if reading == conn.armed_read and writing == conn.armed_write:
            return
        conn.armed_read = reading
        conn.armed_write = writing
        try:
            self.update(conn, reading, writing)
        except Exception as error:
            conn.engine.on_error(error)

    cdef void shutdown(self, Endpoint conn) noexcept:
        """Shuts the sending side."""
        try:
            self.write_eof(conn)
        except Exception:
            pass  # it is ending anyway

    cdef void detach(self, Endpoint conn) noexcept:
        """Closes the socket."""
        try:
            self.close(conn)
        except Exception as error:
            conn.engine.on_error(error)

    cdef bint pending_input(self, Endpoint conn) noexcept:
        """Are bytes from the peer waiting that were not received yet?"""
        return False

    def write(self, conn, data):
        """Takes bytes for the peer. Returns how many it took (fewer: call conn.writable() later).

        Raises:
            OSError: the peer cannot be reached any more.
        """
        raise NotImplementedError  # abstract: a link that is written to has its own

    def update(self, conn, reading, writing):
        """Starts or stops delivering input; asks for conn.writable() once more can be written."""

    def write_eof(self, conn):
        """Ends the sending direction after what was written."""

    def close(self, conn):
        """Closes the socket at once; nothing is delivered afterwards."""

    def release(self, conn):
        """Gives up the socket without closing it. Returns it in the link's own form."""
        raise NotImplementedError  # abstract: a link that is written to has its own


cdef class Sink:
    """Receives what happens on the connections of one server. Python subclasses override the `on_` methods.

    Args:
        settings: see `configure`.
    """

    def configure(self, *, max_message_size=1 << 20, max_fragments=16384, send_buffer_limit=1 << 20,
                  head_limit=16384, ping_interval=30.0, ping_timeout=60.0, ping_always=False,
                  close_timeout=5.0, handshake_timeout=10.0, message_timeout=60.0, compression_threshold=1024,
                  gated_message_size=16384, message_rate=0.0, message_burst=1, byte_rate=0.0, byte_burst=1,
                  proxy_header=False):
        """Sets the limits (bytes) and times (seconds; 0 turns a heartbeat off) of all its connections.

        `gated_message_size` bounds the messages of connections whose `special` has bit 1 (not authenticated
        yet). The rates are per second and connection, 0 for no limit, with so much at once. `proxy_header`
        asks `on_proxy_header` before the head.
        """
        self.settings.limits.max_message = max_message_size
        self.settings.limits.max_fragments = max_fragments
        self.settings.gated_limits = self.settings.limits
        self.settings.gated_limits.max_message = min(max_message_size, gated_message_size)
        self.settings.send_limit = send_buffer_limit
        self.settings.deflate_from = compression_threshold
        self.settings.head_limit = head_limit
        self.settings.ping_interval_ms = milliseconds(ping_interval)
        self.settings.ping_timeout_ms = milliseconds(ping_timeout)
        self.settings.ping_always = ping_always
        self.settings.close_timeout_ms = milliseconds(close_timeout)
        self.settings.handshake_timeout_ms = milliseconds(handshake_timeout)
        self.settings.message_timeout_ms = milliseconds(message_timeout)
        self.settings.message_rate.unit_ns = 1e9 / message_rate if message_rate else 0
        self.settings.message_rate.burst = max(message_burst, 1)
        self.settings.byte_rate.unit_ns = 1e9 / byte_rate if byte_rate else 0
        self.settings.byte_rate.burst = max(byte_burst, 1)
        self.settings.limited = bool(message_rate or byte_rate)
        self.settings.proxy_header = proxy_header

    cdef int text(self, Endpoint conn, uint8_t *p, size_t n) noexcept:
        try:
            return HOLD if self.on_text(conn, PyUnicode_DecodeUTF8(<char *>p, n, NULL)) else 0
        except Exception as error:
            self.on_failure(conn, error)
            return 0

    cdef int binary(self, Endpoint conn, uint8_t *p, size_t n) noexcept:
        try:
            return HOLD if self.on_binary(conn, PyBytes_FromStringAndSize(<char *>p, n)) else 0
        except Exception as error:
            self.on_failure(conn, error)
            return 0

    def on_head(self, conn, head):
        """A request head is complete (bytes, with its empty line). Answer by `accept`, `refuse` or `release`,
        now or later; until then the connection is not read from. `head` is None if it grew beyond the
        limit."""

    def on_proxy_header(self, conn, received):
        """The first bytes of a connection, before the head, with `proxy_header` set.

        Returns:
            How many of them are the header (0: there is none), or None if more are needed, or if the
            connection was ended.
        """
        return 0

    def on_rate_limited(self, conn, limit, data):
        """A message was thrown away, since "messages" or "bytes" came faster than they may. `data` is the
        message if it is a short text, else None."""

    def on_text(self, conn, text):
        """A text message. True: stop reading until `conn.resume()`."""

    def on_binary(self, conn, data):
        """A binary message. True: stop reading until `conn.resume()`."""

    def on_left(self, conn):
        """The connection is no longer OPEN: nothing can be sent to it. Once, before `on_closed`."""

    def on_closed(self, conn):
        """The socket is closed. Once, outside of any other callback of this connection."""

    def on_expired(self, conn, which):
        """A deadline set by `set_due` passed: "opening", "read", "token" or "handler"."""

    def on_ping_stopped(self, conn, reason, error):
        """The heartbeat lets go: "invalid", "nil_during_ping" or "send_error" (then an OSError)."""

    def on_pong(self, conn, rtt_us):
        """A ping was answered after so many microseconds. Called only if `wants_pongs`."""

    def on_failure(self, conn, error):
        """One of these methods raised: a bug in the sink."""


cdef uint32_t milliseconds(seconds) except? 0xFFFFFFFF:
    return <uint32_t>min(max(int(ceil(seconds * 1000)), 0), 2_000_000_000)  # deadlines are never early
