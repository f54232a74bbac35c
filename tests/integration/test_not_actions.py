"""What no action claims, errors in a row, and the application's word on channels (protocol.md 3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Server
from integration.peers import json_client, token

Make = Callable[..., Server]


# ------------------------------------------------------------------ what is no action


async def test_unknown_actions(server: Server) -> None:
    async with json_client(server, token()) as client:
        error = await client.error("dance")
        assert error["code"] == "unknown_action"
        assert "dance" in error["message"]
        for value in (
            {},
            {"a": 1},
            {"action": None},
            {"action": 7},
            {"action": ["ping"]},
            {"action": "Ping"},
        ):
            await client.send(value)
            assert (await client.event("error"))["data"]["code"] == "unknown_action"
            await client.quiet()


@pytest.mark.parametrize("text", ["[1]", "7", '"ping"', "null", "true", '[{"action":"ping"}]', " 1.5 "])
async def test_values_that_are_no_objects(server: Server, text: str) -> None:
    async with json_client(server, token()) as client:
        await client.send(text)
        error = (await client.event("error"))["data"]
        assert error["code"] == "bad_message"
        assert "object" in error["message"]


BAD_JSON = [
    "",
    "{",
    "nope",
    '{"action":"ping"',
    '{"action":"ping"}}',
    '{"a":01}',
    "'a'",
    '{"a":NaN}',
    "{,}",
    '"\\ud800"',
]


@pytest.mark.parametrize("text", BAD_JSON)
async def test_text_that_is_no_json(server: Server, text: str) -> None:
    async with json_client(server, token()) as client:
        await client.send(text)
        assert (await client.event("error"))["data"]["code"] == "bad_json"
        await client.quiet()
    assert server.metrics.errors == {"bad_json": 1}


@pytest.mark.parametrize("kind", ["[]", "{}"])
async def test_nesting_has_a_limit(make: Make, kind: str) -> None:
    server = make()
    server.on_message(lambda client, value: client.send_json("deep enough"))
    await server.start()

    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth if kind == "[]" else '{"a":' * (depth - 1) + "{}" + "}" * (depth - 1)

    async with json_client(server, token()) as client:
        await client.send(nested(128))
        assert await client.receive() == "deep enough"
        for depth in (129, 10_000):
            await client.send(nested(depth))
            error = (await client.event("error"))["data"]
            assert error["code"] == "bad_json"
            assert "128" in error["message"]
        inside = json.dumps({"action": "send_message", "channel": "c", "data": None, "id": 1})
        await client.send(inside.replace("null", "[" * 127 + "]" * 127))
        assert (await client.event("message_sent"))["reply_to"] == 1
        await client.send(inside.replace("null", "[" * 128 + "]" * 128))
        assert (await client.event("error"))["data"]["code"] == "bad_json"


async def test_nesting_is_limited_before_authentication_too(make: Make) -> None:
    server = make(auth="message")
    await server.start()
    async with json_client(server) as client:
        await client.send('{"action":"ping","a":' + "[" * 200 + "]" * 200 + "}")
        error = (await client.event("error"))["data"]
        assert (error["code"], "128" in error["message"]) == ("bad_json", True)


# ------------------------------------------------------------------ ten errors in a row


async def test_ten_errors_in_a_row(server: Server) -> None:
    async with json_client(server, token()) as client:
        for _ in range(9):
            await client.error("dance")
        await client.quiet()  # an accepted action begins anew
        for _ in range(9):
            await client.error("dance")
        assert client.ws.close_code is None
        await client.error("dance")
        assert (await client.closed())[0] == 1008


async def test_handlers_that_refuse_later_count_too(make: Make) -> None:
    server = make()

    @server.on_message
    async def refuse(client: Client, value: Any) -> None:
        await asyncio.sleep(0)
        raise ValueError("not today")

    @server.action("later")
    async def later(client: Client) -> None:
        await refuse(client, None)

    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(5):
            await client.error("later")
            await client.send([])
            await client.event("error")
        assert (await client.closed())[0] == 1008


async def test_messages_that_a_handler_takes_are_accepted(make: Make) -> None:
    server = make()
    server.on_message(lambda client, value: client.send_json(value))
    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(12):
            for _ in range(9):
                await client.send("nope")
                await client.event("error")
            await client.send([1])
            assert await client.receive() == [1]


# ------------------------------------------------------------------ @server.authorize


@pytest.mark.parametrize("style", ["sync", "async"])
async def test_the_application_authorizes(make: Make, style: str) -> None:
    server = make()
    asked: list[tuple[str, str, str | None]] = []

    def decide(client: Client, verb: str, channel: str) -> bool:
        asked.append((verb, channel, client.user_id))
        return "yes" in channel and not (verb == "publish" and "mute" in channel)

    async def decide_later(client: Client, verb: str, channel: str) -> bool:
        await asyncio.sleep(0)
        return decide(client, verb, channel)

    server.authorize(decide if style == "sync" else decide_later)
    await server.start()
    async with json_client(server, token("bob", channels=["*"])) as client:
        await client.join("private-yes")
        await client.join("yes-mute")
        for name in ("private-no", "no"):  # the claim says yes, public channels are asked for too
            assert (await client.error("join_channel", channel=name))["code"] == "forbidden"
        for data in ('{"b":1,"a":2}', '{ "spaced" :[ 1 ] }', "1.000e+10", "null"):  # as it came
            await client.send(f'{{"action":"send_message","channel":"private-yes","data":{data}}}')
            assert (await client.event("message"))["data"] == json.loads(data)
        assert (await client.error("send_message", channel="yes-mute"))["code"] == "forbidden"
        assert (await client.error("send_message", channel="private-yes-2"))["code"] == "not_a_member"
    assert asked[:3] == [
        ("join", "private-yes", "bob"),
        ("join", "yes-mute", "bob"),
        ("join", "private-no", "bob"),
    ]
    assert ("publish", "private-yes", "bob") in asked


async def test_an_authorizer_that_fails_forbids(make: Make) -> None:
    server = make()

    @server.authorize
    def broken(client: Client, verb: str, channel: str) -> bool:
        raise LookupError("no table")

    await server.start()
    async with json_client(server, token()) as client:
        error = await client.error("join_channel", channel="lobby")
        assert error["code"] == "internal"
        assert "no table" not in error["message"]
        assert not server.channels


async def test_anonymous_clients_publish_where_the_application_says(make: Make) -> None:
    server = make(auth="optional")
    server.authorize(lambda client, verb, channel: channel == "open")
    await server.start()
    async with json_client(server) as client:
        await client.join("open")
        await client.send({"action": "send_message", "channel": "open"})
        message = await client.event("message")
        assert "client_id" in message
        assert "user_id" not in message
