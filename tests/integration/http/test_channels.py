"""Channels: listing them and who is in them, and memberships made by the backend."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Server
from heartwire import http_channels as module
from integration.http.api import KEYS, Api, api_of
from integration.http.test_clients import INSTANT
from integration.peers import json_client, token

ALL = {"channels": ["*"]}


async def test_the_list(server: Server, api: Api) -> None:
    assert await api.get("/api/channels") == {}
    async with (
        json_client(server, token("alice", **ALL)) as one,
        json_client(server, token("alice", **ALL)) as two,
        json_client(server, token("bob", **ALL)) as three,
    ):
        for client in (one, two, three):
            await client.join("a/b")
        await one.join("private-y")
        for client in (one, two, three):
            await client.join("presence-x")
        found = await api.get("/api/channels")
        assert list(found) == ["a/b", "private-y", "presence-x"]
        assert all(INSTANT.fullmatch(info.pop("created_at")) for info in found.values())
        assert found == {
            "a/b": {"kind": "public", "clients": 3},
            "presence-x": {"kind": "presence", "clients": 3, "users": 2},
            "private-y": {"kind": "private", "clients": 1},
        }


@pytest.mark.parametrize("size", [1, 2, 3, 100])
async def test_a_long_list_comes_in_slices(
    server: Server, api: Api, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(module, "SLICE", size)
    async with json_client(server, token()) as client:
        names = [f"channel-{i}" for i in range(7)]
        for name in names:
            await client.join(name)
        assert list(await api.get("/api/channels")) == names
        reply = await api.call("GET", "/api/channels")
        assert ("Content-Length" in reply.headers) == (size == 100)
        assert (await api.call("HEAD", "/api/channels")).status == 200


async def test_members_with_their_metadata(server: Server, api: Api) -> None:
    async with (
        json_client(server, token("alice", username="Alice", **ALL)) as one,
        json_client(server, token("bob", **ALL)) as two,
    ):
        await two.join("presence-a/b", data={"n": 1})
        await one.join("presence-a/b")
        found = await api.get("/api/channels/presence-a%2Fb/clients")
        assert (found["channel"], found["total"], found["next"]) == ("presence-a/b", 2, None)
        assert [set(member) for member in found["clients"]] == [{"id", "user_id", "username", "data"}] * 2
        assert [(m["user_id"], m["username"], m["data"]) for m in found["clients"]] == [
            ("alice", "Alice", None),
            ("bob", None, {"n": 1}),
        ]
        assert {member["id"] for member in found["clients"]} == set(server.clients)


async def test_pages_of_members(server: Server, api: Api) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(json_client(server, token(f"u{i}"))) for i in range(5)]
        for i in (3, 0, 4, 1, 2):
            await clients[i].join("lobby")
        seen: list[str] = []
        after = ""
        for size in (2, 2, 1):
            page = await api.get(f"/api/channels/lobby/clients?limit=2{after}")
            assert (len(page["clients"]), page["total"]) == (size, 5)
            seen += [member["user_id"] for member in page["clients"]]
            after = f"&after={page['next']}"
        assert page["next"] is None
        assert seen == [f"u{i}" for i in range(5)]
        message = await api.refused("GET", "/api/channels/lobby/clients?limit=x")
        assert message.startswith("limit: expected")


async def test_a_channel_without_members_is_empty(api: Api) -> None:
    empty = {"channel": "nobody", "clients": [], "total": 0, "next": None}
    assert await api.get("/api/channels/nobody/clients") == empty


@pytest.mark.parametrize("name", ["a%20b", "%C3%A9", "x" * 201])
async def test_what_is_no_channel(api: Api, name: str) -> None:
    for method, path in (
        ("GET", f"/api/channels/{name}/clients"),
        ("POST", f"/api/users/alice/channels/{name}"),
        ("DELETE", f"/api/users/alice/channels/{name}"),
    ):
        message = await api.refused(method, path)
        assert message.startswith("channel: expected 1 to 200 of A-Z")


# -------------------------------------------------------------- joining and removing


async def test_the_backend_joins_a_user_and_removes_them(server: Server, api: Api) -> None:
    async with (
        json_client(server, token("alice")) as one,  # no claim: the backend's word is enough
        json_client(server, token("alice")) as two,
        json_client(server, token("bob", **ALL)) as member,
    ):
        await member.join("presence-a/b")
        path = "/api/users/alice/channels/presence-a%2Fb"
        assert await api.post(path, {"data": {"n": [1]}}) == {"status": "success", "joined": 2, "failed": 0}
        joined = await member.event("member_joined")  # one user, once
        assert joined["data"] == {"user_id": "alice", "username": None, "data": {"n": [1]}}
        for client in (one, two):
            told = await client.event("joined_channel")
            assert (told["data"]["channel"], told["data"]["member_count"]) == ("presence-a/b", 2)
            assert "reply_to" not in told
        assert await api.post(path, {"data": 2}) == {"status": "success", "joined": 2, "failed": 0}
        assert (await member.event("member_joined"))["data"]["data"] == 2  # once: their data is another now
        await two.event("member_joined")
        for client in (one, two, member):
            await client.quiet()
        members = (await api.get("/api/channels/presence-a%2Fb/clients"))["clients"]
        assert [m["data"] for m in members] == [2, 2, None]
        reply = await api.call("DELETE", path)
        assert reply.json == {"status": "success", "left": 2}
        for client in (one, two):
            left = (await client.event("left_channel"))["data"]
            assert left == {"channel": "presence-a/b", "reason": "removed by the server"}
        assert (await member.event("member_left"))["data"]["user_id"] == "alice"
        assert (await api.call("DELETE", path)).json == {"status": "success", "left": 0}
        assert list(await api.get("/api/channels")) == ["presence-a/b"]


async def test_a_user_who_is_not_here(api: Api) -> None:
    reply = await api.post("/api/users/carol/channels/lobby")
    assert reply == {"status": "success", "joined": 0, "failed": 0}
    assert await api.get("/api/channels") == {}


@pytest.mark.parametrize("options", [{"max_channels_per_client": 1}])
async def test_too_many_channels(server: Server, api: Api) -> None:
    async with json_client(server, token("alice")) as full, json_client(server, token("alice")) as free:
        await full.join("one")
        reply = await api.post("/api/users/alice/channels/two")
        assert reply == {"status": "success", "joined": 1, "failed": 1}
        await free.event("joined_channel")
        await full.quiet()


@pytest.mark.parametrize(
    ("body", "field"), [({"data": "x" * 1023}, "data"), ({"dat": 1}, "'dat'"), ([], "body"), ("x", "body")]
)
async def test_wrong_metadata(server: Server, api: Api, body: Any, field: str) -> None:
    async with json_client(server, token("alice")) as client:
        message = await api.refused("POST", "/api/users/alice/channels/lobby", body)
        assert message.startswith(f"{field}: expected")
        await client.quiet()
        just_fits = {"data": "x" * 1022}  # 1,024 with its quotes
        reply = await api.post("/api/users/alice/channels/lobby", just_fits)
        assert reply["joined"] == 1


async def test_a_server_of_texts_sends_no_json_of_its_own(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    server.on_text(lambda client, text: client.send_text(text))
    await server.start()
    async with api_of(server) as api, json_client(server, token("alice"), welcome=False) as client:
        await client.send("first")
        assert await client.ws.recv() == "first"
        assert (await api.post("/api/users/alice/channels/lobby"))["joined"] == 1
        assert (await api.call("DELETE", "/api/users/alice/channels/lobby")).json["left"] == 1
        await client.send("next")
        assert await client.ws.recv() == "next"
