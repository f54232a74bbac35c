"""How a connection ends (I2, I9)."""

from __future__ import annotations

import pytest

from heartwire import ConnectionClosed
from heartwire.testing import (
    CLOSE,
    PING,
    TEXT,
    Frame,
    build_frame,
    close_payload,
)
from pair import Pair, texts

# ------------------------------------------------------------------ closing (I2, I9)


def test_close_while_data_waits() -> None:
    """Queued data, then CLOSE, then close_timeout, then the end; the time runs from when CLOSE left."""
    pair = Pair(close_timeout=5)
    pair.link.block()
    for i in range(3):
        pair.conn.send(TEXT, str(i))
    pair.clock.run()
    pair.conn.close(4000, "done")
    pair.conn.close(4001, "too late")
    pair.clock.advance(4)
    assert pair.sent() == []
    pair.link.unblock()
    frames = pair.sent()
    assert texts(frames) == ["0", "1", "2"]
    assert frames[3:] == [Frame(CLOSE, close_payload(4000, "done"))]
    pair.clock.advance(4.8)
    assert pair.conn.phase == "CLOSING"
    pair.clock.advance(0.3)
    assert pair.conn.phase == "CLOSED"
    assert pair.link.closes == 1
    assert pair.sink.of("closed") == ["server_closed"]


def test_close_while_data_waits_that_nobody_takes() -> None:
    pair = Pair(close_timeout=5)
    pair.link.block()
    pair.conn.send(TEXT, "x")
    pair.conn.close()
    pair.clock.advance(4.9)
    assert pair.conn.phase == "CLOSING"
    pair.clock.advance(0.2)
    assert pair.conn.phase == "CLOSED"
    assert pair.peer.frames() == []


def test_a_slow_consumer_is_aborted_after_a_second_even_if_it_takes_a_little() -> None:
    pair = Pair(send_buffer_limit=10)
    pair.link.most = 1
    pair.conn.send(TEXT, "x" * 100)
    pair.clock.run()
    with pytest.raises(ConnectionClosed):
        pair.conn.send(TEXT, "x")
    for _ in range(5):
        pair.clock.advance(0.15)
        pair.conn.writable()
    assert pair.conn.phase == "CLOSING"
    pair.clock.advance(0.3)
    assert pair.conn.phase == "CLOSED"


def test_the_closing_handshake_ends_at_the_peers_answer() -> None:
    pair = Pair()
    pair.conn.close(3000, "x")
    pair.peer.send_text("thrown away")
    pair.peer.send(PING, b"not answered")
    pair.peer.send_close(3000)
    assert pair.sent() == [Frame(CLOSE, close_payload(3000, "x"))]
    assert (pair.conn.phase, pair.conn.code) == ("CLOSED", 3000)
    assert pair.sink.of("text") == []


def test_close_from_both_sides_at_once() -> None:
    pair = Pair()
    pair.sink.on_message = lambda conn, text: conn.close(4000)
    theirs = build_frame(CLOSE, close_payload(1001))
    pair.link.feed(build_frame(TEXT, b"x") + theirs + build_frame(TEXT, b"y"))
    assert pair.sent() == [Frame(CLOSE, close_payload(4000))]
    assert (pair.conn.phase, pair.conn.code, pair.conn.cause) == ("CLOSED", 4000, "server_closed")
    assert pair.sink.events[2:] == [
        ("left", "server_closed"), ("ping_stopped", "invalid", None), ("closed", "server_closed"),
    ]  # fmt: skip


def test_a_long_reason_is_cut_between_characters() -> None:
    pair = Pair()
    pair.conn.close(4000, "x" + "é" * 100)
    (frame,) = pair.sent()
    assert frame.payload[2:].decode() == "x" + "é" * 61
    assert len(frame.payload) == 125


def test_eof_while_our_half_of_the_handshake_waits() -> None:
    pair = Pair()
    pair.link.block()
    pair.conn.send(TEXT, "x")
    pair.peer.send_close(1000)
    pair.link.eof()
    assert pair.conn.phase == "CLOSING"
    assert not pair.link.reading
    pair.link.unblock()
    assert [frame.opcode for frame in pair.sent()] == [TEXT, CLOSE]
    assert pair.conn.phase == "CLOSED"


def test_after_a_violation_input_is_thrown_away_for_a_while() -> None:
    pair = Pair()
    pair.link.feed(b"\xff\xff")
    assert [frame.close_code for frame in pair.sent()] == [1002]
    assert pair.link.eof_sent
    pair.link.feed(build_frame(TEXT, b"x"))
    assert (pair.link.closes, pair.sink.of("text")) == (0, [])
    pair.link.eof()
    assert pair.link.closes == 1
