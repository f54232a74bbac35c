"""Broadcasts, other threads, and the server's live views (design: Public API)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import time
from collections.abc import Callable

import pytest

from heartwire import ConnectionClosed, Server
from integration.peers import (
    CLOSE,
    PATIENCE_S,
    Ends,
    json_client,
    raw_client,
    token,
    until,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ sending to many


async def test_to_channel_to_user_to_all(server: Server) -> None:
    async with (
        json_client(server, token("bob")) as one,
        json_client(server, token("bob")) as two,
        json_client(server, token("carol")) as carol,
    ):
        await one.join("lobby")
        await carol.join("lobby")
        assert server.to_channel("lobby", "a", 1) == 2
        assert server.to_user("bob", "b", 2) == 2
        assert server.to_all("c", 3) == 3
        assert server.to_channel("nowhere", "d") == server.to_user("nobody", "d") == 0
        skip = server.users["carol"][0]
        assert server.broadcast("e", channel="lobby", skip=skip) == 1
        with pytest.raises(TypeError):
            server.broadcast("f", channel="lobby", user_id="bob")
        with pytest.raises(TypeError):
            server.to_all("g", object())
        for client, events in ((one, "abce"), (two, "bc"), (carol, "ac")):
            for event in events:
                message = await client.event(event)
                assert "client_id" not in message
                assert ("channel" in message) == (event in "ae")
            await client.quiet()


async def test_before_and_after(make: Make) -> None:
    server = make()
    with pytest.raises(RuntimeError, match="not running"):
        server.to_all("x")
    assert server.stats()["clients"] == 0
    await server.start()
    await server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        server.to_all("x")


# ------------------------------------------------------------------ other threads


async def test_broadcast_from_another_thread(server: Server) -> None:
    async with json_client(server, token("bob")) as client:
        await client.join("lobby")

        def work() -> list[int]:
            futures = [
                server.to_all("a", 1),
                server.to_channel("lobby", "b", 2),
                server.to_user("nobody", "c", 3),
                server.broadcast("d", 4, user_id="bob"),
            ]
            assert all(isinstance(future, concurrent.futures.Future) for future in futures)
            return [future.result(PATIENCE_S) for future in futures]

        assert await asyncio.to_thread(work) == [1, 1, 0, 1]
        assert [(await client.receive())["event"] for _ in range(3)] == ["a", "b", "d"]


async def test_sending_from_other_threads(make: Make) -> None:
    """Each thread's messages stay in order; none is lost, none twice."""
    server = make()
    ends = Ends(server)
    await server.start()
    threads, each = 4, 200
    async with json_client(server, token()) as client:
        there = await ends.client()

        def work(thread: int) -> None:
            for i in range(each):
                if i % 3 == 0:
                    there.send_json([thread, i])
                elif i % 3 == 1:
                    there.send_text(f"[{thread},{i}]")
                else:
                    there.send_bytes(f"[{thread},{i}]".encode())

        working = [asyncio.to_thread(work, thread) for thread in range(threads)]
        gathering = asyncio.gather(*working)
        received = [await client.receive() for _ in range(threads * each)]
        await gathering
        await client.quiet()
    for thread in range(threads):
        assert [i for who, i in received if who == thread] == list(range(each))


async def test_closing_from_another_thread(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        there = await ends.client()

        def work() -> str:
            there.send_json("last words")
            there.close(3000, "enough")
            until_closed = time.monotonic() + PATIENCE_S
            while time.monotonic() < until_closed:
                try:
                    there.send_json("more")
                except ConnectionClosed as error:
                    return error.cause
                time.sleep(0.001)
            return "never"

        cause = await asyncio.to_thread(work)
        assert cause == "server_closed"
        assert await client.receive() == "last words"
        assert await client.closed() == (3000, "enough")
    await ends.only("server_closed")


async def test_kicking_from_another_thread(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        there = await ends.client()
        await asyncio.to_thread(there.kick, "spam")
        await client.event("kicked")
        assert await client.closed() == (4403, "spam")
    await ends.only("kicked")


async def test_threads_that_send_while_clients_leave(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    stop = threading.Event()
    outcomes: list[str] = []

    def work() -> None:
        while not stop.is_set():
            for client in list(server.clients.values()):
                try:
                    client.send_event("tick", 1)
                    client.ping()
                except ConnectionClosed as error:
                    outcomes.append(error.cause)
            time.sleep(0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for i in range(40):
            async with raw_client(server, token()) as peer:
                await peer.frame()
                if i % 2:
                    peer.reset()
                else:
                    peer.send_frame(CLOSE)
                    await peer.close_frame()
        async with asyncio.timeout(PATIENCE_S):
            causes = [await ends.cause() for _ in range(40)]
    finally:
        stop.set()
        await asyncio.to_thread(thread.join)
    assert set(causes) <= {"peer_gone", "client_closed"}
    assert set(outcomes) <= {"peer_gone", "client_closed"}
    assert not server.clients


async def test_a_broadcast_after_the_end_fails_in_its_future_or_at_the_call(make: Make) -> None:
    server = make()
    await server.start()
    await server.stop()
    with pytest.raises(RuntimeError, match="not running"):
        await asyncio.to_thread(server.to_all, "x")


# ------------------------------------------------------------------ views


async def test_live_views(server: Server) -> None:
    clients, channels, users = server.clients, server.channels, server.users
    async with json_client(server, token("bob")) as client:
        await client.join("lobby")
        (client_id,) = clients
        assert list(channels) == ["lobby"]
        assert users["bob"] == (clients[client_id],)
        with pytest.raises(TypeError):
            clients["x"] = None  # type: ignore[index]
        with pytest.raises(KeyError):
            users["nobody"]
        stats = server.stats()
        assert (stats["clients"], stats["users"], stats["channels"]) == (1, 1, 1)
    await until(lambda: not clients)
    assert not channels
    assert len(users) == 0
