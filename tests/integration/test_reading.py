"""A client that is read by hand: read_json, async for, timeouts, drain (design: Public API)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from heartwire import Client, ConnectionClosed, Message, Server
from integration.peers import (
    CLOSE,
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
    x: int


@pytest.fixture
def talk(make: Make) -> Callable[..., Any]:
    """Starts a server whose on_connect is the conversation; `result` holds what it returned or raised."""

    async def start(
        conversation: Callable[[Client], Any], **options: Any
    ) -> tuple[Server, asyncio.Future[Any]]:
        server = make(**options)
        result: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        @server.on_connect
        async def connect(client: Client) -> None:
            try:
                result.set_result(await conversation(client))
            except Exception as error:
                result.set_exception(error)

        await server.start()
        return server, result

    return start


async def done(result: asyncio.Future[Any]) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        return await result


async def test_a_conversation(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> list[Any]:
        client.send_json("name?")
        name = await client.read_json()
        client.send_json(f"age, {name}?")
        return [name, await client.read_json(int)]

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        assert await client.receive() == "name?"
        await client.send('"Bob"')
        assert await client.receive() == "age, Bob?"
        await client.send(42)
        assert await done(result) == ["Bob", 42]
        await client.send([])  # now the ordinary way: nobody wants it
        assert (await client.event("error"))["data"]["code"] == "bad_message"


async def test_built_in_actions_are_served_meanwhile(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        return await client.read_json()

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        assert (await client.ask("ping"))["event"] == "pong"
        await client.join("lobby")
        await client.send("nope")
        assert (await client.event("error"))["data"]["code"] == "bad_json"
        assert not result.done()
        await client.send({"action": "mine", "n": 1})
        assert await done(result) == {"action": "mine", "n": 1}


async def test_the_depth_limit_holds_here_too(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        return await client.read_json()

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        await client.send("[" * 129 + "]" * 129)
        error = (await client.event("error"))["data"]
        assert (error["code"], "128" in error["message"]) == ("bad_json", True)
        await client.send("[" * 128 + "]" * 128)
        await done(result)


async def test_types_are_checked(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        with pytest.raises(msgspec.ValidationError):
            await client.read_json(Move)
        return await client.read_json(type=Move)

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        await client.send({"x": "far"})
        await client.send({"x": 3})
        assert await done(result) == Move(x=3)


async def test_many_messages_in_one_segment(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> list[Any]:
        return [await client.read_json() for _ in range(200)]

    server, result = await talk(conversation)
    async with raw_peer(server) as peer:
        head = handshake(bearer=token())
        peer.send(head + b"".join(frame(TEXT, str(i).encode()) for i in range(200)))
        assert await done(result) == list(range(200))


async def test_async_for(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> list[Any]:
        return [message async for message in client]

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        for value in (1, [2], {"three": 3}):
            await client.send(str(value).replace("'", '"'))
        await client.quiet()
    assert await done(result) == [1, [2], {"three": 3}]


async def test_messages_that_were_sent_before_the_close_are_read(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> list[Any]:
        return [message async for message in client]

    server, result = await talk(conversation)
    async with raw_peer(server) as peer:
        peer.send(
            handshake(bearer=token()) + frame(TEXT, b"1") + frame(TEXT, b"2") + frame(CLOSE, b"\x03\xe8")
        )
        assert await done(result) == [1, 2]


async def test_a_late_message_is_not_lost(talk: Callable[..., Any]) -> None:
    timed_out = asyncio.Event()

    async def conversation(client: Client) -> Any:
        with pytest.raises(TimeoutError):
            await client.read_json(timeout=0.01)
        timed_out.set()
        await asyncio.sleep(0.03)  # the message comes now, while nobody reads
        return [await client.read_json(timeout=5), await client.read_json(timeout=5)]

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        await timed_out.wait()
        await client.send(1)
        await client.send(2)
        assert await done(result) == [1, 2]


async def test_a_message_in_the_moment_of_the_timeout_is_not_lost(talk: Callable[..., Any]) -> None:
    """Whatever the order of the two, each message is read exactly once."""

    async def conversation(client: Client) -> list[Any]:
        seen = []
        while len(seen) < 100:
            try:
                seen.append(await client.read_json(timeout=0.001))
            except TimeoutError:
                continue
        return seen

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        for i in range(100):
            await client.send(i)
            await asyncio.sleep(0.001)
        assert await done(result) == list(range(100))


async def test_a_cancelled_read_loses_nothing(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> list[Any]:
        seen: list[int] = []
        for attempt in itertools.count():
            if len(seen) == 50:
                break
            task = asyncio.ensure_future(client.read_json())
            for _ in range(attempt % 5):
                await asyncio.sleep(0)
            task.cancel()
            try:
                seen.append(await task)
            except asyncio.CancelledError:
                await asyncio.sleep(0.001)
        return seen

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        for i in range(50):
            await client.send(i)
        assert await done(result) == list(range(50))


async def test_the_end_of_the_connection(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        return await client.read_json()

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        await client.ws.close(3210, "bye")
    with pytest.raises(ConnectionClosed) as caught:
        await done(result)
    assert (caught.value.code, caught.value.reason, caught.value.cause) == (3210, "bye", "client_closed")


async def test_reading_what_is_gone(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        await until(lambda: not client.is_connected)
        return await client.read_json()

    server, result = await talk(conversation)
    async with raw_client(server, token()) as peer:
        peer.reset()
    with pytest.raises(ConnectionClosed):
        await done(result)


async def test_one_reader_at_a_time(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> Any:
        first = asyncio.ensure_future(client.read_json())
        await asyncio.sleep(0)
        with pytest.raises(RuntimeError, match="one read_json at a time"):
            await client.read_json()
        return await first

    server, result = await talk(conversation)
    async with json_client(server, token()) as client:
        await client.send(1)
        assert await done(result) == 1


async def test_reading_outside_of_handlers(make: Make) -> None:
    server = make()
    heard: list[Any] = []
    server.on_message(lambda client, value: heard.append(value))
    await server.start()
    async with json_client(server, token()) as client:
        (there,) = server.clients.values()
        for value in range(3):
            reading = asyncio.ensure_future(there.read_json())
            await asyncio.sleep(0)
            await client.send(value)
            assert await done(reading) == value
        assert heard == []
        there.close()  # nobody reads from it, so nobody would see the client close


async def test_a_reader_outside_of_handlers_stays_the_reader(make: Make) -> None:
    """Also when an action of the client goes on asynchronously and ends in between."""
    server = make()
    heard: list[Any] = []
    server.on_message(lambda client, value: heard.append(value))

    @server.authorize
    async def authorize(client: Client, verb: str, channel: str) -> bool:
        await asyncio.sleep(0)
        return True

    await server.start()
    async with json_client(server, token()) as client:
        (there,) = server.clients.values()
        reading = asyncio.ensure_future(there.read_json())
        await client.join("lobby")
        await client.send(1)
        assert await done(reading) == 1
        await client.send({"action": "join_channel", "channel": "two"})
        await client.send(2)
        assert await there.read_json(timeout=PATIENCE_S) == 2
        assert heard == []
        there.close()


async def test_a_handler_that_reads_may_wait_longer_than_handlers_may_run(make: Make) -> None:
    server = make(handler_timeout=0.1)

    @server.authorize
    async def authorize(client: Client, verb: str, channel: str) -> bool:
        await asyncio.sleep(0)
        return True

    @server.on_message
    async def talk(client: Client, value: Any) -> None:
        client.send_json([value, await client.read_json()])

    await server.start()
    async with json_client(server, token()) as client:
        await client.send("1")
        await client.join("lobby")
        await asyncio.sleep(0.3)
        await client.send("2")
        assert await client.receive() == [1, 2]


async def test_reading_text(make: Make) -> None:
    """With on_text, too, messages for a reader are JSON; also what is an action elsewhere."""
    server = make()
    texts: list[str] = []
    server.on_text(lambda client, text: texts.append(text))
    read: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @server.on_connect
    async def connect(client: Client) -> None:
        read.set_result(await client.read_json())

    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        await client.send('{"action":"ping"}')
        assert await done(read) == {"action": "ping"}
        await client.send("plain")
        await until(lambda: texts == ["plain"])


async def test_a_binary_message_for_a_reader(make: Make) -> None:
    """A reader of JSON does not take binary messages from their handler."""
    server = make()
    blobs: list[bytes] = []
    server.on_binary(lambda client, data: blobs.append(data))
    read: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    @server.on_connect
    async def connect(client: Client) -> None:
        read.set_result(await client.read_json())

    await server.start()
    async with json_client(server, token()) as client:
        await client.send(b"\x00\x01")
        await client.send(1)
        assert await done(read) == 1
        assert blobs == [b"\x00\x01"]


# ------------------------------------------------------------------ drain


async def test_drain_waits_for_the_kernel(talk: Callable[..., Any]) -> None:
    waiting = asyncio.Event()

    async def conversation(client: Client) -> bool:
        await client.drain()  # nothing queued: at once
        for _ in range(8):
            client.send_bytes(bytes(1 << 20))
        assert client.connection.queued_bytes
        drained = asyncio.ensure_future(client.drain())
        await asyncio.sleep(0.02)
        blocked = not drained.done()
        waiting.set()
        await drained
        assert client.connection.queued_bytes == 0
        return blocked

    server, result = await talk(conversation, send_buffer_limit=16 << 20)
    async with raw_client(server, token(), limit=1024) as peer:
        await waiting.wait()
        total = 0
        while total < 8 << 20:
            opcode, payload = await peer.frame()
            total += len(payload) if opcode != TEXT else 0
        assert await done(result) is True


async def test_drain_ends_with_the_connection(talk: Callable[..., Any]) -> None:
    async def conversation(client: Client) -> None:
        client.send_bytes(bytes(8 << 20))
        await client.drain()

    server, result = await talk(conversation, send_buffer_limit=16 << 20)
    async with raw_client(server, token(), limit=1024) as peer:
        await until(lambda: any(c.connection.queued_bytes for c in server.clients.values()))
        peer.reset()
        with pytest.raises(ConnectionClosed):
            await done(result)


# ------------------------------------------------------------------ deadlines


async def test_read_deadline(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        there = await ends.client()
        there.set_read_deadline(0.05)
        there.set_read_deadline(None)
        there.set_read_deadline(30)
        await client.quiet()
        there.set_read_deadline(0.05)
        assert (await client.closed())[0] == 4408
    await ends.only("read_deadline")
