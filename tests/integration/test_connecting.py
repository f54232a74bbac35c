"""What belongs to the life of one client: on_connect, its request and state, on_disconnect, sending."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import ActionError, Client, ConnectionClosed, Server
from integration.peers import (
    CLOSE,
    PATIENCE_S,
    TEXT,
    frame,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    token,
    until,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ on_connect and what belongs to it


@pytest.mark.parametrize("style", ["sync", "async"])
@pytest.mark.parametrize("how", ["false", "action error"])
async def test_on_connect_refuses(make: Make, style: str, how: str) -> None:
    server = make()
    causes: list[str] = []
    server.on_disconnect(lambda client, cause: causes.append(cause))
    heard: list[Any] = []
    server.on_message(lambda client, value: heard.append(value))

    def decide(client: Client) -> bool:
        if how == "false":
            return False
        raise ActionError("no_seat")

    async def decide_later(client: Client) -> bool:
        await asyncio.sleep(0)
        return decide(client)

    server.on_connect(decide if style == "sync" else decide_later)
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake(bearer=token()) + frame(TEXT, b"[1]"))
        assert (await peer.answer()).status == 101
        assert await peer.close_frame() == (4403, "" if how == "false" else "no_seat")
        peer.send_frame(CLOSE, (4403).to_bytes(2))
        await peer.gone()
    await server.stop()
    assert heard == []
    assert causes == ["forbidden"]
    assert server.metrics.disconnects == {"forbidden": 1}


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_on_connect_fails(make: Make, style: str) -> None:
    server = make()
    causes: list[str] = []
    server.on_disconnect(lambda client, cause: causes.append(cause))

    def fail(client: Client) -> None:
        raise ValueError("expected: oh")

    async def fail_later(client: Client) -> None:
        await asyncio.sleep(0)
        fail(client)

    server.on_connect(fail if style == "sync" else fail_later)
    await server.start()
    async with json_client(server, token()) as client:
        assert (await client.closed())[0] == 1011
    await server.stop()
    assert causes == ["handler_error"]


async def test_messages_wait_for_on_connect(make: Make) -> None:
    server = make()
    log: list[Any] = []

    @server.on_connect
    async def connect(client: Client) -> None:
        log.append("connecting")
        await asyncio.sleep(0.02)
        log.append("connected")

    server.on_message(lambda client, value: log.append(value))
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake(bearer=token()) + frame(TEXT, b"[1]"))
        await peer.answer()
        peer.send_frame(TEXT, b"[2]")
        peer.send_frame(TEXT, b'{"action":"ping"}')
        await peer.event("connected")
        await peer.event("pong")
    assert log == ["connecting", "connected", [1], [2]]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("style", ["sync", "async"])
async def test_the_request_is_dropped_after_on_connect(make: Make, keep: bool, style: str) -> None:
    server = make(keep_request=keep)
    seen: list[Any] = []

    def look(client: Client) -> None:
        request = client.request
        seen.append((request.path, request.query["room"], request.headers["User-Agent"], client.user_agent))

    async def look_later(client: Client) -> None:
        await asyncio.sleep(0)
        look(client)

    server.on_connect(look if style == "sync" else look_later)
    await server.start()
    async with json_client(server, token(), path="/ws?room=7", user_agent_header="tests/1") as client:
        await client.quiet()
        (there,) = server.clients.values()
        assert seen == [("/ws", "7", "tests/1", "tests/1")]
        assert (there.request is not None) is keep
        if keep:
            assert there.request.query["room"] == "7"


async def test_state_lives_until_on_disconnect(make: Make) -> None:
    server = make()
    seen: list[Any] = []
    told = asyncio.Event()

    @server.on_connect
    def connect(client: Client) -> None:
        client.state = {"seat": 7}

    @server.on_disconnect
    async def disconnect(client: Client, cause: str) -> None:
        seen.append((client, client.state, client.user_id, cause))
        await asyncio.sleep(0)
        seen.append(client.state)
        told.set()

    await server.start()
    async with json_client(server, token("bob")):
        pass
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()
    await server.stop()
    client = seen[0][0]
    assert seen[0][1:] == ({"seat": 7}, "bob", "client_closed")
    assert seen[1] == {"seat": 7}
    assert client.state is None


async def test_on_disconnect_that_fails(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make()

    @server.on_disconnect
    def fail(client: Client, cause: str) -> None:
        raise ValueError("expected: oh")

    await server.start()
    async with json_client(server, token()):
        pass
    async with json_client(server, token()) as client:
        await client.quiet()
    await server.stop()
    assert caplog.text.count("on_disconnect failed") == 2


async def test_on_disconnect_comes_after_the_last_handler(make: Make) -> None:
    server = make()
    log: list[Any] = []
    held, go_on = asyncio.Event(), asyncio.Event()

    @server.on_message
    async def handle(client: Client, value: Any) -> None:
        held.set()
        await go_on.wait()
        log.append(("handled", client.is_connected))
        with pytest.raises(ConnectionClosed) as caught:
            client.send_json("too late")
        log.append(caught.value.cause)

    server.on_disconnect(lambda client, cause: log.append(cause))
    await server.start()
    async with raw_client(server, token("bob")) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, b'{"action":"join_channel","channel":"lobby"}')
        await peer.event("joined_channel")
        peer.send_frame(TEXT, b"[1]")
        await held.wait()
        assert (list(server.users), list(server.channels)) == (["bob"], ["lobby"])
        peer.reset()
        await until(lambda: not server.clients)  # at once, though the handler runs
        stats = server.stats()
        assert (stats["clients"], stats["users"], stats["channels"]) == (0, 0, 0)
        assert not server.users
        assert not server.channels
    assert log == []
    assert server.metrics.disconnects == {"peer_gone": 1}
    go_on.set()
    await server.stop()
    assert log == [("handled", False), "peer_gone", "peer_gone"]


# ------------------------------------------------------------------ sending


async def test_what_can_be_sent(make: Make) -> None:
    server = make()

    @server.on_message
    def reply(client: Client, value: Any) -> None:
        client.send_json({"z": 1, "a": [1.5, None, True, "é"]})
        client.send_text("text")
        client.send_bytes(b"\x00")
        client.send_event("thing", {"a": 1}, channel="lobby", reply_to="x")
        client.send_event("bare")
        with pytest.raises(TypeError):
            client.send_json(object())
        with pytest.raises(TypeError):
            client.send_text(7)  # type: ignore[arg-type]

    await server.start()
    async with json_client(server, token()) as client:
        await client.send([])
        async with asyncio.timeout(PATIENCE_S):
            assert await client.ws.recv() == '{"z":1,"a":[1.5,null,true,"é"]}'
            assert await client.ws.recv() == "text"
            assert await client.ws.recv() == b"\x00"
        event = await client.event("thing")
        assert (event["data"], event["channel"], event["reply_to"]) == ({"a": 1}, "lobby", "x")
        assert (await client.event("bare"))["data"] is None
        await client.quiet()


async def test_numbers_that_json_has_not(make: Make) -> None:
    server = make()
    server.on_message(lambda client, value: client.send_json([math.nan, math.inf]))
    await server.start()
    async with json_client(server, token()) as client:
        await client.send([])
        async with asyncio.timeout(PATIENCE_S):
            assert await client.ws.recv() == "[null,null]"


async def test_client_facts(make: Make) -> None:
    server = make()
    await server.start()
    bearer = token("bob", username="Bob", roles=["admin"])
    async with json_client(server, bearer, user_agent_header="tests/1") as client:
        (there,) = server.clients.values()
        assert (there.user_id, there.username, there.user_agent) == ("bob", "Bob", "tests/1")
        assert there.claims["roles"] == ["admin"]
        assert there.remote_address == client.ws.local_address
        assert there.connected_at <= there.last_seen + 0.002
        assert there.rtt_ms is None
        assert there.is_connected
        assert "bob" in repr(there)
        assert bearer not in repr(there)
        there.join("lobby")
        assert there.channels == {"lobby"}
        there.leave("lobby")
        there.leave("lobby")
        assert there.channels == frozenset()
    await server.stop()
    assert not there.is_connected
    there.close()
    there.kick()
    there.ping()
    there.set_read_deadline(1)
    with pytest.raises(ConnectionClosed):
        there.join("lobby")
    with pytest.raises(ConnectionClosed):
        await there.read_json()
    assert not server.channels
