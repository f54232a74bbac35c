"""What an application registers, and how its handlers are run (protocol.md 3, design: Public API)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from heartwire import ActionError, Client, Message, Server
from integration.peers import (
    BINARY,
    CLOSE,
    CONT,
    PATIENCE_S,
    TEXT,
    Ends,
    frame,
    json_client,
    raw_client,
    token,
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
