"""Broadcasts: who gets them, what is refused, batches, and keys that make repeating them safe."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from heartwire import Server
from heartwire import http_publish as module
from heartwire.http_endpoint import ApiError
from heartwire.http_publish import IdempotencyKeys, Sent
from heartwire.messages import OWN_EVENTS
from integration.http.api import KEYS, SENDER, Api, api_of
from integration.http.test_clients import INSTANT
from integration.peers import TEXT, JsonClient, json_client, raw_client, token


@contextlib.asynccontextmanager
async def everybody(server: Server) -> AsyncIterator[dict[str, JsonClient]]:
    """alice twice, bob, and two who did not say who they are; alice's first and bob are in `lobby`."""
    async with contextlib.AsyncExitStack() as stack:
        clients = {
            name: await stack.enter_async_context(json_client(server, bearer))
            for name, bearer in (
                ("alice1", token("alice")), ("alice2", token("alice")), ("bob", token("bob")),
                ("anon1", None), ("anon2", None),
            )
        }  # fmt: skip
        for name in ("alice1", "bob", "anon1"):
            await clients[name].join("lobby")
        yield clients


async def recipients(clients: dict[str, JsonClient], event: str) -> set[str]:
    """Who has got this event, and nothing else."""
    got = set()
    for name, client in clients.items():
        await client.send({"action": "ping"})
        message = await client.receive()
        if message["event"] == event:
            got.add(name)
            message = await client.receive()
        assert message["event"] == "pong", (name, message)
    return got


ALL = {"alice1", "alice2", "bob", "anon1", "anon2"}
LOBBY = {"alice1", "bob", "anon1"}
WHO = [  # body, type in the answer, who gets it
    ({}, "global", ALL),
    ({"broadcast_type": "global"}, "global", ALL),
    ({"broadcast_type": "global", "channel": "lobby"}, "global", ALL),
    ({"broadcast_type": None, "channel": None, "user_id": None, "client_id": None}, "global", ALL),
    ({"channel": "lobby"}, "channel", LOBBY),
    ({"broadcast_type": "channel", "channel": "lobby", "user_id": "bob"}, "channel", LOBBY),
    ({"channel": "empty"}, "channel", set()),
    ({"user_id": "alice"}, "user", {"alice1", "alice2"}),
    ({"user_id": "alice", "channel": "lobby"}, "user", {"alice1", "alice2"}),
    ({"user_id": "carol"}, "user", set()),
    ({"broadcast_type": "authenticated"}, "authenticated", {"alice1", "alice2", "bob"}),
    ({"broadcast_type": "user_except", "user_id": "alice"}, "user_except", {"bob", "anon1", "anon2"}),
    ({"broadcast_type": "user_except", "user_id": "carol"}, "user_except", ALL),
    (
        {"broadcast_type": "user_except", "user_id": "alice", "channel": "lobby"},
        "user_except",
        LOBBY - {"alice1"},
    ),
    ({"client_id": "BOB"}, "client", {"bob"}),
    ({"client_id": "BOB", "user_id": "alice", "channel": "lobby"}, "client", {"bob"}),
]


@pytest.mark.parametrize("options", [{"auth": "optional"}])
async def test_who_gets_it(server: Server, api: Api) -> None:
    async with everybody(server) as clients:
        (bob,) = server.users["bob"]
        for body, kind, who in WHO:
            if "client_id" in body and body["client_id"] == "BOB":
                body = {**body, "client_id": bob.id}
            reply = await api.post("/api/broadcast", {"event": "news", **body})
            assert reply == {"status": "success", "type": kind, "recipients": len(who)}, body
            assert await recipients(clients, "news") == who, body


async def test_nobody_there(api: Api) -> None:
    for body in ({}, {"channel": "x"}, {"user_id": "x"}, {"broadcast_type": "authenticated"}):
        assert (await api.post("/api/broadcast", body))["recipients"] == 0
    reply = await api.call("POST", "/api/broadcast", json={"client_id": "nobody"})
    assert reply.error == (404, "not_found")


@pytest.mark.parametrize("options", [{"auth": "message"}])
async def test_who_has_not_authenticated_hears_nothing(server: Server, api: Api) -> None:
    async with json_client(server) as client:
        (client_id,) = server.clients
        for body in ({}, {"client_id": client_id}, {"broadcast_type": "authenticated"}):
            assert (await api.post("/api/broadcast", body))["recipients"] == 0
        await client.quiet()
        await client.ask("authenticate", token=token("alice"))
        assert (await api.post("/api/broadcast", {}))["recipients"] == 1


async def test_what_arrives(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        await api.post("/api/broadcast")
        event = await client.receive()
        assert INSTANT.fullmatch(event.pop("timestamp"))
        assert event.pop("id")
        assert event == {"event": "broadcast", "data": None}
        body = {"event": "a.B:c_d-1", "data": [1], "user_id": "alice", "channel": "x/y"}
        await api.post("/api/broadcast", body)
        event = await client.receive()
        assert set(event) == {"id", "event", "data", "channel", "timestamp"}  # no user_id: nobody's message
        assert (event["event"], event["data"], event["channel"]) == ("a.B:c_d-1", [1], "x/y")


async def test_data_is_passed_on_byte_for_byte(server: Server, api: Api) -> None:
    data = '{ "z" : 1.50,"a":[123456789012345678901234567890 , 1e400],"é":"\\u00e9\\/ \U0001f600", "z":null}'
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        body = f'{{"event":"x","data":{data}}}'.encode()
        assert (await api.call("POST", "/api/broadcast", data=body)).status == 200
        opcode, payload = await peer.frame()
        assert opcode == TEXT
        assert f'"data":{data},'.encode() in payload


WRONG = [  # body, field, what is expected
    ([1], "body", "a JSON object"),
    ("text", "body", "a JSON object"),
    ({"event": 7}, "event", "1 to 64 of"),
    ({"event": None}, "event", "1 to 64 of"),
    ({"event": ""}, "event", "1 to 64 of"),
    ({"event": "x" * 65}, "event", "1 to 64 of"),
    ({"event": "a b"}, "event", "1 to 64 of"),
    ({"event": "line\n"}, "event", "1 to 64 of"),
    ({"channel": 7}, "channel", "1 to 200 of"),
    ({"channel": "a b"}, "channel", "1 to 200 of"),
    ({"channel": "a\n"}, "channel", "1 to 200 of"),
    ({"user_id": ""}, "user_id", "the id of a user"),
    ({"user_id": 12}, "user_id", "the id of a user"),
    ({"client_id": []}, "client_id", "the id of a client"),
    ({"broadcast_type": "all"}, "broadcast_type", "one of channel, global,"),
    ({"broadcast_type": "channel"}, "channel", "the channel that"),
    ({"broadcast_type": "user"}, "user_id", "the user that"),
    ({"broadcast_type": "user_except"}, "user_id", "the user who is left out"),
    ({"broadcast_type": "client"}, "client_id", "the client that"),
    ({"idempotency_key": ""}, "idempotency_key", "1 to 128 characters"),
    ({"chanel": "lobby"}, "'chanel'", "one of the fields event, data, channel,"),
]


async def test_wrong_fields_are_named_and_nothing_is_sent(server: Server, api: Api) -> None:
    wrong = [*WRONG, *(({"event": name}, "event", "1 to 64 of") for name in OWN_EVENTS)]
    async with json_client(server, token()) as client:
        for body, field, expected in wrong:
            message = await api.refused("POST", "/api/broadcast", body)
            assert message.startswith(f"{field}: expected {expected}"), (body, message)
            _, _, example = message.partition("; example: ")
            reply = await api.call("POST", "/api/broadcast", data=example)  # an example that works
            assert reply.status == 200 or reply.error == (404, "not_found"), (example, reply)
            if reply.status == 200 and reply.json["recipients"]:
                assert (await client.receive())["event"] in ("broadcast", "news")
        await client.quiet()
    assert (await api.refused("POST", "/api/broadcast")).startswith("body: expected a JSON object")


# -------------------------------------------------------------- batches


async def test_a_batch_is_answered_item_by_item(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        batch = [{"event": f"e{i}", "data": i} for i in range(3)]
        batch[1] = {"event": 7}
        batch += [{"client_id": "nobody"}, {"user_id": "carol"}, "text"]
        batch += [{"event": "last", "user_id": "alice"}]
        answers = await api.post("/api/batch", batch)
        assert [a["status"] for a in answers] == [
            "success", "error", "success", "error", "success", "error", "success",
        ]  # fmt: skip
        assert answers[0] == {"status": "success", "type": "global", "recipients": 1}
        assert answers[1]["code"] == "bad_field"
        assert answers[1]["message"].startswith("event: expected")
        assert answers[3]["code"] == "not_found"
        assert answers[4]["recipients"] == 0
        assert [(await client.receive())["event"] for _ in range(3)] == ["e0", "e2", "last"]
        await client.quiet()


async def test_the_form_of_a_batch(api: Api) -> None:
    assert await api.post("/api/batch", []) == []
    for body in ({}, "x", 5):
        message = await api.refused("POST", "/api/batch", body)
        assert message.startswith("body: expected a list of broadcasts; example: [")
    reply = await api.call("POST", "/api/batch", data=b"[{")
    assert reply.error == (400, "bad_json")
    reply = await api.call("POST", "/api/batch", data=b'[{"data":"\xff"}]')
    assert reply.error == (400, "bad_json")
    reply = await api.call("POST", "/api/batch", data=b"")
    assert reply.error == (400, "bad_json")
    assert len(await api.post("/api/batch", [{}] * 1000)) == 1000
    message = await api.refused("POST", "/api/batch", [{}] * 1001)
    assert message.startswith("body: expected a list of at most 1000 broadcasts")


async def test_a_long_batch_lets_others_have_their_turn(
    server: Server, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TURN", 1)
    turns = 0
    done = False

    async def count_turns() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    async with json_client(server, token()):
        counting = asyncio.create_task(count_turns())
        await api.post("/api/batch", [{}])
        few = turns
        turns = 0
        await api.post("/api/batch", [{}] * 300)
        done = True
        await counting
    assert turns > 300 > few


# -------------------------------------------------------------- idempotency keys


async def test_the_same_key_and_body_is_sent_once(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        body = {"event": "order", "data": {"b": 1, "a": [1.5]}, "idempotency_key": "k1"}
        first = await api.post("/api/broadcast", body)
        assert first["recipients"] == 1
        await client.event("order")
        async with json_client(server, token("bob")):  # the answer is the first one, not a new count
            assert await api.post("/api/broadcast", body) == first
            same = b'{"idempotency_key":"k1",  "data":{"a":[1.5],"b":1}, "event":"order","channel":null}'
            assert (await api.call("POST", "/api/broadcast", data=same)).json == first
            assert await api.post("/api/batch", [body, body]) == [first, first]
        await client.quiet()


@pytest.mark.parametrize(
    "changed",
    [{"data": 2}, {"event": "other"}, {"channel": "lobby"}, {"user_id": "alice"}, {"client_id": "x"},
     {"broadcast_type": "global"}],
)  # fmt: skip
async def test_the_same_key_with_another_body(server: Server, api: Api, changed: dict[str, Any]) -> None:
    async with json_client(server, token()) as client:
        body = {"event": "order", "data": 1, "idempotency_key": "k1"}
        await api.post("/api/broadcast", body)
        await client.event("order")
        reply = await api.call("POST", "/api/broadcast", json={**body, **changed})
        assert reply.error == (409, "idempotency_conflict")
        (answer,) = await api.post("/api/batch", [{**body, **changed}])
        assert (answer["status"], answer["code"]) == ("error", "idempotency_conflict")
        await client.quiet()
        await api.post("/api/broadcast", {**body, **changed, "client_id": None, "idempotency_key": "k2"})


async def test_keys_belong_to_one_api_key(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        await api.post("/api/broadcast", {"data": 1, "idempotency_key": "k"})
        await api.post("/api/broadcast", {"data": 2, "idempotency_key": "k"}, key=SENDER)
        assert [(await client.receive())["data"] for _ in range(2)] == [1, 2]


async def test_a_failure_is_not_kept(server: Server, api: Api) -> None:
    body = {"client_id": "nobody", "idempotency_key": "k"}
    assert (await api.call("POST", "/api/broadcast", json=body)).status == 404
    async with json_client(server, token()):
        (client_id,) = server.clients
        reply = await api.post("/api/broadcast", {"client_id": client_id, "idempotency_key": "k"})
        assert reply["recipients"] == 1


def test_keys_expire_and_are_bounded() -> None:
    now = 0.0
    keys = IdempotencyKeys(lambda: now, kept=3)
    for i in range(5):
        now += 1
        keys.keep("owner", f"k{i}", b"body", Sent("global", i))
    assert len(keys) == 3
    assert keys.find("owner", "k1", b"body") is None  # pushed out
    assert keys.find("owner", "k4", b"body") == Sent("global", 4)
    with pytest.raises(ApiError) as refused:
        keys.find("owner", "k4", b"other")
    assert refused.value.status == 409
    assert keys.find("other", "k4", b"body") is None
    now = 3 + 299.9
    assert keys.find("owner", "k2", b"body") == Sent("global", 2)
    now = 3 + 300
    assert keys.find("owner", "k2", b"body") is None
    assert len(keys) == 2
    assert keys.find("owner", "k3", b"body") == Sent("global", 3)
    now = 1000
    assert keys.find("owner", "k4", b"other") is None
    assert len(keys) == 0


async def test_numbers_no_float_holds_are_compared_too(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    await server.start()
    async with api_of(server) as api:
        for value, status in (("1e400", 200), ("1e400", 200), ("1e401", 409)):
            body = f'{{"idempotency_key":"k","data":{value}}}'
            assert (await api.call("POST", "/api/broadcast", data=body)).status == status, value
    assert json.loads("1e400") == float("inf")
