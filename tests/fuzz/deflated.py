"""Fuzzes the inflate path: compressed messages through a Connection, beside Python's zlib.

An input is two bytes of settings and messages, each behind two bytes of length. What comes out must be what
zlib makes of it, or both refuse; then everything is echoed, and what the server deflated must inflate to it.
The rules on top of zlib's (RFC 7692 7.2.2, 7.2.3.4) are `Oracle`'s:

- A message ends with a whole block once its four bytes are put back; one that was cut short is refused.
- Another sequence of blocks may follow a final block, with the same window, but once in a message.
- With a window of fewer than 15 bits zlib says "too far back" or not depending on the size of its buffers:
  then only what both accept is compared.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any, Final

from fuzz.harness import connection
from heartwire._core.connection import Connection
from heartwire.testing import BINARY, CLOSE, CONTINUATION, TEXT, build_frame

MAX_MESSAGE: Final = 5000
MAX_PAYLOAD: Final = MAX_MESSAGE + (MAX_MESSAGE >> 8) + 64  # what cannot be compressed grows a little
TAIL: Final = b"\x00\x00\xff\xff"
WIDEST: Final = 15


class Settings:
    """What the first two bytes say."""

    def __init__(self, first: int, second: int) -> None:
        self.in_takeover = bool(first & 1)
        self.out_takeover = bool(first & 2)
        self.opcode = TEXT if first & 4 else BINARY
        self.fragments = bool(first & 8)
        self.in_bits = WIDEST if second & 1 else 8 + (second >> 1 & 7)
        self.out_bits = 9 + (second >> 4) % 7


def one_input(data: bytes) -> None:
    """Judges one input.

    Raises:
        AssertionError: the contract is broken.
    """
    if len(data) < 2:
        return
    settings = Settings(data[0], data[1])
    payloads = _split(data[2:])
    messages, code, frames = _serve(settings, payloads)
    oracle = Oracle(settings)
    expected = []
    expected_code = 0
    for payload in payloads:
        message, expected_code = oracle.read(payload)
        if expected_code:
            break
        expected.append(message)
    if settings.in_bits == WIDEST or not settings.in_takeover:
        assert (messages, code) == (expected, expected_code)
    else:
        n = min(len(messages), len(expected))
        assert messages[:n] == expected[:n]
    assert _inflated(settings, frames) == messages


def _split(data: bytes) -> list[bytes]:
    payloads = []
    while data:
        n = int.from_bytes(data[:2], "big")
        payloads.append(data[2 : 2 + n])
        data = data[2 + n :]
    return payloads


def _serve(settings: Settings, payloads: list[bytes]) -> tuple[list[bytes], int, list[Any]]:
    """What the server read, the code of its CLOSE (0: none), and the frames of its echoes."""

    def echo(conn: Connection, value: Any) -> None:
        conn.send(settings.opcode, value)

    with connection(
        max_message_size=MAX_MESSAGE, send_buffer_limit=0, compression_threshold=1, on_message=echo,
        deflate=(settings.out_bits, settings.in_bits, settings.out_takeover, settings.in_takeover),
    ) as pair:  # fmt: skip
        for payload in payloads:
            if settings.fragments:
                half = len(payload) // 2
                pair.link.feed(build_frame(settings.opcode, payload[:half], rsv=4, fin=False))
                pair.link.feed(build_frame(CONTINUATION, payload[half:]))
            else:
                pair.link.feed(build_frame(settings.opcode, payload, rsv=4))
        frames = pair.sent()
    code = 0
    if frames and frames[-1].opcode == CLOSE:
        code = frames.pop().close_code
        assert code in (1002, 1007, 1009)
    got = [event[1] for event in pair.sink.events if event[0] in ("text", "binary")]
    return [value.encode() if isinstance(value, str) else value for value in got], code, frames


def _inflated(settings: Settings, frames: list[Any]) -> list[bytes]:
    """What a client makes of the server's messages."""
    inflater = zlib.decompressobj(-settings.out_bits)
    messages = []
    for frame in frames:
        assert (frame.opcode, frame.fin) == (settings.opcode, True)
        payload = frame.payload
        if frame.rsv:
            assert frame.rsv == 4
            payload = inflater.decompress(payload + TAIL)
            assert not inflater.eof
            if not settings.out_takeover:
                inflater = zlib.decompressobj(-settings.out_bits)
        else:
            assert not settings.out_takeover or not payload, "with a context everything goes through it"
        messages.append(payload)
    return messages


class Oracle:
    """A client's compressed messages as RFC 7692 has them, by Python's zlib."""

    def __init__(self, settings: Settings) -> None:
        self._takeover = settings.in_takeover
        self._bits = settings.in_bits if settings.in_takeover else WIDEST
        self._is_text = settings.opcode == TEXT
        self._inflater = zlib.decompressobj(-self._bits)
        self._window = b""

    def read(self, payload: bytes) -> tuple[bytes, int]:
        """The message, or a close code."""
        if len(payload) > MAX_PAYLOAD:
            return b"", 1009
        if not payload:
            return b"", 0
        if not self._takeover:
            self._inflater, self._window = zlib.decompressobj(-self._bits), b""
        message, code = self._inflate(payload)
        if code == 0 and self._is_text:
            try:
                message.decode()
            except UnicodeDecodeError:
                return b"", 1007
        return message, code

    def _inflate(self, payload: bytes) -> tuple[bytes, int]:
        message = b""
        ended = 0
        for part in (payload, TAIL):
            while True:
                try:
                    # One more than may be: that is how a message that is too big shows.
                    more = self._inflater.decompress(part, MAX_MESSAGE + 1 - len(message))
                except zlib.error:
                    return b"", 1002
                message += more
                self._window = (self._window + more)[-(1 << self._bits) :]
                if len(message) > MAX_MESSAGE:
                    return b"", 1009
                if not self._inflater.eof:
                    break
                part = self._inflater.unused_data
                ended += 1
                if ended > 1:
                    return b"", 1002
                self._inflater = zlib.decompressobj(-self._bits, zdict=self._window)
                if not part:
                    break
        return (message, 0) if self._between_blocks() else (b"", 1002)

    def _between_blocks(self) -> bool:
        """An empty final block, put behind a copy, is its end."""
        copy = self._inflater.copy()
        try:
            return copy.decompress(b"\x03\x00") == b"" and copy.eof and not copy.unused_data
        except zlib.error:
            return False


# ---------------------------------------------------------------- seeds


def message(data: bytes, *, bits: int = 15, level: int = 6) -> bytes:
    """A compressed message behind its length."""
    deflater = zlib.compressobj(level, wbits=-bits)
    payload = (deflater.compress(data) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]
    return sized(payload)


def sized(payload: bytes) -> bytes:
    """A payload behind its length."""
    return len(payload).to_bytes(2, "big") + payload


def seeds() -> Iterator[bytes]:
    """Inputs to begin with."""
    text = "héllo wörld €😀 ".encode() * 20
    final = zlib.compress(b"final", wbits=-15)
    deflater = zlib.compressobj(wbits=-15)
    talk = b"".join(
        sized((deflater.compress(text) + deflater.flush(zlib.Z_SYNC_FLUSH))[:-4]) for _ in range(3)
    )
    bodies = [
        message(text), message(b""), message(b"a"), message(bytes(MAX_MESSAGE)),
        message(bytes(MAX_MESSAGE + 1)),
        message(text, level=0), sized(b""), sized(b"\0"), sized(final), sized(final + b"\0"),
        sized(final * 2),
        sized(message(text)[2:-3]), sized(b"\xff" * 50), message(text) * 3, talk, message(b"\xff\xfe"),
        sized(b"\0\0\0\xff\xff" * 30 + b"\0"), message(text, bits=9) * 2, sized(zlib.compress(bytes(1 << 20),
        9, -15)),
    ]  # fmt: skip
    for i, body in enumerate(bodies):
        yield bytes([i & 15, (i * 37 & 0xFF) | 1]) + body
        yield bytes([5, 1]) + body
