"""The receiving parser, through a connection: RFC 6455 section 5, judged in the order of protocol.md 3."""

from __future__ import annotations

import random
import struct
import sys
from typing import Any

import pytest
from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from heartwire.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    build_frame,
    close_payload,
)
from links import needs_deflate
from pair import Pair

MAX_MESSAGE = 1000
MAX_FRAGMENTS = 4
BAD_UTF8 = b"caf\xe9!"


class Outcome:
    """What a stream of client bytes led to."""

    def __init__(self, pieces: list[bytes], **settings: Any) -> None:
        limits = {"max_message_size": MAX_MESSAGE, "max_fragments": MAX_FRAGMENTS}
        pair = Pair(**{**limits, **settings})
        for piece in pieces:
            pair.link.feed(piece)
        self.sent = pair.sent()
        self.messages = [e for e in pair.sink.events if e[0] in ("text", "binary")]
        self.cause, self.code, self.phase = pair.conn.cause, pair.conn.code, pair.conn.phase
        assert pair.sink.of("failure") == []
        assert pair.peer.incomplete == b""

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    def __repr__(self) -> str:
        return repr(vars(self))


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[i : i + 1] for i in range(len(stream))]


def cut(stream: bytes, rng: random.Random, most: int = 40) -> list[bytes]:
    pieces, at = [], 0
    while at < len(stream):
        step = rng.randint(1, most)
        pieces.append(stream[at : at + step])
        at += step
    return pieces


def judged(stream: bytes, rng: random.Random | None = None, **settings: Any) -> Outcome:
    """The outcome of a stream, which is the same however it is cut."""
    whole = Outcome([stream], **settings)
    assert Outcome(bytewise(stream), **settings) == whole
    for seed in range(5):
        assert Outcome(cut(stream, random.Random(seed), 7), **settings) == whole
    return whole


FIRST = build_frame(TEXT, b"before")
AFTER = build_frame(TEXT, b"after")
BEGUN = build_frame(TEXT, b"beg", fin=False)

VIOLATIONS: dict[str, tuple[bytes, int]] = {
    **{f"rsv {rsv}": (build_frame(TEXT, b"x", rsv=rsv), 1002) for rsv in (1, 2, 4, 7)},
    **{f"opcode {op}": (build_frame(op, b"x"), 1002) for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    **{f"fragmented control {op}": (build_frame(op, b"", fin=False), 1002) for op in (CLOSE, PING, PONG)},
    **{f"long control {op}": (build_frame(op, b"x" * 126), 1002) for op in (CLOSE, PING, PONG)},
    "unmasked text": (build_frame(TEXT, b"x", key=None), 1002),
    "unmasked ping": (build_frame(PING, b"x", key=None), 1002),
    "continuation of nothing": (build_frame(CONTINUATION, b"x"), 1002),
    "continuation of nothing, unfinished": (build_frame(CONTINUATION, b"x", fin=False), 1002),
    "text inside a message": (BEGUN + build_frame(TEXT, b"x"), 1002),
    "binary inside a message": (BEGUN + build_frame(BINARY, b"x"), 1002),
    "125 in two bytes": (build_frame(TEXT, b"x" * 125, length_bytes=2), 1002),
    "125 in eight bytes": (build_frame(TEXT, b"x" * 125, length_bytes=8), 1002),
    "126 in eight bytes": (build_frame(TEXT, b"x" * 126, length_bytes=8), 1002),
    "65535 in eight bytes": (build_frame(TEXT, b"x", length=65535, length_bytes=8), 1002),
    "length with its highest bit": (build_frame(TEXT, b"x", length=1 << 63, length_bytes=8), 1002),
    "half a close code": (build_frame(CLOSE, b"\x03"), 1002),
    **{
        f"close code {code}": (build_frame(CLOSE, close_payload(code)), 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    "close reason": (build_frame(CLOSE, struct.pack(">H", 1000) + BAD_UTF8), 1007),
    "close reason cut": (build_frame(CLOSE, struct.pack(">H", 1000) + "é".encode()[:1]), 1007),
    "too big": (build_frame(TEXT, b"x" * (MAX_MESSAGE + 1)), 1009),
    "too big, announced only": (build_frame(BINARY, b"", length=1 << 40), 1009),
    "too big, the greatest length": (build_frame(BINARY, b"", length=(1 << 63) - 1), 1009),
    "too big in sum": (
        build_frame(TEXT, b"x" * MAX_MESSAGE, fin=False) + build_frame(CONTINUATION, b"x"),
        1009,
    ),
    "too big in sum, by overflow": (
        build_frame(TEXT, b"x", fin=False) + build_frame(CONTINUATION, b"", length=(1 << 63) - 1),
        1009,
    ),
    "too many fragments": (
        BEGUN
        + build_frame(CONTINUATION, b"x", fin=False) * (MAX_FRAGMENTS - 1)
        + build_frame(CONTINUATION, b"x"),
        1009,
    ),
    "too many empty fragments": (
        BEGUN + build_frame(CONTINUATION, b"", fin=False) * MAX_FRAGMENTS,
        1009,
    ),
    "text": (build_frame(TEXT, BAD_UTF8), 1007),
    "overlong": (build_frame(TEXT, b"\xc0\xaf"), 1007),
    "surrogate": (build_frame(TEXT, b"\xed\xa0\x80"), 1007),
    "beyond Unicode": (build_frame(TEXT, b"\xf4\x90\x80\x80"), 1007),
    "text that ends inside a character": (build_frame(TEXT, "é".encode()[:1]), 1007),
    "fragment": (build_frame(TEXT, BAD_UTF8, fin=False), 1007),
    "frame that is not complete": (build_frame(TEXT, BAD_UTF8, length=500), 1007),
    "last fragment ends inside a character": (BEGUN + build_frame(CONTINUATION, "é".encode()[:1]), 1007),
    "character broken by the next fragment": (
        build_frame(TEXT, "é".encode()[:1], fin=False) + build_frame(CONTINUATION, b"x"),
        1007,
    ),
}


@pytest.mark.parametrize(("stream", "code"), VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_ends_the_connection_at_once(stream: bytes, code: int) -> None:
    outcome = judged(FIRST + stream + AFTER)
    assert outcome.messages == [("text", "before")]  # and nothing of what came after (I5)
    assert [frame.close_code for frame in outcome.sent if frame.opcode == CLOSE] == [code]
    assert outcome.sent[-1].opcode == CLOSE
    assert outcome.code == code
    assert outcome.cause == {1002: "protocol_error", 1007: "invalid_utf8", 1009: "too_big"}[code]


ORDER = {
    "continuation after the last": (BEGUN + build_frame(CONTINUATION, b"x") * 2, 1002),
    "header before size": (build_frame(TEXT, b"", length=1 << 40, rsv=2), 1002),
    "header before UTF-8": (build_frame(TEXT, BAD_UTF8, rsv=2), 1002),
    "no mask before size": (build_frame(TEXT, b"", length=1 << 40, key=None), 1002),
    "size before UTF-8": (build_frame(TEXT, BAD_UTF8 + b"x" * MAX_MESSAGE), 1009),
    "count before UTF-8": (
        BEGUN
        + build_frame(CONTINUATION, b"x", fin=False) * (MAX_FRAGMENTS - 1)
        + build_frame(CONTINUATION, BAD_UTF8),
        1009,
    ),
    "UTF-8 of the first frame before the header of the second": (
        build_frame(TEXT, BAD_UTF8, fin=False) + build_frame(CONTINUATION, b"x", rsv=2),
        1007,
    ),
}


@pytest.mark.parametrize(("stream", "code"), ORDER.values(), ids=ORDER)
def test_order_of_judgement(stream: bytes, code: int) -> None:
    assert judged(stream).code == code


def test_a_header_is_judged_before_its_payload_comes() -> None:
    for stream, code in ((build_frame(TEXT, b"", length=MAX_MESSAGE + 1), 1009), (b"\x83\x80", 1002)):
        pair = Pair(max_message_size=MAX_MESSAGE)
        pair.link.feed(stream)
        assert pair.conn.code == code


def test_limits_are_inclusive() -> None:
    most = build_frame(TEXT, b"x" * MAX_MESSAGE)
    fragments = [build_frame(TEXT, b"x" * 250, fin=False)]
    fragments += [build_frame(CONTINUATION, b"x" * 250, fin=False)] * (MAX_FRAGMENTS - 2)
    fragments += [build_frame(CONTINUATION, b"x" * 250)]
    outcome = judged(most + b"".join(fragments) + most)
    assert outcome.messages == [("text", "x" * MAX_MESSAGE)] * 3
    assert outcome.phase == "OPEN"


RSV1 = {
    "control frame": (build_frame(PING, b"x", rsv=4), 1002),
    "continuation": (BEGUN + build_frame(CONTINUATION, b"x", rsv=4), 1002),
    "with RSV2": (build_frame(TEXT, b"x", rsv=6), 1002),
}


@needs_deflate
@pytest.mark.parametrize(("stream", "code"), RSV1.values(), ids=RSV1)
def test_rsv1_where_it_was_negotiated(stream: bytes, code: int) -> None:
    assert judged(stream, deflate=(15, 15, False, False)).code == code


CLOSES = {
    "empty": (b"", 1005, b""),
    "code": (close_payload(1000), 1000, close_payload(1000)),
    "reason": (close_payload(4999, "té"), 4999, close_payload(4999, "té")),
    "longest": (close_payload(3000, "x" * 123), 3000, close_payload(3000, "x" * 123)),
    **{
        str(code): (close_payload(code), code, close_payload(code))
        for code in (1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 4000)
    },
}


@pytest.mark.parametrize(("payload", "code", "answer"), CLOSES.values(), ids=CLOSES)
def test_close_is_answered_in_kind(payload: bytes, code: int, answer: bytes) -> None:
    outcome = judged(FIRST + build_frame(CLOSE, payload) + AFTER + b"\xff\xff")
    assert outcome.messages == [("text", "before")]
    assert outcome.sent == [Frame(CLOSE, answer)]
    assert (outcome.cause, outcome.code, outcome.phase) == ("client_closed", code, "CLOSED")


def test_control_frames_between_fragments() -> None:
    stream = (
        build_frame(TEXT, "é".encode()[:1], fin=False)
        + build_frame(PING, b"1" * 125)
        + build_frame(CONTINUATION, b"", fin=False)
        + build_frame(PONG, b"")
        + build_frame(PING, b"")
        + build_frame(CONTINUATION, "é".encode()[1:])
        + build_frame(BINARY, b"")
    )
    outcome = judged(stream)
    assert outcome.messages == [("text", "é"), ("binary", b"")]
    assert outcome.sent == [Frame(PONG, b"1" * 125), Frame(PONG, b"")]


def random_stream(rng: random.Random) -> bytes:
    """Valid frames of every kind."""
    frames: list[bytes] = []

    def control() -> None:
        while rng.random() < 0.3:
            payload = rng.randbytes(rng.choice((0, 1, 4, 124, 125)))
            frames.append(build_frame(rng.choice((PING, PONG)), payload, key=rng.randbytes(4)))

    alphabet = ("a", "é", "€", "😀", "\0", "\x7f")
    for _ in range(rng.randint(1, 8)):
        size = rng.choice((0, 1, 7, 125, 126, 127, 400, 1000, 65535, 65536, 70000))
        opcode = rng.choice((TEXT, BINARY))
        text = "".join(rng.choices(alphabet, (8, 1, 1, 1, 1, 1), k=min(size, 3000)))
        payload = text.encode() if opcode == TEXT else rng.randbytes(size)
        cuts = sorted(rng.randint(0, len(payload)) for _ in range(rng.choice((0, 0, 1, 3))))
        bounds = [0, *cuts, len(payload)]
        for i in range(len(bounds) - 1):
            control()
            piece = payload[bounds[i] : bounds[i + 1]]
            fin = i == len(bounds) - 2
            code = opcode if i == 0 else CONTINUATION
            frames.append(build_frame(code, piece, fin=fin, key=rng.randbytes(4)))
    control()
    return b"".join(frames)


def oracle(stream: bytes) -> tuple[list[tuple[str, Any]], list[Frame]]:
    """What websockets' Sans-I/O server reads from a stream, and what it answers."""
    protocol = ServerProtocol(state=OPEN, max_size=None)
    protocol.receive_data(stream)
    messages: list[tuple[str, Any]] = []
    kind, parts = "", b""
    for frame in protocol.events_received():
        assert not isinstance(frame, Exception)
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            continue
        if frame.opcode is not Opcode.CONT:
            kind, parts = ("text" if frame.opcode is Opcode.TEXT else "binary"), b""
        parts += frame.data
        if frame.fin:
            messages.append((kind, parts.decode() if kind == "text" else bytes(parts)))
    answers = b"".join(protocol.data_to_send())
    pongs = []
    while answers:
        size = answers[1]
        pongs.append(Frame(answers[0] & 15, answers[2 : 2 + size]))
        answers = answers[2 + size :]
    return messages, pongs


def test_valid_streams_read_as_websockets_reads_them(rng: random.Random) -> None:
    roomy = {"max_message_size": 1 << 20, "max_fragments": 100}
    for _ in range(60):
        stream = random_stream(rng)
        messages, pongs = oracle(stream)
        for pieces in ([stream], cut(stream, rng, 9000), cut(stream, rng, 1 + len(stream) // 20)):
            outcome = Outcome(pieces, **roomy)
            assert outcome.messages == messages
            assert outcome.sent == pongs
            assert outcome.phase == "OPEN"


def test_any_cut_of_a_broken_stream_gives_the_same_events(rng: random.Random) -> None:
    """One byte of a valid stream is changed: whatever follows, it does not depend on the cuts."""
    for _ in range(60):
        stream = bytearray(random_stream(rng)[:3000])
        stream[rng.randrange(len(stream))] ^= 1 << rng.randrange(8)
        whole = Outcome([bytes(stream)])
        assert Outcome(bytewise(bytes(stream))) == whole
        assert Outcome(cut(bytes(stream), rng)) == whole


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_announced_bytes_that_never_come_cost_nothing() -> None:
    pair = Pair(max_message_size=1 << 30)
    before = memory_kib()
    pair.link.feed(build_frame(BINARY, b"x" * 10, length=1 << 30))
    assert pair.conn.phase == "OPEN"
    assert memory_kib() - before < 100_000


def memory_kib() -> int:
    """Address space in use."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * 4
