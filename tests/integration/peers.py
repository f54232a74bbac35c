"""Peers of a server under test: a client that speaks JSON, and one that says every byte itself."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import struct
import time
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple, Protocol

import jwt
from jwt.warnings import InsecureKeyLengthWarning
from websockets.asyncio.client import ClientConnection, connect

from heartwire import Client, Server
from links import SLOWER

SECRET = "a-secret-of-the-tests-long-enough-for-HS256"
PATIENCE_S = 30.0 * SLOWER  # what a test waits for something that has to come, on a busy machine too
QUIET_S = 0.05  # what it waits to see that nothing comes

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def token(sub: str = "alice", *, expires_in: float = 3600, secret: str = SECRET, **claims: Any) -> str:
    """A token that servers under test accept; claims that are None are left out."""
    claims = {"sub": sub, "exp": time.time() + expires_in, **claims}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InsecureKeyLengthWarning)
        return jwt.encode({k: v for k, v in claims.items() if v is not None}, secret, algorithm="HS256")


async def until(condition: Callable[[], object]) -> None:
    """Waits for what no event tells of, such as the state of a server in another process."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.002)


class Listening(Protocol):
    """What clients need to know of a server."""

    @property
    def port(self) -> int: ...


class JsonClient:
    """A `websockets` client whose messages are JSON values."""

    def __init__(self, ws: ClientConnection) -> None:
        self.ws = ws
        self._next_id = 0

    async def send(self, value: Any) -> None:
        await self.ws.send(value if isinstance(value, str | bytes) else json.dumps(value))

    async def receive(self) -> Any:
        """The next message, decoded."""
        async with asyncio.timeout(PATIENCE_S):
            return json.loads(await self.ws.recv())

    async def event(self, name: str) -> dict[str, Any]:
        """The next message, which must be this event."""
        message: dict[str, Any] = await self.receive()
        assert message["event"] == name, message
        return message

    async def ask(self, action: str, **fields: Any) -> dict[str, Any]:
        """Sends an action with an id; returns the answer, which must be the next message."""
        self._next_id += 1
        await self.send({"action": action, "id": self._next_id, **fields})
        answer: dict[str, Any] = await self.receive()
        assert answer["reply_to"] == self._next_id, answer
        return answer

    async def error(self, action: str, **fields: Any) -> dict[str, Any]:
        """Sends an action that is refused; returns the error's data."""
        answer = await self.ask(action, **fields)
        assert answer["event"] == "error", answer
        data: dict[str, Any] = answer["data"]
        assert set(data) == {"code", "message"}
        return data

    async def join(self, channel: str, **fields: Any) -> dict[str, Any]:
        answer = await self.ask("join_channel", channel=channel, **fields)
        assert answer["event"] == "joined_channel", answer
        data: dict[str, Any] = answer["data"]
        return data

    async def quiet(self) -> None:
        """Nothing is waiting: the next thing the server says is the answer to a ping sent now."""
        assert (await self.ask("ping"))["event"] == "pong"

    async def closed(self) -> tuple[int | None, str]:
        """Waits for the end; the close code and reason that were received."""
        async with asyncio.timeout(PATIENCE_S):
            await self.ws.wait_closed()
        return self.ws.close_code, self.ws.close_reason or ""


@contextlib.asynccontextmanager
async def json_client(
    server: Listening, bearer: str | None = None, *, welcome: bool = True, path: str = "/ws", **options: Any
) -> AsyncIterator[JsonClient]:
    """Connects; `bearer` goes into the header. The `connected` event is taken off unless there is none."""
    headers = dict(options.pop("headers", {}))
    if bearer is not None:
        headers["Authorization"] = f"Bearer {bearer}"
    # max_queue: else a CLOSE behind 16 messages that nobody reads is not seen.
    usual = {"ping_interval": None, "close_timeout": 2, "proxy": None, "compression": None, "max_queue": None}
    options = {**usual, **options}
    uri = f"ws://127.0.0.1:{server.port}{path}"
    async with connect(uri, additional_headers=headers, **options) as ws:
        client = JsonClient(ws)
        if welcome:
            await client.event("connected")
        yield client


class Answer(NamedTuple):
    """An HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class RawPeer:
    """A TCP peer that sends what it is told and reads what is there."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_frame(self, opcode: int, payload: bytes = b"", *, fin: bool = True) -> None:
        self.send(frame(opcode, payload, fin=fin))

    async def send_for_ever(self) -> None:
        """Sends until the connection breaks.

        Raises:
            ConnectionError: it did.
        """
        while True:
            self.send(b"x" * 65_536)
            await self.writer.drain()

    async def send_until_blocked(self, data: bytes) -> int:
        """Sends the same again and again until the server has not taken any for a while; how often."""
        sent = 0
        try:
            while True:
                self.send(data)
                sent += 1
                async with asyncio.timeout(0.3):
                    await self.writer.drain()
        except TimeoutError:
            return sent

    async def answer(self) -> Answer:
        """The next HTTP answer; its body by `Content-Length`."""
        async with asyncio.timeout(PATIENCE_S):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            status_line, *lines = head[:-4].split("\r\n")
            headers = {}
            for line in lines:
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return Answer(int(status_line.split(" ")[1]), headers, body)

    async def frame(self) -> tuple[int, bytes]:
        """The next frame: (opcode, payload). The server's frames are whole and not masked."""
        async with asyncio.timeout(PATIENCE_S):
            first, size = await self.reader.readexactly(2)
            assert first & 0x80, "the server fragments nothing here"
            assert not size & 0x80, "a server does not mask (RFC 6455 section 5.1)"
            if size == 126:
                size = int.from_bytes(await self.reader.readexactly(2))
            elif size == 127:
                size = int.from_bytes(await self.reader.readexactly(8))
            return first & 0x0F, await self.reader.readexactly(size)

    async def event(self, name: str) -> dict[str, Any]:
        """The next frame, which must be this event."""
        opcode, payload = await self.frame()
        message: dict[str, Any] = json.loads(payload)
        assert (opcode, message["event"]) == (TEXT, name), message
        return message

    async def close_frame(self) -> tuple[int, str]:
        """The code and reason of the next CLOSE; other frames before it are passed over."""
        while True:
            opcode, payload = await self.frame()
            if opcode == CLOSE:
                return int.from_bytes(payload[:2]), payload[2:].decode()

    async def eof(self) -> bytes:
        """Everything up to the end of the connection."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def gone(self) -> None:
        """Waits until the connection has ended, by FIN or by reset."""
        try:
            await self.eof()
        except ConnectionResetError:
            return

    def reset(self) -> None:
        """Ends the connection with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(1, 13, struct.pack("ii", 1, 0))  # SOL_SOCKET, SO_LINGER
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_peer(server: Server | int, **options: Any) -> AsyncIterator[RawPeer]:
    port = server if isinstance(server, int) else server.port
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    peer = RawPeer(reader, writer)
    try:
        yield peer
    finally:
        writer.transport.abort()
        with contextlib.suppress(OSError):  # it had ended before
            await writer.wait_closed()


@contextlib.asynccontextmanager
async def raw_client(server: Server, bearer: str | None = None, **options: Any) -> AsyncIterator[RawPeer]:
    """A raw peer after a handshake that succeeded; the `connected` event is still to be read."""
    async with raw_peer(server, **options) as peer:
        peer.send(handshake(bearer=bearer))
        answer = await peer.answer()
        assert answer.status == 101, answer
        yield peer


async def refusal(server: Listening, head: bytes) -> Answer:
    """The answer to a refused handshake, after the checks that hold for all of them."""
    async with raw_peer(server) as peer:
        peer.send(head)
        answer = await peer.answer()
        assert await peer.eof() == b""
    assert answer.headers["connection"] == "close"
    assert answer.headers["content-type"] == "application/json"
    assert set(answer.json) == {"code", "message"}
    return answer


def handshake(
    target: str = "/ws",
    *lines: str,
    bearer: str | None = None,
    without: tuple[str, ...] = (),
    method: str = "GET",
    version: str = "HTTP/1.1",
) -> bytes:
    """The head of an upgrade request; `lines` are further header lines, `without` names some to leave out."""
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
    }
    head = [f"{method} {target} {version}"]
    head += [f"{name}: {value}" for name, value in fields.items() if name not in without]
    if bearer is not None:
        head.append(f"Authorization: Bearer {bearer}")
    return "\r\n".join([*head, *lines, "", ""]).encode("latin-1")


def get(target: str, *lines: str, method: str = "GET") -> bytes:
    """The head of a plain HTTP request."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", *lines, "", ""]).encode("latin-1")


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame (RFC 6455 section 5.2)."""
    n = len(payload)
    head = bytes([(0x80 if fin else 0) | opcode])
    if n < 126:
        head += bytes([0x80 | n])
    elif n < 65536:
        head += bytes([0x80 | 126]) + n.to_bytes(2)
    else:
        head += bytes([0x80 | 127]) + n.to_bytes(8)
    key = os.urandom(4)
    masked = int.from_bytes(payload) ^ int.from_bytes((key * (n // 4 + 1))[:n]) if n else 0
    return head + key + masked.to_bytes(n)


class Ends:
    """What `on_disconnect` heard. Made before the server starts."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.clients: asyncio.Queue[Client] = asyncio.Queue()
        self.told: list[tuple[str, str]] = []
        self._causes: asyncio.Queue[str] = asyncio.Queue()
        server.on_connect(self.clients.put_nowait)
        server.on_disconnect(self._on_disconnect)

    def _on_disconnect(self, client: Client, cause: str) -> None:
        assert not client.is_connected
        assert client.id not in self.server.clients
        assert not client.channels
        self.told.append((client.id, cause))
        self._causes.put_nowait(cause)

    async def client(self) -> Client:
        """The next client that connected."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.clients.get()

    async def cause(self) -> str:
        """The cause of the next client that is gone."""
        async with asyncio.timeout(PATIENCE_S):
            return await self._causes.get()

    async def only(self, cause: str) -> None:
        """One client has ended, for this cause, once, and the counter says the same."""
        assert await self.cause() == cause
        await self.server.stop()
        assert [said for _, said in self.told] == [cause]
        assert dict(self.server.metrics.disconnects) == {cause: 1}
        assert not self.server.clients
        assert not self.server.users
