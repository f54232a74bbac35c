"""The backend decides on joins and publishes: over real sockets, with a backend that may fail."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web

from heartwire import Client, ConfigError, Server
from integration.peers import json_client, token, until
from integration.receiver import (
    HOOK_SECRET,
    Mood,
    Receiver,
    answering,
    hanging,
    receiver,
    resetting,
    verify,
)

Make = Callable[..., Server]

YES, NO = answering(200, {"allow": True}), answering(200, {"allow": False, "why": "not needed"})


@pytest.fixture
async def backend() -> AsyncIterator[Receiver]:
    """A backend that allows everything. What it is asked is in `requests`."""
    async with receiver() as made:
        made.mood = YES
        yield made


async def started(make: Make, backend: Receiver, **options: Any) -> Server:
    server = make(authorize_url=backend.url, webhook_secret=HOOK_SECRET, **options)
    await server.start()
    return server


def asked(backend: Receiver) -> list[tuple[str, str]]:
    """What the backend was asked: (verb, channel)."""
    questions = [json.loads(body) for _, body in backend.requests]
    return [(question["verb"], question["channel"]) for question in questions]


async def test_it_is_asked_and_its_word_counts(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    async with json_client(server, token("bob", username="Bob")) as client:
        (there,) = server.clients.values()
        await client.join("private-a")
        backend.mood = NO
        assert (await client.error("join_channel", channel="private-b"))["code"] == "forbidden"
        assert (await client.error("send_message", channel="private-a"))["code"] == "forbidden"
        backend.mood = YES
        await client.send({"action": "send_message", "channel": "private-a", "data": [1]})
        assert (await client.event("message"))["data"] == [1]
        assert there.channels == {"private-a"}
    (headers, body), *_ = backend.requests
    verify(headers, body)
    assert json.loads(body) == {
        "verb": "join", "channel": "private-a", "client_id": there.id, "user_id": "bob", "username": "Bob",
        "remote_address": "127.0.0.1",
    }  # fmt: skip
    expected = [("join", "private-a"), ("join", "private-b"), *[("publish", "private-a")] * 2]
    assert asked(backend) == expected
    assert server.metrics.hooks.answers == {"allowed": 2, "denied": 2, "failed": 0}


async def test_its_word_stands_for_the_claim(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    async with json_client(server, token("bob", channels=["private-*"])) as client:
        backend.mood = answering(403, "what a 403 says is not looked at")
        assert (await client.error("join_channel", channel="private-a"))["code"] == "forbidden"
    assert server.metrics.hooks.answers["denied"] == 1


async def test_what_it_is_not_asked_about_claims_decide(make: Make, backend: Receiver) -> None:
    server = await started(
        make, backend, authorize_channels=["private-asked-*"], authorize_verbs=["join"], auth="optional"
    )
    async with json_client(server, token("bob", channels=["private-mine"])) as client:
        await client.join("lobby")
        await client.join("private-mine")
        assert (await client.error("join_channel", channel="private-other"))["code"] == "forbidden"
        await client.join("private-asked-1")
        await client.send({"action": "send_message", "channel": "private-asked-1"})
        await client.event("message")
    async with json_client(server, token("carol", channels=["private-*"], publish=["lobby"])) as listener:
        await listener.join("private-mine")
        assert (await listener.error("send_message", channel="private-mine"))["code"] == "forbidden"
        await listener.join("lobby")
        await listener.send({"action": "send_message", "channel": "lobby"})
        await listener.event("message")
    async with json_client(server) as anonymous:
        await anonymous.join("lobby")
        assert (await anonymous.error("send_message", channel="lobby"))["code"] == "forbidden"
        assert (await anonymous.error("join_channel", channel="private-mine"))["code"] == "forbidden"
        await anonymous.join("private-asked-2")
    assert asked(backend) == [("join", "private-asked-1"), ("join", "private-asked-2")]


async def test_a_new_token_is_a_new_question(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    async with json_client(server, token("bob")) as client:
        await client.join("private-a")
        backend.mood = NO
        await client.send({"action": "authenticate", "token": token("bob"), "id": 9})
        assert (await client.event("left_channel"))["data"]["channel"] == "private-a"
        assert (await client.event("authenticated"))["reply_to"] == 9
    assert asked(backend) == [("join", "private-a")] * 2


FAILURES = {
    "500": answering(500, {"allow": True}),
    "201": answering(201, {"allow": True}),
    "302": answering(302, Location="/hook"),
    "reset": resetting,
    "hang": hanging,
    "no JSON": answering(200, "yes"),
    "empty": answering(200, ""),
    "no bool": answering(200, {"allow": 1}),
    "nothing": answering(200, {}),
    "endless": answering(200, '{"allow":true' + " " * 100_000 + "}"),
    "deep": answering(200, '{"x":' + "[" * 4000),
}


@pytest.mark.parametrize("fail", ["closed", "open"])
@pytest.mark.parametrize("mood", FAILURES.values(), ids=FAILURES)
async def test_a_failure_is_what_was_chosen(
    make: Make, backend: Receiver, mood: Mood, fail: str, caplog: pytest.LogCaptureFixture
) -> None:
    backend.mood = mood
    server = await started(make, backend, authorize_fail=fail, authorize_timeout=0.2)
    async with json_client(server, token()) as client:
        answer = await client.ask("join_channel", channel="private-a")
        assert answer["event"] == ("joined_channel" if fail == "open" else "error")
        if fail == "closed":
            assert answer["data"]["code"] == "forbidden"
        await client.quiet()
    assert server.metrics.hooks.answers["failed"] == 1
    assert f"so it was {'allowed' if fail == 'open' else 'refused'}" in caplog.text
    assert HOOK_SECRET not in caplog.text


async def test_a_backend_that_is_down_is_closed(make: Make, backend: Receiver) -> None:
    server = await started(make, backend)
    await backend.stop()
    async with json_client(server, token()) as client:
        assert (await client.error("join_channel", channel="private-a"))["code"] == "forbidden"


async def test_only_who_waits_waits(make: Make, backend: Receiver) -> None:
    answer = asyncio.Event()

    async def later(request: web.Request) -> web.StreamResponse:
        await answer.wait()
        return await YES(request)

    backend.mood = later
    server = await started(make, backend, authorize_timeout=30)
    async with json_client(server, token("bob")) as bob, json_client(server, token("carol")) as carol:
        for i in range(3):
            await bob.send({"action": "join_channel", "channel": f"private-{i}", "id": i})
        await until(lambda: backend.requests)
        await carol.join("lobby")
        for _ in range(20):
            await carol.quiet()
        assert len(backend.requests) == 1  # the others are not read yet
        answer.set()
        joined = [(await bob.event("joined_channel"))["reply_to"] for _ in range(3)]
        assert joined == [0, 1, 2]


async def test_who_leaves_meanwhile_joins_nothing(
    make: Make, backend: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    answer = asyncio.Event()

    async def later(request: web.Request) -> web.StreamResponse:
        await answer.wait()
        return await YES(request)

    backend.mood = later
    server = await started(make, backend, authorize_timeout=30)
    async with json_client(server, token("bob")) as bob:
        await bob.send({"action": "join_channel", "channel": "private-a"})
        await until(lambda: backend.requests)
        next(iter(server.clients.values())).kick()
        assert not server.clients
        answer.set()
        await bob.event("kicked")
        await bob.closed()
    await until(lambda: server.metrics.hooks.answers["allowed"] == 1)
    await server.stop()
    assert not server.channels
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


async def test_a_question_under_way_does_not_keep_the_server(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, authorize_timeout=30, handler_timeout=0.2, close_timeout=0.1)
    async with json_client(server, token("bob")) as bob:
        await bob.send({"action": "join_channel", "channel": "private-a"})
        await until(lambda: backend.requests)
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 10


async def test_one_who_decides(make: Make, backend: Receiver) -> None:
    server = make(authorize_url=backend.url, webhook_secret=HOOK_SECRET)

    @server.authorize
    def authorize(client: Client, verb: str, channel: str) -> bool:
        return True

    with pytest.raises(ConfigError, match=r"authorize_url.*@server\.authorize"):
        await server.start()
