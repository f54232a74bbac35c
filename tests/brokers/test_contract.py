"""What `Broker` promises, of every adapter, with real servers and clients (heartwire.brokers.base)."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest

from brokers.conftest import SHARED, Adapter
from heartwire import Server
from heartwire.brokers import Broker
from integration.peers import JsonClient, json_client, token

Start = Callable[[], Awaitable[Server]]
Connect = Callable[..., Awaitable[JsonClient]]


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects clients, by user id or anonymous, and joins them to channels."""
    async with AsyncExitStack() as stack:

        async def connect(server: Server, sub: str | None, *channels: str) -> JsonClient:
            bearer = None if sub is None else token(sub)
            client = await stack.enter_async_context(json_client(server, bearer))
            for channel in channels:
                await client.join(channel)
            return client

        yield connect


def broker_of(server: Server) -> Broker:
    return server._broker


def payload(n: Any) -> bytes:
    return json.dumps({"event": "test", "data": n}).encode()


async def received(*clients: JsonClient) -> list[list[Any]]:
    """What each client got up to now: everything before the answer to a ping sent now."""
    found = []
    for client in clients:
        await client.send({"action": "ping", "id": 0})
        got = []
        while (message := await client.receive())["event"] != "pong":
            got.append(message["data"])
        found.append(got)
    return found


async def arrived(server: Server, client: JsonClient) -> list[Any]:
    """What a client of another server got: everything before a last word that was published after it."""
    broker_of(server).to_all(payload("last word"))
    got = []
    while (message := await client.receive())["data"] != "last word":
        got.append(message["data"])
    return got


# ------------------------------------------------------------------ clients of this process


async def test_targets(start: Start, connect: Connect) -> None:
    server = await start()
    broker = broker_of(server)
    one = await connect(server, "alice", "lobby")
    two = await connect(server, "alice", "lobby", "other")
    bob = await connect(server, "bob", "lobby")
    stranger = await connect(server, None, "lobby")
    ids = {c.user_id or "stranger": c.id for c in server.clients.values()}  # of alice the second
    everybody = (one, two, bob, stranger)

    async def got(count: int) -> list[int]:
        """Who got it, after a call that said for how many it was queued."""
        told = [len(messages) for messages in await received(*everybody)]
        assert sum(told) == count
        return told

    assert await got(broker.to_channel("lobby", payload(1))) == [1, 1, 1, 1]
    assert await got(broker.to_channel("other", payload(1))) == [0, 1, 0, 0]
    assert await got(broker.to_channel("nobody", payload(1))) == [0, 0, 0, 0]
    assert await got(broker.to_channel("lobby", payload(1), skip=ids["bob"])) == [1, 1, 0, 1]
    assert await got(broker.to_channel("lobby", payload(1), except_user="alice")) == [0, 0, 1, 1]
    assert await got(broker.to_channel("lobby", payload(1), except_user="nobody")) == [1, 1, 1, 1]
    both = broker.to_channel("lobby", payload(1), skip=ids["bob"], except_user="alice")
    assert await got(both) == [0, 0, 0, 1]
    assert await got(broker.to_user("alice", payload(1))) == [1, 1, 0, 0]
    assert await got(broker.to_user("alice", payload(1), skip=ids["alice"])) == [1, 0, 0, 0]
    assert await got(broker.to_user("nobody", payload(1))) == [0, 0, 0, 0]
    assert await got(broker.to_all(payload(1))) == [1, 1, 1, 1]
    assert await got(broker.to_all(payload(1), skip=ids["stranger"])) == [1, 1, 1, 0]
    assert await got(broker.to_all(payload(1), skip="nobody")) == [1, 1, 1, 1]
    assert await got(broker.to_all(payload(1), authenticated=True)) == [1, 1, 1, 0]
    assert await got(broker.to_all(payload(1), except_user="alice")) == [0, 0, 1, 1]
    rest = broker.to_all(payload(1), authenticated=True, except_user="alice")
    assert await got(rest) == [0, 0, 1, 0]
    assert await got(broker.to_client(ids["bob"], payload(1))) == [0, 0, 1, 0]
    assert await got(broker.to_client("nobody", payload(1))) == [0, 0, 0, 0]


async def test_it_is_queued_before_the_call_returns(start: Start, connect: Connect) -> None:
    server = await start()
    alice = await connect(server, "alice", "lobby")
    (there,) = server.clients.values()
    broker_of(server).to_channel("lobby", payload(1))
    there.send_json({"event": "after", "data": 2})
    there.leave("lobby")
    broker_of(server).to_channel("lobby", payload(3))
    assert await received(alice) == [[1, 2]]


async def test_the_order_of_calls_is_kept_whatever_the_target(
    start: Start, connect: Connect, rng: random.Random
) -> None:
    server = await start()
    alice = await connect(server, "alice", "one", "two")
    (there,) = server.clients.values()
    broker = broker_of(server)
    ways: list[Callable[[bytes], int]] = [
        lambda text: broker.to_channel("one", text),
        lambda text: broker.to_channel("two", text),
        lambda text: broker.to_user("alice", text),
        lambda text: broker.to_client(there.id, text),
        broker.to_all,
    ]
    for n in range(500):
        assert rng.choice(ways)(payload(n)) == 1
    assert await received(alice) == [list(range(500))]


async def test_the_payload_is_passed_on_as_it_is(start: Start, connect: Connect) -> None:
    server = await start()
    alice = await connect(server, "alice")
    text = '{ "data" : [1.0,"\\u00e9 é 😀", {"a":1,"a":2}]\t}'
    broker_of(server).to_all(text.encode())
    assert await alice.ws.recv() == text
    beside = bytearray(b"[1.0, \"x\"]")  # a view of memory that is used again after the call
    await alice.join("lobby")
    broker_of(server).to_channel("lobby", b'{"event":"test"}', data=memoryview(beside))
    beside[:] = bytes(len(beside))
    assert await alice.ws.recv() == '{"event":"test","data":[1.0, "x"]}'


async def test_nothing_comes_after_the_end(start: Start, connect: Connect) -> None:
    server = await start()
    await connect(server, "alice", "lobby")
    await server.stop()
    await broker_of(server).stop()  # once more does nothing
    assert broker_of(server).to_channel("lobby", payload(1)) == 0
    assert broker_of(server).to_all(payload(1)) == 0


# ------------------------------------------------------------------ clients of other processes


across = pytest.mark.parametrize("adapter", SHARED, indirect=True)


@across
async def test_clients_of_other_processes(start: Start, connect: Connect) -> None:
    here, there = await start(), await start()
    broker = broker_of(here)
    alice = await connect(there, "alice", "lobby")
    beside = bytearray(b"0")
    stranger = await connect(there, None)
    (known,) = there.users["alice"]
    first = broker.to_channel("lobby", b'{"event":"test"}', data=memoryview(beside))
    beside[:] = b"?"
    for told in (
        first,
        broker.to_channel("lobby", payload(1)),
        broker.to_channel("other", payload("to nobody")),
        broker.to_channel("lobby", payload("skipped"), skip=known.id),
        broker.to_channel("lobby", payload("excepted"), except_user="alice"),
        broker.to_user("alice", payload(2)),
        broker.to_user("bob", payload("to nobody")),
        broker.to_all(payload(3), authenticated=True),
        broker.to_all(payload("excepted"), authenticated=True, except_user="alice"),
        broker.to_client(known.id, payload(4)),
    ):
        assert told == 0, "they are not counted"
    assert await arrived(here, alice) == [0, 1, 2, 3, 4]
    assert await arrived(here, stranger) == []


@across
async def test_nobody_gets_anything_twice(start: Start, connect: Connect) -> None:
    servers = [await start() for _ in range(3)]
    clients = [await connect(server, "alice", "lobby") for server in servers]
    broker = broker_of(servers[0])
    for n in range(20):
        broker.to_channel("lobby", payload(n))
        broker.to_user("alice", payload(n))
    for client in clients:
        got = await arrived(servers[0], client)
        assert [n for n in got if n != "last word"] == [n // 2 for n in range(40)]


@across
async def test_what_one_process_publishes_arrives_in_order(
    start: Start, connect: Connect, rng: random.Random
) -> None:
    here, there = await start(), await start()
    alice = await connect(there, "alice", "one", "two")
    broker = broker_of(here)
    ways: list[Callable[[bytes], int]] = [
        lambda text: broker.to_channel("one", text),
        lambda text: broker.to_channel("two", text),
        lambda text: broker.to_user("alice", text),
        broker.to_all,
    ]
    for n in range(500):
        rng.choice(ways)(payload(n))
    assert await arrived(here, alice) == list(range(500))


@across
async def test_members_hear_each_other_across_processes(start: Start, connect: Connect) -> None:
    here, there = await start(), await start()
    alice, bob = await connect(here, "alice", "lobby"), await connect(there, "bob", "lobby")
    await alice.send({"action": "send_message", "channel": "lobby", "data": "hello", "id": 1})
    assert (await alice.event("message"))["data"] == "hello"
    assert (await alice.event("message_sent"))["data"]["recipients"] == 1
    message = await bob.event("message")
    assert (message["data"], message["user_id"]) == ("hello", "alice")


@across
async def test_while_the_broker_is_away(adapter: Adapter, start: Start, connect: Connect) -> None:
    here, there = await start(), await start()
    alice, bob = await connect(here, "alice", "lobby"), await connect(there, "bob", "lobby")
    broker = broker_of(here)
    assert broker.away() is None
    assert await readiness(here) == (200, None)
    assert adapter.cut_off is not None
    assert adapter.restore is not None
    adapter.cut_off(broker)
    assert broker.away()
    assert await readiness(here) == (503, "the broker is away")
    assert broker.to_channel("lobby", payload("lost there")) == 1, "clients of this process are reached"
    assert await received(alice) == [["lost there"]]
    adapter.restore(broker)
    assert broker.away() is None
    assert await readiness(here) == (200, None)
    broker.to_channel("lobby", payload("heard"))
    assert await arrived(here, bob) == ["heard"], "nothing is sent later"


@across
async def test_a_server_that_has_stopped_is_no_problem(start: Start, connect: Connect) -> None:
    here, there, third = await start(), await start(), await start()
    alice = await connect(third, "alice")
    await there.stop()
    broker_of(here).to_all(payload(1))
    assert await arrived(here, alice) == [1]


async def readiness(server: Server) -> tuple[int, str | None]:
    """Status and reason of /ready."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{server.http_port}/ready") as answer,
    ):
        return answer.status, (await answer.json()).get("reason")
