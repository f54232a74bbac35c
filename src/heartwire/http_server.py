"""Where the HTTP side listens, and sockets that pass between it and the WebSocket side.

On the WebSocket's port the link hands over each connection whose request asks for no upgrade, with the
bytes it has read; an upgrade request that comes later on such a kept-alive connection is handed back. With
`http_port` that port answers only `/health`, `/ready` and `/heartwire.js`, and aiohttp listens on the other
by itself.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from heartwire.admission import HTTP_UPGRADES
from heartwire.errors import ConfigError
from heartwire.http_endpoint import error_answer

if TYPE_CHECKING:
    from heartwire._core.connection import Connection
    from heartwire.config import ServerConfig
    from heartwire.http_api import HttpApi
    from heartwire.listeners import Listeners

__all__ = ["HttpServer"]

CONNECTING_S: Final = 60.0  # in which a protocol surely has got its transport


class HttpServer:
    """Serves the HTTP API of one server. Loop thread only.

    Args:
        config: `host`, `path`, `http_port`, `reuse_port`.
        api: what is served.
        listeners: takes sockets back.
    """

    def __init__(self, config: ServerConfig, api: HttpApi, listeners: Listeners) -> None:
        self._config = config
        self._listeners = listeners
        apart = config.http_port is not None
        beside = api.probes(config.path) if apart else api.everything(config.path)
        beside.router.add_route("*", config.path, self._upgrade)
        beside.middlewares.insert(0, self._judged_elsewhere)
        self._beside = _runner(beside)
        self._apart = _runner(api.everything()) if apart else None
        self._addresses = _Addresses()

    async def start(self) -> None:
        """Listens on `http_port`, if there is one.

        Raises:
            ConfigError: the port cannot be had.
        """
        await self._beside.setup()
        if self._apart is None:
            return
        await self._apart.setup()
        config = self._config
        tls = self._listeners.tls
        site = web.TCPSite(
            self._apart, config.host, config.http_port, reuse_port=config.reuse_port or None,
            ssl_context=None if tls is None else tls.switching_context(),
        )  # fmt: skip
        try:
            await site.start()
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else "the host name is not known"
            message = f"cannot listen on {config.host} port {config.http_port}: {why}"
            raise ConfigError("http_port", message) from None

    async def stop(self) -> None:
        """Closes every HTTP connection. Idempotent."""
        await self._beside.cleanup()
        if self._apart is not None:
            await self._apart.cleanup()

    @property
    def port(self) -> int | None:
        """The port apart, also where the kernel chose it; None if there is none."""
        return self._apart.addresses[0][1] if self._apart is not None and self._apart.addresses else None

    def take(self, conn: Connection) -> None:
        """Serves a connection whose request asks for no upgrade."""
        handler = self._beside.server
        assert handler is not None
        address = conn.remote_address
        released, received = conn.release()
        protocol = handler()
        if self._config.proxy_protocol:
            self._addresses.add(protocol, address)
        self._listeners.hand_over(released, received, protocol)

    @web.middleware
    async def _judged_elsewhere(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Who asks for a WebSocket is judged as on a connection of its own, whatever the path."""
        if request.path not in HTTP_UPGRADES and "websocket" in request.headers.get("Upgrade", "").lower():
            return await self._upgrade(request)
        return await handler(request)

    async def _upgrade(self, request: web.Request) -> web.Response:
        """A request for the WebSocket side on a kept-alive connection: the link gets the socket."""
        tail = _Tail()
        parser: Any = tail
        request.protocol.set_parser(parser)
        version = request.version
        lines = [f"{request.method} {request.raw_path} HTTP/{version.major}.{version.minor}".encode()]
        lines += [name + b": " + value for name, value in request.raw_headers]
        protocol: Any = request.protocol
        transport = protocol.transport
        if transport is not None:  # uvloop's is no subclass of asyncio.Transport
            # aiohttp is told that its connection ended: else it would write an answer among our frames.
            protocol.transport = None
            address = self._addresses.take(protocol)
            protocol.connection_lost(None)
            self._listeners.adopt(transport, b"\r\n".join(lines) + b"\r\n\r\n" + tail.data, address)
        return web.Response()  # never sent


def _runner(app: web.Application) -> web.AppRunner:
    return _Runner(app, handle_signals=False, access_log=None, logger=_logger)


class _Protocol(RequestHandler):
    """aiohttp's, but what cannot be read as HTTP is refused in the form of all errors."""

    __slots__ = ()

    def handle_error(
        self, request: web.BaseRequest, status: int = 500, exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:  # fmt: skip
        super().handle_error(request, status, exc, message)  # logs, or raises if an answer has begun
        if status >= 500:
            answer = error_answer(500, "internal", "the server failed to answer the request")
        else:
            answer = error_answer(status, "bad_request", "the request cannot be read as HTTP/1.1")
        answer.force_close()
        answer.headers["Connection"] = "close"  # aiohttp takes what it could not read for HTTP/1.0
        return answer


class _Server(web.Server):
    def __call__(self) -> RequestHandler:
        protocol = super().__call__()
        protocol.__class__ = _Protocol
        return protocol


class _Runner(web.AppRunner):
    """aiohttp makes its Server and its RequestHandlers itself, and lets nobody choose their classes."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Addresses:
    """Of peers that began with a PROXY header, which is told only once, by aiohttp's protocol.

    Those that have ended are found when there are many: the protocol cannot be referred to weakly.
    """

    def __init__(self) -> None:
        self._told: dict[Any, tuple[tuple[str, int], float]] = {}
        self._most = 64

    def add(self, protocol: Any, address: tuple[str, int]) -> None:
        now = time.monotonic()
        if len(self._told) >= self._most:
            began = now - CONNECTING_S
            self._told = {p: told for p, told in self._told.items() if p.transport or told[1] > began}
            self._most = max(2 * len(self._told), 64)
        self._told[protocol] = address, now

    def take(self, protocol: Any) -> tuple[str, int] | None:
        return self._told.pop(protocol, (None, 0.0))[0]


class _Tail:
    """Receives what an HTTP parser had read beyond an upgrade request."""

    def __init__(self) -> None:
        self.data = b""

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self.data += data
        return False, b""

    def feed_eof(self) -> None:
        """The peer shut down its side: the next receive sees it too."""


class _OwnFaults(logging.Filter):
    """Drops what peers do wrong: aiohttp would log every request that it cannot read with a traceback."""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


_logger: Final = logging.getLogger("heartwire.http")
_logger.addFilter(_OwnFaults())
