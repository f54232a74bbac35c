"""What a connection sends: pings of the application, fragments, who waits for the queue; deadlines."""

from __future__ import annotations

import pytest

from heartwire import ConnectionClosed, LocalProtocolError
from heartwire.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    build_frame,
)
from pair import Pair

# ------------------------------------------------------------------ pings of the application


def test_pinging_a_dead_peer_often_does_not_keep_it() -> None:
    pair = Pair(ping_timeout=1)
    for _ in range(20):
        pair.conn.ping()
        pair.clock.advance(0.1)
    assert (pair.conn.phase, pair.conn.cause) == ("CLOSING", "ping_timeout")
    frames = pair.sent()
    assert [frame.opcode for frame in frames[:9]] == [PING] * 9
    assert frames[-1].close_code == 4408


def test_round_trip_runs_from_the_first_unanswered_ping() -> None:
    pair = Pair()
    pair.conn.ping()
    (first,) = pair.sent()
    pair.clock.advance(0.2)
    pair.conn.ping()
    (second,) = pair.sent()
    assert second.payload == first.payload
    pair.clock.advance(0.1)
    pair.peer.send(PONG, second.payload)
    assert pair.conn.rtt_ms == pytest.approx(300, abs=1)
    pair.conn.ping()
    (third,) = pair.sent()
    assert third.payload != first.payload


@pytest.mark.parametrize("before", range(4))
def test_a_pong_lies_anywhere_in_its_segment(before: int) -> None:
    """Nothing is aligned in the receive buffer; where that is forgotten, `make asan` says so."""
    pair = Pair()
    pair.conn.ping()
    (ping,) = pair.sent()
    pair.clock.advance(0.1)
    pair.link.feed(build_frame(BINARY, bytes(before)) + build_frame(PONG, ping.payload))
    assert pair.conn.rtt_ms == pytest.approx(100, abs=1)


def test_a_ping_of_the_application_starts_no_heartbeat() -> None:
    pair = Pair(ping_interval=0)
    pair.conn.ping()
    (ping,) = pair.sent()
    pair.peer.send(PONG, ping.payload)
    pair.clock.advance(100)
    assert pair.sent() == []


# ------------------------------------------------------------------ fragments (I4)


def test_whole_messages_wait_for_the_end_of_a_fragmented_one() -> None:
    pair = Pair()
    pair.conn.send_fragment(TEXT, "a", False)
    pair.conn.send(TEXT, "whole")
    pair.conn.ping()
    pair.peer.send(PING, b"theirs")
    pair.conn.send_fragment(CONTINUATION, "b", False)
    pair.conn.send(BINARY, b"other")
    pair.conn.send_fragment(CONTINUATION, "c", True)
    pair.conn.send(TEXT, "last")
    frames = [(f.opcode, f.payload, f.fin) for f in pair.sent() if f.opcode != PING]
    assert frames == [
        (TEXT, b"a", False),
        (PONG, b"theirs", True),
        (CONTINUATION, b"b", False),
        (CONTINUATION, b"c", True),
        (TEXT, b"whole", True),
        (BINARY, b"other", True),
        (TEXT, b"last", True),
    ]


def test_fragments_out_of_order_are_refused() -> None:
    pair = Pair()
    with pytest.raises(LocalProtocolError):
        pair.conn.send_fragment(CONTINUATION, "b", True)
    pair.conn.send_fragment(TEXT, "a", False)
    with pytest.raises(LocalProtocolError):
        pair.conn.send_fragment(TEXT, "a", False)
    pair.conn.send_fragment(CONTINUATION, "b", True)
    assert [frame.payload for frame in pair.sent()] == [b"a", b"b"]


def test_close_inside_a_fragmented_message() -> None:
    pair = Pair()
    pair.conn.send_fragment(TEXT, "a", False)
    pair.conn.send(TEXT, "held")
    pair.conn.close()
    assert [frame.opcode for frame in pair.sent()] == [TEXT, CLOSE]
    assert pair.conn.queued_bytes == 0


def test_held_messages_count_for_the_limit() -> None:
    pair = Pair(send_buffer_limit=500)
    pair.conn.send_fragment(TEXT, "a", False)
    pair.clock.run()
    for _ in range(6):
        assert pair.conn.is_open
        pair.conn.send(TEXT, "x" * 100)
        if pair.conn.queued_bytes > 500:
            break
    with pytest.raises(ConnectionClosed):
        pair.conn.send(TEXT, "x")
    assert pair.conn.cause == "slow_consumer"


# ------------------------------------------------------------------ waiting for the queue


class Waiter:
    """What is needed of a future."""

    def __init__(self) -> None:
        self.results: list[object] = []

    def done(self) -> bool:
        return bool(self.results)

    def set_result(self, result: object) -> None:
        self.results.append(result)

    set_exception = set_result


def test_waiters_are_resolved_once_when_all_has_left() -> None:
    pair = Pair()
    pair.link.block()
    pair.conn.send(TEXT, "x" * 100)
    waiters = [Waiter(), Waiter()]
    for waiter in waiters:
        pair.conn.add_drain_waiter(waiter)
    pair.clock.run()
    pair.link.most = 50
    pair.link.unblock()
    assert [waiter.results for waiter in waiters] == [[], []]
    pair.link.most = None
    pair.link.unblock()
    pair.conn.abort()
    pair.clock.run()
    assert [waiter.results for waiter in waiters] == [[None], [None]]


def test_waiters_fail_at_the_end() -> None:
    pair = Pair()
    pair.link.block()
    pair.conn.send(TEXT, "x")
    waiters = [Waiter(), Waiter()]
    waiters[1].results.append("cancelled")
    for waiter in waiters:
        pair.conn.add_drain_waiter(waiter)
    pair.clock.run()
    pair.link.reset()
    (error,) = waiters[0].results
    assert isinstance(error, ConnectionClosed)
    assert waiters[1].results == ["cancelled"]


# ------------------------------------------------------------------ deadlines


def test_a_message_must_come_to_its_end_in_time() -> None:
    pair = Pair(message_timeout=60)
    pair.link.feed(build_frame(TEXT, b"begun", fin=False))
    pair.clock.advance(40)
    pair.peer.send(PING)
    pair.peer.send(CONTINUATION, b"more", fin=False)
    pair.clock.advance(19.9)
    assert pair.conn.is_open
    pair.clock.advance(0.2)
    assert (pair.conn.cause, pair.conn.code) == ("message_timeout", 1008)


def test_each_message_has_its_own_time() -> None:
    """A peer that sends without a pause, every piece ending inside a message, is in order."""
    pair = Pair(message_timeout=60)
    frame = build_frame(TEXT, b"0123456789")
    pair.link.feed(frame[:5])
    for _ in range(10):
        pair.clock.advance(20)
        pair.link.feed(frame[5:] + frame[:5])
    assert pair.conn.is_open
    assert len(pair.sink.of("text")) == 10
    pair.clock.advance(61)
    assert pair.conn.cause == "message_timeout"


def test_a_queue_of_which_nothing_is_taken_ends_the_connection() -> None:
    pair = Pair(ping_timeout=60)
    pair.link.block()
    pair.conn.send(TEXT, "x" * 100)
    pair.clock.advance(50)
    pair.link.most = 10
    pair.link.unblock()  # a little: the time begins again
    pair.link.block()
    pair.clock.advance(50)
    assert pair.conn.is_open
    pair.clock.advance(11)
    assert (pair.conn.cause, pair.conn.phase) == ("write_timeout", "CLOSED")


def test_read_deadline_is_the_sinks_to_judge() -> None:
    pair = Pair()
    pair.conn.set_due("read", 5)
    pair.clock.advance(5.1)
    assert pair.sink.of("expired") == ["read"]
    assert pair.conn.is_open
