"""Events for the backend: what is told of clients, channels and messages, and in which batches."""

from __future__ import annotations

import datetime
from typing import Any

from heartwire import Client
from integration.peers import json_client, raw_client, token
from integration.receiver import (
    HOOK_SECRET,
    MESSAGES,
    Make,
    Receiver,
    backend,
    said,
    say,
    short_waits,
    started,
)

__all__ = ["backend", "short_waits"]


# -------------------------------------------------------------- what is told


async def test_the_life_of_a_client(make: Make, backend: Receiver) -> None:
    every = ("client_connected", "client_authenticated", "client_disconnected", "message")
    server = await started(make, backend, webhook_events=every)
    headers = {"User-Agent": "tester/1"}
    bearer = token("bob", username="Bob")
    async with json_client(server, bearer, user_agent_header=None, headers=headers) as client:
        (there,) = server.clients.values()
        await say(client, {"action": "deploy", "id": 7, "to": ["a", None]})
    gone = await backend.event("client_disconnected")
    assert [event["type"] for event in backend.events] == [
        "client_connected", "client_authenticated", "message", "client_disconnected",
    ]  # fmt: skip
    who = {"client_id": there.id, "user_id": "bob", "username": "Bob"}
    connected, authenticated, message, _ = (event["data"] for event in backend.events)
    assert connected == {**who, "remote_address": "127.0.0.1", "user_agent": "tester/1"}
    assert authenticated.pop("expires_at").endswith("Z")
    assert authenticated == who
    assert message == {**who, "message": {"action": "deploy", "id": 7, "to": ["a", None]}}
    assert (gone["client_id"], gone["user_id"]) == (there.id, "bob")
    assert (gone["cause"], gone["code"], gone["reason"]) == ("client_closed", 1000, "")
    assert gone["remote_address"] == "127.0.0.1"
    assert (gone["messages_in"], gone["messages_out"]) == (2, 2)  # the message and a ping; connected, pong
    assert gone["bytes_in"] > 0 < gone["bytes_out"]
    assert 0 <= gone["received_ago_ms"] <= gone["duration_ms"] < 60_000
    assert (gone["queued_bytes"], gone["rtt_ms"]) == (0, None)
    for event in backend.events:
        datetime.datetime.fromisoformat(event["timestamp"])
    assert [event["seq"] for event in backend.events] == [1, 2, 3, 4]
    assert [body["batch"] for body in backend.taken] == list(range(1, len(backend.taken) + 1))
    assert {body["dropped"] for body in backend.taken} == {0}
    assert len({body["run"] for body in backend.taken}) == 1


async def test_who_authenticates_later_is_told_once(make: Make, backend: Receiver) -> None:
    events = ("client_connected", "client_authenticated", "message")
    server = await started(make, backend, webhook_events=events, auth="message")
    async with json_client(server) as client:
        await client.error("deploy")  # not authenticated: this is not passed on
        await client.ask("authenticate", token=token("bob"))
        await client.ask("authenticate", token=token("bob"))  # a new token is not a new identity
        await say(client, {"action": "deploy"})
    await backend.event("message")
    assert [event["type"] for event in backend.events] == [*events]
    assert [data["user_id"] for data in backend.of_type(*events)] == [None, "bob", "bob"]


async def test_the_life_of_a_channel(make: Make, backend: Receiver) -> None:
    every = ("channel_occupied", "member_joined", "member_left", "channel_vacated")
    server = await started(make, backend, webhook_events=every, presence_grace=3600)
    room = "presence-room"
    alice = token("alice", username="Alice", channels=["*"])
    async with json_client(server, alice) as one, json_client(server, alice) as tab:
        await one.join(room, data={"mood": "good"})
        await tab.join(room)
        await tab.ask("leave_channel", channel=room)
        async with json_client(server, token("bob", channels=["*"])) as bob:
            await bob.join(room)
            await one.event("member_joined")
        await one.join(room, data="tired")
        await one.join("lobby")
    await server.stop()
    told = backend.events
    assert [(event["type"], event["data"]["channel"]) for event in told] == [
        ("channel_occupied", room), ("member_joined", room), ("member_joined", room), ("member_joined", room),
        ("channel_occupied", "lobby"), ("member_left", room), ("member_left", room),
        ("channel_vacated", room), ("channel_vacated", "lobby"),
    ]  # fmt: skip
    members = [(d["user_id"], d["username"], d["data"]) for d in backend.of_type("member_joined")]
    assert members == [
        ("alice", "Alice", {"mood": "good"}), ("bob", None, None), ("alice", "Alice", "tired"),
    ]  # fmt: skip
    # Who is waited for goes with the channel.
    assert {data["user_id"] for data in backend.of_type("member_left")} == {"alice", "bob"}
    assert all(data["duration_ms"] >= 0 for data in backend.of_type("channel_vacated"))


async def test_what_ends_a_connection_is_told(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_events=("client_disconnected",), auth="optional")
    async with raw_client(server) as peer:
        peer.send(b"\xff\xff")
        await peer.gone()
    assert (await backend.event("client_disconnected"))["cause"] == "protocol_error"
    async with json_client(server, token("bob")) as client:
        next(iter(server.clients.values())).kick("out")
        await client.closed()
    kicked = await backend.event("client_disconnected", 2)
    assert (kicked["cause"], kicked["code"], kicked["reason"]) == ("kicked", 4403, "out")


async def test_every_unclaimed_value_is_passed_on(make: Make, backend: Receiver) -> None:
    server = make(webhook_url=backend.url, webhook_secret=HOOK_SECRET, webhook_events=MESSAGES)

    @server.action("known")
    def known(client: Client) -> str:
        return "done"

    await server.start()
    values: list[Any] = [{"action": "x"}, {"no": "action"}, [1, 2], "text", None, 1 << 80, {"action": 5}, 0.5]
    async with json_client(server, token()) as client:
        await say(client, *values)
        assert (await client.ask("known"))["data"] == "done"
        assert (await client.error("leave_channel", channel="lobby"))["code"] == "not_a_member"
    await backend.until(lambda: len(said(backend)) == len(values))
    assert said(backend) == values


async def test_handlers_come_before_the_webhook(make: Make, backend: Receiver) -> None:
    server = make(webhook_url=backend.url, webhook_secret=HOOK_SECRET)
    server.on_message(lambda client, value: client.send_json("mine"))
    await server.start()
    async with json_client(server, token()) as client:
        await client.send({"action": "x"})
        assert await client.receive() == "mine"
    await backend.event("client_disconnected")
    assert said(backend) == []


async def test_messages_that_are_not_wanted_are_unknown_actions(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_events=("client_connected",))
    async with json_client(server, token()) as client:
        assert (await client.error("deploy"))["code"] == "unknown_action"
    await backend.event("client_connected")
    await server.stop()
    assert [event["type"] for event in backend.events] == ["client_connected"]


# -------------------------------------------------------------- batches


async def test_a_full_batch_does_not_wait(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_batch=10, webhook_delay=60, webhook_flush=5)
    async with json_client(server, token()) as client:
        await say(client, *range(25))
        await backend.until(lambda: len(backend.taken) == 2)
        assert [len(body["events"]) for body in backend.taken] == [10, 10]
        await server.stop()  # the rest need not wait for company either
    assert [len(body["events"]) for body in backend.taken] == [10, 10, 5]
    assert said(backend) == list(range(25))


async def test_what_comes_within_the_delay_goes_together(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_delay=1)
    async with json_client(server, token()) as client:
        for i in range(3):
            await say(client, i)  # each has been queued before the next is sent
        await backend.until(lambda: backend.taken)
    assert said(backend) == [0, 1, 2]
    assert len(backend.taken) == 1


async def test_large_events_are_not_put_together(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_delay=60, webhook_flush=5)
    async with json_client(server, token()) as client:
        await say(client, *(["x" * 600_000] for _ in range(3)))
        await server.stop()
    assert [len(body["events"]) for body in backend.taken] == [1, 1, 1]
