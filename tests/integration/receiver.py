"""The application's backend as hooks see it: a real aiohttp server that does what a test tells it."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from heartwire import Server, webhook_delivery
from integration.peers import PATIENCE_S, JsonClient

HOOK_SECRET = "a-secret-of-the-hooks-for-tests"

Make = Callable[..., Server]
MESSAGES = ("message",)
Mood = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answering(status: int, body: Any = None, **headers: str) -> Mood:
    """Answers so."""

    async def mood(request: web.Request) -> web.Response:
        text = body if isinstance(body, str) else json.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=text, headers=named)

    return mood


async def hanging(request: web.Request) -> web.StreamResponse:
    """Never answers."""
    await asyncio.Event().wait()
    raise AssertionError


async def half_an_answer(request: web.Request) -> web.StreamResponse:
    """Sends the head of a success, and of the body only the beginning."""
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"{")
    return await hanging(request)


async def resetting(request: web.Request) -> web.StreamResponse:
    """Cuts the connection off."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response(status=500)  # which nobody receives


class Receiver:
    """Takes requests. `moods` are what it does with the next ones, in turn; then `mood` for all others."""

    def __init__(self) -> None:
        self.moods: list[Mood] = []
        self.mood: Mood = answering(200)
        self.requests: list[tuple[dict[str, str], bytes]] = []
        """Everything that came: (headers with names in lower case, body)."""
        self.taken: list[dict[str, Any]] = []
        """The bodies that were answered with success."""
        self.arrived = asyncio.Condition()
        self.url = ""
        self._runner: web.AppRunner | None = None

    async def start(self, port: int = 0, context: ssl.SSLContext | None = None) -> None:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_post("/hook", self._take)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=context).start()
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}/hook"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1].split("/")[0])

    async def _take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers, body))
        mood = self.moods.pop(0) if self.moods else self.mood
        async with self.arrived:
            self.arrived.notify_all()
        response = await mood(request)
        if 200 <= response.status < 300:
            verify(headers, body)
            self.taken.append(json.loads(body))
            async with self.arrived:
                self.arrived.notify_all()
        return response

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for requests until the condition holds."""
        async with asyncio.timeout(PATIENCE_S), self.arrived:
            await self.arrived.wait_for(lambda: bool(condition()))

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events that were taken, in order."""
        return [event for body in self.taken for event in body["events"]]

    def of_type(self, *types: str) -> list[dict[str, Any]]:
        """The data of the events of these types."""
        return [event["data"] for event in self.events if event["type"] in types]

    async def event(self, type: str, number: int = 1) -> dict[str, Any]:
        """Waits for the first, or another, event of a type; its data."""
        await self.until(lambda: len(self.of_type(type)) >= number)
        return self.of_type(type)[number - 1]


def verify(headers: dict[str, str], body: bytes) -> None:
    """The signature is right, and fresh."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.digest(HOOK_SECRET.encode(), signed, "sha256")).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert abs(time.time() - int(headers["webhook-timestamp"])) < 30


@contextlib.asynccontextmanager
async def receiver(**options: Any) -> AsyncIterator[Receiver]:
    """A receiver that is listening."""
    made = Receiver()
    await made.start(**options)
    try:
        yield made
    finally:
        await made.stop()


# -------------------------------------------------------------- what tests of webhooks share


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries: tests have no time."""
    monkeypatch.setattr(webhook_delivery, "BACKOFF_S", (0.02, 0.05))


@pytest.fixture
async def backend() -> AsyncIterator[Receiver]:
    """A receiver that takes everything."""
    async with receiver() as made:
        yield made


async def started(make: Make, backend: Receiver, **options: Any) -> Server:
    """A running server that tells the backend; `message` alone unless a test says otherwise."""
    usual = {"webhook_url": backend.url, "webhook_secret": HOOK_SECRET, "webhook_delay": 0.01}
    usual |= {"webhook_events": MESSAGES, "webhook_flush": 0.2, **options}
    server = make(**usual)
    await server.start()
    return server


async def say(client: JsonClient, *values: Any) -> None:
    """Sends messages, and sees that none of them was answered."""
    for value in values:
        await client.send(json.dumps(value))
    await client.quiet()


def said(backend: Receiver) -> list[Any]:
    return [data["message"] for data in backend.of_type("message")]
