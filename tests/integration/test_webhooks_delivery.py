"""Delivery to receivers that are slow, down, failing or cutting off; its bounds, and a server's end."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest

from heartwire import webhook_delivery
from integration.peers import json_client, token, until
from integration.receiver import (
    Make,
    Mood,
    Receiver,
    answering,
    backend,
    half_an_answer,
    hanging,
    resetting,
    said,
    say,
    short_waits,
    started,
)

__all__ = ["backend", "short_waits"]

BACKOFF_S = webhook_delivery.BACKOFF_S  # before it is made short


# -------------------------------------------------------------- receivers that do not work


@pytest.mark.parametrize(
    ("mood", "outcome"),
    [
        (answering(500), "busy"),
        (answering(503), "busy"),
        (answering(408), "busy"),
        (answering(429), "busy"),
        (resetting, "unreachable"),
        (hanging, "timeout"),
    ],
    ids=["500", "503", "408", "429", "reset", "hang"],
)
async def test_what_was_not_taken_comes_again(
    make: Make, backend: Receiver, mood: Mood, outcome: str
) -> None:
    backend.moods = [mood] * 3
    server = await started(make, backend, webhook_timeout=0.15, webhook_batch=2)
    async with json_client(server, token()) as client:
        await say(client, *range(5))
        await backend.until(lambda: len(said(backend)) == 5)
    assert said(backend) == [0, 1, 2, 3, 4]
    ids = [headers["webhook-id"] for headers, _ in backend.requests]
    assert len(set(ids[:4])) == 1, "the same delivery has the same id"
    assert len({body for _, body in backend.requests[:4]}) == 1
    assert len(set(ids)) == len(ids) - 3
    figures = server.metrics.hooks
    assert figures.requests[outcome] == 3
    assert figures.delivered == 5
    assert figures.dropped.total() == 0


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 300, 301, 302, 307])
async def test_a_refusal_is_final(make: Make, backend: Receiver, status: int) -> None:
    backend.moods = [answering(status, Location=backend.url)]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, "lost")
        figures = server.metrics.hooks
        await until(lambda: figures.dropped["refused"] == 1)
        await say(client, "kept")
        await backend.until(lambda: backend.taken)
    assert said(backend) == ["kept"]
    assert len(backend.requests) == 2
    assert backend.taken[0]["dropped"] == 1
    assert backend.events[0]["seq"] == 2


async def test_any_2xx_is_success_whatever_it_says(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(204), answering(299, '{"action": "kick"}'), answering(202, "x" * 200_000)]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        for i in range(4):
            await say(client, i)
            await backend.until(lambda i=i: len(backend.taken) == i + 1)
        await client.quiet()
    assert said(backend) == [0, 1, 2, 3]


async def test_a_success_without_its_body_is_a_success(
    make: Make, backend: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_delivery, "ANSWER_S", 0.05)
    backend.moods = [half_an_answer]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, "once")
        await until(lambda: server.metrics.hooks.delivered == 1)
        await say(client, "twice")
        await until(lambda: server.metrics.hooks.delivered == 2)
    assert len(backend.requests) == 2


async def test_a_receiver_that_comes_up_late_misses_nothing(make: Make) -> None:
    backend = Receiver()
    await backend.start()
    port = backend.port
    await backend.stop()
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, *range(100))
        await until(lambda: server.metrics.hooks.requests["unreachable"] >= 2)
        await backend.start(port)
        try:
            await backend.until(lambda: len(said(backend)) == 100)
        finally:
            await backend.stop()
    assert said(backend) == list(range(100))


async def test_retry_after_is_honoured(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(503, Retry_After="1")]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        began = time.monotonic()
        await say(client, "x")
        await backend.until(lambda: backend.taken)
    assert time.monotonic() - began >= 0.95


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("0", 0, 0), ("7", 7, 7), ("100000", 300, 300), ("9" * 5000, 300, 300), ("-5", 0, 0), ("soon", 0, 0),
        ("", 0, 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
        ("١", 0, 0), ("1.5", 0, 0),
    ],
)  # fmt: skip
def test_retry_after_is_bounded(value: str, low: float, high: float) -> None:
    assert low <= webhook_delivery._retry_after_s(value) <= high


async def test_tries_come_at_random_times_that_grow(
    make: Make, backend: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full jitter below a bound that doubles, from half a second to half a minute."""
    bounds: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        bounds.append((low, high))
        return 0.0

    assert BACKOFF_S == (0.5, 30.0)
    monkeypatch.setattr(webhook_delivery, "BACKOFF_S", BACKOFF_S)
    monkeypatch.setattr(webhook_delivery.random, "uniform", uniform)
    backend.moods = [answering(500)] * 8
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, "x")
        await backend.until(lambda: backend.taken)
        assert bounds == [(0, most) for most in (0.5, 1, 2, 4, 8, 16, 30, 30)]
        backend.moods = [answering(500)]
        await say(client, "y")
        await backend.until(lambda: len(backend.taken) == 2)
    assert bounds[8:] == [(0, 0.5)], "a batch begins anew"


async def test_an_old_batch_makes_room(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(500)]
    server = await started(make, backend, webhook_retry=0)
    async with json_client(server, token()) as client:
        await say(client, "old")
        await until(lambda: server.metrics.hooks.dropped["gave_up"] == 1)
        await say(client, "new")
        await backend.until(lambda: backend.taken)
    assert said(backend) == ["new"]


# -------------------------------------------------------------- bounds


async def test_a_full_queue_drops_and_says_so(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_queue=5, webhook_timeout=0.3)
    async with json_client(server, token()) as client:
        await say(client, *range(5))
        assert (await client.error("one too many"))["code"] == "internal"
        await client.send([])
        assert (await client.event("error"))["data"]["code"] == "internal"
        figures = server.metrics.hooks
        assert (figures.queued, figures.dropped["queue_full"]) == (5, 2)
        backend.mood = answering(200)
        await backend.until(lambda: len(said(backend)) == 5)
        await say(client, "there is room again")
        await backend.until(lambda: len(said(backend)) == 6)
    assert [event["seq"] for event in backend.events] == [1, 2, 3, 4, 5, 8]
    assert sum(body["dropped"] for body in backend.taken) == 2
    assert (figures.queued, figures.queued_bytes, figures.delivered) == (0, 0, 6)
    hooks = server.stats()["hooks"]
    assert (hooks["delivered"], hooks["dropped"]["queue_full"], hooks["answers"]["failed"]) == (6, 2, 0)


async def test_a_full_queue_in_bytes(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_queue_size=10_000, webhook_timeout=0.3)
    async with json_client(server, token()) as client:
        await say(client, "x" * 6000)
        await client.send(json.dumps("y" * 6000))
        assert (await client.event("error"))["data"]["code"] == "internal"
        await say(client, "z" * 100)
        assert 6000 < server.metrics.hooks.queued_bytes < 10_000
        backend.mood = answering(200)
        await backend.until(lambda: len(said(backend)) == 2)
    assert [value[0] for value in said(backend)] == ["x", "z"]


async def test_a_receiver_that_hangs_slows_nobody(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_timeout=30)
    async with json_client(server, token()) as client:
        began = time.monotonic()
        for i in range(300):
            await say(client, {"action": "x", "i": i})
        assert server.metrics.hooks.queued == 300
        assert len(backend.requests) == 1
        assert time.monotonic() - began < 20  # 300 round trips, not one time-out


# -------------------------------------------------------------- the end of the server


async def test_what_waits_is_delivered_before_the_end(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(500)] * 2

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.1)
        return await answering(200)(request)

    backend.mood = slow
    events = ("message", "client_disconnected")
    options = {"webhook_events": events, "webhook_batch": 5, "webhook_delay": 30, "webhook_flush": 20}
    server = await started(make, backend, **options)
    async with json_client(server, token()) as client:
        await say(client, *range(12))
        await server.stop()
        assert said(backend) == list(range(12))
        assert [data["cause"] for data in backend.of_type("client_disconnected")] == ["shutdown"]
    assert server.metrics.hooks.dropped.total() == 0


async def test_a_drain_delivers_too(make: Make, backend: Receiver) -> None:
    events = ("client_disconnected",)
    options = {"drain_delay": 0, "drain_window": 0.1, "webhook_delay": 30, "webhook_flush": 20}
    server = await started(make, backend, webhook_events=events, **options)
    async with json_client(server, token()), json_client(server, token()):
        await server.drain()
        assert [data["cause"] for data in backend.of_type(*events)] == ["drain", "drain"]


@pytest.mark.parametrize("mood", [hanging, answering(500), answering(503, Retry_After="100")])
async def test_a_receiver_that_hangs_does_not_keep_the_server(
    make: Make, backend: Receiver, mood: Mood, caplog: pytest.LogCaptureFixture
) -> None:
    backend.mood = mood
    server = await started(make, backend, webhook_flush=0.2, webhook_timeout=60)
    async with json_client(server, token()) as client:
        await say(client, *range(7))
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 10
    figures = server.metrics.hooks
    assert (figures.dropped["shutdown"], figures.queued, figures.queued_bytes) == (7, 0, 0)
    assert "events for the webhook were dropped: shutdown" in caplog.text


async def test_a_cancellation_that_gets_lost_does_not_keep_the_server(
    make: Make, backend: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An HTTP client may take one for its own time-out, and the batch would be tried again for ever."""
    monkeypatch.setattr(webhook_delivery, "CANCEL_AGAIN_S", 0.01)
    lost = False

    async def send(*args: Any) -> Any:
        nonlocal lost
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if lost:
                raise
            lost = True
        return webhook_delivery._Answer("timeout", "it was cancelled")

    monkeypatch.setattr(webhook_delivery.Delivery, "_send", send)
    server = await started(make, backend, webhook_flush=0)
    async with json_client(server, token()) as client:
        await say(client, "x")
        async with asyncio.timeout(5):
            await server.stop()
    assert lost
    assert server.metrics.hooks.dropped["shutdown"] == 1
