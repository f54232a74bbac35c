"""An identity provider under test: publishes a JWK Set, well or badly, on a port of the kernel's choice."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable

from aiohttp import web

__all__ = ["Publisher", "free_port", "publisher"]


class Publisher:
    """What is published, and how often it was asked for."""

    def __init__(self) -> None:
        self.document = b'{"keys":[]}'
        self.status = 200
        self.headers: dict[str, str] = {}
        self.answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
        self.requests = 0
        self.asked = asyncio.Event()
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests += 1
        self.asked.set()
        if self.answer is not None:
            return await self.answer(request)
        return web.Response(body=self.document, status=self.status, headers=self.headers)


@contextlib.asynccontextmanager
async def publisher(document: bytes | None = None, *, port: int = 0) -> AsyncIterator[Publisher]:
    """A publisher that answers; `port` is for one that comes up later."""
    provider = Publisher()
    if document is not None:
        provider.document = document
    app = web.Application()
    app.router.add_get("/jwks.json", provider.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}/jwks.json"
        yield provider
    finally:
        await runner.cleanup()


def free_port() -> int:
    """A port where nobody listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
