"""The heartbeat over real sockets: who is pinged, who is let go, what the log says (protocol.md 1, 5)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable

import pytest

from heartwire import Client, Server
from heartwire.testing import background_server
from integration.peers import CLOSE, PATIENCE_S, PING, PONG, TEXT, Ends, json_client, raw_client, token, until
from links import LINKS

Make = Callable[..., Server]

INVALID = "Client {} connection is no longer valid, stopping ping handler"
UNREGISTERED = "Client {} no longer registered, stopping ping handler"


def lines(caplog: pytest.LogCaptureFixture, client: Client) -> list[tuple[int, str]]:
    """What the heartbeat said of a client."""
    records = [r for r in caplog.records if r.name == "heartwire.heartbeat"]
    return [(r.levelno, r.getMessage()) for r in records if client.id in r.getMessage()]


async def test_pings_arrive_and_are_measured(make: Make) -> None:
    server = make(ping_interval=0.05)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        payloads = set()
        for _ in range(3):
            opcode, payload = await peer.frame()
            assert opcode == PING
            assert 0 < len(payload) <= 125
            payloads.add(payload)
            peer.send_frame(PONG, payload)
        assert len(payloads) == 3
        await until(lambda: there.rtt_ms is not None)
        assert there.rtt_ms is not None
        assert 0 < there.rtt_ms < PATIENCE_S * 1000
        assert server.stats()["pings"] >= 3


async def test_the_websockets_client_stays(make: Make) -> None:
    server = make(ping_interval=0.05, ping_timeout=0.2)
    await server.start()
    async with json_client(server, token()) as client:
        await until(lambda: server.stats()["pongs"] >= 6)
        await client.quiet()


async def test_a_silent_peer(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(ping_interval=0.05, ping_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        opcode, _ = await peer.frame()
        assert opcode == PING
        pinged = time.monotonic()
        assert (await peer.close_frame())[0] == 4408
        assert time.monotonic() - pinged > 0.05
        peer.send_frame(CLOSE, (4408).to_bytes(2))
        await peer.gone()
    await ends.only("ping_timeout")
    assert lines(caplog, there) == [(logging.DEBUG, INVALID.format(there.id))]


async def test_any_byte_is_life(make: Make) -> None:
    """A peer that never answers a ping, but whose message comes in byte by byte, stays."""
    server = make(ping_interval=0.05, ping_timeout=0.1, ping_always=True)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        peer.send(b"\x81\xfe\x01\x00mask")
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            peer.send(b"x")
            await asyncio.sleep(0.01)
        assert there.is_connected
        assert server.stats()["pings"] > 2
        assert (await peer.close_frame())[0] == 4408  # now that it is silent


async def test_a_pong_of_its_own_accord_is_life_and_no_measure(make: Make) -> None:
    server = make(ping_interval=20)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        peer.send_frame(PONG)
        peer.send_frame(PONG, b"\0\0\0\0")
        peer.send_frame(TEXT, b'{"action":"ping"}')
        await peer.event("pong")
        assert there.rtt_ms is None


async def test_pings_of_the_peer_are_answered(server: Server) -> None:
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        for payload in (b"", b"x" * 125):
            peer.send_frame(PING, payload)
            assert await peer.frame() == (PONG, payload)


@pytest.mark.parametrize("always", [False, True])
async def test_who_is_heard_is_not_pinged(make: Make, always: bool) -> None:
    server = make(ping_interval=0.2, ping_timeout=5, ping_always=always)
    await server.start()
    async with json_client(server, token()) as client:
        end = time.monotonic() + 0.7
        while time.monotonic() < end:
            await client.quiet()
            await asyncio.sleep(0.01)
        assert (server.stats()["pings"] >= 2) is always


async def test_first_pings_are_spread(make: Make) -> None:
    """A crowd that comes at once is not pinged at once."""
    server = make(ping_interval=0.4, ping_always=True)
    ends = Ends(server)
    await server.start()
    at: list[float] = []

    async def one() -> None:
        async with raw_client(server, token()) as peer:
            await peer.event("connected")
            there = await ends.client()
            opcode, _ = await peer.frame()
            at.append(time.time() - there.connected_at)
            assert opcode == PING

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(one() for _ in range(40)))
    assert min(at) < 0.15
    assert max(at) > 0.25


async def test_the_application_pings(make: Make) -> None:
    server = make(ping_interval=20)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        await asyncio.to_thread(there.ping)
        opcode, payload = await peer.frame()
        assert opcode == PING
        peer.send_frame(PONG, payload)
        await until(lambda: there.rtt_ms is not None)


async def test_a_stalled_server_lets_nobody_go(make: Make) -> None:
    """The pongs are waiting in the kernel when the server wakes up long after the timeout."""
    server = make(ping_interval=0.05, ping_timeout=0.1)
    ends = Ends(server)
    await server.start()
    clients = []
    async with json_client(server, token()) as one, json_client(server, token()) as two:
        clients = [await ends.client(), await ends.client()]
        for _ in range(3):
            pings = server.stats()["pings"]
            await until(lambda pings=pings: server.stats()["pings"] > pings)
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251  # what a bad handler does
            for client in (one, two):
                await client.quiet()
        assert all(client.is_connected for client in clients)


async def test_a_client_that_is_not_read_from_is_not_let_go(make: Make) -> None:
    server = make(ping_interval=0.05, ping_timeout=0.1)
    go_on = asyncio.Event()

    @server.action("hold")
    async def hold(client: Client) -> str:
        await go_on.wait()
        return "done"

    await server.start()
    async with json_client(server, token()) as client:
        await client.send({"action": "hold"})
        await asyncio.sleep(0.5)
        go_on.set()
        await client.event("hold")
        await client.quiet()


async def test_deadlines_do_not_put_off_each_other(make: Make) -> None:
    """A ping that is not due yet when its time comes must not hide a read deadline that is."""
    server = make(ping_interval=3)
    ends = Ends(server)
    await server.start()
    async with asyncio.timeout(PATIENCE_S):
        async with asyncio.TaskGroup() as crowd:

            async def one() -> None:
                async with raw_client(server, token()) as peer:
                    await peer.event("connected")
                    there = await ends.client()
                    there.set_read_deadline(1.2)
                    began = time.monotonic()
                    await peer.close_frame()
                    assert time.monotonic() - began < 2.4

            for _ in range(30):
                crowd.create_task(one())


@pytest.mark.parametrize("link", LINKS)
def test_idle_clients_cost_no_task_and_no_timer(link: str) -> None:
    """The loop holds as many of both with forty clients as with none: the wheel has one timer for all."""

    def costs() -> tuple[int, int]:
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]
        return len(asyncio.all_tasks()), sum(not timer.cancelled() for timer in timers)

    with background_server(link=link, loop="asyncio") as running, contextlib.ExitStack() as crowd:

        def connect(count: int) -> None:
            for _ in range(count):
                peer = crowd.enter_context(running.peer())
                assert peer.receive_text() is not None  # the welcome
                peer.send_text('{"action":"ping"}')
                assert peer.receive_text() is not None

        connect(1)
        before = running.call(costs)
        connect(40)
        assert len(running.call(lambda: dict(running.server.clients))) == 41
        assert running.call(costs) == before


# ------------------------------------------------------------------ the log


@pytest.mark.parametrize("how", ["close", "reset", "server"])
async def test_a_normal_end_is_told_once(make: Make, caplog: pytest.LogCaptureFixture, how: str) -> None:
    server = make(ping_interval=0.05)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        if how == "close":
            peer.send_frame(CLOSE)
            await peer.close_frame()
        elif how == "reset":
            peer.reset()
        else:
            there.close()
            await peer.close_frame()
            peer.send_frame(CLOSE)
            await peer.gone()
        await ends.cause()
    await server.stop()
    assert lines(caplog, there) == [(logging.DEBUG, INVALID.format(there.id))]
    assert server.metrics.ping_stopped == {
        "invalid": 1,
        "unregistered": 0,
        "nil_during_ping": 0,
        "send_error": 0,
    }


@pytest.mark.parametrize("how", ["stop", "drain"])
async def test_a_clean_shutdown_is_told_once(
    make: Make, caplog: pytest.LogCaptureFixture, how: str
) -> None:
    server = make(ping_interval=0.05, drain_delay=0, drain_window=0)
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()):
        there = await ends.client()
        await getattr(server, how)()
    assert lines(caplog, there) == [(logging.DEBUG, UNREGISTERED.format(there.id))]
    assert server.metrics.ping_stopped["unregistered"] == 1


async def test_clients_that_leave_abruptly_cause_no_error(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """The noise that the Go server made: pings to clients that have just left."""
    server = make(ping_interval=0.05, ping_timeout=0.5, ping_always=True)
    ends = Ends(server)
    await server.start()
    count = 60

    async def one(i: int) -> None:
        async with raw_client(server, token()) as peer:
            await peer.event("connected")
            await asyncio.sleep(i * 0.003)
            if i % 2:
                peer.reset()

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(one(i) for i in range(count)))
        for _ in range(count):
            await ends.cause()
    await server.stop()
    assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []
    stopped = server.metrics.ping_stopped
    assert stopped["invalid"] + stopped["nil_during_ping"] == count
    assert stopped["send_error"] == 0
