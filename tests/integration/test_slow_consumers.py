"""Clients that do not read, and handlers that do not end (protocol.md 4)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, ConnectionClosed, Server
from integration.peers import (
    BINARY,
    PATIENCE_S,
    Ends,
    json_client,
    raw_client,
    token,
    until,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ slow consumers


async def test_a_slow_consumer(make: Make) -> None:
    server = make(send_buffer_limit=100_000)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        there = await ends.client()
        there.send_bytes(bytes(8 << 20))  # on an empty queue: always taken
        await until(lambda: there.connection.queued_bytes)
        with pytest.raises(ConnectionClosed) as caught:
            there.send_bytes(b"one more")
        assert (caught.value.code, caught.value.cause) == (4503, "slow_consumer")
        assert there.id not in server.clients
    await ends.only("slow_consumer")


async def test_a_slow_consumer_is_aborted_after_a_second(make: Make) -> None:
    server = make(send_buffer_limit=100_000, close_timeout=30)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        there = await ends.client()
        there.send_bytes(bytes(8 << 20))
        await until(lambda: there.connection.queued_bytes)
        assert server.to_all("more") == 0  # a broadcast meets it, too
        assert await ends.cause() == "slow_consumer"


@pytest.mark.parametrize("way", ["send", "broadcast", "channel"])
@pytest.mark.parametrize(("count", "size"), [(15, 100_000), (15_000, 100)])
async def test_a_burst_of_the_application_makes_no_slow_consumer(
    make: Make, way: str, count: int, size: int
) -> None:
    """More than the limit in one go, to a client that would have taken it: the kernel is asked first."""
    server = make()
    text = "x" * size

    @server.on_message
    def burst(client: Client, value: Any) -> None:
        for _ in range(count):
            if way == "send":
                client.send_json({"data": text})
            elif way == "broadcast":
                assert server.to_all("burst", text) == 1
            else:
                assert server.to_channel("lobby", "burst", text) == 1

    await server.start()
    async with json_client(server, token()) as client:
        await client.join("lobby")
        await client.send("1")
        for _ in range(count):
            assert (await client.receive())["data"] == text
        await client.quiet()


async def test_the_limit_is_compared_with_what_was_queued_before(make: Make) -> None:
    server = make(send_buffer_limit=16 << 20)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        there = await ends.client()
        there.send_bytes(bytes(12 << 20))
        await until(lambda: there.connection.queued_bytes)
        there.send_bytes(bytes(12 << 20))  # 12 MiB or less are waiting: taken
        with pytest.raises(ConnectionClosed):
            there.send_bytes(b"")
    assert await ends.cause() == "slow_consumer"


async def test_a_slow_consumer_that_reads_on_learns_why(make: Make) -> None:
    """What was queued is dropped behind the frame under way, and CLOSE comes after that frame."""
    server = make(send_buffer_limit=100_000)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        there = await ends.client()
        there.send_bytes(bytes(6 << 20))
        await until(lambda: there.connection.statistics()["bytes_out"] > 1000)
        with pytest.raises(ConnectionClosed):
            there.send_text("dropped")
        opcode, payload = await peer.frame()
        assert (opcode, len(payload)) == (BINARY, 6 << 20)
        assert (await peer.close_frame())[0] == 4503


async def test_a_queue_of_which_the_kernel_takes_nothing(make: Make) -> None:
    server = make(ping_timeout=0.2, ping_interval=20, send_buffer_limit=16 << 20)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token(), limit=1024) as peer:
        await peer.event("connected")
        there = await ends.client()
        there.send_bytes(bytes(8 << 20))
        assert await ends.cause() == "write_timeout"
    assert there.connection.code == 4408


# ------------------------------------------------------------------ handlers


async def test_a_handler_that_hangs(make: Make) -> None:
    server = make(handler_timeout=0.1)
    ends = Ends(server)
    log: list[str] = []

    @server.on_message
    async def hang(client: Client, value: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    await server.start()
    async with json_client(server, token()) as client:
        await client.send("1")
        assert (await client.closed())[0] == 1011
    await ends.only("handler_timeout")
    assert log == ["cancelled"]


async def test_an_on_connect_that_hangs(make: Make) -> None:
    server = make(handler_timeout=0.1)
    causes: list[str] = []
    server.on_disconnect(lambda client, cause: causes.append(cause))

    @server.on_connect
    async def hang(client: Client) -> None:
        await asyncio.Event().wait()

    await server.start()
    async with json_client(server, token()) as client:
        assert (await client.closed())[0] == 1011
    await server.stop()
    assert causes == ["handler_timeout"]


async def test_a_handler_that_goes_on_after_the_end_is_cancelled(make: Make) -> None:
    server = make(handler_timeout=0.2)
    held = asyncio.Event()
    log: list[str] = []
    told = asyncio.Event()

    @server.on_message
    async def hang(client: Client, value: Any) -> None:
        held.set()
        try:
            await client.read_json()
        except ConnectionClosed:
            log.append("closed")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            log.append("cancelled")
            raise

    @server.on_disconnect
    def disconnect(client: Client, cause: str) -> None:
        log.append(cause)
        told.set()

    await server.start()
    async with json_client(server, token()) as client:
        await client.send("1")
        await held.wait()
    async with asyncio.timeout(PATIENCE_S):
        await told.wait()
    assert log == ["closed", "cancelled", "client_closed"]


async def test_a_handler_that_ends_in_time_is_left_alone(make: Make) -> None:
    server = make(handler_timeout=0.2)

    @server.on_message
    async def handle(client: Client, value: Any) -> None:
        await asyncio.sleep(0.05)
        client.send_json(value)

    await server.start()
    async with json_client(server, token()) as client:
        for i in range(6):  # longer than the time of one, all together
            await client.send(str(i))
        assert [await client.receive() for _ in range(6)] == list(range(6))
        await asyncio.sleep(0.25)
        await client.quiet()
