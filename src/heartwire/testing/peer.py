"""A client one frame at a time: it can say what no client library would."""

from __future__ import annotations

import os
import socket
import struct
from collections import deque
from types import TracebackType
from typing import Final, NamedTuple, Self

from heartwire._core.frames import apply_mask, build_frame_header, parse_frame_header
from heartwire.testing.link import FakeLink

__all__ = [
    "BINARY", "CLOSE", "CONTINUATION", "PING", "PONG", "TEXT",
    "Frame", "FramePeer", "build_frame", "close_payload",
]  # fmt: skip

CONTINUATION: Final = 0
TEXT: Final = 1
BINARY: Final = 2
CLOSE: Final = 8
PING: Final = 9
PONG: Final = 10

_KEY: Final = "dGhlIHNhbXBsZSBub25jZQ=="  # of RFC 6455 section 1.3


class Frame(NamedTuple):
    """One frame that the server sent."""

    opcode: int
    payload: bytes
    fin: bool = True
    rsv: int = 0
    masked: bool = False
    """Always False, if the server is right (RFC 6455 section 5.1)."""

    @property
    def close_code(self) -> int:
        """Of a CLOSE frame; 1005 if it has none."""
        return struct.unpack(">H", self.payload[:2])[0] if len(self.payload) >= 2 else 1005


def close_payload(code: int, reason: str = "") -> bytes:
    """The payload of a CLOSE frame (RFC 6455 section 5.5.1). The code is not judged."""
    return struct.pack(">H", code) + reason.encode()


def build_frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    key: bytes | None = b"\x37\xfa\x21\x3d",
    length: int | None = None,
    length_bytes: int | None = None,
) -> bytes:
    """Writes one frame as a client does. Nothing is judged: this is how broken frames are made.

    Args:
        opcode: 0 to 15.
        rsv: the reserved bits; RSV1 is 4.
        key: the masking key; None leaves the frame unmasked.
        length: announce so many bytes instead of what the payload has.
        length_bytes: 0, 2 or 8 bytes for the length instead of the fewest possible.
    Returns:
        Header and payload (RFC 6455 section 5.2).
    """
    if length is None:
        length = len(payload)
    if length_bytes is None:
        header = bytearray(build_frame_header(opcode, length, fin, rsv))
    else:
        first = bytes([fin << 7 | rsv << 4 | opcode])
        form = {0: bytes([length & 127]), 2: b"\x7e", 8: b"\x7f"}[length_bytes]
        header = bytearray(first + form + (length.to_bytes(length_bytes, "big") if length_bytes else b""))
    if key is None:
        return bytes(header) + payload
    header[1] |= 0x80
    return bytes(header) + key + apply_mask(payload, key)


class FramePeer:
    """The client's end of one connection: of a `FakeLink`, or of a socket. One thread.

    Over a socket, `receive` waits for the server, at most `timeout` seconds; over a link it looks at what has
    been written.

    Args:
        link: a FakeLink, or a connected socket, which the peer closes.
        timeout: seconds, for a socket.
    """

    def __init__(self, link: FakeLink | socket.socket, *, timeout: float = 5.0) -> None:
        self._link = link
        self._read = 0  # bytes of link.written that were parsed
        self._buffer = bytearray()
        self._frames: deque[Frame] = deque()
        self._ended = False
        self.response: bytes = b""
        """The head of the server's answer to `open`."""
        if isinstance(link, socket.socket):
            link.settimeout(timeout)

    @classmethod
    def connect(cls, host: str, port: int, target: str = "/ws", *, timeout: float = 5.0) -> FramePeer:
        """Connects to a server and opens the WebSocket.

        Raises:
            ConnectionError: the server refused; the message has its answer.
        """
        peer = cls(socket.create_connection((host, port), timeout), timeout=timeout)
        try:
            peer.open(target, f"{host}:{port}")
        except BaseException:
            peer.disconnect()
            raise
        return peer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    # -------------------------------------------------------------- sending

    def open(self, target: str = "/ws", host: str = "localhost", *, rest: bytes = b"") -> None:
        """Sends the request head, and `rest` in the same piece; reads the answer's head.

        Raises:
            ConnectionError: it is no 101.
        """
        self.send_raw(
            f"GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {_KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode() + rest
        )
        while b"\r\n\r\n" not in self._buffer and self._more():
            pass
        head, _, tail = bytes(self._buffer).partition(b"\r\n\r\n")
        self.response, self._buffer = head, bytearray(tail)
        if not head.startswith(b"HTTP/1.1 101 "):
            raise ConnectionError(f"the server answered {bytes(head + tail)!r}")

    def send_raw(self, data: bytes) -> None:
        """Sends bytes as they are."""
        if isinstance(self._link, FakeLink):
            self._link.feed(data)
        else:
            self._link.sendall(data)

    def send(self, opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> None:
        """Sends one frame, masked with a random key."""
        self.send_raw(build_frame(opcode, payload, fin=fin, rsv=rsv, key=os.urandom(4)))

    def send_text(self, text: str) -> None:
        """Sends a text message in one frame."""
        self.send(TEXT, text.encode())

    def send_close(self, code: int = 1000, reason: str = "") -> None:
        """Sends a CLOSE frame."""
        self.send(CLOSE, close_payload(code, reason))

    # -------------------------------------------------------------- receiving

    def receive(self) -> Frame | None:
        """The next frame from the server.

        Returns:
            None if the server closed the connection, or, over a link, has written no more.
        Raises:
            TimeoutError: over a socket, nothing came in time.
        """
        self._parse()
        while not self._frames and self._more():
            self._parse()
        return self._frames.popleft() if self._frames else None

    def frames(self) -> list[Frame]:
        """All frames that came, over a socket all until the server closes."""
        found = []
        while (frame := self.receive()) is not None:
            found.append(frame)
        return found

    def receive_text(self) -> str | None:
        """The text of the next text message in one frame; pings are answered and left out, as are pongs.

        Returns:
            None as `receive` does, and for a CLOSE frame.
        Raises:
            AssertionError: another frame came.
        """
        while (frame := self.receive()) is not None and frame.opcode != CLOSE:
            if frame.opcode == TEXT and frame.fin:
                return frame.payload.decode()
            assert frame.opcode in (PING, PONG), frame
            if frame.opcode == PING:
                self.send(PONG, frame.payload)
        return None

    @property
    def incomplete(self) -> bytes:
        """What came behind the last whole frame."""
        return bytes(self._buffer)

    def disconnect(self) -> None:
        """Closes the socket without a word, as a client that leaves abruptly; a link sees an EOF."""
        if isinstance(self._link, socket.socket):
            self._link.close()
        else:
            self._link.eof()

    def _more(self) -> bool:
        """Takes over what came. False if there was nothing, or will be nothing any more."""
        if isinstance(self._link, FakeLink):
            data = bytes(self._link.written[self._read :])
            self._read += len(data)
        else:
            try:
                data = b"" if self._ended else self._link.recv(65536)
            except ConnectionError:
                data = b""
            self._ended = not data
        self._buffer += data
        return bool(data)

    def _parse(self) -> None:
        while (header := parse_frame_header(bytes(self._buffer[:14]))) is not None:
            end = header.size + header.length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[header.size : end])
            self._frames.append(Frame(header.opcode, payload, header.fin, header.rsv, header.masked))
            del self._buffer[:end]
