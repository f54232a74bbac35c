"""How a connection ends: its cause, the closing handshake, and the socket closed, each once.

A method may be called in any state. `Connection` is a chain of four classes, each with its state in a module
of its own: `ending` <- `sending` <- `receiving` <- `connection`.

Source: RFC 6455 section 7; the connection-state contract I1-I11 in ARCHITECTURE.md.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport uint8_t, uint16_t, uint32_t

from heartwire._core.csrc cimport *
from heartwire._core.engine cimport Endpoint, Engine
from heartwire._core.link cimport Link, Sink

__all__ = ["Ending"]


@cython.no_gc
cdef class Ending(Endpoint):
    """What a connection is made with, and its way from OPEN to CLOSED."""

    def __cinit__(self, Engine engine not None, Sink sink not None, Link link not None, int fd=-1,
                  uint32_t slot=0, uint32_t generation=0):
        hw_conn_init(&self.c, fd, slot, generation)
        self.engine = engine
        self.sink = sink
        self.link = link
        self.watching = True

    def __dealloc__(self):
        if self.engine is not None:  # None: not even made. In the wheel: dropped without its end
            hw_wheel_remove(&self.engine.wheel, &self.c.timer)
        hw_conn_free(&self.c, NULL)

    cdef void pump_pending(self) noexcept:
        """Parses what was kept while reading was paused."""

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

    cdef void lost(self, int error) noexcept:
        """The connection is gone: FIN, reset or another fault. What comes after its end says nothing new."""
        if hw_state_phase(&self.c.state) == HW_CLOSED:
            return
        self.failure = error
        self.leave_open(1006, "", "peer_gone")
        self.finish()
