"""The built-in actions and each error a client can be told (protocol.md 3)."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Server
from heartwire.messages import OWN_EVENTS
from integration.peers import TEXT, json_client, raw_client, token

Make = Callable[..., Server]

INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z").fullmatch
PRESENCE = token("bob", username="Bob", channels=["presence-*", "private-*"])


# ------------------------------------------------------------------ ids and envelopes


@pytest.mark.parametrize("message_id", [0, 7, -1, 2**53, 2**63 - 1, -(2**63), "", "x" * 64, "ü☃"])
async def test_an_id_comes_back(server: Server, message_id: Any) -> None:
    async with json_client(server, token()) as client:
        await client.send({"action": "ping", "id": message_id})
        answer = await client.event("pong")
        assert answer["reply_to"] == message_id
        assert type(answer["reply_to"]) is type(message_id)
        assert set(answer) == {"id", "event", "timestamp", "reply_to"}
        assert INSTANT(answer["timestamp"])


async def test_no_id_no_reply_to(server: Server) -> None:
    async with json_client(server, token()) as client:
        for value in ({"action": "ping"}, {"action": "ping", "id": None}):
            await client.send(value)
            assert set(await client.event("pong")) == {"id", "event", "timestamp"}


@pytest.mark.parametrize("message_id", [1.5, True, [1], {"a": 1}, "x" * 65, 2**64, -(2**63) - 1])
async def test_what_is_no_id(server: Server, message_id: Any) -> None:
    async with json_client(server, token()) as client:
        await client.send({"action": "ping", "id": message_id})
        answer = await client.event("error")
        assert answer["data"]["code"] == "bad_message"
        assert answer["data"]["message"].startswith("id: expected an integer")
        assert "reply_to" not in answer
        await client.quiet()


async def test_ids_of_events_differ_between_servers(make: Make) -> None:
    seen = []
    for _ in range(2):
        server = make()
        await server.start()
        async with json_client(server, token()) as client:
            seen += [(await client.ask("ping"))["id"] for _ in range(3)]
    assert len(set(seen)) == len(seen)


async def test_unknown_fields_are_ignored(server: Server) -> None:
    async with json_client(server, token()) as client:
        assert (await client.ask("ping", extra=[1, {"a": 2}], channel=7, data="x"))["event"] == "pong"


# ------------------------------------------------------------------ join, leave, send


async def test_a_channel_lives_while_it_has_members(server: Server) -> None:
    async with json_client(server, token("bob")) as bob, json_client(server, token("carol")) as carol:
        assert await bob.join("lobby") == {"channel": "lobby"}
        assert await carol.join("lobby") == {"channel": "lobby"}
        assert await carol.join("lobby") == {"channel": "lobby"}  # again is no error
        assert len(server.channels["lobby"]) == 2
        assert (await bob.ask("leave_channel", channel="lobby"))["data"] == {"channel": "lobby"}
        assert (await carol.ask("leave_channel", channel="lobby"))["event"] == "left_channel"
        assert "lobby" not in server.channels
        assert (await bob.error("leave_channel", channel="lobby"))["code"] == "not_a_member"


async def test_what_members_receive(server: Server) -> None:
    async with (
        json_client(server, token("bob", username="Bob")) as bob,
        json_client(server, token("carol")) as carol,
    ):
        await bob.join("lobby")
        await carol.join("lobby")
        await bob.send(
            {"action": "send_message", "channel": "lobby", "event": "chat", "data": {"b": 1, "a": 2}}
        )
        received = [await client.event("chat") for client in (bob, carol)]
        assert received[0] == received[1]
        message = received[0]
        assert INSTANT(message.pop("timestamp"))
        assert isinstance(message.pop("id"), str)
        (sender,) = server.users["bob"]
        assert message == {
            "event": "chat",
            "channel": "lobby",
            "data": {"b": 1, "a": 2},
            "user_id": "bob",
            "username": "Bob",
            "client_id": sender.id,
        }


async def test_defaults_of_send_message(server: Server) -> None:
    async with json_client(server, token()) as client:
        await client.join("lobby")
        await client.send({"action": "send_message", "channel": "lobby"})
        message = await client.event("message")
        assert message["data"] is None


async def test_recipients_are_told_to_who_asks(server: Server) -> None:
    async with json_client(server, token("bob")) as bob, json_client(server, token("carol")) as carol:
        await carol.join("lobby")
        answer = await bob.ask("send_message", channel="lobby", data=1)  # public: no membership needed
        assert answer["event"] == "message_sent"
        assert answer["data"] == {"channel": "lobby", "recipients": 1}
        assert (await carol.event("message"))["data"] == 1
        assert (await bob.ask("send_message", channel="empty"))["data"] == {
            "channel": "empty",
            "recipients": 0,
        }
        await bob.join("lobby")
        await bob.send({"action": "send_message", "channel": "lobby", "id": 5})
        await bob.event("message")
        assert (await bob.event("message_sent"))["data"]["recipients"] == 2


@pytest.mark.parametrize("channel", ["private-room", "presence-room"])
async def test_only_members_send_to_closed_channels(server: Server, channel: str) -> None:
    async with json_client(server, PRESENCE) as client:
        assert (await client.error("send_message", channel=channel))["code"] == "not_a_member"
        await client.join(channel)
        await client.send({"action": "send_message", "channel": channel})
        assert (await client.event("message"))["channel"] == channel


async def test_claims_open_channels(server: Server) -> None:
    patterns = ["private-team-*", "presence-x"]
    async with json_client(server, token("bob", channels=patterns)) as client:
        await client.join("private-team-7")
        await client.join("presence-x")
        for name in ("private-other", "presence-xy", "private-team"):
            assert (await client.error("join_channel", channel=name))["code"] == "forbidden"
        await client.join("anything-public")


DATA = [
    '{"b":1,"a":2}',
    '{ "spaced" :\t[ 1 , 2 ] }',
    '"\\u00e9 \\/ é 😀"',
    "1.000e+10",
    "123456789012345678901234567890",
    '{"twice":1,"twice":2}',
    "null",
    "-0.0",
]


@pytest.mark.parametrize("data", DATA)
async def test_data_passes_byte_for_byte(server: Server, data: str) -> None:
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, b'{"action":"join_channel","channel":"lobby"}')
        await peer.event("joined_channel")
        peer.send_frame(TEXT, f'{{"action":"send_message","channel":"lobby","data":{data}}}'.encode())
        opcode, payload = await peer.frame()
        assert opcode == TEXT
        assert payload.endswith(f',"data":{data}}}'.encode())
        # Metadata of members is data too.
        join = f'{{"action":"join_channel","channel":"presence-a","data":{data}}}'
        peer.send_frame(TEXT, b'{"action":"authenticate","token":"%s"}' % token(channels=["*"]).encode())
        await peer.event("authenticated")
        peer.send_frame(TEXT, join.encode())
        assert f'"data":{data}}}]'.encode() in (await peer.frame())[1]


async def test_bad_channel_names(server: Server) -> None:
    async with json_client(server, token()) as client:
        for name in ("", "x" * 201, "a b", "a\n", "ü", "a*", 7, None, ["a"]):
            for action in ("join_channel", "leave_channel", "send_message"):
                error = await client.error(action, channel=name)
                assert error["code"] == "bad_message"
                assert error["message"].startswith("channel: expected 1 to 200 of ")
                assert "example" in error["message"]
            await client.quiet()
        await client.send({"action": "join_channel"})
        assert "it is missing" in (await client.event("error"))["data"]["message"]
        for name in ("x" * 200, "aZ09_-=@,.;:/"):
            await client.join(name)


@pytest.mark.parametrize("event", sorted(OWN_EVENTS))
async def test_the_server_s_own_events_cannot_be_forged(server: Server, event: str) -> None:
    async with json_client(server, token()) as client:
        await client.join("lobby")
        error = await client.error("send_message", channel="lobby", event=event)
        assert error["code"] == "bad_message"
        assert error["message"].startswith("event: ")
        await client.quiet()


async def test_event_names(server: Server) -> None:
    async with json_client(server, token()) as client:
        await client.join("lobby")
        for event in ("", "x" * 65, "a b", "ü", "a\n", 7, None):
            error = await client.error("send_message", channel="lobby", event=event)
            assert error["code"] == "bad_message"
            assert error["message"].startswith("event: expected 1 to 64 of ")
            await client.quiet()
        for event in ("x" * 64, "client-typing.v1:a_B", "Pong"):
            await client.send({"action": "send_message", "channel": "lobby", "event": event})
            await client.event(event)


async def test_too_many_channels(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(max_channels_per_client=2)
    await server.start()
    async with json_client(server, token()) as client:
        await client.join("one")
        await client.join("two")
        assert (await client.error("join_channel", channel="three"))["code"] == "too_many_channels"
        await client.join("two")
        await client.error("join_channel", channel="three")
        assert server.stats()["errors"] == {"too_many_channels": 2}
        await client.ask("leave_channel", channel="one")
        await client.join("three")
    await server.stop()
    told = [record for record in caplog.records if "too_many_channels" in record.getMessage()]
    assert [record.levelname for record in told] == ["WARNING", "WARNING"]
    assert told[0].getMessage() == "refused: too_many_channels, from 127.0.0.1"
    assert told[1].__dict__["suppressed"] == 1


async def test_128_channels_are_the_default(server: Server) -> None:
    async with json_client(server, token()) as client:
        for i in range(128):
            await client.join(f"c{i}")
        assert (await client.error("join_channel", channel="one-more"))["code"] == "too_many_channels"
