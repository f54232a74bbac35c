"""The monitor page: its files, and the feed that keeps it up to date (docs/monitor.md).

The feed is a WebSocket of aiohttp, not a client: it is in no registry and no figure. It sends totals each
second; rates are computed in the page. Nothing is done while nobody looks, and then what is done each second
costs about the same with any number of clients.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import heapq
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from aiohttp import WSMsgType, web

from heartwire._version import __version__
from heartwire.http_endpoint import Endpoint, Request
from heartwire.messages import rfc3339

if TYPE_CHECKING:
    from heartwire._core.engine import Engine
    from heartwire.client import Client
    from heartwire.metrics import Metrics
    from heartwire.registry import Channel, Registry

__all__ = ["FEED_PATH", "Monitor", "Ticket", "Tickets", "browser_client"]

FEED_PATH: Final = "/api/monitor"
TICKET_S: Final = 30.0
PERIOD_S: Final = 1.0
SEND_TIMEOUT_S: Final = 10.0
ROWS: Final = 10  # of each list
LOOKED_AT: Final = 2000  # clients, and channels, of each second; a longer list is gone through in turns

_CSP: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES: Final = {".html": "text/html", ".js": "text/javascript", ".css": "text/css"}


class Ticket(msgspec.Struct):
    """Opens the feed once."""

    ticket: str
    expires_in_ms: int


class FeedQuery(Request):
    """Who opens the feed."""

    ticket: Annotated[str, msgspec.Meta(
        description="From POST /api/monitor/ticket: once, within 30 s.",
        examples=["t0Yh7wQk2cUeXr4LmN1aZbPq8sDv6fGj"], extra={"expected": "a ticket"},
    )] = ""  # fmt: skip


class Tickets:
    """Single-use tickets: a browser cannot send an API key with a WebSocket, and a key must not be in a URL.

    Args:
        clock: () -> seconds, monotonic.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        # By digest, since a look-up may tell by its time how much of what it compares is right. All live
        # equally long: the oldest first.
        self._until: dict[bytes, float] = {}

    def issue(self) -> Ticket:
        """Makes a ticket, valid for TICKET_S."""
        now = self._clock()
        for digest in [d for d, until in self._until.items() if until <= now]:
            del self._until[digest]
        ticket = secrets.token_urlsafe(24)
        self._until[_digest(ticket)] = now + TICKET_S
        return Ticket(ticket, round(TICKET_S * 1000))

    def redeem(self, ticket: str) -> bool:
        """Whether it is valid; it no longer is from now on."""
        until = self._until.pop(_digest(ticket), None)
        return until is not None and self._clock() < until


def _digest(ticket: str) -> bytes:
    return hashlib.sha256(ticket.encode("utf-8", "surrogatepass")).digest()


class Row(msgspec.Struct):
    """A client in a list of the page."""

    id: str
    user_id: str | None
    username: str | None
    channels: int
    rtt_ms: float | None
    queued_bytes: int
    connected_at: str


class ChannelRow(msgspec.Struct):
    """A channel in the list of the page."""

    name: str
    kind: str
    members: int


class Monitor:
    """Serves the page and its feed. Loop thread only.

    Args:
        engine, registry, metrics: what is shown.
        readiness: () -> why the server is not ready, or None if it is.
    """

    def __init__(
        self, engine: Engine, registry: Registry, metrics: Metrics, readiness: Callable[[], str | None]
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._metrics = metrics
        self._readiness = readiness
        self._started_at = rfc3339(time.time())
        self._run = secrets.token_hex(8)  # tells the page that totals began anew
        self._feeds: set[web.WebSocketResponse] = set()
        self._latest = b""
        self._latest_at = float("-inf")
        self._slowest: list[Client] = []
        self._clients_after: str | None = None
        self._largest: list[Channel] = []
        self._channels_left: Iterator[str] = iter(())
        self.tickets: Final = Tickets()

    @property
    def endpoints(self) -> tuple[Endpoint, ...]:
        """What `add_routes` and `browser_client` serve, for its description."""
        html, script = _serving("index.html"), _serving("heartwire.js")
        return (
            Endpoint("GET", "/", None, "The monitor page", html, None, media="text/html"),
            Endpoint(
                "GET", "/heartwire.js", None, "The client for browsers", script, None, media="text/javascript"
            ),
            Endpoint(
                "GET", FEED_PATH, None, "The monitor's feed: an upgrade, with a ticket", self._feed, None,
                query=FeedQuery, errors=(403, 426), upgrade=True,
            ),
        )  # fmt: skip

    async def issue_ticket(self, request: web.Request) -> Ticket:
        """The answer to `POST /api/monitor/ticket`."""
        return self.tickets.issue()

    def add_routes(self, app: web.Application, ws_path: str | None) -> None:
        """Adds the page and the feed to an application; the page not where the WebSocket endpoint is."""
        for path, name in (("/", "index.html"), *((f"/{name}", name) for name in PAGE_FILES)):
            if path != ws_path:
                app.router.add_get(path, _serving(name))
        app.router.add_get(FEED_PATH, self._feed, allow_head=False)
        app.on_shutdown.append(self._close)

    # -------------------------------------------------------------- the feed

    async def _feed(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=1024, compress=False)
        if not socket.can_prepare(request).ok:
            return _refusal(426, "upgrade_required", "this is the monitor's feed: open it as a WebSocket")
        if not self.tickets.redeem(request.query.get("ticket", "")):
            how = "get one from POST /api/monitor/ticket and use it once, within 30 s"
            return _refusal(403, "ticket_invalid", f"this ticket is not valid: {how}")
        await socket.prepare(request)
        self._feeds.add(socket)
        try:
            await self._serve(socket)
        except (OSError, TimeoutError):  # the page has gone
            pass
        finally:
            self._feeds.discard(socket)
            if not self._feeds:
                self._slowest, self._largest = [], []  # nobody is kept for a page that is closed
        return socket

    async def _serve(self, socket: web.WebSocketResponse) -> None:
        """Sends a snapshot each second, until the page closes the socket or sends what it should not."""
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                await socket.send_str(self._snapshot(loop.time()).decode())
            try:
                message = await socket.receive(PERIOD_S)  # answers pings and CLOSE, which are not seen here
            except TimeoutError:
                continue
            if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                await socket.close(code=1003, message=b"the feed takes no messages")
            return

    async def _close(self, app: web.Application) -> None:
        for socket in list(self._feeds):
            await socket.close(code=1001, message=b"the server stops")

    # -------------------------------------------------------------- what is shown

    def _snapshot(self, now: float) -> bytes:
        """The figures as JSON: those of a moment ago if another page has just had them."""
        if now - self._latest_at > PERIOD_S / 2:
            self._latest_at = now
            self._latest = msgspec.json.encode(self.figures(now))
        return self._latest

    def figures(self, now: float) -> dict[str, Any]:
        """What one message of the feed says.

        Args:
            now: seconds of a monotonic clock, for the page to divide by.
        """
        registry = self._registry
        metrics = self._metrics
        histograms: Mapping[str, tuple[Any, Any, Any]] = self._engine.histograms()
        return {
            "run": self._run,
            "version": __version__,
            "started_at": self._started_at,
            "at_ms": round(now * 1000),
            "now": rfc3339(time.time()),
            "not_ready": self._readiness(),
            "clients": len(registry.clients),
            "users": len(registry.members_by_user),
            "channels": len(registry.channels),
            "totals": self._engine.statistics(),
            "disconnects": metrics.disconnects,
            "refusals": metrics.refusals,
            "errors": metrics.errors,
            "rtt_us": histograms["rtt_us"][:2],
            "newest": [_row(client) for client in islice(reversed(registry.clients.values()), ROWS)],
            "slowest": [_row(client) for client in self._find_slowest()],
            "largest_channels": [
                ChannelRow(channel.name, channel.kind, len(channel)) for channel in self._find_largest()
            ],
        }

    def _find_slowest(self) -> list[Client]:
        """Most waits for them, then their round trip is the longest: of the known ones and some more."""
        clients, more = self._registry.page(self._clients_after, LOOKED_AT)
        self._clients_after = clients[-1].id if more else None
        known = {c: None for c in (*self._slowest, *clients) if c.is_connected}
        self._slowest = heapq.nlargest(ROWS, known, key=_slowness)
        while self._slowest and _slowness(self._slowest[-1]) == (0, 0.0):
            self._slowest.pop()
        return self._slowest

    def _find_largest(self) -> list[Channel]:
        """The channels with the most members: of the known ones and of some more."""
        names = list(islice(self._channels_left, LOOKED_AT))
        if len(names) < LOOKED_AT:
            self._channels_left = iter(list(self._registry.channels))
            names += islice(self._channels_left, LOOKED_AT - len(names))
        there = self._registry.channels
        known = {c: None for c in self._largest if there.get(c.name) is c}
        known.update((channel, None) for name in names if (channel := there.get(name)) is not None)
        self._largest = heapq.nlargest(ROWS, known, key=len)
        return self._largest


def _slowness(client: Client) -> tuple[int, float]:
    return client.connection.queued_bytes, client.rtt_ms or 0.0


def _row(client: Client) -> Row:
    return Row(
        client.id, client.user_id, client.username, len(client.memberships or ()), client.rtt_ms,
        client.connection.queued_bytes, rfc3339(client.connected_at),
    )  # fmt: skip


def _refusal(status: int, code: str, message: str) -> web.Response:
    return web.json_response({"code": code, "message": message}, status=status)


# -------------------------------------------------------------- files

PAGE_FILES: Final = ("monitor.css", "monitor.js", "feed.js", "figures.js", "charts.js", "lists.js")


def browser_client(app: web.Application) -> None:
    """Adds `GET /heartwire.js`, the client for browsers, to an application."""
    app.router.add_get("/heartwire.js", _serving("heartwire.js"))


@functools.cache
def _serving(name: str) -> Callable[[web.Request], Any]:
    """A handler for a file of the package, which it reads once."""
    body = files("heartwire").joinpath("static", name).read_bytes()
    kind = _TYPES["." + name.rpartition(".")[2]]
    etag = hashlib.sha256(body).hexdigest()[:16]
    headers = {
        "Content-Type": f"{kind}; charset=utf-8",
        "Content-Security-Policy": _CSP,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Cache-Control": "no-cache",  # asked again each time: after an update pages and server fit together
        "ETag": f'"{etag}"',
    }

    async def serve(request: web.Request) -> web.Response:
        if any(tag.value in (etag, "*") for tag in request.if_none_match or ()):
            return web.Response(status=304, headers={k: v for k, v in headers.items() if k != "Content-Type"})
        return web.Response(body=body, headers=headers)

    return serve
