"""Frames that break RFC 6455, and floods of those that do not."""

from __future__ import annotations

import socket
import struct
import threading

import pytest

from hostile.peer import BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, close, frame, text
from hostile.watched import Attack, ServerProcess
from links import SLOWER

MIB = 1 << 20
FRAGMENTS_MOST = 16384  # `max_fragments`

VIOLATIONS = {
    "not masked": (frame(TEXT, b"[1]", masked=False), 1002),
    "ping not masked": (frame(PING, masked=False), 1002),
    "RSV1": (frame(TEXT, b"[1]", rsv=4), 1002),
    "RSV2": (frame(TEXT, b"[1]", rsv=2), 1002),
    "RSV3": (frame(TEXT, b"[1]", rsv=1), 1002),
    "RSV1 on a ping": (frame(PING, rsv=4), 1002),
    **{f"opcode {opcode}": (frame(opcode), 1002) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "continuation of nothing": (frame(CONT, b"[1]"), 1002),
    "continuation after the end": (text("1") + frame(CONT, b"2"), 1002),
    "message inside a message": (frame(TEXT, b"[", fin=False) + text("1]"), 1002),
    "fragmented ping": (frame(PING, fin=False), 1002),
    "ping of 126 bytes": (frame(PING, bytes(126)), 1002),
    "close of 126 bytes": (frame(CLOSE, struct.pack(">H", 1000) + bytes(124)), 1002),
    "2 bytes for a length of 125": (frame(TEXT, bytes(125), length_bytes=2), 1002),
    "8 bytes for a length of 0": (frame(TEXT, length_bytes=8), 1002),
    "8 bytes for a length of 65535": (frame(TEXT, bytes(65535), length_bytes=8), 1002),
    "a length of 2^63": (frame(TEXT, length=1 << 63), 1002),
    "a length of 2^64 - 1": (frame(TEXT, length=(1 << 64) - 1), 1002),
    "a length of 2^63 - 1": (frame(TEXT, length=(1 << 63) - 1), 1009),
    "a length of 2^62": (frame(TEXT, length=1 << 62), 1009),
    "a continuation of 2^63 - 1": (frame(TEXT, b"[", fin=False) + frame(CONT, length=(1 << 63) - 1), 1009),
    "one byte too many announced": (frame(TEXT, length=MIB + 1), 1009),
    "one byte too many in fragments": (frame(TEXT, b" " * MIB, fin=False) + frame(CONT, b"1"), 1009),
    "too big, and not UTF-8": (frame(TEXT, b"\xff", length=MIB + 1), 1009),
    "not masked, and too big": (frame(TEXT, length=MIB + 1, masked=False), 1002),
    "empty fragments": (frame(TEXT, fin=False) + frame(CONT, fin=False) * FRAGMENTS_MOST, 1009),
    "one-byte fragments": (frame(TEXT, fin=False) + frame(CONT, b" ", fin=False) * FRAGMENTS_MOST, 1009),
    "binary": (frame(BINARY, b"[1]"), 1003),
    "binary in fragments": (frame(BINARY, b"[", fin=False) + frame(CONT, b"1]"), 1003),
    "not UTF-8": (text(b'"\xff"'), 1007),
    "not UTF-8, frame not complete": (frame(TEXT, b'"\xff', length=1000), 1007),
    "overlong": (text(b'"\xc0\xaf"'), 1007),
    "surrogate": (text(b'"\xed\xa0\x80"'), 1007),
    "beyond U+10FFFF": (text(b'"\xf4\x90\x80\x80"'), 1007),
    "ends inside a character": (text(b'"\xe2\x82'), 1007),
    "not UTF-8 over two fragments": (frame(TEXT, b'"\xe2', fin=False) + frame(CONT, b'x"'), 1007),
    "close with half a code": (frame(CLOSE, b"\x03"), 1002),
    **{f"close code {code}": (close(code), 1002) for code in (0, 999, 1004, 1005, 1006, 1015, 2999, 5000)},
    "close reason not UTF-8": (close(1000, b"\xff"), 1007),
}  # fmt: skip


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation(server: ServerProcess, name: str) -> None:
    """Messages before it are served, nothing after it; then its close code."""
    data, code = VIOLATIONS[name]
    with server.open() as peer:
        peer.send_what_goes(text('["before"]') + data + text('["after"]'))
        assert peer.message() == ["before"]
        if name == "continuation after the end":
            assert peer.message() == 1
        assert peer.close_code() == code


@pytest.mark.parametrize(
    "name", ["not masked", "a length of 2^62", "not UTF-8, frame not complete", "close code 1006"]
)
def test_violation_in_single_bytes(server: ServerProcess, name: str) -> None:
    """The same with each byte a segment of its own: judged as soon as it can be."""
    data, code = VIOLATIONS[name]
    with server.open() as peer:
        for byte in text("[1]") + data:
            peer.send_what_goes(bytes((byte,)))
        assert peer.message() == [1]
        assert peer.close_code() == code


@pytest.mark.parametrize("size", [0, 1, 125])
def test_ping_in_single_bytes(server: ServerProcess, size: int) -> None:
    """A ping, each byte a segment of its own, once more after its header alone."""
    ping = frame(PING, b"p" * size)
    with server.open() as peer:
        for byte in ping:
            peer.send(bytes((byte,)))
        assert peer.frame() == (PONG, b"p" * size)
        peer.send(ping[:6])
        peer.send(ping[6:])
        assert peer.frame() == (PONG, b"p" * size)


# ---------------------------------------------------------------- floods


def flooded(peer: Peer, data: bytes) -> threading.Thread:
    """Sends without waiting for answers."""
    thread = threading.Thread(target=peer.send_what_goes, args=(data,))
    thread.start()
    return thread


FLOODS = {
    "pings": (frame(PING, b"x" * 125) * 20_000, 20_000),
    "empty pings": (frame(PING) * 50_000, 50_000),
    "pongs": (frame(PONG, b"x" * 125) * 50_000, 0),
    "messages of a byte": (text("1") * 50_000, 50_000),
    "pings inside a message": (frame(TEXT, fin=False) + frame(PING) * 50_000 + frame(CONT, b"1"), 50_001),
    "empty fragments, as many as may be": (
        (frame(TEXT, b"1", fin=False) + frame(CONT, fin=False) * (FRAGMENTS_MOST - 2) + frame(CONT)) * 5, 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FLOODS)
def test_flood(server: ServerProcess, name: str) -> None:
    """Within the rules: every frame is answered, and then the next message too."""
    data, answers = FLOODS[name]
    with server.open() as peer:
        thread = flooded(peer, data + text('"last"'))
        for _ in range(answers):
            got = peer.frame()
            assert got is not None
            assert got[0] in (PONG, TEXT)
        assert peer.message() == "last"
        thread.join()


DEAF = {
    "echoes of 1 MiB": text(b'"' + b"x" * (MIB - 2) + b'"') * 40,
    "echoes of a byte": text("1") * (6 << 20),
    "pongs": frame(PING, b"x" * 125) * 200_000,
}


@pytest.mark.parametrize("name", DEAF)
def test_never_reading(server: ServerProcess, name: str) -> None:
    """A peer that asks and never reads is let go, and costs no more than the send buffer's limit."""
    before = server.memory
    peers = [server.open() for _ in range(3)]
    for peer in peers:
        thread = flooded(peer, DEAF[name])
        thread.join()  # all of it was taken, or the server has hung up
    server.assert_grown_less(before, 24 * MIB)
    for peer in peers:
        with peer:
            assert peer.socket.recv(1) != b""
            peer.read_to_end()


def test_never_ponging(attack: Attack) -> None:
    """A peer that reads and keeps silent: 4408."""
    with attack(ping_interval=0.1, ping_timeout=0.3 * SLOWER) as server, server.open() as peer:
        got = peer.frame()
        assert got is not None
        assert got[0] == PING
        assert peer.close_code() == 4408


def test_wrong_pongs(attack: Attack) -> None:
    """Pongs for no ping are life all the same: any byte is."""
    with attack(ping_interval=0.1, ping_timeout=0.3 * SLOWER) as server, server.open() as peer:
        for _ in range(10):
            got = peer.frame()
            assert got is not None
            assert got[0] == PING
            peer.send(frame(PONG, b"not that one"))


# ---------------------------------------------------------------- announced, never sent


ANNOUNCED = {
    "half a header": frame(TEXT, length=MIB)[:5],
    "a header": frame(TEXT, length=MIB),
    "some payload": frame(TEXT, b"[", length=MIB),
    "a fragment": frame(TEXT, b"[", fin=False),
}


@pytest.mark.parametrize("name", ANNOUNCED)
def test_message_that_stops(server: ServerProcess, name: str) -> None:
    """A message that is not complete in time: 1008."""
    with server.open() as peer:
        peer.send(ANNOUNCED[name])
        assert peer.close_code() == 1008


def test_message_that_stops_before_a_ping(attack: Attack) -> None:
    """A ping that leaves meanwhile, whose own deadline is far off, does not lengthen the time."""
    with attack(ping_interval=0.1, ping_timeout=60) as server, server.open() as peer:
        peer.send(frame(TEXT, b"[", fin=False))
        got = peer.frame()
        assert got is not None
        assert got[0] == PING
        assert peer.close_code() == 1008


def test_message_that_drips(server: ServerProcess) -> None:
    """A byte, or a ping, now and then does not lengthen the time."""
    with server.open() as peer:
        peer.send(frame(TEXT, b"[", fin=False))
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.05):
                peer.send_what_goes(frame(CONT, b" ", fin=False) + frame(PING))

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            while (got := peer.frame()) == (PONG, b""):
                pass
            assert got is not None
            assert (got[0], got[1][:2]) == (CLOSE, struct.pack(">H", 1008))
        finally:
            ended.set()
            thread.join()


def test_announced_bytes_cost_nothing(server: ServerProcess) -> None:
    """Two hundred messages of 1 MiB that never come take no memory."""
    before = server.memory
    peers = [server.open() for _ in range(200)]
    for peer in peers:
        peer.send(frame(TEXT, b"[", length=MIB))
    with server.open() as peer:
        peer.send(text("1"))
        assert peer.message() == 1
    server.assert_grown_less(before, 8 * MIB)
    for peer in peers:
        peer.reset()


# ---------------------------------------------------------------- the end


def test_data_behind_close(server: ServerProcess) -> None:
    """After CLOSE nothing counts: no message, no ping; one CLOSE comes back."""
    with server.open() as peer:
        behind = text("[2]") + frame(PING) + close(4001) + b"\xff" * 1000
        peer.send(text("[1]") + close(4000, b"bye") + behind)
        assert peer.message() == [1]
        assert peer.frame() == (CLOSE, struct.pack(">H", 4000) + b"bye")
        assert peer.read_to_end() == b""


def test_close_without_code(server: ServerProcess) -> None:
    """An empty CLOSE is answered by an empty one."""
    with server.open() as peer:
        peer.send(frame(CLOSE))
        assert peer.frame() == (CLOSE, b"")
        assert peer.read_to_end() == b""


def test_close_never_answered(server: ServerProcess) -> None:
    """A peer that does not answer our CLOSE is cut off."""
    with server.open() as peer:
        peer.send(frame(BINARY))
        assert peer.frame() == (CLOSE, struct.pack(">H", 1003) + b"binary messages are not accepted")
        assert peer.read_to_end() == b""


def test_flood_behind_a_violation(server: ServerProcess) -> None:
    """A peer that goes on sending after our CLOSE is cut off, and not at leisure."""
    with server.open() as peer:
        peer.send(frame(TEXT, rsv=2))
        with pytest.raises(ConnectionError):
            peer.send(bytes(64 * MIB))


def test_half_closed(server: ServerProcess) -> None:
    """A peer that shuts its sending side: what it asked for is answered, then the connection ends."""
    with server.open() as peer:
        peer.send(text("[1]") + text("[2]"))
        peer.socket.shutdown(socket.SHUT_WR)
        assert [peer.message(), peer.message()] == [[1], [2]]
        assert peer.read_to_end() == b""


def test_half_closed_inside_a_frame(server: ServerProcess) -> None:
    """The same in the middle of a message: it is not served."""
    with server.open() as peer:
        peer.send(text("[1]") + text("[2]")[:-1])
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.message() == [1]
        assert peer.read_to_end() == b""


def test_many_that_vanish(server: ServerProcess) -> None:
    """Reset at every point of a conversation, answers under way: nothing is left behind."""
    fragments = frame(TEXT, b"[", fin=False) + frame(CONT, b"2]")
    talk = text("[1]") + frame(PING, b"x" * 125) + fragments + close(1000)
    for n in range(0, len(talk) + 1, 3):
        peer = server.open()
        peer.send(talk[:n])
        peer.reset()
