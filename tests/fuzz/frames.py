"""Fuzzes the receiving half: a client's bytes through a Connection, beside websockets' Sans-I/O server.

An input is one byte that says how to cut, and a stream. It is read in one piece and cut up: the two must
agree. Then websockets reads it, and both must have served the same messages and pongs and come to the same
end. What heartwire does otherwise, on purpose:

- It checks UTF-8, sizes and the number of fragments; websockets is left the frames alone and `Oracle` adds
  these rules, in the order of docs/protocol.md.
- It judges a header when that has come; websockets waits for the payload, so it is given one (`PADDING`).
- It wants a length in its shortest form (RFC 6455 5.2: "the minimal number of bytes MUST be used").
- Of a CLOSE it judges the code before the reason; websockets decodes the reason first.
- It takes a CLOSE inside a fragmented message (5.4: control frames may be there); websockets answers 1002.
"""

from __future__ import annotations

import codecs
import logging
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from websockets.frames import Opcode
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from fuzz.harness import connection, pieces
from heartwire.testing import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RecordingSink,
    build_frame,
    close_payload,
)

MAX_MESSAGE: Final = 1000
MAX_FRAGMENTS: Final = 8
PADDING: Final = bytes(MAX_MESSAGE + 200)
KEY: Final = bytes(4)  # a seed whose bytes are its payload's is easier to change

_silent = logging.Logger("oracle", logging.CRITICAL)


class Outcome(NamedTuple):
    """What a stream led to."""

    messages: list[tuple[str, Any]]
    pongs: list[bytes]
    close: bytes | None
    """The payload of the CLOSE that was sent, the answer to the peer's included."""
    refused: bool
    """It was sent because the peer broke a rule."""


def one_input(data: bytes) -> None:
    """Judges one input.

    Raises:
        AssertionError: the contract is broken.
    """
    if not data:
        return
    settings, stream = data[0], data[1:]
    ours = _read([stream])
    cut = pieces(stream, (1, 2, 7, 40)[settings & 3], settings)
    assert _read(cut) == ours, "how the stream is cut makes a difference"
    _compare(ours, stream)


def _read(cut: list[bytes]) -> Outcome:
    with connection(max_message_size=MAX_MESSAGE, max_fragments=MAX_FRAGMENTS) as pair:
        for piece in cut:
            pair.link.feed(piece)
        return _outcome(pair.sink, pair.sent(), pair.conn.cause)


def _outcome(sink: RecordingSink, frames: list[Any], cause: str | None) -> Outcome:
    close = None
    pongs = []
    for frame in frames:
        assert close is None, "a frame behind CLOSE"
        assert (frame.fin, frame.rsv, frame.masked) == (True, 0, False)
        assert frame.opcode in (PONG, CLOSE)
        if frame.opcode == CLOSE:
            close = frame.payload
        else:
            pongs.append(frame.payload)
    assert cause in (None, "client_closed", "protocol_error", "invalid_utf8", "too_big")
    assert (close is None) == (cause is None)
    messages = [event for event in sink.events if event[0] in ("text", "binary")]
    return Outcome(messages, pongs, close, cause not in (None, "client_closed"))


# ---------------------------------------------------------------- beside the oracle


class Oracle:
    """websockets' server, with messages put together and judged."""

    def __init__(self) -> None:
        self._protocol = ServerProtocol(state=OPEN, max_size=None, logger=_silent)
        self.outcome = Outcome([], [], None, False)
        self.frames = 0
        self._kind = ""
        self._parts: list[bytes] = []
        self._utf8 = codecs.getincrementaldecoder("utf-8")()

    def feed(self, data: bytes) -> Outcome:
        """More of the stream. Returns what all of it led to; `close` holds only the code where it refuses."""
        self._protocol.receive_data(data)
        for frame in self._protocol.events_received():
            if self.outcome.close is None:
                self._take(frame.opcode, bytes(frame.data), frame.fin)
                self.frames += 1
        fault = self._protocol.parser_exc
        if fault is not None and self.outcome.close is None:
            if (close := self._protocol.close_rcvd) is not None:  # it came inside a fragmented message
                self._end(b"" if close.code == 1005 else close.serialize())
            else:
                self._end(bytes(self._protocol.close_sent.serialize()[:2]), True)
        return self.outcome

    def _end(self, close: bytes, refused: bool = False) -> None:
        self.outcome = self.outcome._replace(close=close, refused=refused)

    def _take(self, opcode: Opcode, data: bytes, fin: bool) -> None:
        if opcode is Opcode.PING:
            self.outcome.pongs.append(data)
        elif opcode is Opcode.CLOSE:
            self._end(data)
        elif opcode is not Opcode.PONG:
            if opcode is not Opcode.CONT:
                self._kind = "text" if opcode is Opcode.TEXT else "binary"
                self._parts = []
                self._utf8.reset()
            self._parts.append(data)
            whole = b"".join(self._parts)
            if len(whole) > MAX_MESSAGE or len(self._parts) > MAX_FRAGMENTS:
                self._end(close_payload(1009), True)
                return
            if self._kind == "text":
                try:
                    self._utf8.decode(data, fin)
                    kept = self._utf8.getstate()[0]
                    invalid = b"\xed\xa0" <= kept < b"\xee"  # a surrogate: Python waits for its third byte
                except UnicodeDecodeError:
                    invalid = True
                if invalid:
                    self._end(close_payload(1007), True)
                    return
            if fin:
                self.outcome.messages.append((self._kind, whole.decode() if self._kind == "text" else whole))


def _compare(ours: Outcome, stream: bytes) -> None:
    oracle = Oracle()
    theirs = oracle.feed(stream)
    if not ours.refused:
        assert ours == theirs
        return
    assert ours.close is not None
    code, reason = ours.close[:2], ours.close[2:].decode()
    if reason in ("payload length not in its shortest form", "control frame too long"):
        before = _without_long_form(stream + PADDING[:8])  # the rest of a header that was judged early
        if before == Outcome(ours.messages, ours.pongs, None, False):
            return
        assert reason == "control frame too long", "the length is in its shortest form"
    if theirs.close is None:
        theirs = oracle.feed(PADDING)
    if theirs.close is None:  # PADDING was not enough for what is announced: too big, if nothing worse
        assert code in (close_payload(1002), close_payload(1009))
        theirs = theirs._replace(close=code, refused=True)
    if reason == "invalid close code" and theirs.close == close_payload(1007):
        theirs = theirs._replace(close=code)
    assert ours._replace(close=code) == theirs


def _without_long_form(stream: bytes) -> Outcome | None:
    """What leads up to the first frame whose length is longer than need be, if there is one."""
    oracle = Oracle()
    start = 0
    for i in range(len(stream)):
        head = stream[start : i + 1]
        length, form = int.from_bytes(head[2:], "big"), len(head) > 1 and head[1] & 0x7F
        if form == 126 and len(head) == 4 and length < 126:
            return oracle.outcome
        if form == 127 and len(head) == 10 and (length < 1 << 16 or length >> 63):
            return oracle.outcome
        before = oracle.frames
        oracle.feed(stream[i : i + 1])
        if oracle.frames > before:
            start = i + 1
    return None


# ---------------------------------------------------------------- seeds


def seeds() -> Iterator[bytes]:
    """Inputs to begin with."""

    def f(opcode: int, payload: bytes = b"", **options: Any) -> bytes:
        return build_frame(opcode, payload, key=KEY, **options)

    streams = [
        f(TEXT, "héllo €😀".encode()), f(BINARY, bytes(range(256))), f(TEXT), f(PING, b"ping"), f(PONG),
        f(CLOSE),
        f(CLOSE, close_payload(1000, "bye")), f(CLOSE, close_payload(4999, "é" * 61)), f(CLOSE, b"\x03"),
        f(TEXT, b"a" * 126), f(BINARY, bytes(1000)), f(TEXT, b"x", fin=False) + f(CONTINUATION, b"y"),
        f(TEXT, b"\xe2", fin=False) + f(PING, b"x" * 125) + f(CONTINUATION, b"\x82\xac"),
        f(TEXT, b"\xed\xa0", fin=False) + f(CLOSE), f(TEXT, b"\xed\xa0", fin=False) + b"\x80\0",
        f(TEXT, b"\xe2", fin=False) + f(CONTINUATION, b"x"), f(TEXT, b"\xff", length=500),
        f(BINARY, bytes(500), fin=False) + f(CONTINUATION, bytes(501)),
        f(BINARY, b"1", fin=False) + f(CONTINUATION, b"", fin=False) * 8, f(TEXT, b"x", rsv=4),
        f(BINARY, bytes(990), fin=False) + f(PING, bytes(20)) + f(CONTINUATION, bytes(10)),
        f(BINARY, b"1", fin=False) + f(CLOSE, close_payload(1001)), f(CONTINUATION, b"x"), f(3), f(11),
        f(TEXT, b"x", length_bytes=2), f(TEXT, b"x" * 200, length_bytes=8), f(TEXT, length=1 << 62),
        b"\x81\xff\x80" + bytes(11), f(PING, b"x" * 126), f(PING, fin=False), build_frame(TEXT, b"x",
        key=None),
        f(TEXT, b"1") * 20 + f(PING) * 3, build_frame(TEXT, b"masked", key=b"\x12\x34\x56\x78"),
    ]  # fmt: skip
    for i, stream in enumerate(streams):
        yield bytes([i % 4]) + stream
    yield b"\3" + b"".join(streams[:5]) + streams[11] + streams[12]

