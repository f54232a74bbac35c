"""Starting, draining and stopping a server inside a program (protocol.md 7, design: Public API)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import re
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, ConfigError, ConnectionClosed, Server
from integration.peers import (
    CLOSE,
    PATIENCE_S,
    SECRET,
    Ends,
    get,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    token,
    until,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ start and stop


async def test_async_with(link: str) -> None:
    async with Server(port=0, link=link, jwt_secret=[SECRET]) as server:
        async with json_client(server, token()) as client:
            await client.quiet()
        port = server.port
    with pytest.raises(OSError, match=r"refused|failed"):
        await asyncio.open_connection("127.0.0.1", port)


async def test_a_server_runs_once(make: Make) -> None:
    server = make()
    await server.stop()  # nothing was started
    await server.start()
    with pytest.raises(RuntimeError, match="runs once"):
        await server.start()
    await server.stop()
    await server.stop()
    with pytest.raises(RuntimeError, match="runs once"):
        await server.start()


async def test_two_servers_in_one_loop(make: Make) -> None:
    one, two = make(), make()
    await one.start()
    await two.start()
    assert one.port != two.port
    async with json_client(one, token("bob")) as bob, json_client(two, token("carol")) as carol:
        await bob.join("lobby")
        await carol.join("lobby")
        assert one.to_all("news", 1) == 1
        assert (await bob.event("news"))["data"] == 1
        await carol.quiet()
        assert list(one.users) == ["bob"]
        await one.stop()
        assert (await bob.closed())[0] == 1001
        await carol.quiet()


async def test_a_port_that_is_taken(make: Make) -> None:
    one = make()
    await one.start()
    two = make(port=one.port)
    with pytest.raises(OSError, match="in use"):
        await two.start()
    await two.stop()
    async with json_client(one, token()):
        pass


def test_misspelt_options() -> None:
    with pytest.raises(ConfigError, match="ping_interval"):
        Server(ping_intervall=1)


async def test_stop_tells_clients_when_to_come_back(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        (await ends.client()).send_json("last words")
        stopping = asyncio.create_task(server.stop())
        assert await client.receive() == "last words"
        code, reason = await client.closed()
        assert code == 1001
        assert re.fullmatch(r"reconnect_in=\d{1,4}", reason)
        await stopping
    await ends.only("shutdown")


async def test_stop_does_not_wait_for_ever(make: Make) -> None:
    server = make(close_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer, raw_peer(server) as silent, raw_peer(server) as http:
        http.send(get("/health"))
        await http.answer()  # and kept alive
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 2
        assert (await peer.close_frame())[0] == 1001
        for who in (peer, silent, http):
            await who.gone()
    assert await ends.cause() == "shutdown"


async def test_stop_waits_for_handlers(make: Make) -> None:
    server = make()
    held = asyncio.Event()
    log: list[str] = []

    @server.on_message
    async def handle(client: Client, value: Any) -> None:
        held.set()
        await asyncio.sleep(0.1)
        log.append("handled")

    @server.on_disconnect
    async def disconnect(client: Client, cause: str) -> None:
        await asyncio.sleep(0.05)
        log.append(cause)

    await server.start()
    async with json_client(server, token()) as client:
        await client.send("1")
        await held.wait()
        await server.stop()
        assert log == ["handled", "shutdown"]


async def test_stop_cancels_handlers_that_hang(make: Make) -> None:
    server = make(handler_timeout=0.1, close_timeout=0.05)
    held = asyncio.Event()
    log: list[str] = []

    @server.on_message
    async def handle(client: Client, value: Any) -> None:
        held.set()
        await asyncio.Event().wait()

    server.on_disconnect(lambda client, cause: log.append(cause))
    await server.start()
    async with json_client(server, token()) as client:
        await client.send("1")
        await held.wait()
        await server.stop()
        assert log == ["shutdown"]


async def test_stop_from_two_places(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()):
        await asyncio.gather(server.stop(), server.stop(), server.drain(), server.wait_closed())
    await ends.only("shutdown")


async def test_nothing_is_left_behind(make: Make) -> None:
    """A client that is gone is freed without help of the collector: it is in no cycle any more."""
    server = make()
    freed = asyncio.Event()

    class State:
        """Objects of this kind can be watched; clients cannot."""

    kept: list[State] = []

    @server.on_connect
    def connect(client: Client) -> None:
        kept.append(State())
        client.state = [client, kept[0]]  # a cycle, which the end has to break

    await server.start()
    gc.collect()
    gc.disable()
    try:
        async with json_client(server, token()) as client:
            await client.join("lobby")
            weakref.finalize(kept.pop(), freed.set)
            assert not freed.is_set()
        async with asyncio.timeout(PATIENCE_S):
            await freed.wait()
    finally:
        gc.enable()


# ------------------------------------------------------------------ drain


async def test_drain(make: Make) -> None:
    server = make(drain_delay=0.2, drain_window=0.4, drain_timeout=5)
    ends = Ends(server)
    await server.start()
    async with (
        json_client(server, token()) as one,
        json_client(server, token()) as two,
        raw_peer(server) as http,
    ):
        http.send(get("/ready"))
        assert (await http.answer()).status == 200
        began = time.monotonic()
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        http.send(get("/ready"))
        answer = await http.answer()
        assert (answer.status, answer.json["reason"]) == (503, "draining")
        async with raw_peer(server) as late:
            late.send(handshake(bearer=token()))
            answer = await late.answer()
            assert (answer.status, answer.json["code"]) == (503, "draining")
            assert int(answer.headers["retry-after"]) > 0
        async with raw_peer(server) as probe:
            probe.send(get("/health"))
            assert (await probe.answer()).status == 200
        await one.quiet()  # served to the last
        for client in (one, two):
            code, reason = await client.closed()
            assert code == 1012
            assert 0 <= int(reason.removeprefix("reconnect_in=")) <= 400
        assert 0.3 < time.monotonic() - began < 2  # after the delay, and spread over the window
        await draining
    assert [cause for _, cause in ends.told] == ["drain", "drain"]


async def test_drain_without_clients_is_quick(make: Make) -> None:
    server = make(drain_delay=60)
    await server.start()
    async with asyncio.timeout(PATIENCE_S):
        await server.drain()
        await server.wait_closed()


async def test_what_is_left_after_the_drain_is_aborted(make: Make) -> None:
    server = make(drain_delay=0, drain_window=0, drain_timeout=0.2, close_timeout=60)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        began = time.monotonic()
        await server.drain()
        assert time.monotonic() - began < 5
        assert (await peer.close_frame())[0] == 1012
        await peer.gone()
    await ends.only("drain")


async def test_a_drain_that_is_over_before_it_began(make: Make) -> None:
    server = make(drain_delay=60, drain_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await server.drain()
        await peer.gone()
    await ends.only("drain")


async def test_stop_cuts_a_drain_short(make: Make) -> None:
    server = make(drain_delay=60)
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        await server.stop()
        assert (await client.closed())[0] == 1001
        async with asyncio.timeout(PATIENCE_S):
            await draining
    await ends.only("shutdown")


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
