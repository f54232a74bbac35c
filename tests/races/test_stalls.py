"""I8: a server that was stalled, or does not read, kills nobody; a ping to what is not OPEN is nothing."""

from __future__ import annotations

import socket
from typing import Any

import pytest

from heartwire._core.connection import Connection
from heartwire.testing import (
    CLOSE,
    PING,
    PONG,
    TEXT,
    FakeLink,
    FramePeer,
    ManualClock,
    RecordingSink,
    build_frame,
)
from links import needs_reactor
from pair import Pair

HEAD = b"GET / HTTP/1.1\r\n\r\n"


def pinged(**settings: Any) -> Pair:
    """A pair whose ping has just left."""
    pair = Pair(ping_interval=30, ping_timeout=60, **settings)
    while not pair.engine.statistics()["pings"]:
        pair.clock.advance(0.1)
    assert [frame.opcode for frame in pair.sent()] == [PING]
    return pair


@pytest.mark.parametrize("stall", [70, 300, 100_000])
def test_time_in_which_we_were_stalled_does_not_count(stall: float) -> None:
    """The timers run before what the peer sent meanwhile is read, as in a loop that polls last."""
    pair = pinged()
    pair.clock.jump(stall)
    assert pair.conn.is_open
    pair.peer.send(PONG, b"it was here all the time")
    pair.clock.advance(29)
    assert pair.conn.is_open


def test_many_stalled_connections() -> None:
    """More than one wake-up can judge: the excuse holds until the last was judged."""
    clock = ManualClock()
    ticks = [0]

    class Slow(ManualClock):
        def time(self) -> float:  # judging takes time, too
            ticks[0] += 1
            return clock.time() + ticks[0] * 0.0001

    slow = Slow()
    slow.call_soon, slow.call_later = clock.call_soon, clock.call_later  # type: ignore[method-assign]
    slow.call_soon_threadsafe = clock.call_soon  # type: ignore[method-assign]
    engine = slow.engine()
    sink = RecordingSink(ping_interval=0, ping_timeout=60)
    pairs = [Pair(clock, engine, sink) for _ in range(3000)]
    for pair in pairs:
        pair.conn.ping()
    clock.run()
    clock.advance(1)
    clock.jump(500)
    assert [pair.conn.cause for pair in pairs if pair.conn.cause] == []


def test_a_peer_that_is_dead_ends_after_a_stall_all_the_same() -> None:
    pair = pinged()
    pair.clock.jump(70)
    pair.clock.advance(80)
    assert pair.conn.cause == "ping_timeout"


def test_who_is_not_read_from_is_not_blamed() -> None:
    pair = pinged()
    pair.sink.on_message = lambda conn, text: True
    pair.peer.send_text("a handler that takes long")
    pair.conn.ping()
    assert pair.conn.paused
    pair.clock.advance(1000)
    assert pair.conn.is_open
    pair.conn.resume()
    pair.clock.advance(59)
    assert pair.conn.is_open
    pair.clock.advance(100)
    assert pair.conn.cause == "ping_timeout"


def test_a_message_under_way_while_nobody_reads() -> None:
    pair = Pair(ping_interval=0, message_timeout=10)
    pair.sink.on_message = lambda conn, text: True
    pair.link.feed(build_frame(TEXT, b"x") + build_frame(TEXT, b"begun")[:5])
    pair.clock.advance(100)
    assert pair.conn.is_open
    pair.sink.on_message = None
    pair.conn.resume()
    pair.clock.advance(5)
    pair.link.feed(build_frame(TEXT, b"begun")[5:])
    assert pair.sink.of("text") == ["x", "begun"]


def test_a_message_under_way_while_we_were_stalled() -> None:
    pair = Pair(ping_interval=0, message_timeout=10)
    pair.link.feed(build_frame(TEXT, b"begun")[:5])
    pair.clock.jump(100)
    assert pair.conn.is_open
    pair.clock.advance(101)
    assert pair.conn.cause == "message_timeout"


def test_a_full_socket_while_we_were_stalled() -> None:
    pair = Pair(ping_interval=0, ping_timeout=60)
    pair.link.block()
    pair.conn.send(TEXT, "x")
    pair.clock.run()
    pair.clock.advance(1)
    pair.link.blocked = False  # there is room, and nobody has told us yet
    pair.clock.jump(100)
    assert pair.conn.is_open
    assert [frame.opcode for frame in pair.sent()] == [TEXT]


@pytest.mark.parametrize("state", ["connecting", "closing", "closed", "lost"])
def test_a_ping_to_a_connection_that_is_not_open(state: str) -> None:
    if state == "connecting":
        clock = ManualClock()
        link = FakeLink(clock.engine(), RecordingSink(accept=False))
        link.connection.ping()
        clock.run()
        assert link.written == b""
        return
    pair = Pair()
    if state == "lost":
        pair.link.reset()
    else:
        pair.conn.close()
        if state == "closed":
            pair.peer.send(CLOSE)
    pair.clock.run()
    before = bytes(pair.link.written)
    pair.conn.ping()
    pair.clock.advance(1)
    assert pair.link.written == before
    assert pair.engine.statistics()["pings"] == 0


@needs_reactor
def test_bytes_that_wait_in_the_socket_are_life() -> None:
    """Over the real reactor: the deadline passes while the peer's answer stands unread in the kernel."""
    from heartwire._core.reactor import Reactor

    class Sink(RecordingSink):
        def on_head(self, conn: Connection, head: bytes | None) -> None:
            super().on_head(conn, head)
            conns.append(conn)

    conns: list[Connection] = []
    clock = ManualClock()
    engine = clock.engine()
    reactor = Reactor(engine, Sink(ping_interval=30, ping_timeout=60))
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    reactor.adopt(ours.detach(), HEAD)
    (conn,) = conns
    clock.advance(1)
    conn.ping()
    theirs.sendall(build_frame(PONG, b"unread"))
    clock.advance(100)  # on time, as far as the clock can tell: only the reactor was never asked
    assert conn.is_open
    reactor.on_ready()
    clock.advance(1)
    assert conn.is_open
    peer = FramePeer(theirs)
    conn.abort()
    clock.run()
    peer.disconnect()
    reactor.close()
