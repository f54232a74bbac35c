"""One word says why a connection ended: in the log, the metrics, `on_disconnect` and the webhook alike
(protocol.md 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from heartwire import Client, Server
from heartwire.closing import CAUSES
from integration.http.api import KEYS, api_of
from integration.peers import BINARY, CLOSE, PATIENCE_S, TEXT, RawPeer, frame, raw_client, token
from integration.receiver import HOOK_SECRET, Receiver, backend, short_waits

__all__ = ["backend", "short_waits"]

Make = Callable[..., Server]
Way = Callable[[Server, Client, RawPeer], object]


def says(data: bytes) -> Way:
    return lambda server, client, peer: peer.send(data)


def asked_for(call: Callable[[Client], object]) -> Way:
    return lambda server, client, peer: call(client)


def goes(server: Server, client: Client, peer: RawPeer) -> None:
    peer.writer.write_eof()


def is_broadcast_to(server: Server, client: Client, peer: RawPeer) -> None:
    for _ in range(100):
        server.to_all("news", "x" * 1_000_000)


def drains(server: Server, client: Client, peer: RawPeer) -> Awaitable[None]:
    return server.drain()


def stops(server: Server, client: Client, peer: RawPeer) -> Awaitable[None]:
    return server.stop()


async def is_revoked(server: Server, client: Client, peer: RawPeer) -> None:
    async with api_of(server) as api:
        await api.post("/api/tokens/revoke", {"user_id": "bob"})


# How it comes to its end, the close code that is told of it, and options that bring it about.
WAYS: dict[str, tuple[Way, int, dict[str, Any]]] = {
    "client_closed": (says(frame(CLOSE, (3210).to_bytes(2))), 3210, {}),
    "peer_gone": (goes, 1006, {}),
    "server_closed": (asked_for(lambda client: client.close(4321)), 4321, {}),
    "shutdown": (stops, 1001, {}),
    "drain": (drains, 1012, {}),
    "protocol_error": (says(b"\xff\xff"), 1002, {}),
    "unsupported_data": (says(frame(BINARY, b"x")), 1003, {}),
    "invalid_utf8": (says(frame(TEXT, b"\xff")), 1007, {}),
    "too_big": (says(frame(TEXT, b"x" * 101)), 1009, {"max_message_size": 100}),
    "too_many_errors": (says(frame(TEXT, b"nope") * 10), 1008, {}),
    "message_timeout": (says(frame(TEXT, b"begun", fin=False)), 1008, {"message_timeout": 0.1}),
    "handler_error": (says(b""), 1011, {}),
    "handler_timeout": (says(b""), 1011, {"handler_timeout": 0.1}),
    "auth_timeout": (says(b""), 4401, {"auth": "message", "auth_timeout": 0.1}),
    "token_expired": (says(b""), 4410, {}),
    "token_revoked": (is_revoked, 4410, {}),
    "kicked": (asked_for(lambda client: client.kick()), 4403, {}),
    "forbidden": (says(b""), 4403, {}),
    "ping_timeout": (says(b""), 4408, {"ping_interval": 0.05, "ping_timeout": 0.1}),
    "write_timeout": (
        asked_for(lambda client: client.send_bytes(bytes(8 << 20))), 4408,
        {"ping_timeout": 0.2, "send_buffer_limit": 16 << 20},
    ),
    "read_deadline": (asked_for(lambda client: client.set_read_deadline(0.05)), 4408, {}),
    "rate_limited": (
        says(frame(TEXT, b'{"action":"ping"}') * 11), 4429, {"message_rate": 0.01, "message_burst": 1}
    ),
    "slow_consumer": (is_broadcast_to, 4503, {"send_buffer_limit": 100_000}),
}  # fmt: skip


def fail(client: Client) -> None:
    raise ValueError("expected: oh")


async def hang(client: Client) -> None:
    await asyncio.Event().wait()


ON_CONNECT: dict[str, Callable[[Client], object]] = {
    "forbidden": lambda client: False, "handler_error": fail, "handler_timeout": hang,
}  # fmt: skip


def test_every_cause_of_a_client_is_brought_about() -> None:
    assert WAYS.keys() == CAUSES.keys() - {"auth_failed"}  # that of `--reject close`: it never was a client


@pytest.mark.parametrize("cause", WAYS)
async def test_the_same_word_everywhere(
    make: Make, backend: Receiver, caplog: pytest.LogCaptureFixture, cause: str
) -> None:
    way, code, options = WAYS[cause]
    usual = {
        "api_key": KEYS, "close_timeout": 0.2, "drain_delay": 0, "drain_window": 0,
        "token_expiring_before": 0, "webhook_url": backend.url, "webhook_secret": HOOK_SECRET,
        "webhook_events": ["client_disconnected"], "webhook_delay": 0.01,
    }  # fmt: skip
    server = make(**{**usual, **options})
    clients: asyncio.Queue[Client] = asyncio.Queue()
    ends: list[tuple[Client, str]] = []

    @server.on_connect
    def connect(client: Client) -> object:
        clients.put_nowait(client)
        return ON_CONNECT.get(cause, lambda client: None)(client)

    server.on_disconnect(lambda client, cause: ends.append((client, cause)))
    await server.start()
    life_s = 0.3 if cause == "token_expired" else 3600
    bearer = None if cause == "auth_timeout" else token("bob", expires_in=life_s, iat=1_700_000_000)
    async with raw_client(server, bearer, limit=1024) as peer:
        async with asyncio.timeout(PATIENCE_S):
            there = await clients.get()
            result = way(server, there, peer)
            if isinstance(result, Awaitable):
                await result
        told = await backend.event("client_disconnected")
    await server.stop()
    assert (told["cause"], told["code"]) == (cause, code)
    assert ends == [(there, cause)]
    assert server.stats()["disconnects"] == {cause: 1}
    (record,) = [record for record in caplog.records if record.name == "heartwire.connections"]
    assert (record.__dict__["cause"], record.__dict__["code"]) == (cause, code)
    assert f": cause={cause} code={code} " in record.getMessage()
