"""Everything that can happen to connections, in seeded random orders; the contract holds in all of them."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import ConnectionClosed, LocalProtocolError
from heartwire._core.connection import Connection
from heartwire._core.fanout import Frame, fan_out
from heartwire._core.session import Session
from heartwire.testing import BINARY, CLOSE, CONTINUATION, PING, TEXT, ManualClock, RecordingSink
from pair import Pair, texts

PHASES = ("CONNECTING", "OPEN", "CLOSING", "CLOSED")
LIMIT = 3000


class Before:
    """What an OPEN connection was before a broadcast, and so what comes of it."""

    def __init__(self, pair: Pair, takes: bool) -> None:
        self.waiting = pair.conn.queued_bytes
        self.offered = self.waiting > LIMIT and not pair.link.wants_write
        self.takes = takes and not pair.link.blocked
        self.written = len(pair.link.written)
        self.messages = pair.conn.statistics()["messages_out"]

    def judge(self, pair: Pair) -> bool:
        """Was it queued? Asserts that it had to be, or that the connection had to end."""
        conn = pair.conn
        taken = len(pair.link.written) - self.written
        assert self.offered if taken else not (self.offered and self.takes)
        got = self.waiting - taken <= LIMIT
        assert conn.statistics()["messages_out"] == self.messages + got
        assert conn.is_open == got
        assert got or conn.cause in ("slow_consumer", "peer_gone")
        return got


class World:
    """A few connections of one engine, and what was accepted for each."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.clock = ManualClock()
        self.engine = self.clock.engine()
        self.told: dict[Connection, list[str]] = {}
        self.depth = 0
        world = self

        class Sink(RecordingSink):
            def on_text(self, conn: Connection, text: str) -> bool:
                world.note(conn, "text")
                assert conn not in world.holding  # one message at a time while the application holds it
                if world.depth < 2:
                    world.depth += 1
                    for _ in range(rng.randint(0, 3)):
                        world.act()
                    world.depth -= 1
                if conn.is_open and rng.random() < 0.2:
                    world.holding.add(conn)
                    return True
                return False

            def on_left(self, conn: Connection) -> None:
                world.note(conn, "left")
                if rng.random() < 0.3:
                    world.act()

            def on_closed(self, conn: Connection) -> None:
                world.note(conn, "closed")
                if rng.random() < 0.3:
                    world.act()

            def on_ping_stopped(self, conn: Connection, reason: str, error: OSError | None) -> None:
                world.note(conn, "ping_stopped")

        self.sink = Sink(ping_interval=5, ping_timeout=8, close_timeout=3, send_buffer_limit=LIMIT)
        self.pairs = [Pair(self.clock, self.engine, self.sink) for _ in range(4)]
        self.sessions = {Session(pair.conn): None for pair in self.pairs}
        self.accepted: dict[Connection, list[str]] = {pair.conn: [] for pair in self.pairs}
        self.after_close: dict[Connection, int] = {}  # accepted messages at the application's close
        self.lossy: set[Connection] = set()  # ended by a fault or an abort: the tail may be missing
        self.phase = {pair.conn: 1 for pair in self.pairs}
        self.counter = 0
        self.fragmenting: set[Connection] = set()
        self.holding: set[Connection] = set()  # their last message was answered with HOLD
        self.calm = False  # callbacks only note what they are told

    def note(self, conn: Connection, what: str) -> None:
        self.told.setdefault(conn, []).append(what)

    # -------------------------------------------------------------- what can happen

    def act(self) -> None:
        if self.ending or self.calm:
            return
        pair = self.rng.choice(self.pairs)
        # Input of a connection comes from its link, never out of a callback.
        names = OUTSIDE if self.depth == 0 and not self.engine_busy else INSIDE
        getattr(self, self.rng.choice(names))(pair)
        self.check_phases()

    engine_busy = False
    ending = False

    def check_phases(self) -> None:
        for pair in self.pairs:
            phase = PHASES.index(pair.conn.phase)
            assert phase >= self.phase[pair.conn]  # I1
            self.phase[pair.conn] = phase

    def text(self) -> str:
        self.counter += 1
        return f"{self.counter}:" + "x" * self.rng.choice((0, 5, 130, 700, 2 * LIMIT))

    def send(self, pair: Pair) -> None:
        text = self.text()
        was_open = pair.conn.is_open
        try:
            pair.conn.send(TEXT, text)
        except ConnectionClosed:
            assert not pair.conn.is_open
            return
        assert was_open
        self.accepted[pair.conn].append(text)

    def shared(self, pair: Pair) -> None:
        """Who gets it, and who ends as slow: a queue over the limit is offered to the link before."""
        text = self.text()
        pairs = [p for p in self.pairs if p.conn.is_open]
        deaf = self.lossy | self.fragmenting  # a write may fail; what is held is not offered
        before = [Before(p, p.conn not in deaf) for p in pairs]
        self.calm = True  # or what callbacks do would show in the figures
        count = fan_out(Frame(text.encode()), self.sessions)
        self.calm = False
        got = [p.conn for p, was in zip(pairs, before, strict=True) if was.judge(p)]
        assert count == len(got)
        for conn in got:
            self.accepted[conn].append(text)

    def fragment(self, pair: Pair) -> None:
        conn = pair.conn
        inside = conn in self.fragmenting
        fin = self.rng.random() < 0.5
        try:
            conn.send_fragment(CONTINUATION if inside else BINARY, b"part", fin)
        except ConnectionClosed:
            return
        if fin:
            self.fragmenting.discard(conn)
        else:
            self.fragmenting.add(conn)

    def wrong_fragment(self, pair: Pair) -> None:
        opcode = BINARY if pair.conn in self.fragmenting else CONTINUATION
        with pytest.raises((ConnectionClosed, LocalProtocolError)):
            pair.conn.send_fragment(opcode, b"wrong", True)

    def ping(self, pair: Pair) -> None:
        pair.conn.ping()

    def close(self, pair: Pair) -> None:
        if self.rng.random() < 0.2:
            pair.conn.close(4000, "bye")

    def abort(self, pair: Pair) -> None:
        if self.rng.random() < 0.05:
            self.lossy.add(pair.conn)
            pair.conn.abort()

    def resume(self, pair: Pair) -> None:
        if self.depth == 0:  # inside a callback that is the Sink's HOLD to say
            self.holding.discard(pair.conn)
            self.outermost(pair.conn.resume)

    def fail_next(self, pair: Pair) -> None:
        if self.rng.random() < 0.05:
            self.lossy.add(pair.conn)
            pair.link.fail(self.rng.choice((5, 32, 104)))

    def throttle(self, pair: Pair) -> None:
        pair.link.most = self.rng.choice((None, 1, 30, 500))
        pair.link.blocked = self.rng.random() < 0.2

    def outermost(self, call: Callable[..., object], *args: Any) -> None:
        self.engine_busy = True
        call(*args)
        self.engine_busy = False

    def writable(self, pair: Pair) -> None:
        self.outermost(pair.conn.writable)

    def peer_text(self, pair: Pair) -> None:
        for _ in range(self.rng.randint(1, 3)):
            self.outermost(pair.peer.send_text, "hello")

    def peer_ping(self, pair: Pair) -> None:
        self.outermost(pair.peer.send, PING, b"x" * self.rng.choice((0, 125)))

    def peer_close(self, pair: Pair) -> None:
        if self.rng.random() < 0.1:
            self.outermost(pair.peer.send_close, 1000)

    def peer_eof(self, pair: Pair) -> None:
        if self.rng.random() < 0.05:
            self.lossy.add(pair.conn)
            self.outermost(pair.link.eof)

    def peer_reset(self, pair: Pair) -> None:
        if self.rng.random() < 0.05:
            self.lossy.add(pair.conn)
            self.outermost(pair.link.reset)

    def violation(self, pair: Pair) -> None:
        if self.rng.random() < 0.05:
            self.outermost(pair.link.feed, b"\xff\xff")

    def turn(self, pair: Pair) -> None:
        self.outermost(self.clock.step)

    def time_passes(self, pair: Pair) -> None:
        self.outermost(self.clock.advance, self.rng.choice((0, 0.01, 0.5, 2)))

    # -------------------------------------------------------------- the contract

    def finish(self) -> None:
        """Lets every peer read, ends all, and judges."""
        self.ending = True
        self.outermost(self.clock.run)
        for pair in self.pairs:
            pair.link.most, pair.link.blocked = None, False
            if pair.conn.phase != "CLOSED":
                self.writable(pair)
                if pair.conn in self.fragmenting:
                    with contextlib.suppress(ConnectionClosed):  # too much is held: slow
                        pair.conn.send_fragment(CONTINUATION, b"end", True)
        self.outermost(self.clock.run)
        still_open = {pair.conn for pair in self.pairs if pair.conn.is_open}
        for pair in self.pairs:
            pair.conn.close(4000)
        self.outermost(self.clock.advance, 30)
        for pair in self.pairs:
            self.judge(pair, pair.conn in still_open)

    def judge(self, pair: Pair, was_open: bool) -> None:
        conn = pair.conn
        assert conn.phase == "CLOSED"
        told = self.told[conn]
        assert [what for what in told if what != "text"] == ["left", "ping_stopped", "closed"]  # I5
        assert "text" not in told[told.index("left") :]
        assert (pair.link.closes, pair.link.late_writes) == (1, 0)  # I6
        assert conn.queued_bytes == 0 or conn in self.lossy or not was_open
        frames = pair.peer.frames()
        closes = [i for i, frame in enumerate(frames) if frame.opcode == CLOSE]
        assert len(closes) <= 1  # I2
        if closes:
            assert closes[0] == len(frames) - 1
            assert pair.peer.incomplete == b""
        inside = False
        for frame in frames:  # I4, I10
            assert not frame.masked
            if frame.opcode < 8:
                assert (frame.opcode == CONTINUATION) == inside
                inside = not frame.fin
        got = texts(frames)
        assert got == self.accepted[conn][: len(got)]
        if was_open and conn not in self.lossy:
            assert got == self.accepted[conn]  # I9: what was accepted has left before CLOSE
            assert closes


INSIDE = [
    "send", "send", "send", "shared", "fragment", "fragment", "wrong_fragment", "ping", "close", "abort",
    "fail_next", "throttle",
]  # fmt: skip
OUTSIDE = [
    *INSIDE, "resume", "resume", "writable", "writable", "writable", "peer_text", "peer_text", "peer_text",
    "peer_ping", "peer_close", "peer_eof", "peer_reset", "violation", "turn", "turn", "turn", "turn",
    "time_passes",
]  # fmt: skip


@pytest.mark.parametrize("part", range(4))
def test_any_order(rng: random.Random, part: int) -> None:
    rounds = int(os.environ.get("HEARTWIRE_RACE_ROUNDS", "100"))
    for _ in range(rounds):
        world = World(rng)
        for _ in range(rng.randint(5, 150)):
            world.act()
        world.finish()
        assert world.sink.of("failure") == []
