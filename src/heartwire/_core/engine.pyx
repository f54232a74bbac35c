"""What the connections of one event loop share: the clock, the timing wheel, the receive buffer, the
cork, the list of those with something to send, and the queue through which other threads speak.

It knows no asyncio: the loop's `call_soon`, `call_later` and `call_soon_threadsafe` are given to it, and
tests give their own. Everything but `post` belongs to the thread that made the engine.
"""

from os import urandom

cimport cython
from cpython.buffer cimport PyBUF_WRITE
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_FromMemory
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF
from libc.stdint cimport UINT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from heartwire._core.csrc cimport (
    HW_CLOSED,
    HW_COUNT_BOUNDS,
    HW_DUE_PING,
    HW_HISTOGRAM_BOUNDS,
    HW_TIME_BOUNDS_US,
    hw_clock_us,
    hw_conn_next_due,
    hw_histogram,
    hw_observe,
    hw_out_node,
    hw_state_phase,
    hw_wheel_add,
    hw_wheel_advance,
    hw_wheel_entry,
    hw_wheel_free,
    hw_wheel_init,
    hw_wheel_linked,
    hw_wheel_next,
    hw_wheel_pop,
    hw_wheel_remove,
    hw_wheel_verify,
    hw_word_load,
    hw_word_store,
    hw_zip_available,
    hw_zip_free,
)
from heartwire._core.mailbox cimport MAIL_CLOSED, MAIL_FIRST, Mailbox
from heartwire._core.refs cimport refs_clear, refs_drop, refs_push

__all__ = ["DEFLATE", "Endpoint", "Engine"]

DEFLATE = bool(hw_zip_available())


cdef extern from "pythread.h" nogil:
    unsigned long PyThread_get_thread_ident() noexcept


cdef enum:
    TICK_MS = 10
    WHEEL_SLOTS = 4096
    BUFFER_SIZE = 65536
    CORK_SIZE = 65536
    STALL_MS = 100        # a wake-up later than this was our own stall
    FLUSH_MOST = 1000     # sends of one wake-up (design: 1,000 sends or 2 ms)
    FLUSH_MOST_US = 2000
    DUE_MOST_US = 250     # of deadlines in one wake-up
    DUE_BUSY_US = 50      # and while messages come: pings can wait, they should not


cdef tuple exported(hw_histogram *histogram, const uint64_t *bounds):
    cdef int i
    return (
        tuple([bounds[i] for i in range(HW_HISTOGRAM_BOUNDS)]),
        tuple([histogram.counts[i] for i in range(HW_HISTOGRAM_BOUNDS + 1)]),
        histogram.sum,
    )


@cython.no_gc
cdef class Endpoint:
    """What the engine and the links need of a connection. Connection is the one implementation."""

    cdef hw_out_node *cork(self) noexcept:
        """The node this endpoint may append to: the engine's cork while it is being served, else NULL."""
        if self.engine.corked is not self:
            return NULL
        return self.engine.cork

    cdef void flush(self) noexcept:
        """Sends what is queued."""

    cdef void expire(self) noexcept:
        """Judges the deadlines that have passed, and sets the next."""

    cdef void settle(self) noexcept:
        """Tells the end of the connection, once, after the batch in which it came."""


cdef size_t timer_offset():
    cdef Endpoint probe = Endpoint.__new__(Endpoint)
    return <size_t>(<char *>&probe.c.timer - <char *><PyObject *>probe)


cdef size_t TIMER_OFFSET = timer_offset()  # from an object's address to its wheel entry


cdef inline Endpoint owner_of(hw_wheel_entry *entry):
    return <Endpoint><PyObject *>(<char *>entry - TIMER_OFFSET)


cdef class Engine:
    """Clock, wheel, buffers and batches of one loop.

    Args:
        call_soon: runs a callback after the current one, in this thread.
        call_later: `(seconds, callback) -> handle` with `cancel()`.
        call_soon_threadsafe: as `call_soon`, from any thread.
        clock: `() -> seconds`, monotonic; None for the system's.
        tick_ms: resolution of the deadlines in milliseconds.
    """

    def __cinit__(self, call_soon, call_later, call_soon_threadsafe, clock=None, uint32_t tick_ms=TICK_MS):
        self.cork = <hw_out_node *>PyMem_RawMalloc(sizeof(hw_out_node) + CORK_SIZE)
        self.buffer = <uint8_t *>PyMem_RawMalloc(BUFFER_SIZE)
        if self.cork == NULL or self.buffer == NULL or hw_wheel_init(&self.wheel, WHEEL_SLOTS, 0) < 0:
            raise MemoryError
        memset(self.cork, 0, sizeof(hw_out_node))
        self.cork.cap = CORK_SIZE
        self.buffer_size = BUFFER_SIZE
        self.tick_ms = max(tick_ms, 1)
        self.call_soon = call_soon
        self.call_later = call_later
        self.call_soon_threadsafe = call_soon_threadsafe
        self.clock = clock
        self.mailbox = Mailbox()
        self.adopt_thread()
        self.armed_tick = UINT64_MAX
        self.random = int.from_bytes(urandom(8), "little") | 1
        self.update_clock()

    def __dealloc__(self):
        refs_clear(&self.dirty)
        refs_clear(&self.ended)
        hw_wheel_free(&self.wheel)
        hw_zip_free(&self.zip)
        PyMem_RawFree(self.cork)
        PyMem_RawFree(self.buffer)

    # ---------------------------------------------------------------- time

    cdef void update_clock(self) noexcept:
        cdef uint64_t us
        if self.clock is None:
            us = hw_clock_us()
        else:
            try:
                us = <uint64_t>(<double>self.clock() * 1e6)
            except BaseException:
                us = self.now_us + self.epoch_us
        if self.epoch_us == 0:
            self.epoch_us = us - 1000 - us % 1000  # our milliseconds begin with the loop's
        self.now_us = us - self.epoch_us
        self.now_ms = <uint32_t>(self.now_us // 1000)
        if self.now_ms == 0:
            self.now_ms = 1

    cdef uint32_t draw(self, uint32_t below) noexcept:
        """A pseudo-random number below `below` (xorshift64*): jitter, not secrets."""
        self.random ^= self.random >> 12
        self.random ^= self.random << 25
        self.random ^= self.random >> 27
        return <uint32_t>((self.random * <uint64_t>0x2545F4914F6CDD1D) >> 33) % below if below else 0

    cdef void set_due(self, Endpoint endpoint, int which, uint32_t delay_ms) noexcept:
        """Sets one deadline, `delay_ms` from the engine's now. Later ones are found lazily."""
        cdef uint32_t due
        cdef uint64_t tick
        if delay_ms > 1000000000:
            delay_ms = 1000000000  # 11 days: looked at again then; keeps 32-bit differences signed
        due = self.now_ms + delay_ms
        if which == HW_DUE_PING and endpoint.on_grid:
            # Pings leave, and pongs come, in small bursts: one wake-up of the loop serves a hundred of them.
            due += PING_GRID_MS - due % PING_GRID_MS
        if due == 0:
            due = 1
        endpoint.c.due[which] = due
        tick = self.wheel.now + self.ticks_until(due)
        if not hw_wheel_linked(&endpoint.c.timer) or tick < endpoint.c.timer.deadline:
            hw_wheel_add(&self.wheel, &endpoint.c.timer, tick)
            if not self.in_batch:
                self.arm_timer()

    cdef uint64_t ticks_until(self, uint32_t due) noexcept:
        cdef int32_t left = <int32_t>(due - self.now_ms)
        # The wheel may stand behind the clock by the time since the last advance.
        cdef uint64_t behind = self.now_us // 1000 // self.tick_ms - self.wheel.now
        if left <= 0:
            return behind + 1
        return behind + (<uint32_t>left + self.tick_ms - 1) // self.tick_ms

    cdef void rearm(self, Endpoint endpoint) noexcept:
        """Puts the endpoint where its earliest deadline is, or out of the wheel."""
        cdef uint32_t due = hw_conn_next_due(&endpoint.c, self.now_ms)
        if due == 0:
            hw_wheel_remove(&self.wheel, &endpoint.c.timer)
        else:
            hw_wheel_add(&self.wheel, &endpoint.c.timer, self.wheel.now + self.ticks_until(due))

    cdef void arm_timer(self) noexcept:
        cdef uint64_t next_tick = hw_wheel_next(&self.wheel)
        cdef int64_t delay_us
        if next_tick >= self.armed_tick or self.mailbox.closed:
            return
        if self.timer_handle is not None:
            self.timer_handle.cancel()
            self.timer_handle = None
        delay_us = max(<int64_t>(next_tick * self.tick_ms * 1000) - <int64_t>self.now_us, 0)
        # In whole milliseconds, and never early: uvloop rounds to them, down as well, and what remains then
        # is nothing to it. It would call again and again until the tick has come.
        delay_us = (delay_us + 999) // 1000 * 1000
        try:
            self.timer_handle = self.call_later(delay_us / 1e6, self.on_timer)
            self.armed_tick = next_tick
            self.armed_us = self.now_us + <uint64_t>delay_us
        except RuntimeError:
            pass  # the loop is closed: nobody is left to be pinged

    def on_timer(self):
        """Runs what is due. Called by the loop, and by tests that move the clock."""
        cdef hw_wheel_entry *entry
        cdef Endpoint endpoint
        cdef int64_t late_us
        cdef uint64_t planned = self.armed_tick
        cdef uint64_t start
        cdef uint64_t most_us
        cdef size_t done = 0
        cdef bint outermost = self.begin()
        self.timer_handle = None
        self.armed_tick = UINT64_MAX
        if planned != UINT64_MAX:
            late_us = max(<int64_t>(self.now_us - self.armed_us), 0)
            hw_observe(&self.lag, HW_TIME_BOUNDS_US, <uint64_t>late_us)
            if late_us > STALL_MS * 1000:
                self.totals.stalls += 1
                self.totals.stalled_ms += <uint64_t>late_us // 1000
                self.late_ms = <uint32_t>(late_us // 1000)
        hw_wheel_advance(&self.wheel, self.now_us // 1000 // self.tick_ms)
        start = self.now_us
        most_us = DUE_MOST_US if self.totals.messages_in == self.messages_seen else DUE_BUSY_US
        while True:
            entry = hw_wheel_pop(&self.wheel)
            if entry == NULL:
                self.late_ms = 0
                break
            endpoint = owner_of(entry)
            endpoint.expire()
            if hw_state_phase(&endpoint.c.state) != HW_CLOSED:
                self.rearm(endpoint)  # also if expire() set one: an earlier one may be waiting
            done += 1
            if done & 3 == 0:
                self.update_clock()
                if self.now_us - start > most_us:
                    break  # the rest stays expired: arm_timer comes back for it at once, after the input
        self.messages_seen = self.totals.messages_in
        self.end(outermost)

    # ---------------------------------------------------------------- batches

    cdef bint begin(self) noexcept:
        """Opens a batch. True, for `end`, if none was open: a callback may come to begin another."""
        cdef bint outermost = not self.in_batch
        self.in_batch = True
        self.update_clock()
        return outermost

    cdef void end(self, bint outermost) noexcept:
        """Sends what the batch produced and tells the ends it brought, once nothing of it is on the stack."""
        if not outermost:
            return
        # One flush for a turn of the loop. An asyncio transport begins a batch for each connection: were the
        # backlog of a large fan-out, or of many closes, worked off in each, a turn would have no bound.
        if not self.flush_pending:
            self.flush_dirty()
        self.settle_ended()
        self.in_batch = False
        hw_wheel_verify(&self.wheel)
        if self.dirty.count or self.ended.count:
            self.request_flush()
        self.arm_timer()

    cdef void mark_dirty(self, Endpoint endpoint) noexcept:
        if not endpoint.dirty:
            endpoint.dirty = True
            refs_push(&self.dirty, endpoint)  # without memory: sent by its next write or deadline
            if not self.in_batch:
                self.request_flush()

    cdef void mark_ended(self, Endpoint endpoint) noexcept:
        refs_push(&self.ended, endpoint)
        if not self.in_batch:
            self.request_flush()

    cdef void request_flush(self) noexcept:
        if self.flush_pending or self.mailbox.closed:
            return
        try:
            self.call_soon(self.run_batch)
            self.flush_pending = True
        except RuntimeError:
            pass  # the loop is closed

    def run_batch(self):
        """Sends and settles what was left or came up outside a batch."""
        self.flush_pending = False
        self.end(self.begin())

    cdef void flush_dirty(self) noexcept:
        """Flushes at most FLUSH_MOST endpoints or for FLUSH_MOST_US; the rest stays, in order."""
        cdef size_t done = 0
        cdef Endpoint endpoint
        cdef uint64_t start = self.now_us
        while done < self.dirty.count:
            endpoint = <Endpoint>self.dirty.items[done]
            Py_DECREF(endpoint)  # the list's own reference; `endpoint` holds another
            done += 1
            endpoint.dirty = False
            endpoint.flush()
            if done >= FLUSH_MOST:
                break
            if done & 63 == 0:
                self.update_clock()
                if self.now_us - start > FLUSH_MOST_US:
                    break
        refs_drop(&self.dirty, done)
        if self.dirty.count == 0:
            self.overrun = False

    cdef void settle_ended(self) noexcept:
        cdef size_t i = 0
        cdef Endpoint endpoint
        while i < self.ended.count:  # settling may end others
            endpoint = <Endpoint>self.ended.items[i]
            Py_DECREF(endpoint)
            i += 1
            endpoint.settle()
        self.ended.count = 0

    # ---------------------------------------------------------------- other threads

    cdef bint foreign(self) noexcept:
        return PyThread_get_thread_ident() != hw_word_load(&self.thread_id)

    def post(self, call, *args):
        """Runs `call(*args)` in the engine's thread. From any thread; one wake-up for a burst.

        Returns:
            False if the loop is gone, and the call with it. True: it will run, at the latest in `stop`.
        """
        cdef int answer = self.mailbox.leave((call, args))
        if answer == MAIL_FIRST:
            try:
                self.call_soon_threadsafe(self.run_posted)
            except RuntimeError:  # closed without having been stopped
                self.mailbox.close()
                return False
        return answer != MAIL_CLOSED

    def run_posted(self):
        """Runs what other threads had posted by now, in order, as one batch. What they post meanwhile waits
        for the next turn of the loop: a thread that never stops cannot keep the loop from its sockets."""
        cdef object call
        cdef bint outermost = self.begin()
        cdef Py_ssize_t left = self.mailbox.look()
        try:
            while left:
                left -= 1
                call, args = self.mailbox.calls.popleft()
                try:
                    call(*args)
                except Exception as error:
                    self.on_error(error)
        finally:
            self.end(outermost)
            if self.mailbox.again():
                self.call_soon(self.run_posted)

    cpdef void on_error(self, error) noexcept:
        """Hands an exception that has no other place to go to `error_handler`."""
        if self.error_handler is not None:
            self.error_handler(error)

    def is_foreign(self):
        """True in any thread but the engine's own."""
        return self.foreign()

    def adopt_thread(self):
        """Makes the calling thread the owner: for engines made before their loop's thread runs."""
        hw_word_store(&self.thread_id, PyThread_get_thread_ident())

    def stop(self):
        """No more timers and calls; what was posted before runs now, so that nobody waits for it for ever.
        Connections must be closed by then."""
        self.mailbox.close()
        self.run_posted()
        if self.timer_handle is not None:
            self.timer_handle.cancel()
            self.timer_handle = None
        refs_clear(&self.dirty)
        refs_clear(&self.ended)

    # ---------------------------------------------------------------- figures

    @property
    def receive_buffer(self):
        """The buffer every receive of this loop goes to, for links written in Python. Writable; its content
        is valid until the next receive. Lives as long as the engine."""
        return PyMemoryView_FromMemory(<char *>self.buffer, self.buffer_size, PyBUF_WRITE)

    @property
    def next_wake(self):
        """Seconds of the engine's clock until the next deadline, None if there is none. For tests."""
        cdef uint64_t tick = hw_wheel_next(&self.wheel)
        if tick == UINT64_MAX:
            return None
        self.update_clock()
        return max(<int64_t>(tick * self.tick_ms * 1000) - <int64_t>self.now_us, 0) / 1e6

    @property
    def backlog(self):
        """Connections that wait for their turn to send."""
        return self.dirty.count

    cdef void note_rtt(self, uint64_t us) noexcept:
        hw_observe(&self.rtt, HW_TIME_BOUNDS_US, us)

    cdef void note_fanout(self, uint64_t recipients) noexcept:
        hw_observe(&self.fanout, HW_COUNT_BOUNDS, recipients)

    def note_lag(self, double seconds):
        """The loop called so much later than it was asked to. For a timer that only measures."""
        hw_observe(&self.lag, HW_TIME_BOUNDS_US, <uint64_t>(max(seconds, 0.0) * 1e6))

    def statistics(self):
        """A snapshot of the totals since the start, by name; `queued_bytes` is what waits to be sent now."""
        return self.totals

    def histograms(self):
        """Distributions since the start, by name: `rtt_us` of pings, `lag_us` of the loop (by how much it was
        late to call for a deadline), `fanout_recipients`.

        Returns:
            For each (bounds, counts, sum): counts[i] values were at most bounds[i], above the bound before;
            the last count, one more than there are bounds, is of those above them all.
        """
        return {
            "rtt_us": exported(&self.rtt, HW_TIME_BOUNDS_US),
            "lag_us": exported(&self.lag, HW_TIME_BOUNDS_US),
            "fanout_recipients": exported(&self.fanout, HW_COUNT_BOUNDS),
        }
