"""The engine: deadlines on the wheel, batches and their budget, what other threads post."""

from __future__ import annotations

import gc
import random
import re
import threading
from pathlib import Path
from typing import Any

import pytest

from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.link import Link, Sink
from heartwire.testing import CLOSE, TEXT, FakeLink, ManualClock, RecordingSink, build_frame
from pair import Pair, texts

ROOT = Path(__file__).parents[2]
TICK_S = 0.010


def text_frame(text: str) -> bytes:
    return build_frame(TEXT, text.encode())


class Expiries(RecordingSink):
    """Notes when deadlines pass."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(ping_interval=0)
        self.clock = clock
        self.at: dict[Connection, float] = {}

    def on_expired(self, conn: Connection, which: str) -> None:
        assert which == "read"
        assert conn not in self.at
        self.at[conn] = self.clock.time()


def test_its_clock_is_the_monotonic_one() -> None:
    """Which nobody corrects: a wall clock set back must not keep the dead, nor one set forward kill."""
    clock = (ROOT / "csrc" / "clock.c").read_text(encoding="utf-8")
    posix = re.findall(r"uint64_t hw_clock_us\(void\) \{ return read_us\((\w+)\); \}", clock)
    assert posix == ["CLOCK_MONOTONIC"]
    engine = (ROOT / "src" / "heartwire" / "_core" / "engine.pyx").read_text(encoding="utf-8")
    update = engine.split("cdef void update_clock(self) noexcept:")[1].split("\n\n")[0]
    assert re.findall(r"us = (hw_\w+)\(\)", update) == ["hw_clock_us"]


def test_deadlines_pass_in_time_and_never_early(rng: random.Random) -> None:
    clock = ManualClock(start=rng.randint(2, 10**6))
    engine = clock.engine()
    sink = Expiries(clock)
    due = {}
    for _ in range(200):
        conn = Pair(clock, engine, sink).conn
        seconds = rng.choice((0, 0.001, 0.0095, 0.5, rng.random(), 40.96, rng.random() * 200))
        conn.set_due("read", seconds)
        due[conn] = clock.time() + seconds
        clock.advance(rng.choice((0, 0, 0.001, 0.013, 1)))
    clock.advance(250)
    assert sink.at.keys() == due.keys()
    for conn, at in sink.at.items():
        assert due[conn] - 0.001 <= at <= due[conn] + 2 * TICK_S


def test_a_loop_of_whole_milliseconds_is_asked_once_for_each_deadline(rng: random.Random) -> None:
    """uvloop counts in them, from the last that was full, and calls at once for less than half of one."""
    now_us = rng.randint(10**9, 10**10)
    timers: list[tuple[int, Any]] = []

    class Handle:
        def cancel(self) -> None:
            timers.clear()

    def call_later(seconds: float, callback: Any) -> Handle:
        timers.append((now_us // 1000 + round(seconds * 1000), callback))
        return Handle()

    def call_soon(callback: Any) -> None:
        timers.append((0, callback))

    engine = Engine(call_soon, call_later, call_soon, lambda: now_us / 1e6)
    pair = Pair(engine=engine)

    def run() -> int:
        nonlocal now_us
        calls = 0
        while timers:
            now_us = max(now_us, timers[0][0] * 1000) + rng.randrange(300)
            timers.pop(0)[1]()
            calls += 1
        return calls

    run()  # the deadline of the request head
    for count in range(1, 51):
        pair.conn.set_due("read", rng.randint(1, 500) / 1000)
        assert run() == 1
        assert len(pair.sink.of("expired")) == count


def test_a_deadline_can_be_moved_and_taken_back() -> None:
    clock = ManualClock()
    sink = Expiries(clock)
    pair = Pair(clock, sink=sink)
    later, sooner, never = pair.conn, pair.beside().conn, pair.beside().conn
    for conn in (later, sooner, never):
        conn.set_due("read", 10)
    later.set_due("read", 20)
    sooner.set_due("read", 5)
    never.set_due("read", None)
    clock.advance(100)
    assert [round(sink.at[conn] - 1000) for conn in (later, sooner)] == [20, 5]
    assert never not in sink.at
    assert pair.engine.next_wake is None


def test_next_wake() -> None:
    pair = Pair()
    assert pair.engine.next_wake is not None  # the handshake's deadline, found out to be gone
    pair.clock.advance(60)
    assert pair.engine.next_wake is None
    pair.conn.set_due("read", 3)
    pair.clock.advance(0)
    assert pair.engine.next_wake == pytest.approx(3, abs=2 * TICK_S)
    assert pair.engine.statistics()["stalls"] == 0


def test_a_connection_that_was_dropped_leaves_the_wheel() -> None:
    """Its memory is freed: the wheel must not walk into it."""
    pair = Pair()
    for _ in range(50):
        Connection(pair.engine, pair.sink, Link())
    gc.collect()
    rubbish = [bytearray(b"\xff" * 2000) for _ in range(200)]
    pair.conn.set_due("read", 20)
    pair.clock.advance(60)
    assert pair.sink.of("expired") == ["read"]
    assert len(rubbish) == 200


def test_a_wake_up_sends_for_so_many_and_no_more() -> None:
    """1,000 sends, then back to the loop; the rest in the next turns, in order."""
    clock = ManualClock()
    engine = clock.engine()
    sink = RecordingSink(ping_interval=0)
    pairs = [Pair(clock, engine, sink) for _ in range(2500)]
    clock.run()
    for pair in pairs:
        pair.conn.send(TEXT, "x")
    done = []
    while clock.step():
        done.append(sum(bool(pair.link.writes) for pair in pairs))
        assert all(pair.link.writes for pair in pairs[: done[-1]])
        assert engine.backlog == 2500 - done[-1]
    assert done == [1000, 2000, 2500]


def test_deadlines_give_way_to_what_else_is_ready() -> None:
    """Four, then a look at the clock: what is due is done in turns of a quarter of a millisecond, and of a
    twentieth while messages come."""
    clock = ManualClock()
    engine = clock.engine()

    class Slow(RecordingSink):
        def on_expired(self, conn: Connection, which: str) -> None:
            super().on_expired(conn, which)
            clock.jump(0.00002, timers_first=False)

    sink = Slow(ping_interval=0)
    pairs = [Pair(clock, engine, sink) for _ in range(40)]
    for pair in pairs:
        pair.conn.set_due("read", 1)
    clock.jump(1.02, timers_first=False)
    done = []
    for message in (False, True, False, False):
        if message:
            pairs[0].peer.send(TEXT, b"between")
        engine.on_timer()
        done.append(len(sink.of("expired")))
    assert done == [16, 20, 36, 40]
    assert engine.statistics()["stalls"] == 0


def test_batches_of_one_turn_share_its_flush() -> None:
    """A transport begins a batch for each connection with input: none works at the others' backlog."""
    clock = ManualClock()
    engine = clock.engine()
    sink = RecordingSink(ping_interval=0)
    pairs = [Pair(clock, engine, sink) for _ in range(2500)]
    clock.run()
    for pair in pairs:
        pair.conn.send(TEXT, "x")
    for pair in pairs[:100]:
        pair.conn.feed(text_frame("input"))  # its own output leaves with it, as ever
    assert engine.backlog == 2500
    assert sum(bool(pair.link.writes) for pair in pairs) == 100
    clock.step()
    assert engine.backlog == 1500


def test_what_is_posted_runs_in_order_in_the_engines_thread() -> None:
    clock = ManualClock()
    engine = clock.engine()
    ran: list[Any] = []
    errors: list[BaseException] = []
    engine.error_handler = errors.append

    def fail() -> None:
        raise LookupError("posted")

    def post() -> None:
        assert engine.is_foreign()
        for i in range(100):
            assert engine.post(lambda i=i: ran.append((i, threading.get_ident())))
            if i == 50:
                engine.post(fail)

    thread = threading.Thread(target=post)
    thread.start()
    thread.join()
    assert not engine.is_foreign()
    assert ran == []
    assert clock.step()
    assert not clock.step()  # one wake-up for the burst
    assert ran == [(i, threading.get_ident()) for i in range(100)]
    assert [str(error) for error in errors] == ["posted"]


def test_what_is_posted_meanwhile_waits_for_the_next_turn() -> None:
    """A thread that posts faster than the loop runs it must not keep the loop from everything else."""
    clock = ManualClock()
    engine = clock.engine()
    turns: list[int] = []

    def again(n: int) -> None:
        turns.append(n)
        if n < 5:
            engine.post(again, n + 1)

    engine.post(again, 0)
    for n in range(6):
        assert clock.step()
        assert turns[-1] == n
    assert not clock.step()


def test_an_interrupt_in_a_posted_call_leaves_the_engine_in_order() -> None:
    pair = Pair()

    def interrupt() -> None:
        raise KeyboardInterrupt

    pair.engine.post(interrupt)
    pair.engine.post(pair.conn.send, TEXT, "after")
    with pytest.raises(KeyboardInterrupt):
        pair.clock.run()
    assert texts(pair.sent()) == ["after"]
    pair.conn.send(TEXT, "and more")
    assert texts(pair.sent()) == ["and more"]


def test_after_stop_nothing_is_taken() -> None:
    pair = Pair()
    pair.engine.stop()
    assert pair.engine.post(print, "never") is False
    pair.clock.advance(100)


def test_a_loop_that_is_closed() -> None:
    def closed(*args: object) -> None:
        raise RuntimeError("Event loop is closed")

    clock = ManualClock()
    engine = Engine(closed, closed, closed, clock.time)
    link = FakeLink(engine, RecordingSink(ping_interval=0))
    link.feed(b"GET / HTTP/1.1\r\n\r\n")
    link.connection.send(TEXT, "x")
    assert engine.post(print, "never") is False
    link.connection.abort()


def test_a_batch_inside_a_batch_settles_nothing_that_is_still_on_the_stack() -> None:
    """A handler may bring about another batch, of another connection or of all: the outer one ends it."""
    pair = Pair()
    other = pair.beside()
    seen: list[str] = []

    def handler(conn: Connection, text: str) -> None:
        if conn is pair.conn:
            other.peer.send_text("nested " + text)
            pair.conn.abort()
            other.link.feed(b"\x00\x00")  # a violation: an end within the batch
            seen.append(pair.conn.phase)
            pair.clock.run()
            assert pair.sink.of("closed") == []
        else:
            seen.append(text)

    pair.sink.on_message = handler
    pair.link.feed(b"".join(map(text_frame, ("one", "two"))))
    pair.clock.run()
    assert seen == ["nested one", "CLOSED"]
    assert pair.sink.of("closed") == ["server_closed"]
    assert other.conn.cause == "protocol_error"
    assert pair.sink.of("failure") == []


def test_a_nested_feed_does_not_touch_the_bytes_under_way() -> None:
    pair = Pair()
    other = pair.beside()

    def handler(conn: Connection, text: str) -> None:
        if conn is pair.conn:
            other.peer.send_text("Z" * 60)

    pair.sink.on_message = handler
    pair.link.feed(b"".join(text_frame(f"message {i}") for i in range(9)))
    mine = [text for text in pair.sink.of("text") if not text.startswith("Z")]
    assert mine == [f"message {i}" for i in range(9)]


def test_callbacks_may_end_any_connection() -> None:
    clock = ManualClock()

    class Ends(RecordingSink):
        def on_left(self, conn: Connection) -> None:
            super().on_left(conn)
            for pair in pairs:
                pair.conn.close(4000, "all")
                pair.conn.abort()

        def on_closed(self, conn: Connection) -> None:
            super().on_closed(conn)
            for pair in pairs:
                pair.conn.close(4001)
                pair.conn.ping()

    engine = clock.engine()
    sink = Ends(ping_interval=0)
    pairs = [Pair(clock, engine, sink) for _ in range(30)]
    pairs[7].peer.send(CLOSE)
    clock.run()
    assert len(sink.of("left")) == len(sink.of("closed")) == 30
    assert [pair.link.closes for pair in pairs] == [1] * 30
    assert sink.of("failure") == []


def test_stalls_are_counted() -> None:
    pair = Pair()
    pair.clock.advance(70)
    pair.conn.set_due("read", 1)
    pair.clock.advance(0.5)
    assert pair.engine.statistics()["stalls"] == 0
    pair.clock.jump(4.5)
    statistics = pair.engine.statistics()
    assert statistics["stalls"] == 1
    assert 3900 < statistics["stalled_ms"] <= 4010


def test_a_sink_that_fails_is_told() -> None:
    class Fails(Sink):
        def __init__(self) -> None:
            self.configure(ping_interval=0)
            self.failures: list[str] = []
            self.closed = 0

        def on_head(self, conn: Connection, head: bytes | None) -> None:
            conn.accept(b"HTTP/1.1 101\r\n\r\n", None)
            conn.resume()

        def on_text(self, conn: Connection, text: str) -> None:
            raise LookupError("text")

        def on_left(self, conn: Connection) -> None:
            raise LookupError("left")

        def on_ping_stopped(self, conn: Connection, reason: str, error: OSError | None) -> None:
            raise LookupError("ping")

        def on_closed(self, conn: Connection) -> None:
            self.closed += 1

        def on_failure(self, conn: Connection, error: Exception) -> None:
            self.failures.append(str(error))

    sink = Fails()
    clock = ManualClock()
    link = FakeLink(clock.engine(), sink)
    link.feed(b"GET / HTTP/1.1\r\n\r\n" + text_frame("x"))
    link.eof()
    assert sink.failures == ["text", "left", "ping"]
    assert sink.closed == 1
