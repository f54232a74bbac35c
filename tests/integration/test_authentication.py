"""Who a client is after the handshake: gated clients, tokens replaced in place, tokens that end."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError

from heartwire import Client, Server
from integration.peers import BINARY, TEXT, Ends, json_client, raw_client, token

Make = Callable[..., Server]
OTHER_SECRET = "another secret of at least 32 bytes"
LATE_S = 3  # of a busy machine; a token's end is not forgotten, nor put off


@pytest.fixture
async def gated(make: Make) -> Server:
    """A server whose clients authenticate by message."""
    server = make(auth="message")
    await server.start()
    return server


def instant(text: str) -> float:
    return datetime.fromisoformat(text).astimezone(UTC).timestamp()


# ------------------------------------------------------------------ auth=message


async def test_only_authenticate_and_ping_until_then(gated: Server) -> None:
    async with json_client(gated) as client:
        assert (await client.ask("ping"))["event"] == "pong"
        for action in ("join_channel", "leave_channel", "send_message", "anything"):
            assert (await client.error(action, channel="lobby"))["code"] == "unauthenticated"
        for value in ([1], 7, "text", {"no": "action"}):
            await client.send(value if not isinstance(value, str) else '"text"')
            assert (await client.event("error"))["data"]["code"] == "unauthenticated"
        (there,) = gated.clients.values()
        assert (there.user_id, there.claims, there.channels) == (None, {}, frozenset())

        expires = time.time() + 1000
        answer = await client.ask("authenticate", token=token("bob", exp=int(expires), username="Bob"))
        assert answer["event"] == "authenticated"
        assert answer["data"].pop("expires_at") == datetime.fromtimestamp(int(expires), UTC).strftime(
            "%Y-%m-%dT%H:%M:%S.000Z"
        )
        assert answer["data"] == {"user_id": "bob", "username": "Bob"}
        assert (there.user_id, there.username, there.claims["sub"]) == ("bob", "Bob", "bob")
        assert gated.users["bob"] == (there,)
        await client.join("lobby")


async def test_actions_and_handlers_of_the_application_wait_too(make: Make) -> None:
    server = make(auth="message")
    heard: list[Any] = []
    server.on_message(lambda client, value: heard.append(value))
    server.on_binary(lambda client, data: heard.append(data))

    @server.action("move")
    def move(client: Client) -> str:
        heard.append("move")
        return "moved"

    await server.start()
    async with json_client(server) as client:
        assert (await client.error("move"))["code"] == "unauthenticated"
        for value in ('{"x":1}', b"\x00\x01"):
            await client.send(value)
            assert (await client.event("error"))["data"]["code"] == "unauthenticated"
        assert heard == []
        await client.ask("authenticate", token=token())
        await client.send(b"\x00\x01")
        await client.send({"x": 1})
        assert (await client.ask("move"))["data"] == "moved"
        assert heard == [b"\x00\x01", {"x": 1}, "move"]


async def test_a_wrong_token_leaves_the_client_where_it_was(gated: Server) -> None:
    async with json_client(gated) as client:
        assert (await client.error("authenticate", token=token(secret=OTHER_SECRET)))[
            "code"
        ] == "token_invalid"
        assert (await client.error("authenticate", token=token(expires_in=-1)))["code"] == "token_expired"
        assert (await client.error("join_channel", channel="lobby"))["code"] == "unauthenticated"
        assert (await client.ask("authenticate", token=token()))["event"] == "authenticated"


@pytest.mark.parametrize("value", [None, 7, {"token": "x"}])
async def test_a_token_is_a_string(gated: Server, value: Any) -> None:
    async with json_client(gated) as client:
        error = await client.error("authenticate", token=value)
        assert error["code"] == "bad_message"
        assert error["message"].startswith("token: expected a string")
        await client.send({"action": "authenticate"})
        assert "it is missing" in (await client.event("error"))["data"]["message"]


async def test_nobody_authenticates_in_time(make: Make) -> None:
    server = make(auth="message", auth_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with json_client(server) as client:
        assert (await client.closed())[0] == 4401
    await ends.only("auth_timeout")


async def test_who_authenticates_in_time_stays(make: Make) -> None:
    server = make(auth="message", auth_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with json_client(server) as client, json_client(server) as late:
        await client.ask("authenticate", token=token())
        assert (await late.closed())[0] == 4401
        await client.quiet()
    assert [await ends.cause() for _ in range(2)] == ["auth_timeout", "client_closed"]


async def test_messages_of_strangers_are_short(gated: Server) -> None:
    def ping(size: int) -> str:
        head = '{"action":"ping","pad":"'
        return head + "x" * (size - len(head) - 2) + '"}'

    async with json_client(gated) as client:
        await client.send(ping(16384))
        await client.event("pong")
        await client.send(ping(16385))
        assert (await client.closed())[0] == 1009
    async with json_client(gated) as client:
        await client.ask("authenticate", token=token())
        await client.send(ping(16385))
        await client.event("pong")


async def test_a_long_message_of_a_stranger_is_refused_at_its_header(gated: Server) -> None:
    """The server does not collect what it is going to refuse."""
    async with raw_client(gated) as peer:
        await peer.event("connected")
        peer.send(bytes([0x80 | TEXT, 0x80 | 126]) + (16385).to_bytes(2) + b"mask")
        assert (await peer.close_frame())[0] == 1009
    async with raw_client(gated) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, b"x" * 10_000, fin=False)
        peer.send_frame(0, b"x" * 10_000, fin=False)
        assert (await peer.close_frame())[0] == 1009


async def test_broadcasts_pass_strangers_by(make: Make) -> None:
    server = make(auth="message")
    here: list[Client] = []

    @server.on_connect
    def put_in_lobby(client: Client) -> None:
        client.join("lobby")
        here.append(client)

    await server.start()
    async with json_client(server) as stranger, json_client(server, token("bob")) as member:
        assert server.to_all("news", 1) == 1
        assert server.to_channel("lobby", "news", 2) == 1
        assert server.broadcast("news", 3, channel="lobby") == 1
        await member.send({"action": "send_message", "channel": "lobby", "data": 4})
        assert [(await member.receive())["data"] for _ in range(4)] == [1, 2, 3, 4]
        await stranger.quiet()
        await stranger.ask("authenticate", token=token("carol"))
        assert server.to_all("news", 5) == 2
        assert (await stranger.event("news"))["data"] == 5


async def test_binary_of_a_stranger_without_a_handler(gated: Server) -> None:
    async with raw_client(gated) as peer:
        await peer.event("connected")
        peer.send_frame(BINARY, b"\x00")
        assert (await peer.close_frame())[0] == 1003


async def test_a_token_in_the_handshake_opens_at_once(gated: Server) -> None:
    async with json_client(gated, token()) as client:
        await client.join("lobby")


# ------------------------------------------------------------------ auth=optional


async def test_anonymous_clients_listen(make: Make) -> None:
    server = make(auth="optional")
    await server.start()
    async with json_client(server) as listener, json_client(server, token("bob")) as speaker:
        await listener.join("lobby")
        assert (await listener.error("send_message", channel="lobby"))["code"] == "forbidden"
        assert (await listener.error("join_channel", channel="private-room"))["code"] == "forbidden"
        await speaker.send({"action": "send_message", "channel": "lobby", "data": "hello"})
        assert (await listener.event("message"))["data"] == "hello"
        assert (await listener.ask("authenticate", token=token("carol")))["data"]["user_id"] == "carol"
        await listener.send({"action": "send_message", "channel": "lobby"})
        assert (await listener.event("message"))["user_id"] == "carol"


async def test_anonymous_clients_may_stay(make: Make) -> None:
    """The time to authenticate is over when another server closes for it, whose client came later."""
    optional, gated = make(auth="optional", auth_timeout=0.1), make(auth="message", auth_timeout=0.1)
    await optional.start()
    await gated.start()
    async with json_client(optional) as listener, json_client(gated) as late:
        assert (await late.closed())[0] == 4401
        await listener.quiet()


async def test_a_server_without_a_secret_accepts_no_tokens(make: Make) -> None:
    server = make(auth="optional", jwt_secret=[])
    await server.start()
    async with json_client(server) as client:
        assert (await client.error("authenticate", token=token()))["code"] == "token_invalid"


# ------------------------------------------------------------------ a new token in place


async def test_another_user(server: Server) -> None:
    async with json_client(server, token("bob")) as client:
        assert (await client.error("authenticate", token=token("mallory")))["code"] == "user_mismatch"
        (there,) = server.clients.values()
        assert there.user_id == "bob"


async def test_new_claims_replace_the_old(server: Server) -> None:
    async with json_client(
        server, token("bob", username="Old", channels=["private-a", "presence-b"])
    ) as client:
        await client.join("private-a")
        await client.join("presence-b")
        await client.join("lobby")
        assert (await client.error("join_channel", channel="private-c"))["code"] == "forbidden"
        new = token("bob", username="New", channels=["private-a", "private-c"])
        await client.send({"action": "authenticate", "token": new, "id": "again"})
        messages = {message["event"]: message for message in [await client.receive(), await client.receive()]}
        assert messages["left_channel"]["data"]["channel"] == "presence-b"
        assert messages["left_channel"]["data"]["reason"]
        assert messages["authenticated"]["reply_to"] == "again"
        await client.join("private-c")
        (there,) = server.clients.values()
        assert there.channels == {"private-a", "private-c", "lobby"}
        assert there.username == "New"
        assert len(server.users["bob"]) == 1


async def test_a_token_taken_away_is_told_to_the_others(server: Server) -> None:
    channel = "presence-room"
    async with (
        json_client(server, token("bob", channels=[channel])) as bob,
        json_client(server, token("carol", channels=[channel])) as carol,
    ):
        await bob.join(channel)
        await carol.join(channel)
        await bob.event("member_joined")
        await carol.send({"action": "authenticate", "token": token("carol")})
        left = await bob.event("member_left")
        assert (left["channel"], left["data"]["user_id"]) == (channel, "carol")


async def test_the_application_decides_what_is_kept(make: Make) -> None:
    """With an authorising handler it is asked again: claims say nothing about channels then."""
    server = make()
    allowed = {"private-a", "private-b"}
    asked: list[tuple[str, str]] = []

    @server.authorize
    def authorize(client: Client, verb: str, channel: str) -> bool:
        asked.append((verb, channel))
        return channel in allowed

    await server.start()
    async with json_client(server, token("bob")) as client:
        await client.join("private-a")
        await client.join("private-b")
        allowed.remove("private-b")
        await client.send({"action": "authenticate", "token": token("bob")})
        assert (await client.event("left_channel"))["data"]["channel"] == "private-b"
        await client.event("authenticated")
        assert asked[2:] == [("join", "private-a"), ("join", "private-b")]


# ------------------------------------------------------------------ the end of a token


async def test_a_token_ends(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    expires = time.time() + 2
    async with json_client(server, token(exp=expires)) as client:
        warning = await client.event("token_expiring")
        assert time.time() < expires
        assert instant(warning["data"]["expires_at"]) == pytest.approx(expires, abs=0.001)
        assert (await client.closed())[0] == 4410
    assert expires <= time.time() < expires + LATE_S
    await ends.only("token_expired")


async def test_grace(make: Make) -> None:
    server = make(token_grace=0.5)
    ends = Ends(server)
    await server.start()
    expires = time.time() + 0.8
    async with json_client(server, token(exp=expires)) as client:
        assert (await client.closed())[0] == 4410
    assert expires + 0.5 <= time.time() < expires + 0.5 + LATE_S
    await ends.only("token_expired")


async def test_forgiven_clocks_are_forgiven_here_too(make: Make) -> None:
    server = make(jwt_leeway=100)
    await server.start()
    async with json_client(server, token(expires_in=-50)) as client:
        await client.quiet()
        await client.quiet()


async def test_a_client_renews_in_time(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with (
        json_client(server, token("bob", expires_in=2)) as bob,
        json_client(server, token("carol", expires_in=2)) as carol,
    ):
        for client in (bob, carol):
            await client.event("token_expiring")
        await bob.ask("authenticate", token=token("bob"))
        assert (await carol.closed())[0] == 4410
        assert await ends.cause() == "token_expired"
        await bob.quiet()
        assert list(server.users) == ["bob"]
    assert server.stats()["tokens_renewed"] == 1


async def test_when_the_warning_comes(make: Make) -> None:
    server = make(token_expiring_before=0.9)
    await server.start()
    expires = time.time() + 2
    async with json_client(server, token(exp=expires)) as client:
        await client.event("token_expiring")
        # Deadlines count whole milliseconds of another clock than tokens do.
        assert expires - 0.9 - 0.002 <= time.time() < expires
        assert (await client.closed())[0] == 4410


async def test_no_warning_is_wanted(make: Make) -> None:
    server = make(token_expiring_before=0, token_grace=0.2)
    await server.start()
    expires = time.time() + 1
    async with json_client(server, token(exp=expires)) as client:
        assert (await client.closed())[0] == 4410
        with pytest.raises(ConnectionClosedError):
            await client.ws.recv()
    assert time.time() >= expires + 0.2


# ------------------------------------------------------------------ what tokens allow


async def test_joining_and_sending_are_apart(server: Server) -> None:
    bearer = token("bob", channels=["private-*"], publish=["private-b", "lob*"])
    async with json_client(server, bearer) as client:
        for channel in ("private-a", "private-b", "lobby", "news"):
            await client.join(channel)
        for channel in ("private-b", "lobby"):
            await client.send({"action": "send_message", "channel": channel, "data": 1})
            assert (await client.event("message"))["channel"] == channel
        for channel in ("private-a", "news"):
            error = await client.error("send_message", channel=channel)
            assert error["code"] == "forbidden"
            assert channel in error["message"]
        assert (await client.error("send_message", channel="private-c"))["code"] == "not_a_member"
        await client.ask("authenticate", token=token("bob", channels=["private-*"], publish=[]))
        assert (await client.error("send_message", channel="lobby"))["code"] == "forbidden"
        await client.ask("authenticate", token=token("bob", channels=["private-*"]))
        await client.send({"action": "send_message", "channel": "news"})
        assert (await client.event("message"))["channel"] == "news"


async def test_the_handler_decides_instead_of_the_claims(make: Make) -> None:
    server = make()

    @server.authorize
    async def authorize(client: Client, verb: str, channel: str) -> bool:
        return verb == "join" or "editor" in client.roles

    await server.start()
    async with json_client(server, token("bob", publish=["*"], roles=["reader"])) as client:
        await client.join("private-a")
        assert (await client.error("send_message", channel="private-a"))["code"] == "forbidden"
        await client.ask("authenticate", token=token("bob", publish=[], roles="editor"))
        await client.send({"action": "send_message", "channel": "private-a"})
        assert (await client.event("message"))["channel"] == "private-a"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_handler_that_fails_refuses(make: Make, asynchronous: bool, caplog: Any) -> None:
    """Also about memberships after a new token: those of which nobody can say that they are allowed end."""
    server = make()
    broken = False

    def decide(client: Client, verb: str, channel: str) -> bool:
        if broken and channel == "private-a":
            raise RuntimeError("the database is gone")
        return True

    async def decide_later(client: Client, verb: str, channel: str) -> bool:
        return decide(client, verb, channel)

    server.authorize(decide_later if asynchronous else decide)
    await server.start()
    async with json_client(server, token("bob")) as client:
        for channel in ("private-a", "private-b"):
            await client.join(channel)
        broken = True
        await client.send({"action": "authenticate", "token": token("bob")})
        assert (await client.event("left_channel"))["data"]["channel"] == "private-a"
        await client.event("authenticated")
        (there,) = server.clients.values()
        assert there.channels == {"private-b"}
        assert (await client.error("join_channel", channel="private-a"))["code"] == "internal"
    assert "the database is gone" in caplog.text


@pytest.mark.parametrize(
    ("claim", "roles"),
    [(None, set()), ("admin", {"admin"}), (["a", "b", 5], {"a", "b"}), ({"a": 1}, set()), ([], set())],
)
async def test_roles(server: Server, claim: Any, roles: set[str]) -> None:
    async with json_client(server, token(roles=claim)):
        (there,) = server.clients.values()
        assert there.roles == roles
