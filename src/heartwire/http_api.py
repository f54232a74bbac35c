"""HTTP beside the WebSocket endpoint: health for load balancers, metrics, and the API for the backend.

aiohttp serves it. Here are the applications, the API keys and the form of errors; the calls themselves are in
`http_clients`, `http_channels`, `http_publish` and `http_tokens`. Documentation for users: docs/http-api.md.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from heartwire._version import __version__
from heartwire.http_channels import ChannelCalls
from heartwire.http_clients import ClientCalls
from heartwire.http_endpoint import BODY_LIMIT, ApiError, Endpoint, Scope, error_answer, json_answer
from heartwire.http_publish import PublishCalls
from heartwire.http_tokens import TokenCalls
from heartwire.monitor import Monitor, Ticket, browser_client
from heartwire.openapi import document

if TYPE_CHECKING:
    from heartwire.brokers import Broker
    from heartwire.config import ApiKey
    from heartwire.exposition import Exposition
    from heartwire.memberships import Memberships
    from heartwire.registry import Registry
    from heartwire.tokens import Tokens

__all__ = ["HttpApi"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

logger: logging.Logger = logging.getLogger("heartwire.http")


class Alive(msgspec.Struct):
    """The process runs."""

    version: str
    status: str = "alive"


class Ready(msgspec.Struct, omit_defaults=True):
    """Whether new clients should come here."""

    status: str
    reason: str | msgspec.UnsetType = msgspec.UNSET


class Health(msgspec.Struct):
    """The server in four values."""

    status: str
    clients: int
    channels: int
    version: str


class HttpApi:
    """The HTTP side of one server. Loop thread only.

    Args:
        registry: who is here.
        memberships: makes and ends them.
        broker: carries what is sent.
        exposition: the metrics.
        keys: who may ask.
        metrics_public: metrics are for everybody.
        readiness: () -> why the server is not ready, or None if it is.
        monitor: the page for people.
        tokens: of the clients.
    """

    def __init__(
        self,
        registry: Registry,
        memberships: Memberships,
        broker: Broker,
        exposition: Exposition,
        keys: tuple[ApiKey, ...],
        metrics_public: bool,
        readiness: Callable[[], str | None],
        monitor: Monitor,
        tokens: Tokens,
    ) -> None:
        self._registry = registry
        self._exposition = exposition
        # By digest: lengths are equal then, so that the time of comparing does not tell the length of a key.
        self._keys = tuple((sha256(key.key.encode()).digest(), key.scopes) for key in keys)
        self._readiness = readiness
        self._monitor = monitor
        self._probes = (
            Endpoint("GET", "/health", None, "Is the process alive?", self._health, Alive),
            Endpoint(
                "GET", "/ready", None, "Should new clients come here?", self._ready, Ready, statuses=(503,)
            ),
        )
        metrics = Endpoint(
            "GET", "/metrics", None if metrics_public else "read", "Metrics for Prometheus",
            self._metrics, None,
        )  # fmt: skip
        self.endpoints: Final = (
            *self._probes,
            metrics,
            Endpoint("GET", "/api/health", "read", "The server in four values", self._api_health, Health),
            *ClientCalls(registry).endpoints,
            *ChannelCalls(registry, memberships).endpoints,
            *PublishCalls(registry, broker, self._owner_of).endpoints,
            *TokenCalls(tokens).endpoints,
            Endpoint(
                "POST", "/api/monitor/ticket", "read", "A ticket for the monitor's feed: once, within 30 s",
                monitor.issue_ticket, Ticket,
            ),
            Endpoint("GET", "/api/openapi.json", "read", "This description", self._openapi, dict[str, Any]),
        )
        self.described: Final = (*self.endpoints, *monitor.endpoints)

    def everything(self, ws_path: str | None = None) -> web.Application:
        """An application with all calls and the monitor page.

        Args:
            ws_path: of the WebSocket endpoint, if it is on the same port: nothing else is served there.
        """
        app = self._application(self.endpoints, ws_path)
        self._monitor.add_routes(app, ws_path)
        return app

    def probes(self, ws_path: str) -> web.Application:
        """An application with how the server is and the client for browsers: the rest is on another port."""
        return self._application(self._probes, ws_path)

    def _application(self, endpoints: tuple[Endpoint, ...], ws_path: str | None) -> web.Application:
        app = web.Application(middlewares=[_json_errors], client_max_size=BODY_LIMIT)
        browser_client(app)
        for endpoint in endpoints:
            if endpoint.path == ws_path:
                continue
            if endpoint.method == "GET":
                app.router.add_get(endpoint.path, self._serving(endpoint), expect_handler=_expect)
            else:
                method, path = endpoint.method, endpoint.path
                app.router.add_route(method, path, self._serving(endpoint), expect_handler=_expect)
        return app

    # -------------------------------------------------------------- who may ask

    def _serving(self, endpoint: Endpoint) -> Handler:
        async def serve(request: web.Request) -> web.StreamResponse:
            if endpoint.scope is not None:
                refusal = self._refusal(request, endpoint.scope)
                if refusal is not None:
                    return refusal
            answer = await endpoint.handler(request)
            return answer if isinstance(answer, web.StreamResponse) else json_answer(answer)

        return serve

    def _refusal(self, request: web.Request, scope: Scope) -> web.Response | None:
        if not self._keys:
            how = "start the server with --api-key, --api-key-file or HEARTWIRE_API_KEY"
            return error_answer(403, "no_api_key_configured", f"the API is closed: {how}")
        number = self._key_of(request)
        if number is None:
            answer = error_answer(401, "unauthenticated", "send `Authorization: Bearer <api key>`")
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        if scope not in self._keys[number][1]:
            return error_answer(403, "forbidden", f"this API key lacks the scope {scope!r}")
        return None

    def _owner_of(self, request: web.Request) -> str:
        """What tells the API keys apart; not a key itself."""
        number = self._key_of(request)
        return "" if number is None else str(number)

    def _key_of(self, request: web.Request) -> int | None:
        """Which of the keys the request presents."""
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        given = sha256(presented.strip().encode("utf-8", "surrogateescape")).digest()
        found = None
        for number, (digest, _) in enumerate(self._keys):  # all of them, so that the time tells nothing
            if hmac.compare_digest(given, digest):
                found = number
        return found

    # -------------------------------------------------------------- calls without a place of their own

    async def _health(self, request: web.Request) -> Alive:
        return Alive(__version__)

    async def _ready(self, request: web.Request) -> web.Response:
        why_not = self._readiness()
        if why_not is None:
            return json_answer(Ready("ready"))
        return json_answer(Ready("not ready", why_not), status=503)

    async def _metrics(self, request: web.Request) -> web.Response:
        body, content_type = self._exposition.scrape(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def _api_health(self, request: web.Request) -> Health:
        registry = self._registry
        return Health("healthy", len(registry.clients), len(registry.channels), __version__)

    async def _openapi(self, request: web.Request) -> dict[str, Any]:
        return document(self.described)


async def _expect(request: web.Request) -> web.Response | None:
    """Answers the header Expect (RFC 9110 10.1.1)."""
    if request.headers.get("Expect", "").lower() == "100-continue":
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # this is no answer yet
        return None
    return error_answer(417, "bad_request", "Expect: the server knows 100-continue only")


_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_big"}


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in one form: {"code", "message"}."""
    try:
        return await handler(request)
    except ApiError as error:
        return json_answer(error.info, error.status)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = error_answer(error.status, _CODES.get(error.status, "bad_request"), error.reason)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except web.RequestPayloadError:  # chunks or a compression that are none
        answer = error_answer(400, "bad_request", "the body cannot be read: its encoding is broken")
        answer.force_close()
        return answer
    except OSError:
        raise  # the peer has gone while it sent or received
    except Exception:
        logger.exception("%s %s failed", request.method, request.path)
        return error_answer(500, "internal", "the server failed to answer the request")
