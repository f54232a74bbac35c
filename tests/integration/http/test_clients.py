"""Listing clients, and sending them away."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable

import pytest

from heartwire import Server
from integration.http.api import KEYS, Api, api_of
from integration.peers import PATIENCE_S, TEXT, Ends, json_client, raw_client, token

INSTANT = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


async def test_what_is_said_about_a_client(server: Server, api: Api) -> None:
    bearer = token("alice", username="Alice", channels=["private-*"])
    async with json_client(server, bearer, headers={"User-Agent": "test/1"}) as client:
        await client.join("private-b")
        await client.join("a")
        page = await api.get("/api/clients")
        assert (page["total"], page["next"]) == (1, None)
        (info,) = page["clients"]
        assert await api.get(f"/api/clients/{info['id']}") == info
        host, port = client.ws.local_address[:2]
        seen = info["last_seen"]
        assert seen >= info["connected_at"]
        async with asyncio.timeout(PATIENCE_S):
            while seen == info["last_seen"]:  # milliseconds: it moves with the next bytes
                await client.quiet()
                seen = (await api.get(f"/api/clients/{info['id']}"))["last_seen"]
        assert seen > info["last_seen"]
    assert INSTANT.fullmatch(info.pop("connected_at"))
    assert INSTANT.fullmatch(info.pop("last_seen"))
    assert info.pop("id")
    assert info == {
        "user_id": "alice", "username": "Alice", "channels": ["a", "private-b"], "user_agent": "test/1",
        "remote_address": f"{host}:{port}", "rtt_ms": None, "queued_bytes": 0,
    }  # fmt: skip


async def test_round_trip_and_queue_are_seen(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    ends = Ends(server)
    await server.start()
    async with api_of(server) as api, raw_client(server, token()) as peer:
        client = await ends.client()
        client.ping()
        await peer.event("connected")
        opcode, payload = await peer.frame()
        assert opcode == 9
        peer.send_frame(10, payload)
        peer.send_frame(TEXT, b'{"action":"ping"}')
        await peer.event("pong")  # so the one before it was read too
        for _ in range(100):  # what the kernel does not take is queued
            client.send_bytes(bytes(500_000))
            await asyncio.sleep(0)
            if client.connection.queued_bytes:
                break
        info = await api.get(f"/api/clients/{client.id}")
    assert 0 < info["rtt_ms"] < 10_000
    assert info["queued_bytes"] > 0


async def test_an_anonymous_client(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, auth="optional")
    await server.start()
    async with api_of(server) as api, json_client(server, user_agent_header=None):
        (info,) = (await api.get("/api/clients"))["clients"]
        assert (info["user_id"], info["username"], info["user_agent"]) == (None, None, None)
        assert info["channels"] == []
        assert (await api.get("/api/clients?user_id="))["total"] == 0


async def test_pages_meet_everybody_once_while_clients_leave(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    ends = Ends(server)
    await server.start()
    async with api_of(server) as api, contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(json_client(server, token(f"u{i}"))) for i in range(11)]
        everybody = [c["user_id"] for c in (await api.get("/api/clients"))["clients"]]
        assert everybody == [f"u{i}" for i in range(11)]  # oldest first
        first = await api.get("/api/clients?limit=4")
        assert [c["user_id"] for c in first["clients"]] == ["u0", "u1", "u2", "u3"]
        assert (first["total"], first["next"]) == (11, first["clients"][-1]["id"])
        for gone in (1, 3, 4):  # the one the cursor points at is among them
            await clients[gone].ws.close()
            assert await ends.cause() == "client_closed"
        second = await api.get(f"/api/clients?limit=4&after={first['next']}")
        assert [c["user_id"] for c in second["clients"]] == ["u5", "u6", "u7", "u8"]
        assert second["total"] == 8
        third = await api.get(f"/api/clients?after={second['next']}&limit=4")
        assert [c["user_id"] for c in third["clients"]] == ["u9", "u10"]
        assert third["next"] is None
        exact = await api.get("/api/clients?limit=8")
        assert (len(exact["clients"]), exact["next"]) == (8, None)


async def test_clients_of_a_user(server: Server, api: Api) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for user in ("alice", "bob", "alice", "alice"):
            await stack.enter_async_context(json_client(server, token(user)))
        page = await api.get("/api/clients?user_id=alice&limit=2")
        assert ([c["user_id"] for c in page["clients"]], page["total"]) == (["alice"] * 2, 3)
        rest = await api.get(f"/api/clients?user_id=alice&limit=2&after={page['next']}")
        assert (len(rest["clients"]), rest["next"]) == (1, None)
        assert len({c["id"] for c in page["clients"] + rest["clients"]}) == 3
        nobody = await api.get("/api/clients?user_id=carol")
        assert nobody == {"clients": [], "total": 0, "next": None}


@pytest.mark.parametrize(
    ("query", "field", "expected"),
    [
        ("limit=0", "limit", "a number from 1 to 1000"),
        ("limit=1001", "limit", "a number from 1 to 1000"),
        ("limit=ten", "limit", "a number from 1 to 1000"),
        ("limit=", "limit", "a number from 1 to 1000"),
        ("limit=1&limit=2", "limit", "one value only"),
        ("after=nothing", "after", "`next` of an earlier page"),
        ("after=0123456789abc", "after", "`next` of an earlier page"),
        ("after=", "after", "`next` of an earlier page"),
        ("user_id=x&after=nothing", "after", "`next` of an earlier page"),
        ("Limit=5", "'Limit'", "one of the fields limit, after, user_id"),
        ("Limit=5&Limit=6", "'Limit'", "one of the fields limit, after, user_id"),
    ],
)
async def test_wrong_queries(api: Api, query: str, field: str, expected: str) -> None:
    message = await api.refused("GET", f"/api/clients?{query}")
    assert message.startswith(f"{field}: expected {expected}")
    assert "; example: {" in message


async def test_a_client_that_is_not_here(api: Api) -> None:
    assert (await api.call("GET", "/api/clients/nobody")).error == (404, "not_found")
    assert (await api.call("POST", "/api/clients/nobody/kick")).error == (404, "not_found")


# -------------------------------------------------------------- sending away


async def test_kick(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    ends = Ends(server)
    await server.start()
    async with api_of(server) as api, json_client(server, token()) as client:
        client_id = (await ends.client()).id
        reply = await api.post(f"/api/clients/{client_id}/kick", {"reason": "spam"})
        assert reply == {"status": "success", "client_id": client_id}
        assert (await client.event("kicked"))["data"] == {"reason": "spam"}
        assert await client.closed() == (4403, "spam")
        assert (await api.call("POST", f"/api/clients/{client_id}/kick")).error == (404, "not_found")
    await ends.only("kicked")


@pytest.mark.parametrize("body", [None, b"", b"{}", b'{"reason":null}', b'{"reason":""}'])
async def test_kick_without_a_reason(server: Server, api: Api, body: bytes | None) -> None:
    async with json_client(server, token()) as client:
        (client_id,) = server.clients
        assert (await api.call("POST", f"/api/clients/{client_id}/kick", data=body)).status == 200
        assert (await client.event("kicked"))["data"] == {"reason": ""}
        assert await client.closed() == (4403, "")


async def test_a_wrong_reason_kicks_nobody(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        (client_id,) = server.clients
        for body in ({"reason": 5}, {"reason": "x" * 257}, {"reasn": "x"}, []):
            message = await api.refused("POST", f"/api/clients/{client_id}/kick", body)
            assert "expected" in message
        await client.quiet()


async def test_a_long_reason_is_cut_at_a_character(server: Server, api: Api) -> None:
    async with json_client(server, token()) as client:
        (client_id,) = server.clients
        await api.post(f"/api/clients/{client_id}/kick", {"reason": "é" * 200})
        assert (await client.event("kicked"))["data"] == {"reason": "é" * 200}
        assert await client.closed() == (4403, "é" * 61)


async def test_disconnect_a_user(server: Server, api: Api) -> None:
    async with (
        json_client(server, token("a/lice %")) as one,
        json_client(server, token("a/lice %")) as two,
        json_client(server, token("bob")) as other,
    ):
        reply = await api.post("/api/users/a%2Flice%20%25/disconnect", {"reason": "gone"})
        assert reply == {"status": "success", "disconnected": 2}
        for client in (one, two):
            assert (await client.event("kicked"))["data"] == {"reason": "gone"}
            assert await client.closed() == (4403, "gone")
        await other.quiet()
        nobody = await api.post("/api/users/a%2Flice%20%25/disconnect")
        assert nobody == {"status": "success", "disconnected": 0}
