"""Who may call, on which port, and the one form of errors."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import hmac
import io
import logging
import socket
import types
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Server, http_api
from heartwire.errors import ConfigError
from integration.http.api import BOSS, FULL, KEYS, READER, SENDER, Api, api_of
from integration.peers import TEXT, frame, get, handshake, json_client, raw_peer, token

CALLS = {  # each with the scope it needs
    ("GET", "/metrics"): "read",
    ("GET", "/api/health"): "read",
    ("GET", "/api/clients"): "read",
    ("GET", "/api/clients/x"): "read",
    ("GET", "/api/channels"): "read",
    ("GET", "/api/channels/x/clients"): "read",
    ("GET", "/api/openapi.json"): "read",
    ("POST", "/api/monitor/ticket"): "read",
    ("POST", "/api/broadcast"): "publish",
    ("POST", "/api/batch"): "publish",
    ("POST", "/api/clients/x/kick"): "admin",
    ("POST", "/api/users/x/disconnect"): "admin",
    ("POST", "/api/users/x/channels/y"): "admin",
    ("DELETE", "/api/users/x/channels/y"): "admin",
    ("POST", "/api/tokens/revoke"): "admin",
}
KEY_OF = {"read": READER, "publish": SENDER, "admin": BOSS}
KEYLESS = {("GET", "/health"), ("GET", "/ready"), ("GET", "/"), ("GET", "/heartwire.js")}
TICKET = ("GET", "/api/monitor")  # asks for one instead of a key


async def test_every_call_needs_its_scope(api: Api) -> None:
    for (method, path), scope in CALLS.items():
        missing = await api.call(method, path, key=None)
        assert missing.error == (401, "unauthenticated"), path
        assert missing.headers["WWW-Authenticate"] == "Bearer"
        assert (await api.call(method, path, key="wrong")).error == (401, "unauthenticated")
        for other, key in KEY_OF.items():
            reply = await api.call(method, path, key=key)
            if other == scope:
                assert reply.status in (200, 400, 404), (method, path, reply)
            else:
                assert reply.error == (403, "forbidden")
                assert repr(scope) in reply.message


async def test_the_list_of_calls_is_whole(api: Api) -> None:
    document = await api.get("/api/openapi.json")
    described = {
        (method.upper(), path.replace("{id}", "x").replace("{name}", "x" if "clients" in path else "y"))
        for path, methods in document["paths"].items()
        for method in methods
    }
    assert described == CALLS.keys() | KEYLESS | {TICKET}


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer ", f"Basic {READER}", READER, f"Bearer {READER}x", f"Bearer {READER[:-1]}",
     "Bearer \xe9", f"Bearer reader:read:{READER}"],
)  # fmt: skip
async def test_what_is_no_key(api: Api, value: str) -> None:
    reply = await api.call("GET", "/api/health", key=None, headers={"Authorization": value})
    assert reply.error == (401, "unauthenticated")
    assert READER not in reply.body.decode()


@pytest.mark.parametrize("key", [FULL, BOSS, "wrong", FULL[:-1]])
async def test_keys_are_compared_in_constant_time(
    api: Api, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of them, also behind the one that fits, by the one function that promises it."""
    compared: list[tuple[bytes, bytes]] = []

    def compare_digest(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return hmac.compare_digest(a, b)

    monkeypatch.setattr(http_api, "hmac", types.SimpleNamespace(compare_digest=compare_digest))
    await api.call("GET", "/api/health", key=key)
    assert len(compared) == len({known for _, known in compared}) == len(KEYS)
    assert len({given for given, _ in compared}) == 1
    assert {len(digest) for pair in compared for digest in pair} == {32}, "of one length, whatever the keys'"


async def test_the_scheme_is_read_in_any_case(api: Api) -> None:
    reply = await api.call("GET", "/api/health", key=None, headers={"Authorization": f"bEARER  {READER}"})
    assert reply.status == 200


async def test_without_keys_the_api_is_closed(make: Callable[..., Server]) -> None:
    server = make()
    await server.start()
    async with api_of(server) as api:
        for method, path in CALLS:
            reply = await api.call(method, path)
            assert reply.error == (403, "no_api_key_configured")
            assert "--api-key" in reply.message
        for _, path in KEYLESS:
            assert (await api.call("GET", path, key=None)).status == 200


async def test_probes(server: Server, api: Api) -> None:
    assert await api.get("/health", key=None) == {"status": "alive", "version": "0.1.0"}
    assert await api.get("/ready", key=None) == {"status": "ready"}
    server._lifetime.state = "draining"  # what SIGTERM does first
    reply = await api.call("GET", "/ready", key=None)
    assert (reply.status, reply.json) == (503, {"status": "not ready", "reason": "draining"})
    assert await api.get("/health", key=None) == {"status": "alive", "version": "0.1.0"}
    server._lifetime.state = "running"


async def test_health_of_the_api(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        await client.join("lobby")
        health = await api.get("/api/health")
    assert health == {"status": "healthy", "clients": 1, "channels": 1, "version": "0.1.0"}


# -------------------------------------------------------------- errors


async def test_errors_have_one_form(api: Api) -> None:
    assert (await api.call("GET", "/nowhere", key=None)).error == (404, "not_found")
    assert (await api.call("GET", "/api/tokens")).error == (404, "not_found")
    reply = await api.call("PUT", "/api/clients")
    assert reply.error == (405, "method_not_allowed")
    assert reply.headers["Allow"] == "GET,HEAD"
    reply = await api.call("GET", "/api/broadcast")
    assert (reply.error, reply.headers["Allow"]) == ((405, "method_not_allowed"), "POST")


async def test_bodies_are_limited(api: Api) -> None:
    body = b'{"data":"' + b"x" * (16 << 20) + b'"}'
    assert (await api.call("POST", "/api/broadcast", data=io.BytesIO(body))).error == (413, "too_big")
    half = b'{"data":"' + b"x" * (8 << 20) + b'"}'
    assert (await api.call("POST", "/api/broadcast", data=io.BytesIO(half))).status == 200


async def test_a_body_is_not_read_for_strangers(server: Server) -> None:
    async with raw_peer(server) as peer:
        head = get("/api/broadcast", "Content-Length: 1000000", "Expect: 100-continue", method="POST")
        peer.send(head)
        answer = await peer.answer()
        assert answer.status in (100, 401)
        if answer.status == 100:
            assert (await peer.answer()).status == 401


@pytest.mark.parametrize(
    ("body", "why"),
    [(b"{", "truncated"), (b"nul", "truncated"), (b'{"data":"\xff"}', "not UTF-8"), (b"{} {}", "trailing"),
     (b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "recursion"),
     (b'{"event":"\\ud800"}', "truncated")],
)  # fmt: skip
async def test_what_is_no_json(api: Api, body: bytes, why: str) -> None:
    reply = await api.call("POST", "/api/broadcast", data=body)
    assert reply.error == (400, "bad_json")
    assert why in reply.message


GOOD = get("/health")
UNREADABLE = [  # what follows a good request on a connection, its status and code
    (b"NOT HTTP\r\n\r\n", 400, "bad_request"),
    (b"GET /health HTTP/9.9\r\n\r\n", 400, "bad_request"),
    (get("/health", "X: " + "x" * 20_000), 400, "bad_request"),
    (get("/api/batch", f"Authorization: Bearer {FULL}", "Transfer-Encoding: chunked", method="POST")
     + b"ZZ\r\n", 400, "bad_request"),
    (get("/api/batch", f"Authorization: Bearer {FULL}", "Content-Encoding: gzip", "Content-Length: 5",
         method="POST") + b"hello", 400, "bad_request"),
    (get("/api/batch", "Content-Encoding: gzip", "Content-Length: 5", method="POST") + b"hello", 401,
     "unauthenticated"),
    (get("/api/health", f"Authorization: Bearer {FULL}", "Expect: miracles"), 417, "bad_request"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "status", "code"), UNREADABLE)
@pytest.mark.parametrize("options", [{}, {"http_port": 0}], ids=["beside", "apart"])
async def test_what_cannot_be_read(
    server: Server, data: bytes, status: int, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Refused in the form of all errors, and no line of the log is a peer's to cause."""
    async with raw_peer(server.http_port) as peer:
        peer.send(GOOD)
        assert (await peer.answer()).status == 200
        peer.send(data)
        answer = await peer.answer()
        assert (answer.status, answer.json["code"]) == (status, code)
        assert answer.json.keys() == {"code", "message"}
        assert answer.headers["content-type"].startswith("application/json")
        with contextlib.suppress(TimeoutError):  # some are closed, some may go on
            async with asyncio.timeout(0.2):
                await peer.reader.read()
    assert [r for r in caplog.records if r.levelno > logging.DEBUG and r.name == "heartwire.http"] == []


async def test_a_compressed_body_is_read_and_limited(server: Server, api: Api) -> None:
    headers = {"Content-Encoding": "gzip"}
    body = gzip.compress(b'{"event":"x"}')
    assert (await api.call("POST", "/api/broadcast", data=body, headers=headers)).status == 200
    bomb = gzip.compress(b'{"data":"' + b"x" * (17 << 20) + b'"}')
    assert len(bomb) < 100_000
    reply = await api.call("POST", "/api/broadcast", data=bomb, headers=headers)
    assert reply.error == (413, "too_big")


async def test_a_bug_of_ours_is_told_without_its_details(
    server: Server, api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(type(server._registry), "page", broken)
    reply = await api.call("GET", "/api/clients")
    assert reply.error == (500, "internal")
    assert b"secret" not in reply.body
    assert "GET /api/clients failed" in caplog.text


async def test_no_cors(api: Api) -> None:
    headers = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
    for method in ("GET", "OPTIONS"):
        reply = await api.call(method, "/api/health", headers=headers)
        assert not [name for name in reply.headers if name.lower().startswith("access-control")]


async def test_head_is_get_without_a_body(server: Server) -> None:
    async with raw_peer(server) as peer:
        for path in ("/health", "/api/clients", "/api/channels", "/metrics"):
            peer.send(get(path, f"Authorization: Bearer {READER}", method="HEAD"))
            head = await peer.reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), (path, head)


# -------------------------------------------------------------- ports and connections


async def test_requests_and_then_an_upgrade_on_one_connection(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/health") + get("/api/health", f"Authorization: Bearer {READER}"))
        assert (await peer.answer()).json["status"] == "alive"
        assert (await peer.answer()).json["clients"] == 0
        peer.send(handshake(bearer=token()) + frame(TEXT, b'{"action":"ping"}'))
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        await peer.event("pong")
        assert len(server.clients) == 1


@pytest.mark.parametrize("options", [{"http_port": 0}])
async def test_a_port_apart(server: Server, api: Api) -> None:
    assert server.http_port not in (0, server.port)
    assert (await api.get("/api/health"))["clients"] == 0
    assert (await api.call("GET", "/health", key=None)).status == 200
    assert (await api.call("GET", "/metrics")).status == 200
    async with json_client(server, token()):
        assert (await api.get("/api/health"))["clients"] == 1
    async with raw_peer(server) as peer:  # the clients' port has the probes and nothing else
        for path, status in (("/health", 200), ("/ready", 200), ("/api/health", 404), ("/metrics", 404)):
            peer.send(get(path, f"Authorization: Bearer {READER}"))
            assert (await peer.answer()).status == status, path
    async with raw_peer(server.http_port) as peer:  # and the port apart no WebSocket
        peer.send(handshake(bearer=token()))
        assert (await peer.answer()).status == 404


async def test_the_port_apart_may_be_taken(make: Callable[..., Server]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        server = make(http_port=port)
        with pytest.raises(ConfigError, match=f"http_port: cannot listen on 127.0.0.1 port {port}"):
            await server.start()
    with pytest.raises(OSError, match=r".*"):
        socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_the_port_apart_ends_with_the_server(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, http_port=0)
    await server.start()
    port = server.http_port
    await server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=5)


async def test_keys_stay_out_of_logs(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    await api.call("GET", "/api/clients")
    await api.call("GET", "/api/clients", key="a-wrong-key-of-mine")
    await api.call("POST", "/api/broadcast", data=b"{")
    text = caplog.text
    assert "a-wrong-key-of-mine" not in text
    assert not [key for key in KEYS if key.rsplit(":", 1)[-1] in text]
