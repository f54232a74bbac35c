"""One connection: every call in every state, and its figures."""

from __future__ import annotations

import errno
import gc
from typing import Any

import pytest

from heartwire import ConnectionClosed
from heartwire._core.connection import Connection
from heartwire.testing import (
    BINARY,
    PONG,
    TEXT,
    FramePeer,
    RecordingSink,
)
from pair import ANSWER, Pair, texts

# ------------------------------------------------------------------ any call in any state


def calls(conn: Connection) -> dict[str, Any]:
    return {
        "send": lambda: conn.send(TEXT, "x"),
        "send bytes": lambda: conn.send(BINARY, b"x"),
        "send bytearray": lambda: conn.send(BINARY, bytearray(b"x")),
        "send_fragment": lambda: conn.send_fragment(TEXT, "x", False),
        "close": lambda: conn.close(4000, "again"),
        "abort": conn.abort,
        "ping": conn.ping,
        "pause": conn.pause,
        "resume": conn.resume,
        "set_due": lambda: conn.set_due("read", 1),
        "clear_due": lambda: conn.set_due("read", None),
        "stop_ping": conn.stop_ping,
        "feed": lambda: conn.feed(b"x" * 100),
        "feed_eof": conn.feed_eof,
        "feed_loss": lambda: conn.feed_loss(5),
        "writable": conn.writable,
        "accept": lambda: conn.accept(ANSWER, "other"),
        "refuse": lambda: conn.refuse(b"HTTP/1.1 400\r\n\r\n"),
        "add_drain_waiter": lambda: conn.add_drain_waiter(None),
        "figures": lambda: (conn.remote_address, conn.queued_bytes, conn.rtt_ms, conn.last_seen, conn.paused),
        "statistics": conn.statistics,
    }


RAISE = {"send", "send bytes", "send bytearray", "send_fragment", "add_drain_waiter"}


@pytest.mark.parametrize("name", calls(Pair().conn))
def test_calls_on_a_connection_that_is_gone(name: str) -> None:
    pair = Pair()
    pair.peer.send_close(4321, "bye")
    pair.clock.run()
    assert pair.conn.phase == "CLOSED"
    before = bytes(pair.link.written)
    call = calls(pair.conn)[name]
    if name in RAISE:
        with pytest.raises(ConnectionClosed) as raised:
            call()
        assert (raised.value.code, raised.value.reason) == (4321, "bye")
    else:
        call()
    pair.clock.advance(100)
    assert (pair.conn.phase, pair.conn.code, pair.conn.cause) == ("CLOSED", 4321, "client_closed")
    assert pair.link.written == before
    assert pair.link.closes == 1
    assert [kind for kind, *_ in pair.sink.events].count("closed") == 1


@pytest.mark.parametrize("name", ["send", "send_fragment"])
def test_sends_after_close(name: str) -> None:
    pair = Pair()
    pair.conn.close(4000, "enough")
    with pytest.raises(ConnectionClosed) as raised:
        calls(pair.conn)[name]()
    assert (raised.value.code, raised.value.cause) == (4000, "server_closed")


@pytest.mark.parametrize("value", [5, 1.5, None, ["a"], {"a": 1}])
def test_what_is_no_message_is_refused(value: object) -> None:
    pair = Pair()
    with pytest.raises(TypeError):
        pair.conn.send(BINARY, value)
    assert pair.sent() == []


def test_text_that_is_no_unicode_is_refused() -> None:
    pair = Pair()
    with pytest.raises(UnicodeEncodeError):
        pair.conn.send(TEXT, "\ud800")
    assert pair.sent() == []


# ------------------------------------------------------------------ figures


def test_figures() -> None:
    pair = Pair(ping_interval=0)
    pair.conn.set_peer("::1", 80)
    assert pair.conn.remote_address == ("::1", 80)
    pair.conn.set_peer("127.0.0.9", 81)
    assert pair.conn.remote_address == ("127.0.0.9", 81)
    pair.conn.set_peer("", 0)
    assert pair.conn.remote_address == ("", 0)
    pair.conn.ping()
    (ping,) = pair.sent()
    pair.clock.advance(0.2505)
    pair.peer.send(PONG, ping.payload)
    assert pair.conn.rtt_ms == pytest.approx(250.5, abs=0.1)
    pair.clock.advance(2)
    pair.peer.send_text("x")
    assert pair.conn.last_seen - pair.conn.opened_at == pytest.approx(2.25, abs=0.01)
    assert pair.conn.statistics()["messages_in"] == 1


@pytest.mark.parametrize("days", [1, 20, 30, 45, 60, 120])
def test_when_a_peer_was_last_heard_of_after_weeks(days: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine counts milliseconds in 32 bits."""
    from heartwire._core import connection

    pair = Pair(sink=RecordingSink(ping_interval=0))
    opened = pair.conn.opened_at
    for _ in range(days):
        pair.clock.advance(86_400)
        pair.peer.send_text("x")
    monkeypatch.setattr(connection, "time", lambda: opened + days * 86_400 + 100)
    assert pair.conn.last_seen - opened == pytest.approx(days * 86_400, abs=0.01)
    assert pair.conn.statistics()["received_ago_ms"] == 0


def test_nothing_is_kept_after_the_end() -> None:
    """A connection, its link and its owner do not hold each other alive."""
    import weakref

    class Owner:
        pass

    pair = Pair()
    owner = Owner()
    pair.conn.owner = owner
    gone = weakref.ref(owner)
    link = weakref.ref(pair.link)
    pair.link.reset(errno.ECONNRESET)
    del owner, pair
    gc.collect()
    assert gone() is None
    assert link() is None


def test_a_peer_over_a_link_reads_what_a_real_one_would() -> None:
    pair = Pair()
    pair.link.dropping = True
    pair.conn.send(TEXT, "lost")
    pair.clock.run()
    pair.link.dropping = False
    pair.conn.send(TEXT, "seen")
    assert texts(pair.sent()) == ["seen"]
    assert isinstance(pair.peer, FramePeer)


def test_a_violation_while_we_close_loses_nothing_that_was_queued() -> None:
    pair = Pair()
    pair.conn.send(TEXT, "queued")
    pair.conn.close(4000)
    pair.link.feed(b"\xff\xff")
    frames = pair.sent()
    assert texts(frames) == ["queued"]
    assert frames[-1].close_code == 4000
    pair.link.eof()
    assert (pair.conn.phase, pair.conn.cause) == ("CLOSED", "server_closed")
