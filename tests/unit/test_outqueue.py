"""What waits to be sent: run together, sent in part, cut off behind the frame under way, shared."""

from __future__ import annotations

import contextlib
import random

import pytest

from heartwire import ConnectionClosed
from heartwire._core.fanout import Frame as SharedFrame
from heartwire._core.fanout import fan_out
from heartwire._core.session import Session
from heartwire.testing import CLOSE, PING, PONG, TEXT, FakeLink, FramePeer, RecordingSink, build_frame
from pair import Pair, texts


def test_what_one_batch_produces_leaves_in_one_write() -> None:
    pair = Pair()
    pair.sink.on_message = lambda conn, text: [conn.send(TEXT, f"{text}-{i}") for i in range(3)] and None
    stream = b"".join(build_frame(TEXT, b"%d" % i) + build_frame(PING, b"p") for i in range(50))
    pair.link.feed(stream)
    frames = pair.sent()
    assert len(frames) == 200
    assert texts(frames) == [f"{i}-{j}" for i in range(50) for j in range(3)]
    assert len(pair.link.writes) == 1


def test_sends_of_one_turn_run_together() -> None:
    pair = Pair()
    for i in range(20):
        pair.conn.send(TEXT, str(i))
    assert pair.link.writes == []
    assert texts(pair.sent()) == [str(i) for i in range(20)]
    assert len(pair.link.writes) == 1


def test_more_than_the_cork_holds() -> None:
    pair = Pair(send_buffer_limit=0)
    big = "x" * 30_000
    pair.sink.on_message = lambda conn, text: [conn.send(TEXT, big + str(i)) for i in range(9)] and None
    pair.peer.send_text("go")
    assert texts(pair.sent()) == [big + str(i) for i in range(9)]


@pytest.mark.parametrize("length", [0, 1, 125, 126, 127, 65535, 65536, 70000])
def test_lengths(length: int) -> None:
    pair = Pair()
    pair.conn.send(TEXT, "x" * length)
    assert texts(pair.sent()) == ["x" * length]


def test_a_link_that_takes_little_by_little_gets_every_byte_in_order(rng: random.Random) -> None:
    for _ in range(30):
        pair = Pair(send_buffer_limit=0)
        expected = []
        sessions = {Session(pair.conn): None}
        for i in range(rng.randint(1, 60)):
            text = f"{i}:" + "x" * rng.choice((0, 3, 120, 500, 4000, 9000))
            expected.append(text)
            if rng.random() < 0.3:
                fan_out(SharedFrame(text.encode()), sessions)
            else:
                pair.conn.send(TEXT, text)
            pair.link.most = rng.choice((1, 2, 7, 100, 5000))
            if rng.random() < 0.5:
                pair.clock.run()
        pair.clock.run()
        for _ in range(1000):
            if not pair.link.wants_write:
                break
            pair.link.most = rng.choice((100, 3000, 20_000))
            pair.conn.writable()
        assert texts(pair.sent()) == expected
        assert pair.conn.queued_bytes == 0


def test_a_corked_queue_that_is_sent_in_part_keeps_the_rest() -> None:
    """The cork is lent to the next connection: what is left must have moved out of it."""
    pair = Pair()
    other = pair.beside()
    for p in (pair, other):
        p.link.most = 5
    pair.sink.on_message = lambda conn, text: conn.send(TEXT, text * 10)
    pair.peer.send_text("first")
    other.peer.send_text("other")
    for p in (pair, other):
        p.link.most = None
        p.conn.writable()
    assert texts(pair.sent()) == ["first" * 10]
    assert texts(other.sent()) == ["other" * 10]


def test_slow_consumer_drops_all_but_the_frame_under_way(rng: random.Random) -> None:
    """However the bytes were cut, the peer sees whole frames and then CLOSE 4503."""
    for _ in range(150):
        pair = Pair(send_buffer_limit=2000)
        sessions = {Session(pair.conn): None}
        shared = rng.random()
        pair.link.most = rng.choice((1, 3, 50, 700, 1999))
        expected = []
        left: list[ConnectionClosed] = []
        for i in range(1000):
            text = f"{i}:" + "x" * rng.choice((0, 3, 120, 130, 600))
            if rng.random() < shared:
                fan_out(SharedFrame(text.encode()), sessions)
            else:
                try:
                    pair.conn.send(TEXT, text)
                except ConnectionClosed as error:
                    left.append(error)
            if not pair.conn.is_open:
                break
            expected.append(text)
            if rng.random() < 0.5:
                pair.clock.run()
            if i == 20:
                pair.link.block()
        assert pair.conn.cause == "slow_consumer"
        assert all((error.code, error.cause) == (4503, "slow_consumer") for error in left)
        got_before = len(pair.link.written)
        pair.link.most = None
        pair.link.unblock()
        frames = pair.sent()
        assert frames[-1].opcode == CLOSE
        assert frames[-1].close_code == 4503
        assert pair.peer.incomplete == b""
        assert texts(frames) == expected[: len(frames) - 1]
        kept = len(pair.link.written) - got_before - 4  # of the frame under way
        assert kept < 640
        assert pair.conn.queued_bytes == 0


@pytest.mark.parametrize("taken", [1, 20, 37, 38, 39, 45, 60, 101, 102])
def test_slow_consumer_whose_answer_to_the_handshake_is_under_way(taken: int) -> None:
    """The 101 and the first frames stand in one node; where it ends, no frame header can be read."""
    pair = Pair()
    link = FakeLink(pair.engine, RecordingSink(accept=False, ping_interval=0, send_buffer_limit=105))
    link.block()
    link.feed(b"GET / HTTP/1.1\r\n\r\n")
    answer = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
    assert link.connection.accept(answer, "owner")
    for text in ("first", "x" * 56, "third"):
        link.connection.send(TEXT, text)
    link.most, link.blocked = taken, False
    pair.clock.run()
    assert len(link.written) == taken
    link.most = None
    link.block()
    for _ in range(30):
        with contextlib.suppress(ConnectionClosed):
            link.connection.send(TEXT, "more")
    link.unblock()
    assert bytes(link.written[: len(answer)]) == answer
    peer = FramePeer(link)
    del link.written[: len(answer)]
    frames = peer.frames()
    assert frames[-1].close_code == 4503
    assert texts(frames) == ["first", "x" * 56, "third"][: len(frames) - 1]
    assert len(frames) - 1 == sum(taken > end for end in (36, 43, 101))
    assert peer.incomplete == b""


def test_a_shared_frame_outlives_its_object() -> None:
    pair = Pair()
    pairs = [pair, *(pair.beside() for _ in range(20))]
    for i, p in enumerate(pairs):
        p.link.most = i + 1
    frame = SharedFrame(b"shared by all" * 20)
    assert fan_out(frame, {Session(p.conn): None for p in pairs}) == 21
    del frame
    pair.clock.run()
    pairs[3].link.reset()
    for p in pairs[:3] + pairs[4:]:
        p.link.most = None
        p.conn.writable()
        assert texts(p.sent()) == ["shared by all" * 20]


def test_control_frames_count_for_the_limit_too() -> None:
    """A peer that sends pings and reads no pongs ends as a slow consumer, not in unbounded memory."""
    pair = Pair(send_buffer_limit=5000)
    pair.link.block()
    for _ in range(100):
        pair.peer.send(PING, b"x" * 125)
    assert pair.conn.cause == "slow_consumer"
    pair.link.unblock()
    assert [frame.opcode for frame in pair.sent()] in ([CLOSE], [PONG, CLOSE])


def test_a_message_on_an_empty_queue_is_always_taken() -> None:
    pair = Pair(send_buffer_limit=10)
    pair.conn.send(TEXT, "x" * 1000)
    assert texts(pair.sent()) == ["x" * 1000]
    pair.link.block()
    pair.conn.send(TEXT, "y" * 1000)
    with pytest.raises(ConnectionClosed):
        pair.conn.send(TEXT, "z")
