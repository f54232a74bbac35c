"""What a client may send a second, and the PROXY header before its request: the core's part."""

from __future__ import annotations

import zlib
from typing import Any

import pytest

from heartwire._core.connection import Connection
from heartwire.testing import (
    BINARY,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    FakeLink,
    ManualClock,
    RecordingSink,
    build_frame,
)
from links import needs_deflate
from pair import Pair

HEAD = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"


def feed(pair: Pair, *texts: str) -> None:
    pair.link.feed(b"".join(build_frame(TEXT, text.encode()) for text in texts))


def test_messages_a_second_in_one_read() -> None:
    pair = Pair(message_rate=10, message_burst=3)
    feed(pair, "a", "b", "c", "d", "e")
    assert pair.sink.of("text") == ["a", "b", "c"]
    assert pair.sink.of("limited") == [("messages", b"d"), ("messages", b"e")]
    pair.clock.advance(0.1)
    feed(pair, "f", "g")
    assert pair.sink.of("text") == ["a", "b", "c", "f"]
    assert pair.sink.of("limited")[2:] == [("messages", b"g")]
    assert pair.conn.phase == "OPEN"
    assert pair.conn.statistics()["messages_in"] == 7


def test_each_connection_has_its_own() -> None:
    pair = Pair(message_rate=1, message_burst=1)
    other = pair.beside()
    feed(pair, "a")
    feed(other, "b")
    assert pair.sink.of("text") == ["a", "b"]
    feed(pair, "c")
    assert len(pair.sink.of("limited")) == 1


def test_bytes_a_second_and_a_message_larger_than_the_burst() -> None:
    pair = Pair(byte_rate=1000, byte_burst=100)
    feed(pair, "x" * 60, "y" * 60, "z" * 40)
    assert pair.sink.of("text") == ["x" * 60, "z" * 40]
    assert pair.sink.of("limited") == [("bytes", b"y" * 60)]
    pair.clock.advance(0.1)
    feed(pair, "x" * 1100)  # of a full bucket: 1,000 bytes of debt
    pair.clock.advance(1.0)
    feed(pair, "y")
    pair.clock.advance(0.01)
    feed(pair, "z")
    assert pair.sink.of("text")[2:] == ["x" * 1100, "z"]
    # A message that does not come through takes nothing of either limit.
    assert pair.sink.of("limited")[1:] == [("bytes", b"y")]


@needs_deflate
def test_bytes_are_counted_after_inflating() -> None:
    pair = Pair(byte_rate=1000, byte_burst=5000, deflate=(15, 15, False, False), max_message_size=100_000)
    deflater = zlib.compressobj(wbits=-15)
    packed = (deflater.compress(b"x" * 4000) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    frame = build_frame(TEXT, packed, rsv=4)
    assert len(frame) < 100
    pair.link.feed(frame * 3)
    assert pair.sink.of("text") == ["x" * 4000]
    assert pair.sink.of("limited") == [("bytes", b"x" * 4000)] * 2


def test_binary_fragments_and_large_texts() -> None:
    pair = Pair(message_rate=1, message_burst=1)
    pair.link.feed(build_frame(BINARY, b"1", fin=False) + build_frame(CONTINUATION, b"2"))
    assert pair.sink.of("binary") == [b"12"]
    pair.link.feed(build_frame(BINARY, b"3") + build_frame(TEXT, b"x" * 5000))
    assert pair.sink.of("limited") == [("messages", None), ("messages", None)]


def test_control_frames_are_free() -> None:
    pair = Pair(message_rate=1, message_burst=1, byte_rate=1, byte_burst=1)
    feed(pair, "a")
    pair.link.feed(build_frame(PING, b"hello") * 5)
    assert [frame.opcode for frame in pair.sent()] == [PONG] * 5
    assert pair.sink.of("limited") == []


def test_a_sink_that_closes_or_fails_when_told() -> None:
    class Closing(RecordingSink):
        def on_rate_limited(self, conn: Connection, limit: str, data: bytes | None) -> None:
            super().on_rate_limited(conn, limit, data)
            conn.close(4429, "", "rate_limited")
            raise RuntimeError("a bug")

    pair = Pair(sink=Closing(ping_interval=0, message_rate=1, message_burst=1))
    feed(pair, "a", "b", "c")
    assert pair.sink.of("limited") == [("messages", b"b")]
    assert len(pair.sink.of("failure")) == 1
    assert [frame.close_code for frame in pair.sent()] == [4429]


# ------------------------------------------------------------------ the PROXY header


class Introduced(RecordingSink):
    """The header is `<host>`."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"proxy_header": True, "ping_interval": 0, **settings})

    def on_proxy_header(self, conn: Connection, received: bytes) -> int | None:
        self.events.append(("introduced", received))
        if not received.startswith(b"<"):
            return 0
        host, end, _ = received.partition(b">")
        if not end:
            return None
        if host == b"<gone":
            conn.abort()
            return None
        if host == b"<bug":
            raise RuntimeError("a bug")
        conn.set_peer(host[1:].decode(), 9)
        return len(host) + 1


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_header_in_any_pieces(size: int) -> None:
    sink = Introduced()
    link = FakeLink(ManualClock().engine(), sink)
    stream = b"<\r\n\r\n>".replace(b"\r\n\r\n", b"2001:db8::1") + HEAD + build_frame(TEXT, b"first")
    for at in range(0, len(stream), size):
        link.feed(stream[at : at + size])
    assert sink.of("head") == [HEAD]
    assert sink.of("text") == ["first"]
    assert link.connection.remote_address == ("2001:db8::1", 9)
    assert link.connection.address_key == bytes.fromhex("20010db800000000")


def test_a_peer_without_header_is_asked_once() -> None:
    sink = Introduced()
    link = FakeLink(ManualClock().engine(), sink)
    link.feed(HEAD[:5])
    link.feed(HEAD[5:])
    assert sink.of("introduced") == [HEAD[:5]]
    assert sink.of("head") == [HEAD]


def test_what_follows_the_header_is_what_is_released() -> None:
    sink = Introduced(accept=False)
    link = FakeLink(ManualClock().engine(), sink)
    link.feed(b"<192.0.2.1>" + HEAD + b"body")
    assert link.connection.release()[1] == HEAD + b"body"


@pytest.mark.parametrize("what", ["gone", "bug"])
def test_a_header_that_is_refused(what: str) -> None:
    sink = Introduced()
    clock = ManualClock()
    link = FakeLink(clock.engine(), sink)
    link.feed(b"<" + what.encode() + b">" + HEAD)
    clock.run()
    assert sink.of("head") == []
    assert link.closes == 1
    assert len(sink.of("failure")) == (what == "bug")


def test_addresses_and_their_keys() -> None:
    link = FakeLink(ManualClock().engine(), RecordingSink())
    for given, host, key in (
        ("192.0.2.7", "192.0.2.7", "c0000207"),
        ("::ffff:192.0.2.7", "192.0.2.7", "c0000207"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2:3:4:5:6", "20010db800010002"),
        ("", "", ""),
    ):
        link.connection.set_peer(given, 7)
        assert link.connection.remote_address == (host, 7 if host else 0)
        assert link.connection.address_key == bytes.fromhex(key)
