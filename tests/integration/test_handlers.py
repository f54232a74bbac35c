"""What an application registers, and how its handlers are run (protocol.md 3, design: Public API)."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from heartwire import ActionError, Client, ConnectionClosed, Message, Server
from integration.peers import (
    BINARY,
    CLOSE,
    CONT,
    PATIENCE_S,
    TEXT,
    Ends,
    frame,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    token,
    until,
)

Make = Callable[..., Server]


class Move(Message):
    x: float
    y: float = 0.0
    note: msgspec.Raw = msgspec.Raw(b"null")


# ------------------------------------------------------------------ actions


async def test_typed_actions(make: Make) -> None:
    server = make()
    moves: list[Move] = []

    @server.action("move")
    def move(client: Client, message: Move) -> dict[str, float]:
        moves.append(message)
        return {"to": message.x}

    await server.start()
    async with json_client(server, token()) as client:
        answer = await client.ask("move", x=1.5, note=[1, 2], other="ignored")
        assert (answer["event"], answer["data"]) == ("move", {"to": 1.5})
        error = await client.error("move", x="far")
        assert error["code"] == "bad_message"
        assert "$.x" in error["message"]
        assert "x" in (await client.error("move"))["message"]
        for _ in range(20):  # the receive buffer is used again and again
            await client.ask("ping", pad="y" * 200)
    (only,) = moves
    assert (only.x, only.y) == (1.5, 0.0)
    assert bytes(only.note) == b"[1, 2]"  # I11: a Raw is a copy, not a view on the receive buffer


async def test_answers_and_errors_of_actions(make: Make) -> None:
    server = make()

    @server.action("nothing")
    def nothing(client: Client, message: Any) -> None: ...

    @server.action("false")
    def false(client: Client) -> bool:
        return False

    @server.action("whole")
    def whole(client: Client, message: Any) -> Any:
        return message

    @server.action("refuse")
    def refuse(client: Client) -> None:
        raise ActionError("no_seat", "the hall is full")

    @server.action("fail")
    def fail(client: Client) -> None:
        raise LookupError("expected: a secret of the database")

    @server.action("strange")
    def strange(client: Client) -> object:
        return object()

    @server.action("later")
    async def later(client: Client, message: dict[str, Any]) -> str:
        await asyncio.sleep(0)
        if message.get("refuse"):
            raise ActionError("no_seat", "not now")
        return "done"

    @server.action("later strange")
    async def later_strange(client: Client) -> object:
        await asyncio.sleep(0)
        return object()

    @server.action("pair")
    def pair(client: Client) -> tuple[int, int]:
        return 1, 2

    await server.start()
    async with json_client(server, token()) as client:
        await client.send({"action": "nothing", "id": 1})
        await client.quiet()
        assert (await client.ask("false"))["data"] is False
        assert (await client.ask("whole", a=[1]))["data"]["a"] == [1]
        assert (await client.ask("pair"))["data"] == [1, 2]
        assert await client.error("refuse") == {"code": "no_seat", "message": "the hall is full"}
        for action in ("fail", "strange", "later strange"):
            error = await client.error(action)
            assert error["code"] == "internal"
            assert "secret" not in error["message"]
        assert (await client.ask("later"))["data"] == "done"
        assert (await client.error("later", refuse=True))["code"] == "no_seat"
        await client.send({"action": "false"})
        assert set(await client.event("false")) == {"id", "event", "data", "timestamp"}
    assert server.metrics.errors == {"no_seat": 2, "internal": 3}


async def test_registering(make: Make) -> None:
    server = make()
    server.action("mine")(lambda client: None)
    for name in ("authenticate", "join_channel", "leave_channel", "send_message", "ping", "mine"):
        with pytest.raises(ValueError, match=name):
            server.action(name)(lambda client: None)
    with pytest.raises(ValueError, match="must take"):
        server.action("three")(lambda a, b, c: None)
    server.on_connect(lambda client: None)
    with pytest.raises(ValueError, match="on_connect"):
        server.on_connect(lambda client: None)
    with pytest.raises(ValueError, match="on_text"):
        server.on_text(lambda client, text: None)


# ------------------------------------------------------------------ on_message


async def test_on_message_takes_every_json_value_that_no_action_claims(make: Make) -> None:
    server = make()
    server.action("mine")(lambda client: "mine")
    server.on_message(lambda client, value: client.send_json([value]))
    await server.start()
    values = [
        "[1]",
        "7",
        '"ping"',
        "null",
        "true",
        "{}",
        '{"action":"dance"}',
        '{"action":7,"b":1,"a":2}',
        "1e3",
    ]
    async with json_client(server, token()) as client:
        for text in values:
            await client.send(text)
            answer = await client.ws.recv()
            assert answer == f"[{text}]".replace("1e3", "1000.0")  # compact, and the order of keys is kept
        assert (await client.ask("mine"))["data"] == "mine"
        assert (await client.ask("ping"))["event"] == "pong"
        await client.send("nope")
        assert (await client.event("error"))["data"]["code"] == "bad_json"
        await client.send('{"action":"ping","id":true}')  # claimed by the action, which refuses it
        assert (await client.event("error"))["data"]["code"] == "bad_message"


async def test_on_message_that_fails(make: Make) -> None:
    server = make()

    @server.on_message
    def fail(client: Client, value: Any) -> None:
        if value == "refuse":
            raise ActionError("no", "never")
        raise ValueError("expected: oh")

    await server.start()
    async with json_client(server, token()) as client:
        await client.send('"refuse"')
        assert (await client.event("error"))["data"] == {"code": "no", "message": "never"}
        await client.send('"fail"')
        assert (await client.event("error"))["data"]["code"] == "internal"
        await client.quiet()


# ------------------------------------------------------------------ on_text, on_binary


async def test_on_text_gets_text_undecoded(make: Make) -> None:
    server = make()
    texts: list[str] = []

    @server.on_text
    def echo(client: Client, text: str) -> None:
        texts.append(text)
        client.send_text(text.upper())

    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        for text in ('{"action":"ping"}', "", "not json é 😀", "\x00"):
            await client.ws.send(text)
            async with asyncio.timeout(PATIENCE_S):
                assert await client.ws.recv() == text.upper()
            assert texts[-1] == text


async def test_on_text_that_fails_closes(make: Make) -> None:
    server = make()
    ends = Ends(server)

    @server.on_text
    def fail(client: Client, text: str) -> None:
        raise ValueError("expected: oh")

    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        await client.ws.send("x")
        assert (await client.closed())[0] == 1011
    await ends.only("handler_error")


async def test_on_text_that_fails_later_closes(make: Make) -> None:
    server = make()
    ends = Ends(server)

    @server.on_text
    async def fail(client: Client, text: str) -> None:
        await asyncio.sleep(0)
        raise ValueError("expected: oh")

    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        await client.ws.send("x")
        assert (await client.closed())[0] == 1011
    await ends.only("handler_error")


async def test_on_binary(make: Make) -> None:
    server = make()

    @server.on_binary
    async def echo(client: Client, data: bytes) -> None:
        assert type(data) is bytes
        await asyncio.sleep(0)
        client.send_bytes(memoryview(data)[::-1])

    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(BINARY, b"\x00\xff", fin=False)
        peer.send_frame(CONT, b"\x01")
        assert await peer.frame() == (BINARY, b"\x01\xff\x00")
        peer.send_frame(BINARY)
        assert await peer.frame() == (BINARY, b"")


async def test_binary_without_a_handler(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        await client.ws.send(b"\x00")
        assert (await client.closed())[0] == 1003
    await ends.only("unsupported_data")


# ------------------------------------------------------------------ order and back-pressure


async def test_messages_of_one_client_are_handled_in_order(make: Make) -> None:
    server = make()
    log: list[Any] = []

    @server.on_message
    async def handle(client: Client, value: int) -> None:
        log.append(value)
        for _ in range(value % 3):
            await asyncio.sleep(0)
        log.append(-value)

    @server.action("sync")
    def sync(client: Client) -> str:
        log.append("sync")
        return "done"

    await server.start()
    async with json_client(server, token()) as client:
        for i in range(1, 30):
            await client.send(i)
        await client.ask("sync")
    assert log == [n for i in range(1, 30) for n in (i, -i)] + ["sync"]


async def test_another_client_does_not_wait(make: Make) -> None:
    server = make()
    held, go_on = asyncio.Event(), asyncio.Event()

    @server.action("hold")
    async def hold(client: Client) -> str:
        held.set()
        await go_on.wait()
        return "done"

    await server.start()
    async with json_client(server, token()) as slow, json_client(server, token()) as quick:
        await slow.send({"action": "hold", "id": 1})
        await slow.send({"action": "ping", "id": 2})
        await held.wait()
        for _ in range(3):
            await quick.quiet()
        go_on.set()
        assert [(await slow.receive())["reply_to"] for _ in range(2)] == [1, 2]


async def test_a_client_whose_handler_runs_is_not_read_from(make: Make) -> None:
    """The peer feels it: its own sending comes to a halt while the handler is busy."""
    server = make()
    held, go_on = asyncio.Event(), asyncio.Event()
    count = 0

    @server.on_message
    async def hold(client: Client, value: Any) -> None:
        nonlocal count
        count += 1
        held.set()
        await go_on.wait()

    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        message = frame(TEXT, json.dumps("x" * 60_000).encode())
        peer.send(message)
        await held.wait()
        sent = 1 + await peer.send_until_blocked(message)
        assert count == 1
        assert sent * len(message) < 64 << 20  # as much as both kernels' buffers take
        go_on.set()
        peer.send_frame(TEXT, b'{"action":"ping"}')
        await peer.event("pong")
        assert count == sent


async def test_kept_bytes_are_served_after_the_handler(make: Make) -> None:
    """Many messages in one segment, the first of which is held; nothing more comes from the peer."""
    server = make()

    @server.action("hold")
    async def hold(client: Client) -> None:
        await asyncio.sleep(0)

    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        ping = frame(TEXT, b'{"action":"ping"}')
        held = frame(TEXT, b'{"action":"hold"}')
        peer.send((held + ping) * 50 + frame(CLOSE, (1000).to_bytes(2)))
        for _ in range(50):
            await peer.event("pong")
        assert await peer.close_frame() == (1000, "")


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
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, b"[1]")
        await held.wait()
        peer.reset()
        await until(lambda: not server.clients)  # at once, though the handler runs
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
