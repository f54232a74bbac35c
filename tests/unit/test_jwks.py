"""jwks: fetching keys from a provider that answers well, badly, late, or not at all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from aiohttp import web

from heartwire import jwks
from heartwire.jwks import SIZE_LIMIT, JwksUrl
from heartwire.keys import VerificationKey
from publisher import Publisher, free_port, publisher
from signing import jwk_set, key_pair

PATIENCE_S = 10
ALGORITHMS = frozenset(("RS256", "ES256"))


class Reader:
    """A JwksUrl and what it brought."""

    def __init__(self, url: str, **options: Any) -> None:
        self.now = 0.0
        self.sets: list[list[str | None]] = []
        settings = {"timeout_s": 5.0, "refresh_s": 3600.0, "clock": lambda: self.now, **options}
        self.jwks = JwksUrl(url, ALGORITHMS, self.take, **settings)

    def take(self, keys: Sequence[VerificationKey]) -> None:
        self.sets.append([key.key_id for key in keys])

    async def learn(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            return await self.jwks.learn(PATIENCE_S)


@pytest.fixture
async def provider() -> AsyncIterator[Publisher]:
    async with publisher(jwk_set(key_pair("RS256"), key_pair("ES256", "k2"))) as provider:
        yield provider


@pytest.fixture
async def read(provider: Publisher) -> AsyncIterator[Callable[..., Reader]]:
    """Makes readers that have begun, and ends them."""
    readers: list[Reader] = []

    def make(url: str | None = None, **options: Any) -> Reader:
        reader = Reader(url or provider.url, **options)
        reader.jwks.start()
        readers.append(reader)
        return reader

    yield make
    for reader in readers:
        await reader.jwks.stop()


async def test_keys_are_fetched_at_the_start(provider: Publisher, read: Callable[..., Reader]) -> None:
    reader = read()
    assert reader.jwks.may_learn()
    assert await reader.learn()
    assert reader.sets == [["k1", "k2"]]
    assert (reader.jwks.fetched, reader.jwks.failed, reader.jwks.problem) == (1, 0, None)
    assert reader.jwks.fetched_at is not None
    assert provider.requests == 1


async def test_an_unknown_key_fetches_again_at_most_once_a_minute(
    provider: Publisher, read: Callable[..., Reader]
) -> None:
    reader = read()
    await reader.learn()
    assert reader.jwks.may_learn()  # that of the start does not count
    provider.document = jwk_set(key_pair("RS256", "k3"))
    assert await reader.learn()
    assert reader.sets == [["k1", "k2"], ["k3"]]
    assert not reader.jwks.may_learn()
    assert not await reader.learn()
    reader.now = 59.9
    assert not await reader.learn()
    reader.now = 60
    assert await reader.learn()
    assert provider.requests == 3


async def test_all_who_wait_are_served_by_one_fetch(
    provider: Publisher, read: Callable[..., Reader]
) -> None:
    reader = read()
    await reader.learn()
    assert await asyncio.gather(*(reader.learn() for _ in range(100))) == [True] * 100
    assert provider.requests == 2


async def test_the_same_set_changes_nothing(provider: Publisher, read: Callable[..., Reader]) -> None:
    reader = read()
    await reader.learn()
    assert await reader.learn()
    assert provider.requests == 2
    assert len(reader.sets) == 1


async def test_keys_are_refreshed(provider: Publisher, read: Callable[..., Reader]) -> None:
    reader = read(refresh_s=0.01)
    async with asyncio.timeout(PATIENCE_S):
        while provider.requests < 4:
            provider.asked.clear()
            await provider.asked.wait()
    assert reader.jwks.problem is None


def failing(provider: Publisher, how: str) -> str:
    """Makes the provider fail; what is said about it."""
    bodies = {
        "malformed": (b'{"keys":', "it is no JWK Set"),
        "not JSON": (b"<html>Sign in</html>", "it is no JWK Set"),
        "empty": (b'{"keys":[]}', "it holds no key that is of use: none is for ES256, RS256"),
        "of others": (jwk_set(key_pair("EdDSA")), "it holds no key that is of use: none is for"),
        "secrets": (jwk_set(key_pair("HS256")), "it holds no key that is of use: key 1: it is a secret"),
        "huge": (b" " * (SIZE_LIMIT + 1), f"its answer is larger than {SIZE_LIMIT} bytes"),
    }
    if how in bodies:
        provider.document, problem = bodies[how]
        return problem
    if how == "redirect":
        provider.status, provider.headers = 302, {"Location": provider.url}
        return "it redirects (302): configure the address it redirects to"
    if how == "endless":
        provider.answer = endless
        return f"its answer is larger than {SIZE_LIMIT} bytes"
    if how == "compressed":
        provider.headers = {"Content-Encoding": "gzip"}
        provider.document = b"\x1f\x8b\x08" + bytes(100)
        return "it is no JWK Set"
    if how == "cut off":
        provider.answer = cut_off
        return "it cannot be reached (ClientPayloadError)"
    assert how == "slow"
    provider.answer = slow
    return "it does not answer within 0.3 s"


async def endless(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    try:
        while True:
            await answer.write(b" " * 65536)
    except ConnectionError:
        return answer


async def cut_off(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"Content-Length": "1000"})
    await answer.prepare(request)
    await answer.write(b'{"keys":')
    assert request.transport is not None
    request.transport.abort()
    return answer


async def slow(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse()
    await answer.prepare(request)
    await answer.write(b"{")
    await asyncio.sleep(PATIENCE_S)
    raise AssertionError("nobody waits that long")


FAILURES = ["malformed", "not JSON", "empty", "of others", "secrets", "huge", "redirect", "endless",
            "compressed", "cut off", "slow", "500", "404", "204"]  # fmt: skip


@pytest.mark.parametrize("how", FAILURES)
async def test_an_outage_keeps_the_keys(
    provider: Publisher, read: Callable[..., Reader], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "heartwire")
    reader = read(provider.url + "?secret=hidden", timeout_s=0.3 if how == "slow" else 5.0)
    await reader.learn()
    if how.isdigit():
        provider.status = int(how)
        problem = f"it answers {how}"
    else:
        problem = failing(provider, how)
    assert await reader.learn()
    assert reader.sets == [["k1", "k2"]]
    assert (reader.jwks.fetched, reader.jwks.failed) == (1, 1)
    assert reader.jwks.problem is not None
    assert reader.jwks.problem.startswith(problem)
    assert "the keys known so far stay" in caplog.messages[-1]
    assert "hidden" not in caplog.text

    provider.status, provider.answer, provider.headers = 200, None, {}
    provider.document = jwk_set(key_pair("RS256", "k9"))
    reader.now = 60
    while reader.sets[-1] != ["k9"]:  # an attempt of its own may be the first
        reader.now += 60
        await reader.learn()
    assert reader.jwks.problem is None


async def test_attempts_go_on_by_themselves(
    read: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Down at the start, up later: nobody has to ask."""
    monkeypatch.setattr(jwks, "RETRY_MOST_S", 0.02)
    port = free_port()
    reader = read(f"http://127.0.0.1:{port}/jwks.json")
    assert await reader.learn()
    assert reader.jwks.problem == "it cannot be reached (ClientConnectorError)"
    async with asyncio.timeout(PATIENCE_S):
        while reader.jwks.failed < 4:
            await reader.learn()
            await asyncio.sleep(0)
    async with publisher(jwk_set(key_pair("RS256")), port=port):
        async with asyncio.timeout(PATIENCE_S):
            while not reader.sets:
                await asyncio.sleep(0.005)
    assert reader.sets == [["k1"]]
    assert len([line for line in caplog.messages if "cannot be reached" in line]) == 1


async def test_each_failure_in_a_row_makes_the_pause_longer(
    provider: Publisher, read: Callable[..., Reader], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def pause(failures: int) -> float:
        asked.append(failures)
        if len(asked) == 4:
            provider.status = 200
        return 0.0

    monkeypatch.setattr(jwks, "retry_pause", pause)
    provider.status = 503
    reader = read(refresh_s=0.0)
    async with asyncio.timeout(PATIENCE_S):
        while reader.jwks.fetched < 1:
            await asyncio.sleep(0)
        provider.status = 503
        while len(asked) < 6:
            await asyncio.sleep(0)
    assert asked[:6] == [1, 2, 3, 4, 1, 2]


@pytest.mark.parametrize("failures", [1, 2, 3, 6, 7, 8, 10_000])
def test_pauses_grow(failures: int) -> None:
    longest = min(60, 2 ** min(failures - 1, 20))
    pauses = [jwks.retry_pause(failures) for _ in range(100)]
    assert all(longest / 2 <= pause <= longest for pause in pauses)
    assert len(set(pauses)) > 90  # jitter


async def test_a_bug_is_logged_and_fetching_goes_on(
    provider: Publisher, read: Callable[..., Reader], caplog: pytest.LogCaptureFixture
) -> None:
    reader = read()
    await reader.learn()
    provider.document = jwk_set(key_pair("RS256", "k5"))
    reader.take = None  # type: ignore[assignment]
    reader.jwks._on_keys = lambda keys: 1 // 0
    await reader.learn()
    assert "fetching keys failed" in caplog.text
    assert reader.jwks.problem == "internal error"
    reader.now = 60
    assert await reader.learn()


async def test_stopping_lets_those_who_wait_go(provider: Publisher, read: Callable[..., Reader]) -> None:
    provider.answer = slow
    reader = read()
    waiting = asyncio.create_task(reader.learn())
    await provider.asked.wait()
    await reader.jwks.stop()
    assert await waiting
    assert not reader.jwks.may_learn()
    assert not await reader.learn()


async def test_waiting_is_bounded(provider: Publisher, read: Callable[..., Reader]) -> None:
    provider.answer = slow
    reader = read()
    await provider.asked.wait()
    assert not await reader.jwks.learn(0.05)
    assert not await reader.jwks.learn(-1)
