"""One frame to many: order, who is passed over, and members that end while it goes out."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from heartwire._core.connection import Connection
from heartwire._core.fanout import Frame, fan_out
from heartwire._core.session import Session
from heartwire.testing import BINARY, CLOSE, RecordingSink
from pair import Pair, texts


def group(
    count: int, sink: RecordingSink | None = None, **settings: Any
) -> tuple[list[Pair], dict[Session, None]]:
    pairs = [Pair(sink=sink, **settings)]
    pairs += [pairs[0].beside() for _ in range(count - 1)]
    return pairs, {Session(pair.conn): None for pair in pairs}


def test_everybody_gets_it_once_and_in_order() -> None:
    pairs, members = group(20)
    assert fan_out(Frame(b"one"), members) == 20
    pairs[3].conn.send(1, "between")
    assert fan_out(Frame(b"two"), members) == 20
    for i, pair in enumerate(pairs):
        assert texts(pair.sent()) == (["one", "between", "two"] if i == 3 else ["one", "two"])
        assert len(pair.link.writes) <= 3


def test_who_is_passed_over() -> None:
    pairs, members = group(5)
    sessions = list(members)
    pairs[1].conn.special = 1  # not authenticated yet
    pairs[2].conn.special = 2  # read by hand: it hears broadcasts
    pairs[3].conn.close()
    pairs[4].link.reset()
    assert fan_out(Frame(b"x"), members, sessions[0]) == 1
    assert [texts(pair.sent()) for pair in pairs] == [[], [], ["x"], [], []]
    assert fan_out(Frame(b"y"), members) == 2


def test_binary_and_long_frames() -> None:
    (pair,), members = group(1)
    fan_out(Frame(b"\xff" * 70_000, True), members)
    (frame,) = pair.sent()
    assert (frame.opcode, frame.payload) == (BINARY, b"\xff" * 70_000)


def test_slow_members_end_and_the_others_get_it() -> None:
    """Their ends change the very mapping that is walked."""

    class Leaves(RecordingSink):
        def on_left(self, conn: Connection) -> None:
            super().on_left(conn)
            for session in [s for s in members if s.connection is conn]:
                del members[session]
            fan_out(Frame(b"left"), members)

    sink = Leaves(ping_interval=0, send_buffer_limit=100)
    pairs, members = group(9, sink)
    for i in (0, 4, 8):
        pairs[i].link.block()
        pairs[i].conn.send(1, "x" * 200)
    pairs[0].clock.run()
    assert fan_out(Frame(b"news"), members) == 6
    assert [p.conn.cause for p in pairs] == [
        "slow_consumer" if i in (0, 4, 8) else None for i in range(9)
    ]
    assert len(members) == 6
    for i, pair in enumerate(pairs):
        pair.link.unblock()
        if i in (0, 4, 8):
            assert [frame.opcode for frame in pair.sent()] == [CLOSE]
        else:
            assert texts(pair.sent()) == ["news", "left", "left", "left"]
    assert sink.of("failure") == []


def test_inside_a_handler() -> None:
    pairs, members = group(3)
    pairs[0].sink.on_message = lambda conn, text: fan_out(Frame(text.encode()), members) and None
    pairs[1].peer.send_text("a")
    pairs[2].peer.send_text("b")
    assert [texts(pair.sent()) for pair in pairs] == [["a", "b"]] * 3


@pytest.mark.parametrize("payload", ["text", bytearray(b"x"), None])
def test_a_frame_is_made_of_bytes(payload: Any) -> None:
    with pytest.raises(TypeError):
        Frame(payload)


@pytest.mark.parametrize("as_what", [bytes, bytearray, memoryview, Raw])
def test_data_is_the_last_member_of_the_object(as_what: Any) -> None:
    pairs, members = group(2)
    for size in (0, 1, 125 - 18, 126 - 18, 70_000):  # every form of a frame's length
        text = b'"' + b"x" * size + b'"'
        frame = Frame(b'{"event":"m"}', data=as_what(text))
        assert fan_out(frame, members) == 2
        for pair in pairs:
            assert texts(pair.sent()) == ['{"event":"m","data":' + text.decode() + "}"]


@pytest.mark.parametrize("payload", [b"", b"}", b"{}", b"[1]"])
def test_data_needs_an_object_to_be_in(payload: bytes) -> None:
    with pytest.raises(ValueError, match="only an object"):
        Frame(payload, data=b"1")


def test_data_is_bytes_like() -> None:
    with pytest.raises(TypeError):
        Frame(b'{"a":1}', data="text")
