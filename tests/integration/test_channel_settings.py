"""What the configuration says about channels holds on the wire."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Server
from integration.peers import json_client, token
from links import LINKS

Make = Callable[..., Server]

BOB = token("bob", username="Bob", channels=["*"])
CAROL = token("carol")


async def started(make: Make, settings: dict[str, Any], **options: Any) -> Server:
    server = make(channel_settings=settings, presence_grace=0, **options)
    await server.start()
    return server


async def test_clients_may_not_send(make: Make) -> None:
    server = await started(make, {"news-": {"publish": False}, "news-talk-": {}})
    async with json_client(server, BOB) as bob:
        for joined in (False, True):
            if joined:
                await bob.join("news-today")
            error = await bob.error("send_message", channel="news-today", data=1)
            assert error == {"code": "forbidden", "message": "clients cannot send to news-today"}
        server.to_channel("news-today", "flash", 1)  # the application may
        await bob.event("flash")
        for name in ("news", "news-talk-1", "elsewhere"):  # no prefix, or a longer one
            await bob.join(name)
            await bob.send({"action": "send_message", "channel": name})
            await bob.event("message")


async def test_the_application_cannot_be_asked_for_more_than_the_settings_allow(make: Make) -> None:
    server = make(channel_settings={"news-": {"publish": False}})
    server.authorize(lambda client, verb, channel: True)
    await server.start()
    async with json_client(server, CAROL) as carol:
        assert (await carol.error("send_message", channel="news-today"))["code"] == "forbidden"
        await carol.join("private-room")
        await carol.send({"action": "send_message", "channel": "private-room"})
        await carol.event("message")


async def test_anonymous_clients_send_where_they_may(make: Make) -> None:
    server = await started(make, {"guestbook": {"anonymous_publish": True}}, auth="optional")
    async with json_client(server) as stranger:
        await stranger.join("guestbook")
        await stranger.send({"action": "send_message", "channel": "guestbook", "data": "hi"})
        message = await stranger.event("message")
        assert "user_id" not in message
        assert message["client_id"]
        for name in ("elsewhere", "guestboo"):
            assert (await stranger.error("send_message", channel=name))["code"] == "forbidden"


async def test_presence_by_setting(make: Make) -> None:
    server = await started(make, {"room-": {"presence": True}, "presence-crowd": {"presence": False}})
    async with json_client(server, BOB) as bob, json_client(server, BOB) as other:
        assert (await bob.join("room-1"))["member_count"] == 1
        assert await bob.join("presence-crowd") == {"channel": "presence-crowd"}
        async with json_client(server, CAROL) as carol:
            assert (await carol.join("room-1", data={"n": 1}))["member_count"] == 2
            message = await bob.event("member_joined")
            assert (message["channel"], message["data"]["data"]) == ("room-1", {"n": 1})
            # The name still says who may come in.
            assert (await carol.error("join_channel", channel="presence-crowd"))["code"] == "forbidden"
        await bob.event("member_left")
        await other.join("presence-crowd")
        await bob.quiet()
        assert server.channels["presence-crowd"].kind == "presence"


@pytest.mark.parametrize("presence", [False, True])
async def test_a_channel_can_be_full(make: Make, presence: bool) -> None:
    server = await started(make, {"room-": {"max_members": 2, "presence": presence}})
    async with (
        json_client(server, BOB) as one,
        json_client(server, BOB) as two,
        json_client(server, CAROL) as carol,
    ):
        await one.join("room-1")
        await two.join("room-1")  # with presence no further member
        if presence:
            await carol.join("room-1")
            for bob in (one, two):
                await bob.event("member_joined")
        else:
            error = await carol.error("join_channel", channel="room-1")
            assert error == {"code": "channel_full", "message": "room-1 has as many members as it may"}
        async with json_client(server, token("dora")) as dora:
            assert (await dora.error("join_channel", channel="room-1"))["code"] == "channel_full"
            await dora.join("room-2")
            await two.join("room-1")  # who is in may join again
            if not presence:
                await two.ask("leave_channel", channel="room-1")
                await dora.join("room-1")


@pytest.mark.parametrize("link", LINKS[:1])  # the same code runs for both
async def test_a_full_channel_is_full_for_the_application_too(make: Make) -> None:
    server = await started(make, {"room-": {"max_members": 1}})
    codes: list[str] = []

    async with json_client(server, BOB), json_client(server, CAROL):
        for client in server.clients.values():
            try:
                client.join("room-1")
            except Exception as error:
                codes.append(str(error))
    assert codes == ["channel_full: room-1 has as many members as it may"]


async def test_messages_have_a_size(make: Make) -> None:
    server = await started(make, {"chat-": {"max_message_size": "10B"}})
    async with json_client(server, BOB) as bob:
        await bob.join("chat-1")
        await bob.send('{"action":"send_message","channel":"chat-1","data":"12345678"}')
        assert (await bob.event("message"))["data"] == "12345678"
        error = await bob.error("send_message", channel="chat-1", data="123456789")
        assert error["code"] == "bad_message"
        assert error["message"].startswith("data: expected at most 10 bytes in chat-1, got 11")
        server.to_channel("chat-1", "long", "x" * 100)  # the application's are as long as it likes
        await bob.event("long")


async def test_only_authenticated_clients(make: Make) -> None:
    settings = {"members-": {"require_auth": True}}
    server = await started(make, settings, auth="optional")
    async with json_client(server) as client:
        for action in ("join_channel", "send_message"):
            assert (await client.error(action, channel="members-1"))["code"] == "unauthenticated"
        await client.join("lobby")
        await client.ask("authenticate", token=CAROL)
        await client.join("members-1")
        await client.send({"action": "send_message", "channel": "members-1"})
        await client.event("message")


async def test_a_claim_for_a_public_channel(make: Make) -> None:
    server = await started(make, {"team-": {"require_claim": True}})
    async with (
        json_client(server, token("bob", channels=["team-red"])) as bob,
        json_client(server, CAROL) as carol,
    ):
        await bob.join("team-red")
        assert (await bob.error("join_channel", channel="team-blue"))["code"] == "forbidden"
        assert (await carol.error("join_channel", channel="team-red"))["code"] == "forbidden"
        assert (await carol.error("send_message", channel="team-red"))["code"] == "not_a_member"
        await bob.quiet()
        (there,) = server.users["carol"]
        there.join("team-red")  # the application's word is enough
        await carol.send({"action": "send_message", "channel": "team-red"})
        await bob.event("message")
        # A token without the claim takes it away.
        await bob.send({"action": "authenticate", "token": token("bob")})
        assert (await bob.event("left_channel"))["data"]["channel"] == "team-red"


async def test_settings_for_every_channel(make: Make) -> None:
    server = await started(make, {"*": {"publish": False}, "chat-": {}})
    async with json_client(server, BOB) as bob:
        assert (await bob.error("send_message", channel="anything"))["code"] == "forbidden"
        await bob.join("chat-1")
        await bob.send({"action": "send_message", "channel": "chat-1"})
        await bob.event("message")


async def test_an_authorizer_that_waits_keeps_the_settings(make: Make) -> None:
    server = make(channel_settings={"chat-": {"max_message_size": 10}})

    @server.authorize
    async def authorize(client: Client, verb: str, channel: str) -> bool:
        return True

    await server.start()
    async with json_client(server, CAROL) as carol:
        await carol.join("chat-1")
        assert (await carol.error("send_message", channel="chat-1", data="x" * 20))["code"] == "bad_message"
        await carol.send({"action": "send_message", "channel": "chat-1", "data": 1})
        await carol.event("message")
