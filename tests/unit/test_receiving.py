"""What a connection receives: the request head, and what waits while it is held."""

from __future__ import annotations

import pytest

from heartwire import ConnectionClosed
from heartwire.testing import (
    CLOSE,
    TEXT,
    build_frame,
)
from pair import ANSWER, HEAD, Pair, unopened

# ------------------------------------------------------------------ the beginning


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
@pytest.mark.parametrize("line_end", [b"\r\n", b"\n"])
def test_a_head_in_any_pieces_and_frames_behind_it(size: int, line_end: bytes) -> None:
    _, link, sink = unopened()
    head = HEAD.replace(b"\r\n", line_end)
    stream = head + build_frame(TEXT, b"first")
    for i in range(0, len(stream), size):
        link.feed(stream[i : i + size])
    assert sink.events == [("head", head)]  # nothing before the answer
    assert link.connection.paused
    assert link.connection.accept(ANSWER, "owner")
    link.connection.resume()
    assert sink.of("text") == ["first"]
    link.feed(build_frame(TEXT, b"second"))
    assert sink.of("text") == ["first", "second"]


def test_a_head_that_is_too_long() -> None:
    for body in (b"GET / HTTP/1.1\r\nX: " + b"x" * 600, b"GET / HTTP/1.1\r\nX: " + b"x" * 600 + b"\r\n\r\n"):
        _, link, sink = unopened(head_limit=500)
        link.feed(body)
        assert sink.of("head") == [None]


def test_what_cannot_be_a_request_is_told_at_once() -> None:
    _, link, sink = unopened()
    link.feed(b"\x16\x03\x01")
    assert sink.of("head") == [b"\x16\x03\x01"]


@pytest.mark.parametrize("line", [b"get / HTTP/1.1", b"!#$%&'*+-.^_`|~1 / HTTP/1.1"])
def test_what_may_be_a_method_is_read_to_the_end_of_the_head(line: bytes) -> None:
    _, link, sink = unopened()
    head = line + b"\r\n\r\n"
    for i in range(len(head)):
        link.feed(head[i : i + 1])
    assert sink.of("head") == [head]


@pytest.mark.parametrize("behind", [b"", b"\r\n\r\n", b"x" * 1000])
def test_garbage_is_garbage_whatever_follows_at_once(behind: bytes) -> None:
    _, link, sink = unopened(head_limit=500)
    link.feed(b"\x16\x03\x01" + behind)
    assert sink.of("head") == [b"\x16\x03\x01" + behind]


def test_a_refusal_is_read_before_the_end() -> None:
    clock, link, sink = unopened()
    link.feed(HEAD + b"more")
    link.connection.refuse(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    clock.run()
    assert bytes(link.written) == b"HTTP/1.1 403 Forbidden\r\n\r\n"
    assert link.eof_sent
    link.feed(b"x" * 60_000)
    assert link.closes == 0
    link.feed(b"x" * 6_000)
    assert link.closes == 1
    assert sink.of("left") == []  # it never was open
    assert sink.of("closed") == [None]


def test_a_refused_peer_that_stays_is_aborted_after_a_second() -> None:
    clock, link, _ = unopened()
    link.feed(HEAD)
    link.connection.refuse(b"HTTP/1.1 403 Forbidden\r\n\r\n")
    clock.advance(0.9)
    assert link.closes == 0
    clock.advance(0.2)
    assert link.closes == 1


def test_the_request_must_come_in_time() -> None:
    clock, _link, sink = unopened(handshake_timeout=10)
    clock.advance(9.9)
    assert sink.of("expired") == []
    clock.advance(0.2)
    assert sink.of("expired") == ["opening"]


@pytest.mark.parametrize("answer", ["accept", "refuse", "release", "close"])
def test_answers_that_come_after_the_peer_has_gone(answer: str) -> None:
    """An asynchronous authenticator decides later: the connection may be settled by then (I7)."""
    _clock, link, sink = unopened()
    link.feed(HEAD)
    link.reset()
    conn = link.connection
    assert sink.of("closed") == [None]
    if answer == "accept":
        assert conn.accept(ANSWER, "owner") is False
    elif answer == "refuse":
        conn.refuse(b"HTTP/1.1 403\r\n\r\n")
    elif answer == "release":
        with pytest.raises(ConnectionClosed):
            conn.release()
    else:
        conn.close()
    assert link.written == b""


# ------------------------------------------------------------------ holding


def test_a_held_connection_is_not_read_from_and_loses_nothing() -> None:
    pair = Pair()
    pair.sink.on_message = lambda conn, text: True
    pair.link.feed(b"".join(build_frame(TEXT, b"%d" % i) for i in range(3)))
    assert pair.sink.of("text") == ["0"]
    pair.link.feed(build_frame(TEXT, b"3") + build_frame(CLOSE)[:1])
    assert not pair.link.reading
    for i in range(1, 4):
        pair.conn.resume()
        assert pair.sink.of("text") == [str(j) for j in range(i + 1)]
    pair.conn.resume()
    assert pair.link.reading
    pair.link.feed(build_frame(CLOSE)[1:])
    assert pair.conn.cause == "client_closed"


def test_closing_a_held_connection_finds_the_peers_close_among_what_was_kept() -> None:
    pair = Pair()
    pair.sink.on_message = lambda conn, text: True
    pair.link.feed(build_frame(TEXT, b"0") + build_frame(TEXT, b"1") + build_frame(CLOSE))
    pair.conn.close(4000)
    assert [frame.close_code for frame in pair.sent()] == [4000]
    assert pair.conn.phase == "CLOSED"
    assert pair.sink.of("text") == ["0"]
