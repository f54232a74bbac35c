"""A peer that can break every rule: raw bytes over a socket, and frames of any shape."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
from typing import Any

from links import SLOWER

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
PATIENCE_S = 10.0 * SLOWER


def frame(
    opcode: int, payload: bytes = b"", *, fin: bool = True, rsv: int = 0, masked: bool = True,
    length: int | None = None, length_bytes: int | None = None,
) -> bytes:  # fmt: skip
    """One frame as a client sends it.

    Args:
        length: what the header announces, if that is not the payload's length.
        length_bytes: 0, 2 or 8 bytes for it, if not the fewest.
    """
    n = len(payload) if length is None else length
    if length_bytes is None:
        length_bytes = 0 if n < 126 else 2 if n < 1 << 16 else 8
    mask_bit = 0x80 if masked else 0
    head = bytes((fin << 7 | rsv << 4 | opcode,))
    if length_bytes == 0:
        head += bytes((mask_bit | n,))
    elif length_bytes == 2:
        head += struct.pack(">BH", mask_bit | 126, n)
    else:
        head += struct.pack(">BQ", mask_bit | 127, n)
    if not masked:
        return head + payload
    key = b"\x12\x34\x56\x78"
    repeated = key * (len(payload) // 4 + 1)
    mixed = int.from_bytes(payload, "big") ^ int.from_bytes(repeated[: len(payload)], "big")
    return head + key + mixed.to_bytes(len(payload), "big")


def text(value: str | bytes) -> bytes:
    """A whole text message."""
    return frame(TEXT, value.encode() if isinstance(value, str) else value)


def close(code: int, reason: bytes = b"") -> bytes:
    """A CLOSE frame."""
    return frame(CLOSE, struct.pack(">H", code) + reason)


class Peer:
    """One raw TCP connection. A context manager; every wait ends after PATIENCE_S."""

    def __init__(self, port: int, token: str) -> None:
        self.port = port
        self.token = token
        self.socket = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.received = b""

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.socket.close()

    # -------------------------------------------------------------- bytes

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def send_what_goes(self, data: bytes) -> None:
        """Sends to a server that may hang up meanwhile.

        Each step has the whole patience. sendall() has it once for all, and a flood takes as long as the
        server works at it.
        """
        left = memoryview(data)
        with contextlib.suppress(ConnectionError):
            while left:
                left = left[self.socket.send(left) :]

    def receive(self) -> bytes:
        """More bytes; b"" when the server has ended the connection, also by a reset."""
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def read_to_end(self) -> bytes:
        """Everything until the server ends the connection."""
        while more := self.receive():
            self.received += more
        data, self.received = self.received, b""
        return data

    def reset(self) -> None:
        """Ends the connection by RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    # -------------------------------------------------------------- HTTP

    def head(self) -> tuple[int, dict[str, str]]:
        """Reads one response head: status and fields (names in lower case)."""
        while b"\r\n\r\n" not in self.received:
            more = self.receive()
            assert more, f"the connection ended inside the head: {self.received!r}"
            self.received += more
        head, _, self.received = self.received.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return int(first.split(" ")[1]), fields

    def refusal(self) -> tuple[int, dict[str, str], Any]:
        """Reads a refusal to the end of the connection: status, fields, JSON body, nothing behind it."""
        status, fields = self.head()
        assert fields["connection"] == "close"
        body = self.read_to_end()
        assert len(body) == int(fields["content-length"])
        value = json.loads(body)
        assert set(value) == {"code", "message"}
        return status, fields, value

    def opening(self, **changes: str | None) -> bytes:
        """A good opening handshake. Fields by name with `_` for `-`; None leaves one out."""
        fields: dict[str, str | None] = {
            "Host": f"127.0.0.1:{self.port}", "Connection": "Upgrade", "Upgrade": "websocket",
            "Sec-WebSocket-Key": KEY, "Sec-WebSocket-Version": "13", "Authorization": f"Bearer {self.token}",
        }  # fmt: skip
        fields |= {name.replace("_", "-"): value for name, value in changes.items()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items() if value is not None)
        return f"GET /ws HTTP/1.1\r\n{lines}\r\n".encode("latin-1")

    def open(self) -> Peer:
        """Does the opening handshake."""
        self.send(self.opening())
        status, _ = self.head()
        assert status == 101
        return self

    # -------------------------------------------------------------- frames

    def frame(self) -> tuple[int, bytes] | None:
        """Reads one frame: opcode and payload; None when the server has ended the connection."""
        while True:
            if len(self.received) >= 2:
                assert self.received[0] & 0xF0 == 0x80  # final, no RSV bit
                assert not self.received[1] & 0x80  # a server does not mask
                n, start = self.received[1], 2
                if n == 126 and len(self.received) >= 4:
                    (n,), start = struct.unpack(">H", self.received[2:4]), 4
                elif n == 127 and len(self.received) >= 10:
                    (n,), start = struct.unpack(">Q", self.received[2:10]), 10
                elif n > 125:
                    start = len(self.received) + 1
                if len(self.received) >= start + n:
                    opcode, payload = self.received[0] & 15, self.received[start : start + n]
                    self.received = self.received[start + n :]
                    return opcode, payload
            more = self.receive()
            if not more:
                assert not self.received, f"the connection ended inside a frame: {self.received[:50]!r}"
                return None
            self.received += more

    def message(self) -> Any:
        """The JSON of the next text message; pings on the way are answered."""
        while True:
            got = self.frame()
            assert got is not None, "the connection ended instead of a message"
            opcode, payload = got
            if opcode == PING:
                self.send(frame(PONG, payload))
                continue
            assert opcode == TEXT, got
            return json.loads(payload)

    def close_code(self) -> int:
        """The code of the CLOSE that comes next, after which the server must end the connection."""
        got = self.frame()
        assert got is not None, "the connection ended without a CLOSE"
        opcode, payload = got
        assert opcode == CLOSE, got
        self.send_what_goes(frame(CLOSE, payload[:2]))
        assert self.read_to_end() == b"", "bytes behind the CLOSE"
        return int.from_bytes(payload[:2], "big")
