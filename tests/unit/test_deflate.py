"""permessage-deflate (RFC 7692) through a connection, against Python's zlib as the peer."""

from __future__ import annotations

import random
import tracemalloc
import zlib
from typing import Any

import pytest

from heartwire._core.fanout import Frame as SharedFrame
from heartwire._core.fanout import fan_out
from heartwire._core.session import Session
from heartwire.errors import ConnectionClosed
from heartwire.testing import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, RecordingSink, build_frame
from links import needs_deflate
from pair import Pair

pytestmark = needs_deflate

RSV1 = 4
SHARED = (15, 15, False, False)  # windows of the server and of the client, their context takeover
DEDICATED = (12, 12, True, True)
TERMS = {
    "shared": SHARED,
    "dedicated": DEDICATED,
    "smallest windows": (9, 9, True, True),
    "mixed": (9, 15, False, True),
}
MAX_MESSAGE = 10_000


class ZlibPeer:
    """The client's end of the extension."""

    def __init__(self, terms: tuple[int, int, bool, bool]) -> None:
        self.in_bits, self.out_bits, self.in_takeover, self.out_takeover = terms
        self.inflater = zlib.decompressobj(wbits=-self.in_bits)
        self.deflater = zlib.compressobj(wbits=-self.out_bits)

    def pack(self, data: bytes) -> bytes:
        if not self.out_takeover:
            self.deflater = zlib.compressobj(wbits=-self.out_bits)
        packed = self.deflater.compress(data) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        assert packed.endswith(b"\0\0\xff\xff")
        return packed[:-4]

    def unpack(self, data: bytes) -> bytes:
        if not self.in_takeover:
            self.inflater = zlib.decompressobj(wbits=-self.in_bits)
        return self.inflater.decompress(data + b"\0\0\xff\xff")


def make(terms: tuple[int, int, bool, bool] = SHARED, **settings: Any) -> Pair:
    return Pair(**{"deflate": terms, "compression_threshold": 1, "max_message_size": MAX_MESSAGE, **settings})


def messages(pair: Pair) -> list[Any]:
    assert pair.sink.of("failure") == []
    return [event for event in pair.sink.events if event[0] in ("text", "binary")]


def words(rng: random.Random, most: int) -> str:
    return "".join(rng.choices('abcdé{}":, 0123', k=rng.randrange(most + 1)))


@pytest.mark.parametrize("terms", TERMS.values(), ids=TERMS)
def test_messages_of_both_directions(terms: tuple[int, int, bool, bool], rng: random.Random) -> None:
    """Compressed, plain and fragmented messages in any order, cut anywhere, pings between fragments."""
    pair, peer = make(terms), ZlibPeer(terms)
    expected = []
    for _ in range(200):
        value = words(rng, 5000)
        data = value.encode()
        packed, rsv = (peer.pack(data), RSV1) if rng.random() < 0.8 else (data, 0)
        if rng.random() < 0.5:
            stream = build_frame(TEXT, packed, rsv=rsv)
        else:
            at = rng.randrange(len(packed) + 1)
            between = build_frame(PING, b"p") * rng.randrange(3)
            stream = build_frame(TEXT, packed[:at], rsv=rsv, fin=False) + between
            stream += build_frame(CONTINUATION, packed[at:])
        expected.append(("text", value))
        cut = rng.randrange(len(stream) + 1)
        pair.link.feed(stream[:cut])
        pair.link.feed(stream[cut:])
    assert messages(pair) == expected
    pair.sent()
    for _, value in expected:
        pair.conn.send(TEXT, value)
    sent = pair.sent()
    read = [peer.unpack(f.payload) if f.rsv else f.payload for f in sent]
    assert [data.decode() for data in read] == [value for _, value in expected]
    assert any(frame.rsv == RSV1 for frame in sent)


RFC_EXAMPLES = {  # RFC 7692 section 7.2.3: "Hello"
    "one block": ["f248cdc9c90700"],
    "stored": ["000500faff48656c6c6f00"],
    "final block": ["f348cdc9c9070000"],
    "final and empty, ended by the tail": ["f248cdc9c90704"],  # 7.2.1 says how such a thing comes about
    "two blocks": ["f24805000000ffffcac9c90700"],
    "twice, with context": ["f248cdc9c90700", "f200110000"],
}


@pytest.mark.parametrize("hexes", RFC_EXAMPLES.values(), ids=RFC_EXAMPLES)
def test_examples_of_the_rfc(hexes: list[str]) -> None:
    pair = make(DEDICATED)
    for each in hexes:
        pair.link.feed(build_frame(TEXT, bytes.fromhex(each), rsv=RSV1))
    assert messages(pair) == [("text", "Hello")] * len(hexes)


def test_context_survives_a_final_block() -> None:
    pair = make(DEDICATED)
    for each in ("f348cdc9c9070000", "f200110000"):
        pair.link.feed(build_frame(TEXT, bytes.fromhex(each), rsv=RSV1))
    assert messages(pair) == [("text", "Hello")] * 2


def refused(pair: Pair, frame: bytes) -> int:
    """The close code with which a frame ends the connection; nothing of it is delivered."""
    pair.link.feed(frame)
    assert messages(pair) == []
    (sent,) = pair.sent()
    assert sent.opcode == CLOSE
    return sent.close_code


GARBAGE = {
    "noise": b"\xff" * 50,
    "reserved block type": b"\x06",
    "cut in a block": bytes.fromhex("f248cdc9c9"),
    "cut in a stored block": bytes.fromhex("000500faff4865"),
    "stored length wrong": bytes.fromhex("000500fbff48656c6c6f00"),
    "refers to nothing": bytes.fromhex("f200110000"),
    "two final blocks": bytes.fromhex("f348cdc9c907f348cdc9c9070000"),
    "five hundred final blocks": b"\x03\x00" * 500,
}


@pytest.mark.parametrize("terms", [SHARED, DEDICATED], ids=["shared", "dedicated"])
@pytest.mark.parametrize("data", GARBAGE.values(), ids=GARBAGE)
def test_broken_data(data: bytes, terms: tuple[int, int, bool, bool]) -> None:
    assert refused(make(terms), build_frame(TEXT, data, rsv=RSV1)) == 1002


def test_broken_data_leaves_the_others_alone() -> None:
    """The stream that broke serves every connection of the engine."""
    pair = make()
    beside = pair.beside()
    assert refused(pair, build_frame(TEXT, b"\xff" * 50, rsv=RSV1)) == 1002
    beside.link.feed(build_frame(TEXT, ZlibPeer(SHARED).pack(b"fine"), rsv=RSV1))
    assert messages(beside) == [("text", "fine")]


def test_context_is_nobody_elses() -> None:
    """Without takeover a message cannot refer to what another connection sent."""
    pair = make()
    beside = pair.beside()
    pair.link.feed(build_frame(TEXT, bytes.fromhex("f248cdc9c90700"), rsv=RSV1))
    beside.link.feed(build_frame(TEXT, bytes.fromhex("f200110000"), rsv=RSV1))
    assert messages(beside) == [("text", "Hello")]  # of the first alone: they share a sink
    assert beside.sent()[0].close_code == 1002


def test_window_that_was_not_negotiated() -> None:
    """A reference to an earlier message further back than 512 bytes, where 9 bits were agreed on."""
    rng, peer, pair = random.Random(1), ZlibPeer((9, 15, True, True)), make((9, 9, True, True))
    block = rng.randbytes(600)
    pair.link.feed(build_frame(BINARY, peer.pack(block), rsv=RSV1))
    pair.link.feed(build_frame(BINARY, peer.pack(rng.randbytes(600)), rsv=RSV1))
    assert len(messages(pair)) == 2
    pair.sink.events.clear()
    assert refused(pair, build_frame(BINARY, peer.pack(block), rsv=RSV1)) == 1002


@pytest.mark.parametrize("terms", [SHARED, DEDICATED], ids=["shared", "dedicated"])
def test_limit_after_inflating(terms: tuple[int, int, bool, bool]) -> None:
    pair, peer = make(terms), ZlibPeer(terms)
    pair.link.feed(build_frame(BINARY, peer.pack(b"x" * MAX_MESSAGE), rsv=RSV1))
    assert messages(pair) == [("binary", b"x" * MAX_MESSAGE)]
    noise = random.Random(2).randbytes(MAX_MESSAGE)
    packed = peer.pack(noise)
    assert len(packed) > MAX_MESSAGE  # what cannot be compressed grows
    pair.link.feed(build_frame(BINARY, packed, rsv=RSV1))
    assert messages(pair)[1] == ("binary", noise)
    pair.sink.events.clear()
    assert refused(pair, build_frame(BINARY, peer.pack(b"x" * (MAX_MESSAGE + 1)), rsv=RSV1)) == 1009


def test_bomb() -> None:
    """1 GB in 1 MB ends at the limit: quickly, and without the memory."""
    pair = make(max_message_size=2_000_000)
    megabyte = bytes(1_000_000)
    deflater = zlib.compressobj(wbits=-15)
    bomb = b"".join(deflater.compress(megabyte) for _ in range(1000)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    tracemalloc.start()
    try:
        assert refused(pair, build_frame(BINARY, bomb[:-4], rsv=RSV1)) == 1009
        assert tracemalloc.get_traced_memory()[1] < 50_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"caf\xe9", b"\xed\xa0\x80", b"cut \xe2\x82"])
def test_utf8_after_inflating(data: bytes) -> None:
    peer = ZlibPeer(SHARED)
    assert refused(make(), build_frame(TEXT, peer.pack(data), rsv=RSV1)) == 1007
    pair = make()
    pair.link.feed(build_frame(BINARY, peer.pack(data), rsv=RSV1))
    assert messages(pair) == [("binary", data)]


@pytest.mark.parametrize("packed", [b"", b"\x00", b"\x02\x00"])
def test_empty_message(packed: bytes) -> None:
    pair = make()
    pair.link.feed(build_frame(TEXT, packed, rsv=RSV1))
    assert messages(pair) == [("text", "")]


def test_what_is_compressed() -> None:
    """Messages from the threshold on, unless that makes them longer; never control frames and fragments."""
    pair = make(compression_threshold=100)
    noise = random.Random(3).randbytes(5000)
    pair.conn.send(TEXT, "x" * 99)
    pair.conn.send(TEXT, "x" * 100)
    pair.conn.send(BINARY, noise)
    pair.conn.send(PING, b"x" * 100)
    pair.conn.send_fragment(TEXT, "x" * 100, False)
    pair.conn.send_fragment(0, "x" * 100, True)
    pair.conn.send(TEXT, "")
    sent = pair.sent()
    assert [frame.rsv for frame in sent] == [0, RSV1, 0, 0, 0, 0, 0]
    assert sent[2].payload == noise
    assert ZlibPeer(SHARED).unpack(sent[1].payload) == b"x" * 100


def test_nothing_is_compressed_where_it_was_not_negotiated() -> None:
    pair = Pair(compression_threshold=1)
    pair.conn.send(TEXT, "x" * 1000)
    (frame,) = pair.sent()
    assert (frame.rsv, frame.payload) == (0, b"x" * 1000)


def test_context_is_kept_over_plain_messages() -> None:
    """Short messages go out as they are, in between."""
    pair, peer = make(DEDICATED, compression_threshold=50), ZlibPeer(DEDICATED)
    rng = random.Random(4)
    values = [words(rng, 100) for _ in range(300)]
    for value in values:
        pair.conn.send(TEXT, value)
    frames = pair.sent()
    assert {frame.rsv for frame in frames} == {0, RSV1}
    assert [peer.unpack(f.payload).decode() if f.rsv else f.payload.decode() for f in frames] == values


def test_slow_consumer() -> None:
    pair = make(DEDICATED, send_buffer_limit=1000)
    pair.link.block()
    noise = random.Random(5).randbytes(3000)
    pair.conn.send(BINARY, noise)
    pair.clock.run()
    with pytest.raises(ConnectionClosed):
        pair.conn.send(BINARY, noise)
    assert pair.conn.cause == "slow_consumer"


def test_broadcast() -> None:
    """Once for all who keep no context; each their own otherwise; plain for who negotiated nothing."""
    base = make()
    all_terms = [SHARED, SHARED, DEDICATED, (9, 15, False, False), None, (8, 15, False, False)]
    pairs = []
    for terms in all_terms:
        sink = RecordingSink(ping_interval=0, compression_threshold=100, deflate=terms)
        pairs.append(Pair(base.clock, base.engine, sink))
    members = {Session(pair.conn): None for pair in pairs}
    peers = [ZlibPeer(terms) if terms and terms[0] > 8 else None for terms in all_terms]
    for n in (50, 500, 5000):
        text = (words(random.Random(n), n) + "tail" * n)[:n].encode()
        text = text.decode(errors="ignore").encode()
        assert fan_out(SharedFrame(text), members) == len(pairs)
        frames = [pair.sent()[0] for pair in pairs]
        for frame, peer in zip(frames, peers, strict=True):
            assert (peer.unpack(frame.payload) if frame.rsv and peer else frame.payload) == text
        packed = [frame.rsv == RSV1 for frame in frames]
        assert packed == ([False] * 6 if n == 50 else [True, True, True, True, False, False])
        assert frames[0].payload == frames[1].payload
    base.conn.abort()


def test_control_frames_between() -> None:
    pair, peer = make(), ZlibPeer(SHARED)
    packed = peer.pack(b"[1, 2, 3]")
    pair.link.feed(
        build_frame(TEXT, packed[:3], rsv=RSV1, fin=False)
        + build_frame(PING, b"between")
        + build_frame(CONTINUATION, packed[3:])
    )
    assert messages(pair) == [("text", "[1, 2, 3]")]
    assert [(frame.opcode, frame.payload) for frame in pair.sent()] == [(PONG, b"between")]


def test_a_handler_that_feeds_another_connection() -> None:
    """Two inflated messages at a time: the first is not overwritten."""
    peer = ZlibPeer(SHARED)
    seen = []

    def on_message(conn: Any, value: str) -> None:
        if not seen:
            seen.append(value)
            beside.link.feed(build_frame(TEXT, peer.pack(b"y" * 3000), rsv=RSV1))
        seen.append(value)

    pair = make(on_message=on_message)
    beside = pair.beside()
    pair.link.feed(build_frame(TEXT, peer.pack(b"x" * 3000), rsv=RSV1))
    assert seen == ["x" * 3000, "y" * 3000, "x" * 3000]
