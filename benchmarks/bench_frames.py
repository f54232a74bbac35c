"""Frames: headers by themselves, and a connection that parses a full receive buffer (csrc/parser.c).

The limit is one pair of system calls that moves the same bytes. Peers parse the same bytes and give the same
payloads to a callback or a list: picows and aiohttp (Cython), websockets (Sans-I/O).
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from aiohttp._websocket.reader import WebSocketDataQueue, WebSocketReader
from websockets.server import ServerProtocol

from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.frames import build_frame_header, parse_frame_header
from heartwire._core.link import Sink

BATCH = 64
OPENING = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class TextSink(Sink):  # type: ignore[misc]
    """Appends every text to a list."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        conn.accept(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", None)
        conn.resume()

    def on_text(self, conn: Connection, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def opened(tools: Any) -> tuple[Connection, TextSink]:
    engine = Engine(lambda call: None, lambda delay, call: asyncio.TimerHandle, lambda call: None)
    sink = TextSink()
    sink.configure(ping_interval=0)
    link = tools.MemoryLink()
    conn = Connection(engine, sink, link)
    conn.feed(OPENING)
    link.kept = None
    assert conn.is_open
    return conn, sink


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


def websockets_reader() -> Callable[[bytes], list[str]]:
    protocol = ServerProtocol()
    protocol.receive_data(OPENING)
    protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
    protocol.data_to_send()

    def read(data: bytes) -> list[str]:
        protocol.receive_data(data)
        return [event.data.decode() for event in protocol.events_received()]  # type: ignore[union-attr]

    return read


class Unpaused:
    """What aiohttp's queue wants of its protocol."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def aiohttp_reader(loop: asyncio.AbstractEventLoop) -> Callable[[bytes, int], list[str]]:
    queue = WebSocketDataQueue(Unpaused(), 1 << 24, loop=loop)  # type: ignore[arg-type]
    reader = WebSocketReader(queue, 1 << 24, compress=False, decode_text=True)

    def read(data: bytes, count: int) -> list[str]:
        reader.feed_data(data)
        texts = []
        for _ in range(count):
            try:
                queue.read().send(None)  # what `await ws.receive()` does when a message is there
            except StopIteration as message:
                texts.append(message.value.data)
        return texts

    return read


def picows_reader(
    loop: asyncio.AbstractEventLoop, sock: socket.socket
) -> tuple[Callable[[bytes], list[str]], object]:
    from picows import WSListener
    from picows.picows import WSAutoPingStrategy, WSProtocol

    class Listener(WSListener):  # type: ignore[misc]
        texts: list[str]

        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            self.texts.append(frame.get_payload_as_utf8_text())

    class Transport(asyncio.Transport):
        def write(self, data: Any) -> None: ...

        def get_write_buffer_size(self) -> int:
            return 0

    listener = Listener()
    logger = logging.Logger("picows", logging.CRITICAL)

    async def make() -> Any:
        protocol = WSProtocol(
            None, "/", False, lambda request: listener, logger, True, None, False, 20, 20,
            WSAutoPingStrategy.PING_WHEN_IDLE, False, 1 << 24, None, 1 << 17,
        )  # fmt: skip
        protocol.connection_made(Transport({"socket": sock}))
        return protocol

    protocol = loop.run_until_complete(make())

    def read(data: bytes) -> list[str]:
        listener.texts = []
        protocol.get_buffer(-1)[: len(data)] = data
        protocol.buffer_updated(len(data))
        return listener.texts

    read(OPENING)
    return read, protocol


def through_a_socket(near: socket.socket, far: socket.socket, data: bytes, buffer: bytearray) -> None:
    near.send(data)
    view = memoryview(buffer)
    left = len(data)
    while left:
        left -= far.recv_into(view)


@pytest.mark.parametrize("size", [16, 64, 512])
def test_texts_to_a_callback(
    beside: Any, tools: Any, opened: Any, loop: asyncio.AbstractEventLoop, pair: Any, size: int
) -> None:
    """64 messages that came with one receive."""
    conn, sink = opened
    data = tools.frame(b"x" * size) * BATCH
    websockets, aiohttp = websockets_reader(), aiohttp_reader(loop)
    picows, kept = picows_reader(loop, pair[0])

    def read(data: bytes) -> list[str]:
        sink.texts = []
        conn.feed(data)
        return sink.texts  # type: ignore[no-any-return]

    expected = ["x" * size] * BATCH
    assert read(data) == websockets(data) == aiohttp(data, BATCH) == picows(data) == expected
    beside(
        (read, data),
        per=BATCH,
        limit_send_and_recv=(through_a_socket, *pair, data, bytearray(1 << 16)),
        picows=(picows, data),
        aiohttp=(aiohttp, data, BATCH),
        websockets=(websockets, data),
    )
    del kept


def test_frames_nobody_hears_of(beside: Any, tools: Any, opened: Any, pair: Any) -> None:
    """512 unsolicited pongs of 16 bytes: parsing and unmasking alone, without Python for each."""
    conn, _ = opened
    data = tools.frame(b"p" * 16, 10) * 512
    before = conn.statistics()["bytes_in"]
    conn.feed(data)
    assert conn.statistics()["bytes_in"] == before + len(data)
    assert conn.is_open
    beside(
        (conn.feed, data),
        per=512,
        limit_memcpy=(bytes, memoryview(data)),
        limit_send_and_recv=(through_a_socket, *pair, data, bytearray(1 << 16)),
    )


def test_parse_header(beside: Any, tools: Any) -> None:
    data = tools.frame(b"x" * 300)
    header = parse_frame_header(data)
    assert header is not None
    assert (header.length, header.size, header.key) == (300, 8, tools.KEY)
    beside((parse_frame_header, data), limit_system_call=(os.getppid,))


def test_build_header(beside: Any) -> None:
    assert build_frame_header(1, 300) == b"\x81\x7e\x01\x2c"
    beside((build_frame_header, 1, 300), limit_system_call=(os.getppid,))
