"""What a connection receives: the request head, then frames, whose messages go to its Sink.

Source: RFC 6455 sections 5 and 6.
"""

import errno as _errno

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_RawFree, PyMem_RawRealloc
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport UINT32_MAX, int32_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memmove

from heartwire._core.csrc cimport *
from heartwire._core.ending cimport ENDING_LINGER, LINGER_BYTES, LINGER_MS
from heartwire._core.engine cimport Engine
from heartwire._core.link cimport HOLD, Settings
from heartwire._core.sending cimport PONG_ID, Sending

__all__ = ["Receiving"]


cdef enum:
    INTRODUCTION_MOST = 4096  # bytes of a PROXY header that are looked at
    REFUSED_MOST = 4096       # bytes of a text over the rate that are looked at for its id

cdef dict FAILURES = {1002: "protocol_error", 1003: "unsupported_data", 1007: "invalid_utf8", 1009: "too_big"}


cdef bint is_token_byte(uint8_t byte) noexcept:
    """May it stand in a method (RFC 9110 5.6.2)?"""
    return 33 <= byte <= 126 and byte not in b'"(),/:;<=>?@[\\]{}'


@cython.no_gc
cdef class Receiving(Sending):
    """The bytes that came, up to the Sink."""

    def __dealloc__(self):
        PyMem_RawFree(self.pending)

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
