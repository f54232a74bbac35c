"""The monitor's feed and files over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from heartwire import Server
from heartwire.monitor import PAGE_FILES
from heartwire.testing import BackgroundServer, background_server
from links import LINKS


@pytest.fixture(scope="module", params=LINKS)
def served(request: pytest.FixtureRequest) -> Any:
    """A server with a key, over each link."""
    with background_server(api_key=["the-key-of-the-test"], link=request.param) as server:
        yield server


async def test_the_feed_wants_an_unused_ticket(served: BackgroundServer) -> None:
    base = f"http://127.0.0.1:{served.port}"
    async with aiohttp.ClientSession(base) as session:
        key = {"Authorization": "Bearer the-key-of-the-test"}
        async with session.post("/api/monitor/ticket", headers=key) as answer:
            ticket = (await answer.json())["ticket"]
        async with session.get("/api/monitor", params={"ticket": ticket}) as answer:
            assert answer.status == 426, "asked for without an upgrade it stays valid"
        async with session.ws_connect("/api/monitor", params={"ticket": ticket}) as feed:
            figures = await feed.receive_json()
            assert figures["clients"] == 0
            assert figures["totals"]["opened"] == 0
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await session.ws_connect("/api/monitor", params={"ticket": ticket})
            assert refused.value.status == 403
            await feed.send_str("hello")
            while (await feed.receive()).type != aiohttp.WSMsgType.CLOSE:
                pass
            assert feed.close_code == 1003


async def test_files_are_sent_once(served: BackgroundServer) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{served.port}") as session:
        for name in ("", "heartwire.js", *PAGE_FILES):
            async with session.get(f"/{name}") as answer:
                assert answer.status == 200
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                tag = answer.headers["ETag"]
            async with session.get(f"/{name}", headers={"If-None-Match": tag}) as answer:
                assert answer.status == 304


async def test_the_server_stops_at_once(link: str) -> None:
    """A page that is open does not hold it up."""
    server = Server(port=0, link=link, jwt_secret="a secret of the test, 32 bytes long", api_key=["the-key"])
    await server.start()
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}") as session:
        async with session.post("/api/monitor/ticket", headers={"Authorization": "Bearer the-key"}) as answer:
            ticket = (await answer.json())["ticket"]
        async with session.ws_connect("/api/monitor", params={"ticket": ticket}) as feed:
            await feed.receive_json()
            async with asyncio.timeout(5):
                await server.stop()
                while (message := await feed.receive()).type != aiohttp.WSMsgType.CLOSE:
                    pass
            assert message.data == 1001


async def test_a_port_apart() -> None:
    """The page is on the HTTP port; browsers get their client from both."""
    options: dict[str, Any] = {"port": 0, "http_port": 0, "jwt_secret": "a secret of the test, 32 bytes long"}
    async with Server(**options) as server, aiohttp.ClientSession() as session:
        for port, answers in (
            (server.port, {"/": 404, "/api/monitor": 404, "/heartwire.js": 200}),
            (server.http_port, {"/": 200, "/api/monitor": 426, "/heartwire.js": 200}),
        ):
            for path, status in answers.items():
                async with session.get(f"http://127.0.0.1:{port}{path}") as answer:
                    assert answer.status == status, (port, path)


async def test_a_websocket_at_the_root(link: str) -> None:
    """Then there is no page, and the rest is there."""
    async with Server(port=0, link=link, path="/", auth="optional") as server:
        base = f"http://127.0.0.1:{server.port}"
        async with aiohttp.ClientSession(base) as session:
            async with session.get("/") as answer:
                assert answer.status == 426
            async with session.get("/heartwire.js") as answer:
                assert answer.status == 200
            async with session.ws_connect("/") as socket:  # on the connection that is kept alive
                assert (await socket.receive_json())["event"] == "connected"
