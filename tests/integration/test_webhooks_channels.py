"""Channels and their members as the backend is told of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from heartwire import Server
from integration.peers import JsonClient, json_client, token, until
from integration.receiver import HOOK_SECRET, Receiver, receiver

Make = Callable[..., Server]
EVENTS = ("channel_occupied", "channel_vacated", "member_joined", "member_left", "client_disconnected")


@pytest.fixture
async def backend() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def started(make: Make, backend: Receiver, **options: Any) -> Server:
    usual = {"webhook_url": backend.url, "webhook_secret": HOOK_SECRET, "webhook_delay": 0}
    server = make(**{**usual, "webhook_events": EVENTS, "presence_grace": 0, **options})
    await server.start()
    return server


async def told(backend: Receiver, count: int) -> list[tuple[str, Any]]:
    """Waits for so many events; each as its type and who or what it is about."""
    await backend.until(lambda: len(backend.events) >= count)
    return [
        (event["type"], event["data"].get("user_id") or event["data"].get("channel"))
        for event in backend.events
    ]


def member(name: str) -> str:
    return token(name, channels=["presence-*"], username=name.title())


async def leave(client: JsonClient, channel: str) -> None:
    await client.send({"action": "leave_channel", "channel": channel})
    while (await client.receive())["event"] != "left_channel":
        pass  # what others did


async def test_a_channel_comes_and_goes(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    async with json_client(server, token("bob")) as bob, json_client(server, token("carol")) as carol:
        await bob.join("lobby")
        await carol.join("lobby")
        await bob.join("lobby")
        await leave(bob, "lobby")
        await leave(carol, "lobby")
        assert await told(backend, 2) == [("channel_occupied", "lobby"), ("channel_vacated", "lobby")]
        await carol.join("lobby")
        await told(backend, 3)
    expected = [("channel_occupied", "lobby"), ("channel_vacated", "lobby")] * 2
    events = await told(backend, 6)
    assert [event for event in events if event[0] != "client_disconnected"] == expected
    # A client leaves its channels before its end is told.
    assert events.index(("client_disconnected", "carol")) > events[::-1].index(("channel_vacated", "lobby"))
    assert backend.of_type("channel_vacated")[0]["duration_ms"] >= 0
    assert await server.stop() is None


async def test_members_by_user(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    name = "presence-room"
    async with json_client(server, member("bob")) as bob, json_client(server, member("carol")) as carol:
        async with json_client(server, member("bob")) as tab:
            await bob.join(name, data={"mood": "fine"})
            await tab.join(name)  # the same member
            await carol.join(name)
            await leave(bob, name)
        await until(lambda: len(server.channels[name]) == 1)
        await leave(carol, name)
        events = await told(backend, 7)
    assert [event for event in events if event[0] != "client_disconnected"] == [
        ("channel_occupied", name), ("member_joined", "bob"), ("member_joined", "carol"),
        ("member_left", "bob"), ("member_left", "carol"), ("channel_vacated", name),
    ]  # fmt: skip
    joined = backend.of_type("member_joined")[0]
    assert joined == {"channel": name, "user_id": "bob", "username": "Bob", "data": {"mood": "fine"}}
    assert backend.of_type("member_left")[0]["username"] == "Bob"


async def test_loading_a_page_anew_is_no_leave(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, presence_grace=30)
    name = "presence-room"
    async with json_client(server, member("carol")) as carol:
        await carol.join(name)
        for _ in range(3):
            async with json_client(server, member("bob")) as bob:
                await bob.join(name)
            await until(lambda: len(server.channels[name]) == 1)
        events = await told(backend, 6)
    joins = [("member_joined", "carol"), ("member_joined", "bob")]
    assert [event for event in events if event[0].startswith("member")] == joins


async def test_channels_of_a_server_that_stops(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_flush=10)
    name = "presence-room"
    async with json_client(server, member("bob")) as bob:
        await bob.join(name)
        await server.stop()
    kinds = [event["type"] for event in backend.events]
    assert kinds == [
        "channel_occupied", "member_joined", "member_left", "channel_vacated", "client_disconnected",
    ]  # fmt: skip


async def test_what_is_not_wanted_is_not_told(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_events=("channel_vacated",))
    async with json_client(server, member("bob")) as bob:
        await bob.join("presence-room")
        await leave(bob, "presence-room")
    await told(backend, 1)
    await server.stop()
    assert [event["type"] for event in backend.events] == ["channel_vacated"]
