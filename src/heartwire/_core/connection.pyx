"""One WebSocket connection: the state word, the receiving parser, what waits to be sent, its deadlines.

A connection does not know its socket. Bytes come in by `receive`, go out by its Link (the epoll reactor,
an asyncio transport, a fake in tests), and what they mean goes to its Sink. Every method may be called in
any state; a connection that is gone answers with `ConnectionClosed` or does nothing. Methods without
another word belong to the loop's thread; `send`, `close` and `ping` may be called from any.

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
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from heartwire._core.csrc cimport *
from heartwire._core.engine cimport Endpoint, Engine
from heartwire._core.link cimport HOLD, Link, Settings, Sink, milliseconds

from heartwire.errors import ConnectionClosed, LocalProtocolError

__all__ = ["Connection"]


cdef enum:
    ENDING_NOT = 0
    ENDING_HANDSHAKE = 1  # a CLOSE was sent, or answered: the rest of the closing handshake
    ENDING_LINGER = 2     # what is queued goes out, then the sending side is shut; input is thrown away
    ENDING_SHUT = 3       # the same, and it has been shut

    LINGER_MS = 1000
    LINGER_BYTES = 65536
    SLOW_MS = 1000
    LARGE = 32768         # bytes of a payload that is not copied: from here the copy costs more than a send
    PONG_ID = 4           # payload bytes of our pings
    INTRODUCTION_MOST = 4096  # bytes of a PROXY header that are looked at
    REFUSED_MOST = 4096   # bytes of a text over the rate that are looked at for its id

cdef frozenset GONE = frozenset((_errno.EPIPE, _errno.ECONNRESET, _errno.ENOTCONN, _errno.ESHUTDOWN))
cdef dict FAILURES = {1002: "protocol_error", 1003: "unsupported_data", 1007: "invalid_utf8", 1009: "too_big"}


cdef dict DUES = {"opening": HW_DUE_OPENING, "read": HW_DUE_READ, "token": HW_DUE_TOKEN,
                  "handler": HW_DUE_HANDLER}
cdef dict DUE_NAMES = {which: name for name, which in DUES.items()}


cdef bint is_token_byte(uint8_t byte) noexcept:
    """May it stand in a method (RFC 9110 5.6.2)?"""
    return 33 <= byte <= 126 and byte not in b'"(),/:;<=>?@[\\]{}'


@cython.no_gc
@cython.final
cdef class Connection(Endpoint):
    """One peer. Made by its link: `Connection(engine, sink, link, fd)`."""

    def __cinit__(self, Engine engine, Sink sink, Link link, int fd=-1, uint32_t slot=0,
                  uint32_t generation=0):
        hw_conn_init(&self.c, fd, slot, generation)
        self.engine = engine
        self.sink = sink
        self.link = link
        self.watching = True
        self.last_rx = engine.now_ms
        engine.set_due(self, HW_DUE_OPENING, sink.settings.handshake_timeout_ms)

    def __dealloc__(self):
        if self.engine is not None:  # None: not even made. In the wheel: dropped without its end
            hw_wheel_remove(&self.engine.wheel, &self.c.timer)
        hw_conn_free(&self.c, NULL)
        hw_zip_peer_free(self.zip)
        PyMem_RawFree(self.pending)

    # ---------------------------------------------------------------- receiving

    cdef void receive(self, uint8_t *p, size_t n) noexcept:
        """Takes bytes from the peer; they are parsed in place and not kept."""
        cdef Engine engine = self.engine
        cdef bint outermost
        cdef size_t used
        cdef int phase = hw_state_phase(&self.c.state)
        if phase == HW_CLOSED:
            return
        self.bytes_in += n
        engine.totals.bytes_in += n
        self.last_rx = engine.now_ms
        if hw_state_has(&self.c.state, HW_PING_OUTSTANDING):  # any byte is life
            hw_state_clear(&self.c.state, HW_PING_OUTSTANDING)
            self.c.due[HW_DUE_PING] = 0
            if self.sink.settings.ping_interval_ms:
                engine.set_due(self, HW_DUE_PING, self.sink.settings.ping_interval_ms)
        if self.ending >= ENDING_LINGER:
            if n >= self.linger_left:
                self.finish()
            else:
                self.linger_left -= <uint32_t>n
            return
        outermost = engine.corked is None
        if outermost:
            engine.corked = self
        if hw_state_has(&self.c.state, HW_READ_PAUSED):
            self.keep(p, n)
            self.link.want(self)
        elif phase == HW_CONNECTING:
            self.receive_head(p, n)
        else:
            used = self.pump(p, n)
            if used < n:
                self.keep(p + used, n - used)
        if outermost:
            if not hw_out_empty(&self.c.out):
                self.flush()
                hw_out_uncork(&self.c.out, engine.cork)
            engine.corked = None

    cdef void keep(self, const uint8_t *p, size_t n) noexcept:
        """Stores bytes that cannot be parsed yet."""
        cdef uint8_t *grown
        if hw_state_phase(&self.c.state) == HW_CLOSED or n == 0:
            return
        grown = <uint8_t *>PyMem_RawRealloc(self.pending, self.pending_len + n)
        if grown == NULL:
            self.lost(_errno.ENOMEM)
            return
        memcpy(grown + self.pending_len, p, n)
        self.pending = grown
        self.pending_len += n

    cdef void receive_head(self, uint8_t *p, size_t n) noexcept:
        """Collects the request head; what follows it is left in `pending`."""
        cdef size_t i
        cdef size_t scan
        cdef size_t end = 0
        cdef object head
        self.keep(p, n)
        if self.pending == NULL:
            return
        scan = self.pending_len - n
        if self.sink.settings.proxy_header and not self.introduced:
            if not self.introduce() or self.pending_len == 0:
                return
            scan = 0
        i = scan - 3 if scan > 3 else 0
        while i < self.pending_len:
            if self.pending[i] == 10 and ((i >= 3 and self.pending[i - 1] == 13 and self.pending[i - 2] == 10)
                                          or (i >= 1 and self.pending[i - 1] == 10)):
                end = i + 1
                break
            i += 1
        if not is_token_byte(self.pending[0]):
            # No request line begins like this (TLS, another protocol): answered at once, without an end.
            head = PyBytes_FromStringAndSize(<char *>self.pending, self.pending_len)
            self.pending_len = 0
        elif end == 0:
            if self.pending_len <= self.sink.settings.head_limit:
                return
            head = None
        elif end > self.sink.settings.head_limit:
            head = None
        else:
            head = PyBytes_FromStringAndSize(<char *>self.pending, end)
            self.pending_start = end
        hw_state_set(&self.c.state, HW_READ_PAUSED)
        try:
            self.sink.on_head(self, head)
        except Exception as error:
            self.sink.on_failure(self, error)
            self.finish()

    cdef bint introduce(self) noexcept:
        """Takes the PROXY header off what was received. False while it is not complete, or if it is none."""
        cdef size_t taken
        try:
            answer = self.sink.on_proxy_header(self, PyBytes_FromStringAndSize(
                <char *>self.pending, min(self.pending_len, <uint32_t>INTRODUCTION_MOST)))
            if answer is None:
                return False
            taken = min(<size_t>answer, <size_t>self.pending_len)
        except Exception as error:
            self.sink.on_failure(self, error)
            self.finish()
            return False
        self.introduced = True
        self.pending_len -= <uint32_t>taken
        memmove(self.pending, self.pending + taken, self.pending_len)
        return hw_state_phase(&self.c.state) == HW_CONNECTING

    cdef size_t pump(self, uint8_t *p, size_t n) noexcept:
        """Parses and delivers. Returns the bytes consumed: fewer than n if reading was paused."""
        cdef size_t at = 0
        cdef size_t used
        cdef hw_event ev
        cdef hw_event_kind kind
        cdef hw_limits *limits
        cdef hw_run *lent = NULL  # what a compressed message was inflated into
        cdef Engine engine = self.engine
        cdef int phase
        cdef int answer
        cdef uint32_t rtt_us
        cdef hw_parser parser
        self.pumping = True
        hw_conn_take_parser(&self.c, &parser, self.zip != NULL)
        while True:
            phase = hw_state_phase(&self.c.state)
            if phase == HW_CLOSED or self.ending >= ENDING_LINGER:
                at = n
                break
            limits = &self.sink.settings.gated_limits if self.special & 1 else &self.sink.settings.limits
            kind = hw_parser_next(&parser, limits, p + at, n - at, &used, &ev)
            at += used
            if kind == HW_EV_NONE:
                break
            if self.zip != NULL and phase == HW_OPEN and (kind == HW_EV_TEXT or kind == HW_EV_BINARY) \
                    and ev.compressed:
                kind = hw_zip_event(&engine.zip, self.zip, limits.max_message, kind, &ev, &lent)
            if kind == HW_EV_ERROR:
                at = n
                if phase == HW_OPEN:
                    self.end(ev.code, (<bytes>ev.reason).decode(), FAILURES[ev.code], LINGER_MS)
                else:
                    self.engine.mark_dirty(self)  # what is queued still leaves, our CLOSE behind it (I9)
                self.ending = ENDING_LINGER
                self.linger_left = LINGER_BYTES
                break
            if kind == HW_EV_MEMORY:
                self.lost(_errno.ENOMEM)
                at = n
                break
            if kind == HW_EV_CLOSE:
                self.close_received(ev.code, ev.data, ev.len)
                at = n
                break
            if phase != HW_OPEN:
                continue  # we said CLOSE: what still comes is thrown away
            if kind == HW_EV_PING:
                if self.queue(HW_OP_PONG, ev.data, ev.len) == HW_E_SLOW:
                    self.slow()
                continue
            if kind == HW_EV_PONG:
                if ev.len == PONG_ID and self.ping_us and memcmp(ev.data, &self.ping_us, PONG_ID) == 0:
                    rtt_us = max(<uint32_t>self.engine.now_us - self.ping_us, 1)
                    hw_word32_store(&self.rtt_us, rtt_us)
                    self.ping_us = 0
                    self.engine.totals.pongs += 1
                    self.engine.note_rtt(rtt_us)
                continue
            self.c.due[HW_DUE_MESSAGE] = 0  # the next one has its own time
            self.messages_in += 1
            self.engine.totals.messages_in += 1
            hw_state_set(&self.c.state, HW_IN_CALLBACK)
            if self.sink.settings.limited and not self.admit(kind, &ev):
                answer = 0
            elif kind == HW_EV_TEXT:
                answer = self.sink.text(self, ev.data, ev.len)
            else:
                answer = self.sink.binary(self, ev.data, ev.len)
            hw_state_clear(&self.c.state, HW_IN_CALLBACK)
            if lent != NULL:
                hw_zip_return(&engine.zip, lent)
                lent = NULL
            if answer == HOLD and hw_state_phase(&self.c.state) == HW_OPEN:
                self.pause()
                break
        self.pumping = False
        if hw_parser_busy(&parser) and phase == HW_OPEN:
            if self.c.due[HW_DUE_MESSAGE] == 0 and self.sink.settings.message_timeout_ms:
                self.engine.set_due(self, HW_DUE_MESSAGE, self.sink.settings.message_timeout_ms)
        else:
            self.c.due[HW_DUE_MESSAGE] = 0
        if self.ending >= ENDING_LINGER or hw_state_phase(&self.c.state) == HW_CLOSED:
            hw_parser_reset(&parser)  # nothing more is read
        elif hw_conn_put_parser(&self.c, &parser) != HW_OK:
            self.lost(_errno.ENOMEM)
        return at

    cdef bint admit(self, hw_event_kind kind, hw_event *ev) noexcept:
        """Is a message within what the peer may send? If not, the sink is told, and it is thrown away."""
        cdef Settings *settings = &self.sink.settings
        cdef uint64_t now_ns = self.engine.now_us * 1000
        if not hw_bucket_fits(self.messages_full_at, &settings.message_rate, now_ns, 1):
            limit = "messages"
        elif not hw_bucket_fits(self.bytes_full_at, &settings.byte_rate, now_ns, ev.len):
            limit = "bytes"
        else:
            hw_bucket_take(&self.messages_full_at, &settings.message_rate, now_ns, 1)
            hw_bucket_take(&self.bytes_full_at, &settings.byte_rate, now_ns, ev.len)
            return True
        try:
            if kind == HW_EV_TEXT and ev.len <= REFUSED_MOST:
                data = PyBytes_FromStringAndSize(<char *>ev.data, ev.len)
            else:
                data = None
            self.sink.on_rate_limited(self, limit, data)
        except Exception as error:
            self.sink.on_failure(self, error)
        return False

    cdef void pump_pending(self) noexcept:
        """Parses what was kept while reading was paused."""
        cdef uint8_t *p = self.pending
        cdef size_t n = self.pending_len
        cdef size_t start = self.pending_start
        cdef size_t used
        self.pending = NULL
        self.pending_len = self.pending_start = 0
        if p == NULL:
            return
        if start < n:
            used = self.pump(p + start, n - start)
            self.keep(p + start + used, n - start - used)
        PyMem_RawFree(p)

    cdef void close_received(self, uint16_t code, const uint8_t *reason, size_t n) noexcept:
        cdef object text = PyUnicode_DecodeUTF8(<const char *>reason, n, "replace")
        hw_state_set(&self.c.state, HW_CLOSE_RCVD)
        if hw_state_phase(&self.c.state) == HW_OPEN:
            self.end(code, text, "client_closed", self.sink.settings.close_timeout_ms)
        self.engine.mark_dirty(self)  # flush() ends it once everything has left

    cdef void receive_eof(self) noexcept:
        """The peer shut down its sending side."""
        hw_state_set(&self.c.state, HW_EOF)
        if hw_state_has(&self.c.state, HW_CLOSE_RCVD) and not hw_out_empty(&self.c.out):
            self.watching = False  # our half of the closing handshake is still on its way
            self.link.want(self)
            return
        self.lost(0)

    cdef void lost(self, int error) noexcept:
        """The connection is gone: FIN, reset or another fault. What comes after its end says nothing new."""
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        self.failure = error
        self.leave_open(1006, "", "peer_gone")
        self.finish()

    # ---------------------------------------------------------------- sending

    cdef int queue(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept:
        """Queues one frame and sees to its being sent. Returns a HW_ code."""
        cdef int rc
        cdef ssize_t sent = 0
        cdef hw_out_node *cork = self.cork()
        if self.zip != NULL and opcode <= HW_OP_BINARY and n >= self.sink.settings.deflate_from:
            rc = self.queue_deflated(opcode, p, n)
            if rc == HW_E_SLOW and self.offer():
                rc = self.queue_deflated(opcode, p, n)
            return rc
        if n < LARGE:
            rc = hw_conn_frame(&self.c, cork, opcode, 0, p, n, self.sink.settings.send_limit)
        else:
            rc = hw_conn_frame_now(&self.c, cork, opcode, 0, p, n, self.sink.settings.send_limit, &sent)
            if rc == HW_OK:
                if sent < 0:
                    self.lost(<int>-sent)
                    return HW_E_CLOSED
                self.progress(sent)
        if rc == HW_E_SLOW and self.offer():
            rc = hw_conn_frame(&self.c, cork, opcode, 0, p, n, self.sink.settings.send_limit)
        if rc == HW_OK:
            if cork == NULL:
                self.engine.mark_dirty(self)
            if opcode <= HW_OP_BINARY:
                self.messages_out += 1
                self.engine.totals.messages_out += 1
        return rc

    cdef bint offer(self) noexcept:
        """Sends a queue that the kernel was not offered yet: it is our burst, not the peer, that is too much.
        False if the peer is the slow one."""
        if hw_state_has(&self.c.state, HW_WRITE_BLOCKED):
            return False
        self.flush()
        return hw_state_phase(&self.c.state) == HW_OPEN

    cdef int queue_deflated(self, uint8_t opcode, const uint8_t *p, size_t n) noexcept:
        """Queues one message as permessage-deflate has it; nothing is sent yet. Returns a HW_ code."""
        cdef hw_out_node *cork = self.cork()
        cdef const uint8_t *out
        cdef size_t size
        cdef uint8_t rsv = 0
        cdef int rc
        # Judged before: a stream must not see what is then not sent.
        if hw_state_phase(&self.c.state) != HW_OPEN:
            return HW_E_CLOSED
        if hw_conn_waiting(&self.c) > self.sink.settings.send_limit > 0:
            return HW_E_SLOW
        if hw_zip_deflate(&self.engine.zip, self.zip, p, n, &out, &size):
            p = out
            n = size
            rsv = HW_RSV1
        rc = hw_conn_frame(&self.c, cork, opcode, rsv, p, n, 0)
        if rc == HW_OK:
            if cork == NULL:
                self.engine.mark_dirty(self)
            self.messages_out += 1
            self.engine.totals.messages_out += 1
        elif rsv:
            self.zip.out_bits = 0  # no more: the stream has seen a message that the peer's never will
        return rc

    cdef int queue_shared(self, hw_shared *frame) noexcept:
        cdef int rc = hw_conn_shared(&self.c, frame, self.sink.settings.send_limit)
        if rc == HW_OK:
            if self.dirty:
                # The previous broadcast has not left: were more read now, healthy members would end as
                # slow ones.
                self.engine.overrun = True
            self.messages_out += 1
            self.engine.totals.messages_out += 1
            # The sends of a large fan-out take several turns of the loop.
            self.account(hw_conn_waiting(&self.c))
            self.engine.mark_dirty(self)
        return rc

    cdef int check(self, int rc) except -1:
        """The one place where a HW_ code becomes an exception."""
        if rc == HW_OK:
            return 0
        if rc == HW_E_SLOW:
            self.slow()
            rc = HW_E_CLOSED
        if rc == HW_E_CLOSED:
            raise ConnectionClosed(self.code or 1006, self.reason or "", self.cause or "peer_gone")
        if rc == HW_E_FRAGMENT:
            raise LocalProtocolError("fragments of a message must follow one another: a continuation needs a "
                                     "message that was begun, and only one can be under way")
        raise MemoryError

    def send(self, uint8_t opcode, data):
        """Queues one text (1) or binary (2) message, or a ping (9) or pong (10); from any thread.

        Args:
            data: str or bytes-like; a str is sent as UTF-8.
        Raises:
            ConnectionClosed: it is not OPEN, or more than the send-buffer limit was waiting (it is then
                closed with 4503).
        """
        cdef const char *p
        cdef Py_ssize_t n
        if self.engine.foreign():
            return self._send_foreign(opcode, data)
        if type(data) is str:
            p = PyUnicode_AsUTF8AndSize(data, &n)
        else:
            if type(data) is not bytes:
                data = bytes(memoryview(data))  # bytes(5) would be five of them
            p = PyBytes_AS_STRING(data)
            n = PyBytes_GET_SIZE(data)
        self.check(self.queue(opcode, <const uint8_t *>p, n))

    def send_fragment(self, uint8_t opcode, data, bint fin):
        """Queues one fragment: the first with opcode 1 or 2, the others with 0. In between, whole messages
        are held back until `fin`, so that none lands inside another (I4). Loop thread only.

        Raises:
            LocalProtocolError: a continuation without a beginning, or a second beginning.
            ConnectionClosed: as `send`.
        """
        cdef bytes payload = data.encode() if isinstance(data, str) else bytes(memoryview(data))
        cdef hw_out_node *cork = self.cork()
        self.check(hw_conn_fragment(&self.c, cork, opcode, fin, <const uint8_t *>PyBytes_AS_STRING(payload),
                                    PyBytes_GET_SIZE(payload), self.sink.settings.send_limit))
        if cork == NULL:
            self.engine.mark_dirty(self)

    def _send_foreign(self, uint8_t opcode, data):
        cdef Engine engine = self.engine
        cdef size_t waiting = 0
        if hw_state_phase(&self.c.state) != HW_OPEN:
            self.check(HW_E_CLOSED)
        data = data.encode() if isinstance(data, str) else bytes(memoryview(data))
        if hw_state_has(&self.c.state, HW_WRITE_BLOCKED):  # else the kernel was not offered it yet: `offer`
            waiting = hw_conn_waiting(&self.c)
        if waiting + hw_word_load(&self.posted_bytes) > self.sink.settings.send_limit > 0:
            engine.post(self._slow_posted)
            raise ConnectionClosed(4503, "", "slow_consumer")
        hw_word_add(&self.posted_bytes, len(data))
        if not engine.post(self._send_posted, opcode, data):
            raise ConnectionClosed(1006, "", "shutdown")

    def _send_posted(self, uint8_t opcode, bytes data):
        hw_word_add(&self.posted_bytes, <uint64_t>-len(data))
        if self.queue(opcode, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)) == HW_E_SLOW:
            self.slow()

    def _slow_posted(self):
        self.slow()

    cdef void flush(self) noexcept:
        """Sends what is queued, and takes the steps that wait for it."""
        cdef ssize_t n
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        if not hw_out_empty(&self.c.out):
            if self.c.fd >= 0:
                n = hw_conn_flush(&self.c, self.cork())
            else:
                n = self.link.push(self)
            if n < 0:
                if hw_word_load(&self.c.sent) >= self.c.ping_end:  # it left before the fault
                    self.c.ping_end = 0
                self.lost(<int>-n)
                return
            self.progress(n)
        self.account(hw_conn_waiting(&self.c))
        if not hw_out_empty(&self.c.out):
            if not hw_state_has(&self.c.state, HW_WRITE_BLOCKED):
                self.engine.mark_dirty(self)  # a flush sends so much and no more: it is another's turn
            return
        if self.drain_waiters is not None:
            self.wake_drained(None)
        if hw_state_phase(&self.c.state) == HW_CLOSING:
            if self.ending == ENDING_LINGER:
                self.ending = ENDING_SHUT
                self.link.shutdown(self)
            elif hw_state_has(&self.c.state, HW_CLOSE_RCVD):
                self.finish()

    cdef void account(self, size_t waiting) noexcept:
        """Keeps the engine's sum of queued bytes."""
        cdef uint32_t now = <uint32_t>min(waiting, <size_t>UINT32_MAX)
        if now != self.accounted:
            self.engine.totals.queued_bytes += <uint64_t>now - self.accounted
            self.accounted = now

    def add_drain_waiter(self, future):
        """Resolves a future once nothing is queued, or fails it with ConnectionClosed at the end (I9)."""
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            self.check(HW_E_CLOSED)
        if self.drain_waiters is None:
            self.drain_waiters = []
        self.drain_waiters.append(future)

    cdef void wake_drained(self, object error) noexcept:
        cdef list waiters = self.drain_waiters
        self.drain_waiters = None
        for future in waiters:
            if not future.done():
                if error is None:
                    future.set_result(None)
                else:
                    future.set_exception(error)

    cdef void progress(self, ssize_t n) noexcept:
        """n bytes were taken by the kernel: the heartbeat and the write deadline follow."""
        cdef bint blocked = hw_state_has(&self.c.state, HW_WRITE_BLOCKED)
        self.engine.totals.bytes_out += n
        if n:
            self.last_tx = self.engine.now_ms
        if self.c.ping_end and hw_word_load(&self.c.sent) >= self.c.ping_end:
            self.ping_left()
        if blocked:
            if (n or self.c.due[HW_DUE_WRITE] == 0) and self.sink.settings.ping_timeout_ms:
                self.engine.set_due(self, HW_DUE_WRITE, self.sink.settings.ping_timeout_ms)
        else:
            self.c.due[HW_DUE_WRITE] = 0
        if n and self.ending == ENDING_HANDSHAKE and self.code != 4503:
            # The peer takes what was queued before our CLOSE: its time runs from when that has left (I9).
            self.engine.set_due(self, HW_DUE_CLOSING, self.sink.settings.close_timeout_ms or 1)
        if blocked != self.armed_write:
            self.link.want(self)

    cdef void slow(self) noexcept:
        """The peer does not read: what waits is dropped, CLOSE 4503 goes out if it can."""
        if hw_state_phase(&self.c.state) == HW_OPEN:
            self.engine.totals.slow_consumers += 1
            self.c.ping_end = 0
            hw_conn_drop_queue(&self.c, self.cork())
            self.end(4503, "", "slow_consumer", SLOW_MS)

    # ---------------------------------------------------------------- the heartbeat

    cdef void send_ping(self) noexcept:
        """Queues a ping and hands it to the kernel; nothing if the connection is not OPEN (I8)."""
        cdef uint32_t stamp
        cdef int rc
        # While one is unanswered, the round trip and the time to answer run from the first: an application
        # that pings more often than `ping_timeout` must not keep a dead peer.
        cdef bint again = hw_state_has(&self.c.state, HW_PING_OUTSTANDING)
        self.engine.update_clock()
        stamp = self.ping_us if again and self.ping_us else <uint32_t>self.engine.now_us | 1
        rc = hw_conn_frame(&self.c, self.cork(), HW_OP_PING, 0, <uint8_t *>&stamp, PONG_ID, 0)
        if rc != HW_OK:
            return
        self.engine.totals.pings += 1
        self.ping_us = stamp
        self.c.ping_end = hw_word_load(&self.c.queued)
        if not again:
            self.c.due[HW_DUE_PING] = 0  # until it has left
        self.flush()

    cdef void ping_left(self) noexcept:
        self.c.ping_end = 0
        if hw_state_phase(&self.c.state) == HW_OPEN and not self.ping_stopped \
                and hw_state_set(&self.c.state, HW_PING_OUTSTANDING):
            self.engine.set_due(self, HW_DUE_PING, self.sink.settings.ping_timeout_ms or UINT32_MAX)

    def ping(self):
        """Sends a ping now, from any thread. Nothing happens if the connection is not OPEN (I8)."""
        if hw_state_phase(&self.c.state) != HW_OPEN:
            return
        if self.engine.foreign():
            self.engine.post(self.ping)
        elif self.c.ping_end == 0:
            self.send_ping()

    def stop_ping(self):
        """The heartbeat lets go of an OPEN connection. True if it had not before."""
        cdef bint first = not self.ping_stopped
        self.ping_stopped = True
        self.c.due[HW_DUE_PING] = 0
        hw_state_clear(&self.c.state, HW_PING_OUTSTANDING)
        return first

    cdef void expire(self) noexcept:
        """Judges every deadline that has passed. Our own stalls and pauses kill nobody (I8)."""
        cdef uint32_t now = self.engine.now_ms
        cdef uint32_t idle_until
        cdef Settings *settings = &self.sink.settings
        cdef int which
        cdef uint32_t late = self.engine.late_ms
        cdef uint64_t sent
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        if self.passed(HW_DUE_PING, now):
            idle_until = self.last_rx + settings.ping_interval_ms
            if hw_state_has(&self.c.state, HW_PING_OUTSTANDING):
                if hw_state_has(&self.c.state, HW_READ_PAUSED) or self.link.pending_input(self):
                    self.engine.set_due(self, HW_DUE_PING, settings.ping_timeout_ms)
                elif late:
                    self.engine.set_due(self, HW_DUE_PING, late)
                else:
                    self.end(4408, "", "ping_timeout", settings.close_timeout_ms)
            elif hw_state_phase(&self.c.state) == HW_OPEN:
                # Not heard from since the upgrade: the first ping keeps its random point.
                if settings.ping_always or <int32_t>(idle_until - now) <= 0 \
                        or <int32_t>(self.last_rx - self.opened_ms) <= 0:
                    self.send_ping()
                else:
                    self.engine.set_due(self, HW_DUE_PING, idle_until - now)
        if self.passed(HW_DUE_WRITE, now):
            sent = hw_word_load(&self.c.sent)
            self.flush()  # while we were stalled nobody asked the kernel
            if sent == hw_word_load(&self.c.sent) and hw_state_phase(&self.c.state) != HW_CLOSED:
                if late:
                    self.engine.set_due(self, HW_DUE_WRITE, late)
                else:
                    self.leave_open(4408, "", "write_timeout")
                    self.finish()
        if self.passed(HW_DUE_CLOSING, now):
            self.finish()
        if self.passed(HW_DUE_MESSAGE, now):
            if hw_state_has(&self.c.state, HW_READ_PAUSED) or self.link.pending_input(self):
                self.engine.set_due(self, HW_DUE_MESSAGE, settings.message_timeout_ms)
            elif late:
                self.engine.set_due(self, HW_DUE_MESSAGE, late)
            else:
                self.end(1008, "message not complete in time", "message_timeout", settings.close_timeout_ms)
        for which in (HW_DUE_OPENING, HW_DUE_READ, HW_DUE_TOKEN, HW_DUE_HANDLER):
            if self.passed(which, now):
                try:
                    self.sink.on_expired(self, DUE_NAMES[which])
                except Exception as error:
                    self.sink.on_failure(self, error)

    cdef bint passed(self, int which, uint32_t now) noexcept:
        """True, once, when the deadline has come."""
        if self.c.due[which] == 0 or not hw_due_reached(self.c.due[which], now):
            return False
        self.c.due[which] = 0
        return hw_state_phase(&self.c.state) != HW_CLOSED

    def set_due(self, name, seconds):
        """Sets ("opening", "read", "token", "handler") to so many seconds from now; None clears it."""
        cdef int which = DUES[name]
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        if seconds is None:
            self.c.due[which] = 0
        else:
            self.engine.update_clock()
            self.engine.set_due(self, which, milliseconds(seconds))

    # ---------------------------------------------------------------- pausing

    def pause(self):
        """Stops reading until resume(); what was received already is kept. Loop thread only."""
        if hw_state_phase(&self.c.state) == HW_OPEN and hw_state_set(&self.c.state, HW_READ_PAUSED):
            self.paused_at = self.engine.now_ms

    def resume(self):
        """Reads on after a Sink's HOLD. What was received meanwhile comes first."""
        cdef Engine engine = self.engine
        cdef uint32_t paused
        cdef uint32_t left
        if not hw_state_clear(&self.c.state, HW_READ_PAUSED) or self.pumping:
            return
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        engine.update_clock()
        paused = engine.now_ms - self.paused_at
        if hw_state_has(&self.c.state, HW_PING_OUTSTANDING) and self.c.due[HW_DUE_PING]:
            # time in which we did not read does not count against the peer
            # (expire has put it off already, if the pause was long: never more than the whole time is left)
            left = max(<int32_t>(self.c.due[HW_DUE_PING] - engine.now_ms), 0)
            engine.set_due(self, HW_DUE_PING,
                           min(left + paused, self.sink.settings.ping_timeout_ms or UINT32_MAX))
        self.pump_pending()
        if not hw_state_has(&self.c.state, HW_READ_PAUSED) and not self.armed_read:
            self.link.want(self)

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

    # ---------------------------------------------------------------- ending

    cdef void leave_open(self, uint16_t code, object reason, object cause) noexcept:
        """OPEN -> CLOSING, once: the cause is fixed, and the owner is told."""
        if hw_state_phase(&self.c.state) != HW_OPEN:
            return
        # Before the step: a thread that sees CLOSING reads these.
        self.code = code
        self.reason = reason
        self.cause = cause
        if not hw_state_step(&self.c.state, HW_OPEN, HW_CLOSING):
            return
        self.c.due[HW_DUE_PING] = 0
        self.c.due[HW_DUE_MESSAGE] = 0
        self.c.due[HW_DUE_READ] = 0
        self.c.due[HW_DUE_TOKEN] = 0
        self.c.due[HW_DUE_OPENING] = 0
        try:
            self.sink.on_left(self)
        except Exception as error:
            self.sink.on_failure(self, error)

    cdef void end(self, uint16_t code, object reason, object cause, uint32_t patience_ms) noexcept:
        """Queues CLOSE behind what waits, and gives the peer `patience_ms` (I2, I9)."""
        cdef bytes text
        if hw_state_phase(&self.c.state) != HW_OPEN:
            return
        text = reason.encode("utf-8", "replace")
        hw_conn_close_frame(&self.c, self.cork(), code, <const uint8_t *>PyBytes_AS_STRING(text), len(text))
        self.ending = ENDING_HANDSHAKE
        self.engine.set_due(self, HW_DUE_CLOSING, patience_ms or 1)
        self.engine.mark_dirty(self)
        self.leave_open(code, reason, cause)
        if hw_state_clear(&self.c.state, HW_READ_PAUSED) and not self.pumping:
            self.pump_pending()  # the peer's own CLOSE may be among what was kept
        if hw_state_phase(&self.c.state) == HW_CLOSING and not self.armed_read and self.watching:
            self.link.want(self)

    def close(self, uint16_t code=1000, reason="", cause="server_closed"):
        """Starts the closing handshake: what is queued, then CLOSE. Idempotent, any thread, any state."""
        cdef Engine engine = self.engine
        if hw_state_phase(&self.c.state) != HW_OPEN:
            return
        if engine.foreign():
            engine.post(self.close, code, reason, cause)
            return
        engine.update_clock()
        self.end(code, reason, cause, self.sink.settings.close_timeout_ms)

    def abort(self, cause="server_closed", uint16_t code=1006):
        """Closes the socket at once, without a CLOSE frame. Loop thread only."""
        self.leave_open(code, "", cause)
        self.finish()

    cdef void finish(self) noexcept:
        """Anything -> CLOSED, once: the socket is closed here; the owner hears of it after the batch."""
        if not hw_state_advance(&self.c.state, HW_CLOSED):
            return
        self.link.detach(self)
        self.engine.mark_ended(self)

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
        return self.opened_at + <int32_t>(self.last_rx - self.opened_ms) / 1000.0

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
