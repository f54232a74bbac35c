"""The heartbeat: who is pinged when, who ends, and the four log lines of protocol.md 1, each forced."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest

from heartwire.admission import Admission
from heartwire.brokers import MemoryBroker
from heartwire.client import Client
from heartwire.config import ServerConfig
from heartwire.dispatch import Dispatcher
from heartwire.handlers import Handlers
from heartwire.heartbeat import Heartbeat
from heartwire.memberships import Memberships
from heartwire.metrics import Metrics
from heartwire.presence import Presence
from heartwire.refusals import Refusals
from heartwire.registry import Registry
from heartwire.testing import CLOSE, PING, PONG, TEXT, Frame, ManualClock, build_frame
from heartwire.tokens import Tokens
from pair import Pair

# ------------------------------------------------------------------ the four lines

INVALID = (logging.DEBUG, "Client {} connection is no longer valid, stopping ping handler")
UNREGISTERED = (logging.DEBUG, "Client {} no longer registered, stopping ping handler")
NIL = (logging.WARNING, "Client {} connection became nil during ping")
FAILED = (logging.ERROR, "Failed to send ping to client {}: {}")


def test_the_documentation_has_the_lines() -> None:
    page = (Path(__file__).parents[2] / "docs" / "logs.md").read_text(encoding="utf-8")
    reasons = ("invalid", "unregistered", "nil_during_ping", "send_error")
    for (level, line), reason in zip((INVALID, UNREGISTERED, NIL, FAILED), reasons, strict=True):
        assert f"| `{line.format('X', '<error>')}` | {logging.getLevelName(level)} | `{reason}` |" in page


def wired(**options: Any) -> Dispatcher:
    """A server's sink as the server wires it, which lets anybody in."""
    config = ServerConfig.from_kwargs(auth="optional", welcome=False, **options)
    dispatcher = Dispatcher()
    dispatcher.configure(ping_interval=30, ping_timeout=60)
    dispatcher.handlers = Handlers()
    dispatcher.registry = Registry()
    dispatcher.metrics = Metrics()
    dispatcher.refusals = Refusals(dispatcher.metrics)
    dispatcher.heartbeat = Heartbeat(dispatcher.metrics)
    tokens = Tokens(config, None, dispatcher)
    dispatcher.admission = Admission(config, tokens, dispatcher, lambda conn: None)
    broker, nowhere = MemoryBroker(), ManualClock()
    presence = Presence(broker, 0, nowhere.call_later, nowhere.time, lambda: True)
    dispatcher.memberships = Memberships(
        dispatcher.registry, presence, broker, None, 128, dispatcher.refusals
    )
    return dispatcher


class Lines:
    """One wired client, what the log says of it, and the counters."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="heartwire.heartbeat")
        self._caplog = caplog
        self.dispatcher = wired()
        self.pair = Pair(sink=self.dispatcher)
        self.client: Client = self.pair.conn.owner
        assert isinstance(self.client, Client)

    def let_ping_wait(self) -> None:
        """Until a ping was accepted that cannot leave."""
        self.pair.link.block()
        self.client.ping()
        assert self.pair.engine.statistics()["pings"] == 1

    def said(self) -> tuple[int, str]:
        """The one line, long after the end."""
        self.pair.clock.advance(200)
        lines = [r for r in self._caplog.records if r.name == "heartwire.heartbeat"]
        assert len(lines) == 1
        return lines[0].levelno, lines[0].getMessage()

    def counted(self) -> dict[str, int]:
        return {reason: n for reason, n in self.dispatcher.metrics.ping_stopped.items() if n}

    def check(self, line: tuple[int, str], reason: str, *values: object) -> None:
        level, text = line
        assert self.said() == (level, text.format(self.client.id, *values))
        assert self.counted() == {reason: 1}
        assert self.client.id not in self.dispatcher.registry.clients


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    return Lines(caplog)


@pytest.mark.parametrize("code", [errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ESHUTDOWN])
def test_a_ping_that_meets_a_peer_that_left(lines: Lines, code: int) -> None:
    lines.pair.link.fail(code)
    lines.client.ping()
    assert lines.pair.conn.phase == "CLOSED"
    lines.check(INVALID, "invalid")


@pytest.mark.parametrize("code", [errno.EIO, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOBUFS])
def test_a_ping_that_meets_a_network_fault(lines: Lines, code: int) -> None:
    lines.pair.link.fail(code)
    lines.client.ping()
    lines.check(FAILED, "send_error", OSError(code, os.strerror(code)))


@pytest.mark.parametrize("code", [errno.EIO, errno.ENETUNREACH])
def test_a_timed_ping_that_meets_a_network_fault(lines: Lines, code: int) -> None:
    lines.pair.link.fail(code)
    lines.check(FAILED, "send_error", OSError(code, os.strerror(code)))
    assert lines.pair.conn.cause == "peer_gone"


def test_a_fault_that_is_followed_by_others_is_the_first_one(lines: Lines) -> None:
    """What the link says after the end changes nothing."""
    closed = lines.pair.link.close

    def close(conn: Any) -> None:
        closed(conn)
        conn.feed_loss(errno.ECONNRESET)
        conn.feed_loss(0)

    lines.pair.link.close = close  # type: ignore[method-assign]
    lines.pair.link.fail(errno.EIO)
    lines.client.ping()
    lines.check(FAILED, "send_error", OSError(errno.EIO, os.strerror(errno.EIO)))


def test_a_fault_after_the_ping_left_is_no_fault_of_the_ping(lines: Lines) -> None:
    """Two pieces leave in one flush, and the second fails."""
    link = lines.pair.link
    link.block()
    lines.client.ping()
    lines.client.connection.send(TEXT, "x" * 5000)  # a piece of its own
    taken: list[int] = []
    write = link.write

    def one_write(conn: Any, data: bytes) -> int:
        if taken:
            raise OSError(errno.EIO, "fault")
        taken.append(write(conn, data))
        return taken[0]

    link.write = one_write  # type: ignore[method-assign]
    link.unblock()
    assert lines.pair.peer.receive() is not None
    lines.check(INVALID, "invalid")


@pytest.mark.parametrize("how", ["eof", "close", "abort", "write timeout"])
def test_a_close_behind_a_ping_that_never_left(lines: Lines, how: str) -> None:
    lines.let_ping_wait()
    if how == "eof":
        lines.pair.link.eof()
    elif how == "close":
        lines.client.close()
    elif how == "abort":
        lines.pair.conn.abort()
    lines.check(NIL, "nil_during_ping")
    assert lines.pair.link.written[-2:] != b"\x89\x04"


def test_a_reset_behind_a_ping_that_never_left(lines: Lines) -> None:
    lines.let_ping_wait()
    lines.pair.link.reset()
    lines.check(INVALID, "invalid")


def test_unregistering(lines: Lines) -> None:
    lines.dispatcher.heartbeat.unregister(lines.client.id, lines.pair.conn)
    lines.dispatcher.heartbeat.unregister(lines.client.id, lines.pair.conn)
    lines.pair.conn.close(1001, "reconnect_in=1", "shutdown")
    lines.check(UNREGISTERED, "unregistered")


def test_unregistering_before_a_fault(lines: Lines) -> None:
    lines.let_ping_wait()
    lines.dispatcher.heartbeat.unregister(lines.client.id, lines.pair.conn)
    lines.pair.link.reset(errno.EIO)
    lines.check(UNREGISTERED, "unregistered")


ENDS = ["close frame", "eof", "reset", "server", "violation", "ping timeout", "fault"]


@pytest.mark.parametrize("how", ENDS)
def test_ordinary_ends(lines: Lines, how: str) -> None:
    """Also a network fault, when no ping is on its way."""
    if how == "close frame":
        lines.pair.peer.send_close()
    elif how == "eof":
        lines.pair.link.eof()
    elif how == "reset":
        lines.pair.link.reset()
    elif how == "server":
        lines.client.close()
    elif how == "violation":
        lines.pair.link.feed(b"\xff\xff")
    elif how == "fault":
        lines.pair.link.reset(errno.EIO)
    lines.check(INVALID, "invalid")


def test_a_peer_refused_by_closing_is_no_client(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    dispatcher = wired()
    pair = Pair(sink=dispatcher)
    other = pair.beside()
    other.conn.owner = None  # as --reject close leaves it
    other.conn.close(4401, "", "auth_failed")
    other.peer.send_close(4401)
    pair.clock.run()
    assert other.conn.phase == "CLOSED"
    assert dispatcher.metrics.ping_stopped.total() == 0
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


# ------------------------------------------------------------------ who is pinged when


def pings(frames: list[Frame]) -> int:
    return sum(frame.opcode == PING for frame in frames)


def test_first_pings_are_spread_over_the_interval() -> None:
    """A storm of reconnections does not ping in step, though everybody was heard from at the upgrade."""
    pair = Pair(ping_interval=30)
    pairs = [pair, *(pair.beside() for _ in range(199))]
    tenths = []
    for _ in range(10):
        pair.clock.advance(3.02)
        tenths.append(sum(pings(p.peer.frames()) for p in pairs))
    assert sum(tenths) == 200
    assert all(n > 2 for n in tenths)


def test_pings_leave_in_bursts_the_first_ones_too() -> None:
    """Each burst is a wake-up of the loop; frequent pings stay where they are."""
    for interval in (30, 3):
        pair = Pair(ping_interval=interval)
        pairs = [pair, *(pair.beside() for _ in range(99))]
        at = set()
        for hundredth in range(300):
            pair.clock.advance(0.01)
            if sum(pings(p.peer.frames()) for p in pairs):
                at.add(hundredth)
        assert 3 < len(at) <= 31 if interval == 30 else len(at) > 40


def test_who_is_heard_from_is_not_pinged() -> None:
    pair = Pair(ping_interval=30)
    quiet = pair.beside()
    pair.clock.advance(0.001)
    pair.peer.send_text("before the first ping, whose point is random")
    for _ in range(20):
        pair.clock.advance(9)
        pair.peer.send_text("x")
        if pings(quiet.sent()):
            quiet.peer.send(PONG, b"any byte is life")
    assert pair.sent() == []
    assert pair.conn.is_open
    assert quiet.conn.is_open
    assert pair.engine.statistics()["pings"] >= 4


def test_ping_always() -> None:
    pair = Pair(ping_interval=30, ping_always=True)
    count = 0
    for _ in range(40):
        pair.clock.advance(3)
        pair.peer.send_text("x")
        count += pings(pair.sent())
    assert 3 <= count <= 5


def test_who_does_not_answer_ends() -> None:
    pair = Pair(ping_interval=30, ping_timeout=60)
    while not pings(pair.sent()):
        pair.clock.advance(0.1)
    pair.clock.advance(59.7)
    assert pair.conn.is_open
    pair.clock.advance(0.6)
    assert (pair.conn.cause, pair.conn.code) == ("ping_timeout", 4408)
    assert [frame.opcode for frame in pair.sent()] == [CLOSE]


def test_half_a_frame_is_life() -> None:
    """Any byte received is, not only a pong."""
    pair = Pair(ping_interval=30, ping_timeout=60, message_timeout=0)
    for byte in build_frame(TEXT, b"twenty seconds for each of these bytes"):
        pair.clock.advance(50)
        pair.link.feed(bytes([byte]))
    assert pair.conn.is_open
    assert pair.sink.of("text") == ["twenty seconds for each of these bytes"]
    assert pings(pair.sent()) > 10


def test_the_time_runs_from_when_the_ping_left() -> None:
    pair = Pair(ping_interval=30, ping_timeout=60)
    pair.link.block()
    pair.conn.ping()
    pair.clock.advance(50)
    pair.link.unblock()
    assert pings(pair.sent()) == 1
    pair.clock.advance(59)
    assert pair.conn.is_open
    pair.clock.advance(2)
    assert pair.conn.cause == "ping_timeout"


def test_without_a_heartbeat_the_applications_pings_stay_one_each() -> None:
    pair = Pair(ping_interval=0, ping_timeout=60)
    pair.conn.ping()
    for _ in range(20):
        for frame in pair.sent():
            pair.peer.send(PONG, frame.payload)
        pair.clock.advance(1)
    assert pair.engine.statistics()["pings"] == 1
    assert pair.engine.statistics()["pongs"] == 1
