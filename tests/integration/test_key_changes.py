"""Keys that change while clients come and go: by a JWKS, by files and SIGHUP."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from heartwire import Server
from integration.http.api import KEYS, api_of
from integration.peers import handshake, json_client, raw_peer, refusal, until
from publisher import Publisher, publisher
from signing import SECRET, jwk_set, key_pair

Make = Callable[..., Server]
FIRST, SECOND = key_pair("ES256"), key_pair("ES256", "k2")


async def shows(server: Server, bearer: str) -> int:
    """The status of a handshake with this token."""
    async with raw_peer(server) as peer:
        peer.send(handshake(bearer=bearer))
        return (await peer.answer()).status


def learned(server: Server) -> Any:
    assert server._verification is not None
    return server._verification


async def fetched(server: Server, times: int = 1) -> None:
    await until(lambda: learned(server).remote.fetched >= times)


async def test_rotation_under_load_refuses_nobody(make: Make) -> None:
    """Twelve clients come all the time; the provider changes its key at once, and answers slowly."""
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url)
        await server.start()
        await fetched(server)
        signer = FIRST
        answers: list[tuple[str, int]] = []
        over = False

        async def come(number: int) -> None:
            while not over:
                by = signer
                answers.append((by.kid, await shows(server, by.token(f"user {number}"))))

        async with asyncio.TaskGroup() as group:
            for number in range(12):
                group.create_task(come(number))
            await until(lambda: len(answers) > 50)

            async def late(request: web.Request) -> web.Response:
                await asyncio.sleep(0.3)
                return web.Response(body=jwk_set(FIRST, SECOND))

            provider.answer = late
            signer = SECOND  # without a warning: the first token with it is how the server hears of it
            before = len(answers)
            await until(lambda: sum(kid == "k2" for kid, _ in answers) > 50)
            over = True
    assert len(answers) > before
    assert {status for _, status in answers} == {101}
    assert provider.requests == 2


async def test_secrets_rotate_under_load_and_nobody_is_refused(make: Make, tmp_path: Path) -> None:
    """Old, then both, then new, read again each time; twelve clients come all the time."""
    old, new = key_pair("HS256"), key_pair("HS256", "k2")
    file = tmp_path / "secrets"
    file.write_text(old.private)
    server = make(jwt_secret=[], jwt_secret_file=file)
    await server.start()
    signer = old
    answers: list[tuple[str, int]] = []
    over = False

    async def come(number: int) -> None:
        had: dict[str, str] = {}
        while not over:
            by = signer
            bearer = had.setdefault(by.kid, by.token(f"user {number}"))
            answers.append((by.kid, await shows(server, bearer)))
            if number % 2:  # half of them have a fresh token each time
                had.clear()

    def come_since(kid: str, seen: int) -> int:
        return sum(name == kid for name, _ in answers[seen:])

    async with asyncio.TaskGroup() as group:
        for number in range(12):
            group.create_task(come(number))
        for secrets, by in ((f"{old.private}\n{new.private}", old), (None, new), (new.private, new)):
            if secrets is not None:
                file.write_text(secrets)
                server._lifetime.reload()
            signer, seen = by, len(answers)
            # More than there are clients: every one of the former kind has had its answer by then.
            await until(lambda by=by, seen=seen: come_since(by.kid, seen) > 40)
        over = True
    assert {status for _, status in answers} == {101}
    assert {kid for kid, _ in answers} == {"k1", "k2"}
    assert await shows(server, old.token("late")) == 401


async def test_invented_ids_do_not_hammer_the_provider(make: Make) -> None:
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url)
        await server.start()
        await fetched(server)
        statuses = await asyncio.gather(
            *(shows(server, FIRST.token(kid=f"invented {i}")) for i in range(50)),
            shows(server, FIRST.token()),
        )
        assert statuses == [401] * 50 + [101]
        assert provider.requests == 2
        # A legitimate one with a new key has to wait for the next minute, or the next refresh.
        provider.document = jwk_set(FIRST, SECOND)
        assert await shows(server, SECOND.token()) == 401


async def test_who_waits_for_keys_may_leave(make: Make) -> None:
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url)
        await server.start()
        await fetched(server)
        answer = stuck(provider)
        async with raw_peer(server) as peer:
            peer.send(handshake(bearer=SECOND.token()))
            provider.asked.clear()
            await provider.asked.wait()
        await until(lambda: not server._admission._deciding)
        answer.set()
        assert server.stats()["clients"] == 0


async def test_a_gated_client_that_leaves_while_its_key_is_fetched(make: Make) -> None:
    """It must not come into the maps of users again."""
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url, auth="message")
        await server.start()
        await fetched(server)
        provider.document = jwk_set(SECOND)
        answer = stuck(provider)
        async with json_client(server) as client:
            provider.asked.clear()
            await client.send({"action": "authenticate", "token": SECOND.token("late")})
            await provider.asked.wait()
            client.ws.transport.abort()
            await until(lambda: not server.clients)
        answer.set()
        await fetched(server, 2)
        await until(lambda: not server._dispatcher.tasks.running)
        assert dict(server.users) == {}


@pytest.mark.parametrize("place", ["handshake", "action"])
async def test_a_token_revoked_before_its_key_was_known(make: Make, place: str) -> None:
    """The wait for its key is no way around the revocation."""
    async with publisher(jwk_set(FIRST)) as provider:
        auth = "handshake" if place == "handshake" else "message"
        server = make(jwt_secret=[], jwks_url=provider.url, api_key=KEYS, auth=auth)
        await server.start()
        await fetched(server)
        async with api_of(server) as api:
            await api.post("/api/tokens/revoke", {"jti": "stolen"})
        provider.document = jwk_set(FIRST, SECOND)
        stolen = SECOND.token(jti="stolen")
        if place == "handshake":
            assert await shows(server, stolen) == 401
        else:
            async with json_client(server) as client:
                assert (await client.error("authenticate", token=stolen))["code"] == "token_invalid"
        assert provider.requests == 2
        assert not server.users


def stuck(provider: Publisher) -> asyncio.Event:
    """From now on it answers when the event is set."""
    event = asyncio.Event()

    async def answer(request: web.Request) -> web.Response:
        await event.wait()
        return web.Response(body=provider.document)

    provider.answer = answer
    return event


async def test_readiness_and_metrics_tell_of_keys(make: Make) -> None:
    async with publisher(b'{"keys":[]}') as provider:
        server = make(jwt_secret=[], jwks_url=provider.url, metrics_public=True)
        await server.start()
        await until(lambda: learned(server).remote.failed)
        async with api_of(server) as api:
            ready = await api.call("GET", "/ready", key=None)
            assert ready.status == 503
            assert ready.json["reason"].startswith("no keys to verify tokens with: it holds no key")
            text = (await api.call("GET", "/metrics", key=None)).body.decode()
            assert "heartwire_jwt_keys 0.0" in text
            assert 'heartwire_jwks_fetches_total{result="ok"} 0.0' in text
            answer = await refusal(server, handshake(bearer=FIRST.token()))
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
            provider.document = jwk_set(FIRST)
            await fetched(server)  # by its own next attempt
            assert (await api.call("GET", "/ready", key=None)).status == 200
            text = (await api.call("GET", "/metrics", key=None)).body.decode()
            assert "heartwire_jwt_keys 1.0" in text
            assert 'heartwire_jwks_fetches_total{result="ok"} 1.0' in text


async def test_files_are_read_again(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "heartwire")
    secrets, pem = tmp_path / "secrets", tmp_path / "pem"
    secrets.write_text(SECRET)
    pem.write_bytes(FIRST.pem)
    server = make(jwt_secret=[], jwt_secret_file=secrets, jwt_public_key_file=[pem])
    await server.start()
    by_secret = key_pair("HS256").token("by secret")
    async with json_client(server, by_secret) as there:
        assert await shows(server, FIRST.token()) == 101
        secrets.write_text("another secret that is long enough for all of this")
        pem.write_bytes(SECOND.pem)
        server._lifetime.reload()
        assert await shows(server, by_secret) == 401  # also in the cache it is no more
        assert await shows(server, FIRST.token()) == 401
        assert await shows(server, SECOND.token()) == 101
        await there.quiet()
        pem.write_bytes(b"half a fi")
        server._lifetime.reload()
        assert await shows(server, SECOND.token()) == 101
        assert "the keys stay as they were: jwt_public_key_file" in caplog.messages[-1]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
def test_sighup(tmp_path: Path) -> None:
    """The command reads its files again, and goes on."""
    jwks = tmp_path / "jwks.json"
    jwks.write_bytes(jwk_set(FIRST))
    process = subprocess.Popen(
        [sys.executable, "-m", "heartwire", "serve", "--port", "0", "--jwks-file", str(jwks)],
        stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    try:
        while "listening on" not in process.stderr.readline():
            pass
        jwks.write_bytes(jwk_set(FIRST, SECOND))
        process.send_signal(signal.SIGHUP)
        while "2 keys" not in (line := process.stderr.readline()):
            assert line
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    finally:
        process.kill()
        process.communicate()


async def test_a_waiting_handshake_meets_the_drain(make: Make) -> None:
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url)
        await server.start()
        await fetched(server)
        provider.document = jwk_set(SECOND)
        answer = stuck(provider)
        async with raw_peer(server) as peer:
            provider.asked.clear()
            peer.send(handshake(bearer=SECOND.token()))
            await provider.asked.wait()
            server._admission.draining = True
            answer.set()
            reply = await peer.answer()
        assert (reply.status, reply.json["code"]) == (503, "draining")


async def test_the_wait_for_a_key_is_bounded(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heartwire.auth._LEARN_S", 0.1)
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url, jwks_timeout=5)
        await server.start()
        await fetched(server)
        answer = stuck(provider)
        started = time.monotonic()
        assert await shows(server, SECOND.token()) == 401
        assert time.monotonic() - started < 3
        answer.set()


async def test_not_everybody_may_wait(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented ids hold no memory without bound; who comes later is told to come back."""
    monkeypatch.setattr("heartwire.tokens.WAITING_MOST", 3)
    async with publisher(jwk_set(FIRST)) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url)
        await server.start()
        await fetched(server)
        provider.document = jwk_set(SECOND)
        answer = stuck(provider)
        waiting = [asyncio.create_task(shows(server, SECOND.token())) for _ in range(3)]
        await until(lambda: len(server._admission._deciding) == 3)
        assert server.stats()["tokens_waiting_for_keys"] == 3
        assert await shows(server, SECOND.token()) == 503
        answer.set()
        assert await asyncio.gather(*waiting) == [101] * 3
        assert server.stats()["tokens_waiting_for_keys"] == 0
        assert await shows(server, SECOND.token()) == 101
