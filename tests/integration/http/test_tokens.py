"""Revoking tokens: who is closed, who is refused, and who is left alone."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Server
from heartwire.http_head import Request
from integration.http.api import FULL, KEYS, Api, api_of
from integration.peers import handshake, json_client, refusal, token

NOW_OK_S = 1.0


def instant(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def old_token(sub: str = "alice", **claims: Any) -> str:
    """One that was made a minute ago."""
    return token(sub, **{"iat": int(time.time()) - 60, **claims})


async def refused(server: Server, bearer: str) -> bool:
    answer = await refusal(server, handshake(bearer=bearer))
    assert (answer.status, answer.json["code"]) == (401, "token_invalid")
    assert answer.json["message"] == "The token was revoked."
    return True


async def test_by_jti(server: Server, api: Api) -> None:
    one, other = old_token(jti="1"), old_token(jti="2")
    async with json_client(server, one) as closed, json_client(server, other) as stays:
        started = time.monotonic()
        answer = await api.post("/api/tokens/revoke", {"jti": "1"})
        assert await closed.closed() == (4410, "token revoked")
        assert time.monotonic() - started < NOW_OK_S
        assert (answer["status"], answer["disconnected"]) == ("success", 1)
        await stays.quiet()
        assert await refused(server, one)
        async with json_client(server, other):
            pass
        (error,) = [await stays.error("authenticate", token=one)]
        assert (error["code"], error["message"]) == ("token_invalid", "The token was revoked.")
    assert server.stats()["disconnects"]["token_revoked"] == 1


async def test_by_user(server: Server, api: Api) -> None:
    async with (
        json_client(server, old_token(username="a")) as one,
        json_client(server, token("alice")) as without_age,
        json_client(server, old_token("bob")) as other,
    ):
        assert (await api.post("/api/tokens/revoke", {"user_id": "alice"}))["disconnected"] == 2
        for client in (one, without_age):
            assert (await client.closed())[0] == 4410
        await other.quiet()
    assert await refused(server, old_token())
    assert await refused(server, token("alice"))
    async with json_client(server, token("alice", iat=time.time())):  # logged in again
        pass


async def test_by_user_and_time(server: Server, api: Api) -> None:
    now = int(time.time())
    async with (
        json_client(server, token(iat=now - 100)) as old,
        json_client(server, token(iat=now - 10)) as young,
    ):
        body = {"user_id": "alice", "issued_before": instant(now - 50)}
        assert (await api.post("/api/tokens/revoke", body))["disconnected"] == 1
        assert (await old.closed())[0] == 4410
        await young.quiet()
        async with json_client(server, token("bob", iat=now - 100)):
            pass


async def test_everybody(server: Server, api: Api) -> None:
    now = int(time.time())
    async with (
        json_client(server, token("alice", iat=now - 100)) as alice,
        json_client(server, token("bob", iat=now - 100)) as bob,
        json_client(server, token("carol", iat=now - 10)) as carol,
    ):
        answer = await api.post("/api/tokens/revoke", {"issued_before": instant(now - 50)})
        assert answer == {"status": "success", "disconnected": 2, "remembered_until": None}
        for client in (alice, bob):
            assert await client.closed() == (4410, "token revoked")
        await carol.quiet()
    assert await refused(server, token("dave", iat=now - 51))


async def test_a_renewed_token_is_what_counts(server: Server, api: Api) -> None:
    async with json_client(server, old_token(jti="1")) as client:
        await client.ask("authenticate", token=old_token(jti="2"))
        assert (await api.post("/api/tokens/revoke", {"jti": "1"}))["disconnected"] == 0
        await client.quiet()
        assert (await api.post("/api/tokens/revoke", {"jti": "2"}))["disconnected"] == 1
        assert (await client.closed())[0] == 4410


async def test_a_cached_token_is_refused_too(server: Server, api: Api) -> None:
    bearer = old_token(jti="1")
    for _ in range(2):
        async with json_client(server, bearer):
            pass
    assert server._verification is not None
    assert server._verification.cache is not None
    assert server._verification.cache.hits == 1
    await api.post("/api/tokens/revoke", {"jti": "1"})
    assert await refused(server, bearer)


async def test_how_long_it_is_remembered(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, revocation_time=1000)
    await server.start()
    async with api_of(server) as api:
        until = (await api.post("/api/tokens/revoke", {"jti": "1"}))["remembered_until"]
        assert instant(time.time() + 990) < until < instant(time.time() + 1001)
        body = {"jti": "2", "expires_at": instant(time.time() + 5000)}
        until = (await api.post("/api/tokens/revoke", body))["remembered_until"]
        assert until[:19] == body["expires_at"][:19]


async def test_endless_tokens_are_never_forgotten(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, allow_no_exp=True)
    await server.start()
    async with api_of(server) as api:
        assert (await api.post("/api/tokens/revoke", {"user_id": "a"}))["remembered_until"] is None


async def test_many_are_looked_through_a_slice_at_a_time(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others have their turn in between, however many there are."""
    monkeypatch.setattr("heartwire.tokens.SLICE_S", 0.0)
    loop = asyncio.get_running_loop()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with contextlib.AsyncExitStack() as clients:
        for i in range(10):
            await clients.enter_async_context(json_client(server, old_token(f"user {i}")))
        working = loop.create_task(others())
        closed, _ = await server._admission._tokens.revoke(issued_before=time.time() - 30)
        working.cancel()
    assert closed == 10
    assert turns >= 9


async def test_a_full_set_refuses_and_forgets_nothing(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, revocation_limit=2)
    await server.start()
    async with api_of(server) as api, json_client(server, old_token(jti="3")) as client:
        for jti in ("1", "2"):
            await api.post("/api/tokens/revoke", {"jti": jti})
        for body in ({"jti": "3"}, {"user_id": "alice"}):
            reply = await api.call("POST", "/api/tokens/revoke", json=body)
            assert reply.error == (507, "revocations_full")
            assert "--revocation-limit" in reply.message
        await client.quiet()
        assert await refused(server, old_token(jti="1"))
        metrics = await api.call("GET", "/metrics")
        assert b"heartwire_token_revocations 2.0" in metrics.body
        assert b"heartwire_token_revocations_limit 2.0" in metrics.body
        everybody = {"issued_before": instant(time.time() - 30)}  # needs no room
        assert (await api.post("/api/tokens/revoke", everybody))["disconnected"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "body: expected `jti`, `user_id` or `issued_before`"),
        ({"expires_at": "2099-01-01T00:00:00Z"}, "body: expected `jti`, `user_id` or `issued_before`"),
        ({"jti": "1", "user_id": "a"}, "jti: expected no `user_id` or `issued_before` beside it"),
        ({"jti": "1", "issued_before": "2020-01-01T00:00:00Z"}, "jti: expected no `user_id`"),
        ({"jti": ""}, "jti: expected 1 to 256 characters"),
        ({"jti": 5}, "jti: expected 1 to 256 characters"),
        ({"user_id": "x" * 129}, "user_id: expected the id of a user"),
        ({"issued_before": "yesterday"}, "issued_before: expected an instant in RFC 3339"),
        ({"issued_before": "2020-01-01T00:00:00"}, "issued_before: expected an instant in RFC 3339"),
        ({"issued_before": 1577836800}, "issued_before: expected an instant in RFC 3339"),
        ({"issued_before": "2099-01-01T00:00:00Z"}, "issued_before: expected an instant that is not in"),
        ({"jti": "1", "expires_at": "2020-01-01T00:00:00Z"}, "expires_at: expected an instant that is to"),
        ({"jti": "1", "expires_at": "9999-06-01T00:00:00Z"}, "expires_at: expected an instant that is to"),
        ({"token": "eyJ"}, "'token': expected one of the fields jti, user_id,"),
    ],
)
async def test_what_is_refused(server: Server, api: Api, body: dict[str, Any], field: str) -> None:
    assert (await api.refused("POST", "/api/tokens/revoke", body)).startswith(field)


async def test_identities_of_the_application(make: Callable[..., Server]) -> None:
    """They are closed; who may come back is for the application to say."""
    server = make(api_key=[FULL])

    @server.authenticate
    def authenticate(request: Request) -> dict[str, Any]:
        return {"sub": "alice", "jti": ["odd"]}

    await server.start()
    async with api_of(server) as api, json_client(server) as client:
        assert (await api.post("/api/tokens/revoke", {"user_id": "alice"}))["disconnected"] == 1
        assert (await client.closed())[0] == 4410
        async with json_client(server) as again:
            await again.quiet()
