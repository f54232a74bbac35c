"""Members of channels with presence: who is told what, and when."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest

from heartwire import Client, Server
from integration.peers import TEXT, json_client, raw_client, token

Make = Callable[..., Server]

ROOM = "presence-room"
BOB = token("bob", username="Bob", channels=["presence-*", "private-*"])
CAROL = token("carol", username="Carol", channels=["presence-*"])


@pytest.fixture
async def server(make: Make) -> Server:
    """A running server that announces leaves at once."""
    server = make(presence_grace=0)
    await server.start()
    return server


async def test_members_come_and_go(server: Server) -> None:
    async with json_client(server, BOB) as bob:
        joined = await bob.join(ROOM, data={"mood": "good"})
        assert joined == {
            "channel": ROOM,
            "members": [{"user_id": "bob", "username": "Bob", "data": {"mood": "good"}}],
            "member_count": 1,
        }
        async with json_client(server, CAROL) as carol:
            joined = await carol.join(ROOM)
            assert [member["user_id"] for member in joined["members"]] == ["bob", "carol"]
            assert joined["member_count"] == 2
            message = await bob.event("member_joined")
            assert message["channel"] == ROOM
            assert message["data"] == {"user_id": "carol", "username": "Carol", "data": None}
            assert "client_id" not in message  # the server says it, no client
            await carol.quiet()  # who joins hears of no member_joined
        assert (await bob.event("member_left"))["data"]["user_id"] == "carol"


async def test_a_second_connection_of_a_user_is_no_second_member(server: Server) -> None:
    async with json_client(server, BOB) as bob:
        await bob.join(ROOM)
        async with json_client(server, token("carol", channels=[ROOM])) as one:
            await one.join(ROOM, data={"n": 1})
            assert (await bob.event("member_joined"))["data"]["data"] == {"n": 1}
            async with json_client(server, token("carol", channels=[ROOM])) as two:
                assert (await two.join(ROOM, data={"n": 2}))["member_count"] == 2
                await two.ask("leave_channel", channel=ROOM)
                await bob.quiet()
            await bob.quiet()
            await one.ask("leave_channel", channel=ROOM)
        assert (await bob.event("member_left"))["data"] == {
            "user_id": "carol",
            "username": None,
            "data": {"n": 1},
        }
        await bob.quiet()


async def test_a_page_that_is_loaded_anew_does_not_flap(make: Make) -> None:
    server = make(presence_grace=1.5)
    await server.start()
    async with json_client(server, BOB) as bob:
        await bob.join(ROOM)
        for turn in range(3):
            async with json_client(server, CAROL) as carol:
                joined = await carol.join(ROOM)
                assert [member["user_id"] for member in joined["members"]] == ["bob", "carol"]
                if turn == 0:
                    await bob.event("member_joined")
            await bob.quiet()
        left_at = asyncio.get_running_loop().time()
        assert (await bob.event("member_left"))["data"]["user_id"] == "carol"
        assert asyncio.get_running_loop().time() - left_at > 1
        await bob.quiet()


async def test_a_channel_begins_anew_after_its_last_leave(make: Make) -> None:
    """Whoever was waited for is no member of the next channel of that name."""
    server = make(presence_grace=3600)
    await server.start()
    async with json_client(server, BOB) as bob:
        async with json_client(server, CAROL) as carol:
            await carol.join(ROOM)
            await bob.join(ROOM)
            await carol.event("member_joined")
        assert (await bob.join(ROOM))["member_count"] == 2, "she may come back"
        await bob.ask("leave_channel", channel=ROOM)
        assert not server.channels
        assert (await bob.join(ROOM))["member_count"] == 1


async def test_new_metadata_is_told(server: Server) -> None:
    async with json_client(server, BOB) as bob, json_client(server, CAROL) as carol:
        await bob.join(ROOM)
        await carol.join(ROOM, data="here")
        await bob.event("member_joined")
        await carol.join(ROOM, data="away")
        assert (await bob.event("member_joined"))["data"]["data"] == "away"
        await carol.join(ROOM, data="away")
        await bob.quiet()
        joined = await bob.join(ROOM)
        assert [member["data"] for member in joined["members"]] == [None, "away"]


async def test_only_presence_channels_have_members_to_tell(server: Server) -> None:
    async with json_client(server, BOB) as bob:
        assert await bob.join("private-room") == {"channel": "private-room"}
        async with json_client(server, token("carol", channels=["private-room"])) as carol:
            await carol.join("private-room")
        await bob.quiet()


async def test_metadata_has_a_limit(server: Server) -> None:
    async with json_client(server, BOB) as client:
        await client.join(ROOM, data="x" * 1022)  # 1,024 with its quotes
        error = await client.error("join_channel", channel=ROOM, data="x" * 1023)
        assert error["code"] == "bad_message"
        assert "1025 bytes" in error["message"]


async def test_the_first_hundred_members_are_shown(server: Server) -> None:
    async with json_client(server, BOB) as bob, asyncio.TaskGroup() as crowd:
        hold, there = asyncio.Event(), asyncio.Semaphore(0)

        async def member(i: int) -> None:
            async with raw_client(server, token(f"user-{i}", channels=[ROOM])) as peer:
                await peer.event("connected")
                peer.send_frame(TEXT, json.dumps({"action": "join_channel", "channel": ROOM}).encode())
                await peer.event("joined_channel")
                there.release()
                await hold.wait()

        for i in range(101):
            crowd.create_task(member(i))
        for _ in range(101):
            await there.acquire()
        joined = await bob.join(ROOM)
        assert len(joined["members"]) == 100
        assert joined["member_count"] == 102
        hold.set()


async def test_who_authenticates_in_a_channel_becomes_a_member_by_name(make: Make) -> None:
    server = make(auth="optional", presence_grace=0, channel_settings={"lobby": {"presence": True}})
    await server.start()
    async with json_client(server, BOB) as bob, json_client(server) as stranger:
        await bob.join("lobby")
        assert (await stranger.join("lobby"))["member_count"] == 2
        assert (await bob.event("member_joined"))["data"]["user_id"] is None
        await stranger.ask("authenticate", token=CAROL)
        assert (await bob.event("member_left"))["data"]["user_id"] is None
        assert (await bob.event("member_joined"))["data"]["user_id"] == "carol"
        await stranger.ask("leave_channel", channel="lobby")
        assert (await bob.event("member_left"))["data"]["user_id"] == "carol"


async def test_a_server_of_texts_announces_nothing(make: Make) -> None:
    server = make(presence_grace=0)

    @server.on_connect
    def on_connect(client: Client) -> None:
        client.join(ROOM)

    server.on_text(lambda client, text: client.send_text(text))
    await server.start()
    async with json_client(server, BOB, welcome=False) as bob:
        async with json_client(server, CAROL, welcome=False):
            assert len(server.clients) == 2
        await bob.send("hello")
        assert await bob.ws.recv() == "hello"
