"""One WebSocket connection: the state word, the receiving parser, what waits to be sent, its deadlines.

A connection does not know its socket. Bytes come in by `receive`, go out by its Link (the epoll reactor,
an asyncio transport, a fake in tests), and what they mean goes to its Sink. Every method may be called in
any state; a connection that is gone answers with `ConnectionClosed` or does nothing. Methods without
another word belong to the loop's thread; `send`, `close` and `ping` may be called from any.

Here are its beginning, what its link and its owner ask of it, and its last moment; how it ends, sends and
receives is in the modules `ending`, `sending` and `receiving`.

Source: RFC 6455; the connection-state contract I1-I11 in ARCHITECTURE.md.
"""

import errno as _errno
from ipaddress import ip_address
from os import strerror
from socket import AF_INET6, inet_ntop
from time import time

cimport cython
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_RawFree
from libc.math cimport rint
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, memcpy

from heartwire._core.csrc cimport *
from heartwire._core.ending cimport ENDING_LINGER, LINGER_BYTES, LINGER_MS
from heartwire._core.engine cimport PING_GRID_MS, Engine
from heartwire._core.link cimport Link
from heartwire._core.receiving cimport Receiving

from heartwire.errors import ConnectionClosed

__all__ = ["Connection"]


cdef double WRAP_MS = 4294967296.0  # engine.now_ms begins again

cdef frozenset GONE = frozenset((_errno.EPIPE, _errno.ECONNRESET, _errno.ENOTCONN, _errno.ESHUTDOWN))


@cython.no_gc
@cython.final
cdef class Connection(Receiving):
    """One peer. Made by its link: `Connection(engine, sink, link, fd)`."""

    def __cinit__(self):
        self.engine.set_due(self, HW_DUE_OPENING, self.sink.settings.handshake_timeout_ms)

    # ---------------------------------------------------------------- opening

    def use_deflate(self, uint8_t out_bits, uint8_t in_bits, bint out_takeover, bint in_takeover):
        """permessage-deflate was negotiated; called before `accept`.

        Args:
            out_bits, in_bits: windows (8 to 15) of what we send, and of what the peer sends.
            out_takeover, in_takeover: whether messages refer to earlier ones of their direction.
        Source: RFC 7692 section 7.
        """
        hw_zip_peer_free(self.zip)
        self.zip = hw_zip_peer_new(out_bits, in_bits, out_takeover, in_takeover)
        if self.zip == NULL:
            raise MemoryError

    def accept(self, bytes response, owner):
        """Answers the request head: the connection is OPEN, `owner` is what Sinks find in `conn.owner`.

        Returns:
            False if the peer has gone meanwhile.
        """
        cdef Engine engine = self.engine
        if hw_conn_bytes(&self.c, self.cork(), <const uint8_t *>PyBytes_AS_STRING(response),
                         PyBytes_GET_SIZE(response)) != HW_OK:
            return False
        if not hw_state_step(&self.c.state, HW_CONNECTING, HW_OPEN):
            return False
        self.owner = owner
        self.was_open = True
        self.c.due[HW_DUE_OPENING] = 0
        self.opened_ms = self.last_tx = engine.now_ms
        self.opened_at = time()
        engine.totals.opened += 1
        self.on_grid = self.sink.settings.ping_interval_ms > PING_GRID_MS * 50
        if self.sink.settings.ping_interval_ms:
            engine.set_due(self, HW_DUE_PING, engine.draw(self.sink.settings.ping_interval_ms) + 1)
        self.paused_at = engine.now_ms
        engine.mark_dirty(self)
        return True

    def refuse(self, bytes response):
        """Answers the request head with an HTTP error; the connection ends without having been OPEN."""
        if hw_conn_bytes(&self.c, self.cork(), <const uint8_t *>PyBytes_AS_STRING(response),
                         PyBytes_GET_SIZE(response)) != HW_OK:
            return
        if hw_state_step(&self.c.state, HW_CONNECTING, HW_CLOSING):
            self.ending = ENDING_LINGER
            self.linger_left = LINGER_BYTES
            self.c.due[HW_DUE_OPENING] = 0
            hw_state_clear(&self.c.state, HW_READ_PAUSED)
            PyMem_RawFree(self.pending)
            self.pending = NULL
            self.pending_len = self.pending_start = 0
            self.engine.set_due(self, HW_DUE_CLOSING, LINGER_MS)
            self.engine.mark_dirty(self)
            if not self.armed_read:
                self.link.want(self)

    def release(self):
        """Gives up a connection whose request is for another server (HTTP): the socket stays open.

        Returns:
            What the link gives for it (a descriptor, a transport), and the bytes received, the head included.
        """
        cdef bytes received = PyBytes_FromStringAndSize(<char *>self.pending, self.pending_len)
        cdef Link link = self.link
        if not hw_state_step(&self.c.state, HW_CONNECTING, HW_CLOSED):
            raise ConnectionClosed(1006, "", "peer_gone")
        hw_state_set(&self.c.state, HW_DETACHED)
        self.engine.mark_ended(self)
        return link.release(self), received

    # ---------------------------------------------------------------- its last moment

    cdef void settle(self) noexcept:
        """After the batch: tells the end, frees what the connection held, breaks its cycles."""
        cdef Engine engine = self.engine
        if self.link is None:  # it was told before
            return
        hw_wheel_remove(&engine.wheel, &self.c.timer)
        self.account(0)
        if self.drain_waiters is not None:
            self.wake_drained(ConnectionClosed(self.code or 1006, self.reason or "",
                                               self.cause or "peer_gone"))
        try:
            if self.was_open:
                engine.totals.closed += 1
                self._settle_ping()
        except Exception as error:
            self.sink.on_failure(self, error)
        try:
            if not hw_state_has(&self.c.state, HW_DETACHED):
                self.sink.on_closed(self)
        except Exception as error:
            self.sink.on_failure(self, error)
        hw_conn_free(&self.c, self.cork())
        hw_zip_peer_free(self.zip)
        self.zip = NULL
        PyMem_RawFree(self.pending)
        self.pending = NULL
        self.pending_len = self.pending_start = 0
        self.owner = None
        self.link = None

    def _settle_ping(self):
        """Which of the four ways the heartbeat lets go (protocol.md 1)."""
        cdef bint waiting = self.c.ping_end != 0
        if self.ping_stopped:
            return
        self.ping_stopped = True
        if waiting and self.failure and self.failure not in GONE:
            self.sink.on_ping_stopped(self, "send_error", OSError(self.failure, strerror(self.failure)))
        elif waiting and not self.failure:
            self.sink.on_ping_stopped(self, "nil_during_ping", None)
        else:
            self.sink.on_ping_stopped(self, "invalid", None)

    # ---------------------------------------------------------------- for links written in Python

    def armed(self):
        """The link delivers input from the start."""
        self.armed_read = True

    def feed(self, data):
        """Takes bytes from the peer (bytes-like; copied, since they are unmasked in place)."""
        cdef Engine engine = self.engine
        cdef const uint8_t[::1] view = data
        cdef size_t at = 0
        cdef size_t n
        cdef bint outermost = engine.begin()
        if not outermost:  # inside a callback of another connection, whose bytes stand in the buffer
            own = bytearray(view)
            self.receive(<uint8_t *>PyByteArray_AS_STRING(own), len(own))
            return
        while at < <size_t>view.shape[0]:
            n = min(<size_t>view.shape[0] - at, engine.buffer_size)
            memcpy(engine.buffer, &view[at], n)
            self.receive(engine.buffer, n)
            at += n
        engine.end(outermost)

    def feed_buffer(self, size_t n):
        """Takes the first n bytes of `engine.receive_buffer`, where the link put them."""
        cdef Engine engine = self.engine
        cdef bint outermost = engine.begin()
        self.receive(engine.buffer, min(n, engine.buffer_size))
        engine.end(outermost)

    def feed_eof(self):
        """The peer shut down its sending side."""
        cdef Engine engine = self.engine
        cdef bint outermost = engine.begin()
        self.receive_eof()
        engine.end(outermost)

    def feed_loss(self, int error):
        """The connection is gone; `error` is its errno, 0 for none."""
        cdef Engine engine = self.engine
        cdef bint outermost = engine.begin()
        self.lost(error)
        engine.end(outermost)

    def writable(self):
        """The link can take bytes again."""
        cdef Engine engine = self.engine
        cdef bint outermost = engine.begin()
        self.flush()
        engine.end(outermost)

    # ---------------------------------------------------------------- what it is

    def set_peer(self, host, int port):
        """Notes where the peer is: an IP address, or "" for a Unix socket. A port of 0 is not known."""
        cdef bytes packed = ip_address(host).packed if host else b""
        self.peer_port = port
        if not packed:
            self.peer_family = 0
        elif len(packed) == 16:
            self.note_ipv6(<const uint8_t *>PyBytes_AS_STRING(packed))
        else:
            self.peer_family = 4
            memcpy(self.peer_address, PyBytes_AS_STRING(packed), 4)

    cdef void note_ipv6(self, const uint8_t *address) noexcept:
        """An IPv4 peer of a socket that takes both (RFC 4291 section 2.5.5.2) is one all the same."""
        if memcmp(address, b"\0\0\0\0\0\0\0\0\0\0\xff\xff", 12) == 0:
            self.peer_family = 4
            memcpy(self.peer_address, address + 12, 4)
        else:
            self.peer_family = 6
            memcpy(self.peer_address, address, 16)

    @property
    def address_key(self):
        """What limits by address count under: the IPv4 address, the /64 of an IPv6 one, b"" without."""
        return PyBytes_FromStringAndSize(<char *>self.peer_address,
                                         0 if self.peer_family == 0 else 4 if self.peer_family == 4 else 8)

    @property
    def remote_address(self):
        """(host, port); ("", 0) on a Unix socket."""
        if self.peer_family == 0:
            return "", 0
        if self.peer_family == 4:
            return ".".join([str(self.peer_address[i]) for i in range(4)]), self.peer_port
        return inet_ntop(AF_INET6, PyBytes_FromStringAndSize(<char *>self.peer_address, 16)), self.peer_port

    @property
    def fileno(self):
        return self.c.fd

    @property
    def is_open(self):
        """True while messages can be sent. Any thread."""
        return hw_state_phase(&self.c.state) == HW_OPEN

    @property
    def phase(self):
        return ("CONNECTING", "OPEN", "CLOSING", "CLOSED")[hw_state_phase(&self.c.state)]

    @property
    def paused(self):
        """True while the peer is not read from, since a handler runs."""
        return hw_state_has(&self.c.state, HW_READ_PAUSED)

    @property
    def queued_bytes(self):
        """Bytes that wait to be sent."""
        return hw_conn_waiting(&self.c) + hw_word_load(&self.posted_bytes)

    @property
    def rtt_ms(self):
        """Milliseconds between the last answered ping and its pong; None before the first."""
        cdef uint32_t us = hw_word32_load(&self.rtt_us)
        return us / 1000.0 if us else None

    @property
    def last_seen(self):
        """Unix time of the last byte received."""
        cdef double after = <uint32_t>(self.last_rx - self.opened_ms)
        # Both wrap after 49 days. The wall clock says how often; it need not be exact.
        after += WRAP_MS * rint(((time() - self.opened_at) * 1000 - after) / WRAP_MS)
        return self.opened_at + after / 1000

    def statistics(self):
        """Its figures: bytes and messages in each direction, and how long ago the last byte came and went
        (0 after the end was told)."""
        cdef uint32_t came = 0
        cdef uint32_t went = 0
        if self.link is not None:
            came = self.engine.now_ms - self.last_rx
            went = self.engine.now_ms - self.last_tx
        return {"bytes_in": self.bytes_in, "bytes_out": hw_word_load(&self.c.sent),
                "messages_in": self.messages_in, "messages_out": self.messages_out,
                "received_ago_ms": came, "sent_ago_ms": went}
