"""HTTP on the WebSocket's port, as raw sockets see it (protocol.md 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Server
from integration.peers import (
    CLOSE,
    PATIENCE_S,
    TEXT,
    Answer,
    Ends,
    frame,
    get,
    handshake,
    json_client,
    raw_peer,
    token,
    until,
)

Make = Callable[..., Server]

KEYS = ["all-scopes", "reader:read:key-of-reader", "sender:publish:key-of-sender"]


@pytest.fixture
async def api(make: Make) -> Server:
    """A server with API keys."""
    server = make(api_key=KEYS)
    await server.start()
    return server


async def ask(
    server: Server, target: str, *lines: str, key: str | None = None, method: str = "GET"
) -> Answer:
    """One request on a connection of its own."""
    if key is not None:
        lines = (*lines, f"Authorization: Bearer {key}")
    async with raw_peer(server) as peer:
        peer.send(get(target, *lines, "Connection: close", method=method))
        return await peer.answer()


# ------------------------------------------------------------------ probes and errors


async def test_health_and_readiness(server: Server) -> None:
    answer = await ask(server, "/health")
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.json["status"] == "alive"
    answer = await ask(server, "/ready")
    assert (answer.status, answer.json) == (200, {"status": "ready"})


async def test_http_1_0_health_checkers(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(b"GET /health HTTP/1.0\r\n\r\n")
        assert (await peer.answer()).status == 200


@pytest.mark.parametrize(
    ("target", "method", "status", "code"),
    [("/nowhere", "GET", 404, "not_found"), ("/health", "DELETE", 405, "method_not_allowed")],
)
async def test_errors_have_one_form(server: Server, target: str, method: str, status: int, code: str) -> None:
    answer = await ask(server, target, method=method)
    assert (answer.status, answer.json["code"]) == (status, code)
    assert set(answer.json) == {"code", "message"}


async def test_no_cors(server: Server) -> None:
    answer = await ask(server, "/health", "Origin: https://app.example")
    assert not [name for name in answer.headers if name.startswith("access-control")]


# ------------------------------------------------------------------ keys


async def test_no_key_configured(server: Server) -> None:
    for target in ("/api/health", "/api/clients", "/api/clients/x"):
        answer = await ask(server, target, key="anything")
        assert answer.status == 403
        assert "--api-key" in answer.json["message"]


@pytest.mark.parametrize(
    ("key", "status"),
    [
        ("all-scopes", 200),
        ("key-of-reader", 200),
        ("key-of-sender", 403),
        ("wrong", 401),
        ("", 401),
        (None, 401),
    ],
)
async def test_keys_and_scopes(api: Server, key: str | None, status: int) -> None:
    answer = await ask(api, "/api/clients", key=key)
    assert answer.status == status
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_token_is_no_key(api: Server) -> None:
    assert (await ask(api, "/api/health", key=token())).status == 401
    assert (await ask(api, "/api/health", "Authorization: Basic all-scopes")).status == 401


# ------------------------------------------------------------------ clients


async def test_api_health(api: Server) -> None:
    async with json_client(api, token()) as client:
        await client.join("lobby")
        answer = (await ask(api, "/api/health", key="all-scopes")).json
        version = answer.pop("version")
        assert version
        assert answer == {"status": "healthy", "clients": 1, "channels": 1}


async def test_one_client(api: Server) -> None:
    async with json_client(api, token("bob", username="Bob"), user_agent_header="tests/1") as client:
        await client.join("lobby")
        (there,) = api.clients.values()
        listed = (await ask(api, "/api/clients", key="all-scopes")).json
        assert listed["total"] == 1
        assert listed["next"] is None
        shown = (await ask(api, f"/api/clients/{there.id}", key="all-scopes")).json
        host, port = client.ws.local_address[:2]
        assert shown["id"] == there.id
        assert shown["user_id"] == "bob"
        assert shown["channels"] == ["lobby"]
        assert shown["remote_address"] == f"{host}:{port}"
        assert shown["user_agent"] == "tests/1"
        assert shown["connected_at"].endswith("Z")
        assert shown["last_seen"] >= shown["connected_at"][:19]
        assert shown["rtt_ms"] is None
        assert shown["queued_bytes"] == 0
    assert (await ask(api, "/api/clients/nobody", key="all-scopes")).status == 404


async def test_pages_of_clients(api: Server) -> None:
    async with asyncio.TaskGroup() as crowd:
        there, leave = asyncio.Semaphore(0), asyncio.Event()

        async def one(i: int) -> None:
            async with json_client(api, token(f"user-{i % 2}")):
                there.release()
                await leave.wait()

        for i in range(7):
            crowd.create_task(one(i))
        for _ in range(7):
            await there.acquire()
        for query, count in (("", 7), ("&user_id=user-0", 4), ("&user_id=user-1", 3), ("&user_id=nobody", 0)):
            seen: list[str] = []
            after = ""
            while True:
                page = (await ask(api, f"/api/clients?limit=2{query}{after}", key="all-scopes")).json
                assert page["total"] == count
                assert len(page["clients"]) <= 2
                seen += [client["id"] for client in page["clients"]]
                if page["next"] is None:
                    break
                after = f"&after={page['next']}"
            assert len(seen) == len(set(seen)) == count
        for bad in ("limit=0", "limit=x", "limit=-1", "limit=100000", "limit=1.5"):
            answer = await ask(api, f"/api/clients?{bad}", key="all-scopes")
            assert answer.status == 400
            assert "limit" in answer.json["message"]
        leave.set()


# ------------------------------------------------------------------ one port, two protocols


async def test_keep_alive_and_pipelining(server: Server) -> None:
    async with raw_peer(server) as peer:
        for _ in range(3):
            peer.send(get("/health"))
            assert (await peer.answer()).status == 200
        peer.send(get("/health") + get("/nowhere") + get("/ready"))
        assert [(await peer.answer()).status for _ in range(3)] == [200, 404, 200]


async def test_pipelining_from_the_first_segment(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/health") + get("/nowhere") + get("/ready")[:20])
        assert [(await peer.answer()).status for _ in range(2)] == [200, 404]
        peer.send(get("/ready")[20:])
        assert (await peer.answer()).status == 200


@pytest.mark.parametrize("step", [1, 7])
async def test_a_request_in_pieces(server: Server, step: int) -> None:
    request = get("/health", "X-Long: " + "y" * 100)
    async with raw_peer(server) as peer:
        for i in range(0, len(request), step):
            peer.send(request[i : i + step])
            await asyncio.sleep(0)
        assert (await peer.answer()).status == 200


async def test_a_body_that_comes_with_its_head_and_later(api: Server) -> None:
    body = b'{"event": "news", "data": "' + b"x" * 50_000 + b'"}'
    head = get(
        "/api/broadcast",
        "Authorization: Bearer all-scopes",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        method="POST",
    )
    async with json_client(api, token()) as client, raw_peer(api) as peer:
        peer.send(head + body[:100])
        await peer.writer.drain()
        await asyncio.sleep(0)
        peer.send(body[100:])
        answer = await peer.answer()
        assert (answer.status, answer.json["recipients"]) == (200, 1)
        assert len((await client.event("news"))["data"]) == 50_000


@pytest.mark.parametrize("riding", [b"", frame(TEXT, b'{"action":"ping","id":1}')], ids=["", "frame"])
async def test_an_upgrade_on_a_kept_alive_connection(make: Make, riding: bytes) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(get("/ready"))
        assert (await peer.answer()).status == 200
        peer.send(handshake(f"/ws?token={token('bob')}") + riding)
        answer = await peer.answer()
        assert answer.status == 101
        assert answer.headers["upgrade"].lower() == "websocket"
        await peer.event("connected")
        there = await ends.client()
        assert there.user_id == "bob"
        assert there.remote_address == peer.writer.get_extra_info("sockname")
        if not riding:
            peer.send_frame(TEXT, b'{"action":"ping","id":1}')
        assert (await peer.event("pong"))["reply_to"] == 1
        peer.send_frame(CLOSE, (1000).to_bytes(2))
        assert await peer.close_frame() == (1000, "")
        assert await peer.eof() == b""
    await ends.only("client_closed")


async def test_a_refused_upgrade_on_a_kept_alive_connection(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(handshake(bearer="no.token.at-all"))
        answer = await peer.answer()
        assert (answer.status, answer.json["code"]) == (401, "token_invalid")
        assert await peer.eof() == b""


async def test_no_upgrade_asked_for_on_a_kept_alive_connection(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/health"))
        await peer.answer()
        peer.send(get("/ws"))
        answer = await peer.answer()
        assert answer.status == 426
        assert answer.headers["sec-websocket-version"] == "13"


async def test_an_upgrade_behind_a_request_in_one_segment(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/health") + handshake(bearer=token()))
        assert (await peer.answer()).status == 200
        assert (await peer.answer()).status == 101
        await peer.event("connected")


async def test_http_clients_are_no_clients(make: Make) -> None:
    server = make(max_connections=1)
    connected: list[Client] = []
    server.on_connect(connected.append)
    await server.start()
    async with raw_peer(server) as one, raw_peer(server) as two:
        for peer in (one, two):
            peer.send(get("/health"))
            assert (await peer.answer()).status == 200
        assert connected == []
        assert server.stats()["clients"] == 0
        async with json_client(server, token()):
            two.send(get("/ready"))  # full of WebSockets, and still it answers
            assert (await two.answer()).status == 200
        await until(lambda: not server.clients)


async def test_http_peers_that_leave_in_the_middle(server: Server) -> None:
    for sent in (
        get("/health"),
        get("/health")[:20],
        get("/api/broadcast", "Content-Length: 9", method="POST"),
    ):
        async with raw_peer(server) as peer:
            peer.send(sent)
            peer.reset()
    answers: list[Any] = []
    async with asyncio.timeout(PATIENCE_S):
        answers = [await ask(server, "/health") for _ in range(3)]
    assert [answer.status for answer in answers] == [200] * 3
