"""Proxies in front: TLS, the upgrade, the client's address, large messages, idle clients, HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from proxies.conftest import PATIENCE_S, Proxied

CLIENT = "127.0.0.7"  # where the clients connect from: not one of the trusted proxies


@contextlib.asynccontextmanager
async def client(proxied: Proxied, **options: Any) -> AsyncIterator[ClientConnection]:
    headers = {"Authorization": f"Bearer {proxied.server.mint('alice')}", **options.pop("headers", {})}
    async with connect(
        f"wss://127.0.0.1:{proxied.port}/ws", ssl=proxied.authority.client_context(), proxy=None,
        additional_headers=headers, ping_interval=None, local_addr=(CLIENT, 0), max_size=None, **options,
    ) as ws:  # fmt: skip
        assert json.loads(await ws.recv())["event"] == "connected"
        yield ws


def addresses(proxied: Proxied) -> set[str]:
    clients = proxied.server.server.clients
    return proxied.server.call(lambda: {each.remote_address[0] for each in clients.values()})


async def test_the_upgrade_and_the_address_of_the_client(proxied: Proxied) -> None:
    async with client(proxied) as ws:
        await ws.send(json.dumps({"action": "ping", "id": 1}))
        assert json.loads(await ws.recv())["reply_to"] == 1
        assert addresses(proxied) == {CLIENT}
    proxied.server.until(lambda: not proxied.server.server.clients)
    forged = {"X-Forwarded-For": "203.0.113.9", "Forwarded": "for=203.0.113.9"}
    async with client(proxied, headers=forged):
        assert addresses(proxied) == {CLIENT}


async def test_limits_count_by_the_client(proxied: Proxied) -> None:
    async with client(proxied), client(proxied), client(proxied):
        with pytest.raises(InvalidStatus) as refused:
            async with client(proxied):
                raise AssertionError("let in")
        assert refused.value.response.status_code == 429
        assert refused.value.response.headers["Retry-After"]


async def test_a_page_of_the_same_host(proxied: Proxied) -> None:
    async with client(proxied, headers={"Origin": f"https://127.0.0.1:{proxied.port}"}):
        pass
    with pytest.raises(InvalidStatus) as refused:
        async with client(proxied, headers={"Origin": "https://evil.example"}):
            raise AssertionError("let in")
    assert refused.value.response.status_code == 403


async def test_large_messages(proxied: Proxied) -> None:
    async with client(proxied) as ws:
        data = "x" * 3_000_000
        await ws.send(json.dumps({"action": "join_channel", "channel": "large"}))
        assert json.loads(await ws.recv())["event"] == "joined_channel"
        await ws.send(json.dumps({"action": "send_message", "channel": "large", "data": data}))
        async with asyncio.timeout(PATIENCE_S):
            assert json.loads(await ws.recv())["data"] == data


async def test_idle_for_longer_than_the_proxy_waits(proxied: Proxied) -> None:
    """The proxies here wait a second: the server's pings keep the connection. Their own checks of the server
    are not taken for clients that fail."""
    async with client(proxied) as ws:
        before = proxied.server.server.stats()["pongs"]
        refused = proxied.server.server.stats()["refusals"]
        await asyncio.to_thread(
            proxied.server.until, lambda: proxied.server.server.stats()["pongs"] >= before + 10, PATIENCE_S
        )
        await ws.send(json.dumps({"action": "ping"}))
        assert json.loads(await ws.recv())["event"] == "pong"
        # With TLS passed through, the fixture's own look whether the proxy is there counts once.
        assert proxied.server.server.stats()["refusals"] == refused


async def test_how_it_ends(proxied: Proxied) -> None:
    async with client(proxied) as ws:
        (there,) = proxied.server.server.clients.values()
        there.kick("enough")
        async with asyncio.timeout(PATIENCE_S):
            await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (4403, "enough")


async def test_http_beside_it(proxied: Proxied) -> None:
    base = f"https://127.0.0.1:{proxied.port}"
    connector = aiohttp.TCPConnector(ssl=proxied.authority.client_context())
    key = {"Authorization": "Bearer key-of-the-tests"}
    async with client(proxied), aiohttp.ClientSession(connector=connector) as http:
        for path in ("/health", "/ready", "/heartwire.js", "/"):
            async with http.get(base + path) as answer:
                assert answer.status == 200
        async with http.get(base + "/api/clients", headers=key) as answer:
            (shown,) = (await answer.json())["clients"]
            assert shown["remote_address"].startswith(CLIENT)


@pytest.mark.parametrize("behind", [("nginx", "epoll")])  # the others write no log of requests
async def test_the_token_in_the_address_is_not_logged(proxied: Proxied, tmp_path: Path) -> None:
    token = proxied.server.mint("alice")
    uri = f"wss://127.0.0.1:{proxied.port}/ws?token={token}"
    async with connect(uri, ssl=proxied.authority.client_context(), proxy=None) as ws:
        await ws.recv()
    log = tmp_path / "access.log"
    await asyncio.to_thread(proxied.server.until, lambda: log.exists() and "/ws" in log.read_text())
    assert token not in log.read_text()
