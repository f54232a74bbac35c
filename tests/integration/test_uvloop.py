"""What depends on the event loop, on uvloop: HTTP and WebSocket on one port, both links."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import aiohttp
import pytest
import uvloop
import websockets

from heartwire import Client, Server
from integration.peers import SECRET, token
from links import LINKS

UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Authorization: Bearer {}\r\n\r\n"
)


@pytest.mark.parametrize("link", LINKS)
def test_http_websocket_and_handing_back(link: str, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        server = Server(port=0, link=link, jwt_secret=SECRET, api_key="key")
        causes: list[str] = []

        @server.on_message
        async def echo(client: Client, value: Any) -> None:
            await asyncio.sleep(0)
            client.send_json(value)

        @server.on_disconnect
        def left(client: Client, cause: str) -> None:
            causes.append(cause)

        async with server:
            base = f"http://127.0.0.1:{server.port}"
            async with aiohttp.ClientSession(headers={"Authorization": "Bearer key"}) as http:
                for path in ("/health", "/ready", "/api/health", "/api/clients"):
                    async with http.get(base + path) as answer:
                        assert answer.status == 200
            async with websockets.connect(f"ws://127.0.0.1:{server.port}/ws?token={token()}") as ws:
                await ws.recv()
                await ws.send("[1]")
                assert await ws.recv() == "[1]"
            # The second request of a kept-alive HTTP connection asks for an upgrade.
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
            assert b"200" in await reader.readuntil(b"}")
            writer.write(UPGRADE.format(token()).encode())
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
            assert b"connected" in await reader.readuntil(b"timestamp")
            writer.close()
            while len(causes) < 2:
                await asyncio.sleep(0.01)
        assert causes == ["client_closed", "peer_gone"]

    with caplog.at_level(logging.WARNING), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []
