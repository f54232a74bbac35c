"""Starting, draining and stopping a server inside a program (protocol.md 7, design: Public API)."""

from __future__ import annotations

import asyncio
import gc
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, ConfigError, Server
from integration.peers import (
    PATIENCE_S,
    SECRET,
    Ends,
    get,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    token,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ start and stop


RUN = """
import gc, logging, signal
from heartwire import Server

class Look(logging.Handler):
    def emit(self, record):
        print(record.getMessage()[:9], gc.get_freeze_count(), flush=True)

server = Server(port=0, jwt_secret="x" * 32)
logging.getLogger("heartwire").addHandler(Look())
logging.getLogger("heartwire").setLevel("INFO")

server.run()
print("ended", gc.get_freeze_count())
"""


def test_run_spares_the_collector_what_stays() -> None:
    with subprocess.Popen([sys.executable, "-c", RUN], stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            said = [program.stdout.readline().split()]
            program.send_signal(signal.SIGINT)
            rest, _ = program.communicate(timeout=PATIENCE_S)
        finally:
            program.kill()
    said += [line.split() for line in rest.splitlines()]
    assert said[0][0] == "listening"
    counts = {name: int(count) for name, count in said}
    assert counts["stopping"] > 10_000
    assert counts["ended"] == 0


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
