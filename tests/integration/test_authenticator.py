"""`@server.authenticate`: the application decides before the 101, instead of tokens (protocol.md 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Refusal, Server
from integration.peers import PATIENCE_S, get, handshake, json_client, raw_peer, refusal, token

Make = Callable[..., Server]


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_a_handler_decides_instead_of_the_token(make: Make, style: str) -> None:
    server = make(jwt_secret=[])
    paths = []

    def decide(request: Any) -> Any:
        paths.append(
            (request.path, request.query["name"], request.headers["X-Here"], request.remote_address[0])
        )
        name = request.query["name"]
        if name == "nobody":
            return None
        if name == "banned":
            raise Refusal(403, "banned", "go away")
        return {"sub": name, "username": name.title(), "channels": ["private-*"]}

    async def decide_later(request: Any) -> Any:
        await asyncio.sleep(0)
        return decide(request)

    server.authenticate(decide if style == "sync" else decide_later)
    await server.start()
    async with json_client(server, path="/ws?name=carol", headers={"X-Here": "yes"}) as client:
        (there,) = server.clients.values()
        assert (there.user_id, there.username) == ("carol", "Carol")
        await client.join("private-room")
    answer = await refusal(server, handshake("/ws?name=nobody", "X-Here: yes"))
    assert answer.status == 401
    assert "www-authenticate" in answer.headers
    answer = await refusal(server, handshake("/ws?name=banned", "X-Here: yes"))
    assert (answer.status, answer.json["code"]) == (403, "banned")
    assert paths[0] == ("/ws", "carol", "yes", "127.0.0.1")


async def test_a_handler_may_refuse_by_closing(make: Make) -> None:
    server = make(jwt_secret=[], reject="close")

    @server.authenticate
    async def nobody(request: Any) -> None:
        await asyncio.sleep(0)

    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake())
        assert (await peer.answer()).status == 101
        assert await peer.close_frame() == (4401, "unauthenticated")


async def test_a_handler_that_fails_is_a_500(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make()

    @server.authenticate
    async def broken(request: Any) -> str:
        raise KeyError("no such row")

    await server.start()
    answer = await refusal(server, handshake())
    assert (answer.status, answer.json["code"]) == (500, "internal")
    assert "no such row" not in answer.json["message"]
    assert "no such row" in caplog.text


async def test_a_handler_that_hangs_is_a_503_and_is_cancelled(make: Make) -> None:
    server = make(handshake_timeout=0.1)
    cancelled = asyncio.Event()

    @server.authenticate
    async def hang(request: Any) -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return "nobody"

    await server.start()
    answer = await refusal(server, handshake())
    assert answer.status == 503
    async with asyncio.timeout(PATIENCE_S):
        await cancelled.wait()


async def test_who_is_judged_when_the_server_stops_is_answered(make: Make) -> None:
    server = make()
    asked, cancelled = asyncio.Event(), asyncio.Event()

    @server.authenticate
    async def hang(request: Any) -> str:
        asked.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "nobody"

    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake())
        async with asyncio.timeout(PATIENCE_S):
            await asked.wait()
            await server.stop()
            await cancelled.wait()
        answer = await peer.answer()
        assert (answer.status, answer.json["code"]) == (503, "draining")
        assert int(answer.headers["retry-after"]) > 0
        assert await peer.eof() == b""
    assert server.stats()["refusals"] == {"503 draining": 1}


async def test_a_peer_that_leaves_while_it_is_judged(make: Make) -> None:
    server = make()
    asked, go_on = asyncio.Event(), asyncio.Event()
    connected: list[Client] = []
    server.on_connect(connected.append)

    @server.authenticate
    async def wait(request: Any) -> str:
        asked.set()
        await go_on.wait()
        return "alice"

    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake())
        async with asyncio.timeout(PATIENCE_S):
            await asked.wait()
        peer.reset()
    async with raw_peer(server) as peer:  # served after the reset was seen
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
    go_on.set()
    await server.stop()
    assert not server.clients
    assert server.metrics.disconnects.total() == len(connected)


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("/ws", ("Authorization: Bearer 17|of-another-kind",)),
        ("/ws", ("Authorization: Bearer one", "Authorization: Basic two")),
        ("/ws?token=one&token=two", ()),
        ("/ws", ("Sec-WebSocket-Protocol: heartwire.bearer, one, heartwire.bearer, two",)),
        ("/ws", (f"Authorization: Bearer {token('mallory', secret='another secret of at least 32 bytes')}",)),
    ],
)
async def test_tokens_are_the_handlers_business(make: Make, target: str, lines: tuple[str, ...]) -> None:
    """What is no token of ours, or two of them, may be what the handler goes by."""
    server = make()
    server.authenticate(lambda request: "alice")
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake(target, *lines))
        assert (await peer.answer()).status == 101
        await peer.event("connected")
    answer = await refusal(server, handshake(target, *lines, "Origin: https://evil.example"))
    assert (answer.status, answer.json["code"]) == (403, "origin_not_allowed")


async def test_sessions_by_cookie(make: Make) -> None:
    """As docs/authentication.md shows it."""
    server = make(jwt_secret=[])
    seen: list[dict[str, str]] = []

    @server.authenticate
    async def authenticate(request: Any) -> dict[str, Any] | None:
        seen.append(request.cookies)
        return {"sub": "bob"} if request.cookies.get("session") == "17|x=y" else None

    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", 'Cookie: theme=dark; session="17|x=y"; odd', "Cookie: theme=light"))
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        assert list(server.users) == ["bob"]
    assert (await refusal(server, handshake())).status == 401
    assert seen == [{"theme": "dark", "session": "17|x=y"}, {}]


async def test_a_cookie_needs_an_origin_for_a_handler_too(make: Make) -> None:
    """Two cookies of the name that the server was told of: which one counts is the handler's to say."""
    server = make(auth_cookie="session")
    server.authenticate(lambda request: "alice")
    await server.start()
    twice = "Cookie: session=one; session=two"
    for cookie in ("Cookie: session=one", twice):
        assert (await refusal(server, handshake("/ws", cookie))).status == 403
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", twice, "Origin: http://127.0.0.1"))
        assert (await peer.answer()).status == 101


async def test_other_rules_come_before_the_handler(make: Make) -> None:
    server = make(max_connections=1)
    asked: list[Any] = []

    @server.authenticate
    def authenticate(request: Any) -> str:
        asked.append(request)
        return "alice"

    await server.start()
    assert (await refusal(server, handshake("/elsewhere"))).status == 404
    assert (await refusal(server, handshake("/ws", "Origin: null"))).status == 403
    async with json_client(server):
        assert (await refusal(server, handshake())).status == 503
    assert len(asked) == 1
