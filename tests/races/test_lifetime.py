"""A client's life with a real server: its connect, its messages, its disconnect, in this order and once."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from heartwire import Client, ConnectionClosed, Server
from heartwire.testing import CLOSE, TEXT, FramePeer, background_server, build_frame

SECRET = "x" * 32


def make(**options: Any) -> Server:
    return Server(**{"port": 0, "jwt_secret": SECRET, "welcome": False, **options})


def test_on_connect_comes_before_any_message_and_on_disconnect_after_the_last_handler() -> None:
    server = make()
    told: list[str] = []
    release = asyncio.Event()

    @server.on_connect
    async def on_connect(client: Client) -> None:
        await asyncio.sleep(0.02)
        told.append("connected")

    @server.on_message
    async def on_message(client: Client, value: Any) -> None:
        told.append(f"begin {value}")
        await release.wait()
        told.append(f"end {value}, {client.is_connected}")

    @server.on_disconnect
    def on_disconnect(client: Client, cause: str) -> None:
        told.append(cause)
        assert client.id not in server.clients

    with background_server(server) as background:
        peer = background.peer()
        peer.send_raw(build_frame(TEXT, b"1") + build_frame(TEXT, b"2"))
        background.until(lambda: "begin 1" in told)
        (client,) = server.clients.values()
        background.call(client.connection.abort)
        assert background.call(lambda: list(server.clients)) == []  # it leaves at once
        assert "server_closed" not in told  # and its end is told later
        background.call(release.set)
        background.until(lambda: "server_closed" in told)
        peer.disconnect()
    assert told == ["connected", "begin 1", "end 1, False", "server_closed"]


@pytest.mark.parametrize("how", ["false", "raises"])
def test_who_is_refused_by_on_connect_says_nothing(how: str) -> None:
    server = make()
    messages: list[Any] = []
    server.on_message(lambda client, value: messages.append(value))

    @server.on_connect
    def on_connect(client: Client) -> bool:
        if how == "raises":
            raise LookupError("no")
        return False

    with background_server(server) as background:
        peer = background.peer()
        peer.send_raw(build_frame(TEXT, b"1"))
        frames = peer.frames() if peer.send_close() is None else []
        assert [frame.close_code for frame in frames] == [4403 if how == "false" else 1011]
        peer.disconnect()
    assert messages == []


def test_a_drain_that_is_cancelled_leaves_the_others_waiting() -> None:
    server = make(send_buffer_limit=1 << 26)
    told: list[Any] = []
    cancelled: list[bool] = []

    @server.on_message
    async def on_message(client: Client, value: Any) -> None:
        for _ in range(200):
            client.send_text("x" * 100_000)
        tasks = [asyncio.ensure_future(client.drain()) for _ in range(3)]
        await asyncio.sleep(0.01)
        cancelled.append(tasks[1].cancel())
        told.extend(await asyncio.gather(*tasks, return_exceptions=True))

    with background_server(server) as background:
        peer = background.peer(timeout=10)
        peer.send_text("1")
        background.until(lambda: cancelled)  # so long nothing is read, and all of them wait
        assert cancelled == [True]
        received = [peer.receive() for _ in range(200)]
        assert all(frame is not None and len(frame.payload) == 100_000 for frame in received)
        background.until(lambda: told)
        peer.disconnect()
    assert [type(result).__name__ for result in told] == ["NoneType", "CancelledError", "NoneType"]


@pytest.mark.parametrize("what", ["drain", "read_json"])
def test_waits_end_with_the_connection(what: str) -> None:
    server = make(send_buffer_limit=1 << 26)
    told: list[str] = []

    @server.on_message
    async def on_message(client: Client, value: Any) -> None:
        if what == "drain":
            for _ in range(200):
                client.send_text("x" * 100_000)
        try:
            await (client.drain() if what == "drain" else client.read_json())
        except ConnectionClosed as error:
            told.append(error.cause)

    with background_server(server) as background:
        peer = background.peer()
        peer.send_text("1")
        background.until(lambda: any(c.running for c in server.clients.values()))
        (client,) = server.clients.values()
        background.wait(asyncio.sleep(0.02))
        background.call(client.connection.abort)
        background.until(lambda: told)
        peer.disconnect()
    assert told == ["server_closed"]


def test_an_authenticator_that_decides_after_the_peer_has_gone() -> None:
    server = Server(port=0, welcome=False)
    release = asyncio.Event()
    asked: list[object] = []
    connected: list[Client] = []
    server.on_connect(connected.append)

    @server.authenticate
    async def authenticate(request: Any) -> str:
        asked.append(request)
        await release.wait()
        return "user"

    with background_server(server) as background:
        sock = socket.create_connection(("127.0.0.1", background.port))
        peer = FramePeer(sock)
        peer.send_raw(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        background.until(lambda: asked)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        peer.disconnect()
        background.wait(asyncio.sleep(0.05))
        background.call(release.set)
        background.wait(asyncio.sleep(0.02))
        assert background.server.stats()["clients"] == 0
    assert connected == []


def test_a_handler_that_stops_the_server() -> None:
    """abort_all inside a batch, with every connection of it on the stack."""
    server = make(close_timeout=0)
    told: list[str] = []
    server.on_disconnect(lambda client, cause: told.append(cause))

    @server.on_message
    def on_message(client: Client, value: Any) -> None:
        for other in list(server.clients.values()):
            other.close(4000)
        server._listeners.abort_all()
        with pytest.raises(ConnectionClosed):
            client.send_text("late")

    with background_server(server) as background:
        peers = [background.peer() for _ in range(5)]
        peers[2].send_raw(build_frame(TEXT, b"1") * 3)
        background.until(lambda: len(told) == 5)
        for peer in peers:
            assert [frame.opcode for frame in peer.frames()] in ([], [CLOSE])
            peer.disconnect()
    assert told == ["server_closed"] * 5
