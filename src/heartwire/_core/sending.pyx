"""What a connection sends: messages and the heartbeat's pings, and what happens when a time has passed.

`send` and `ping` may be called from any thread; everything else belongs to the loop's.

Source: RFC 6455 sections 5 and 6; RFC 7692 section 7.2.1.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint32_t, uint64_t

from heartwire._core.csrc cimport *
from heartwire._core.ending cimport ENDING_HANDSHAKE, ENDING_LINGER, ENDING_SHUT, Ending
from heartwire._core.engine cimport Engine
from heartwire._core.link cimport Settings, milliseconds

from heartwire.errors import ConnectionClosed, LocalProtocolError

__all__ = ["Sending"]


cdef enum:
    SLOW_MS = 1000
    LARGE = 32768  # bytes of a payload that is not copied: from here the copy costs more than a send

cdef dict DUES = {"opening": HW_DUE_OPENING, "read": HW_DUE_READ, "token": HW_DUE_TOKEN,
                  "handler": HW_DUE_HANDLER}
cdef dict DUE_NAMES = {which: name for name, which in DUES.items()}


@cython.no_gc
cdef class Sending(Ending):
    """The queue of a connection and its deadlines."""

    def __cinit__(self):
        self.last_rx = self.engine.now_ms

    def __dealloc__(self):
        hw_zip_peer_free(self.zip)

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

    cpdef send(self, uint8_t opcode, data):
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
