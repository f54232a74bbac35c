"""HTTP on the port of the WebSocket endpoint: health for load balancers, clients for the backend (protocol.md 6).

aiohttp serves it. The reactor hands over a socket whose request does not ask for an upgrade, with the bytes
it has read; an upgrade request on such a kept-alive connection is handed back.
"""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec
from aiohttp import web

from heartwire._version import __version__
from heartwire.config import ApiKey
from heartwire.messages import rfc3339

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.registry import Registry

__all__ = ["HttpApi", "client_json"]

PAGE_DEFAULT: Final = 100
PAGE_MOST: Final = 1000
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class HttpApi:
    """The aiohttp application of one server.

    Args:
        registry: what is listed.
        keys: who may ask.
        readiness: () -> why the server is not ready, or None if it is.
        ws_path: the WebSocket endpoint.
        hand_back: takes an upgrade request that came on a kept-alive connection.
    """

    def __init__(
        self,
        registry: Registry,
        keys: tuple[ApiKey, ...],
        readiness: Callable[[], str | None],
        ws_path: str,
        hand_back: Callable[[web.Request], None],
    ) -> None:
        self._registry = registry
        self._keys = keys
        self._readiness = readiness
        self._hand_back = hand_back
        self.app = web.Application(middlewares=[_json_errors])
        self.app.add_routes([
            web.get("/health", self._health),
            web.get("/ready", self._ready),
            web.get("/api/health", self._needs("read", self._api_health)),
            web.get("/api/clients", self._needs("read", self._clients)),
            web.get("/api/clients/{id}", self._needs("read", self._client)),
            web.get(ws_path, self._upgrade),
        ])  # fmt: skip

    # -------------------------------------------------------------- for load balancers

    async def _health(self, request: web.Request) -> web.Response:
        return _json({"status": "alive", "version": __version__})

    async def _ready(self, request: web.Request) -> web.Response:
        why_not = self._readiness()
        if why_not is None:
            return _json({"status": "ready"})
        return _json({"status": "not ready", "reason": why_not}, status=503)

    async def _upgrade(self, request: web.Request) -> web.Response:
        self._hand_back(request)
        return web.Response()  # never sent: the connection has another owner by now

    # -------------------------------------------------------------- for the backend

    def _needs(self, scope: str, handler: Handler) -> Handler:
        async def checked(request: web.Request) -> web.StreamResponse:
            if not self._keys:
                message = "the API is closed: start the server with --api-key, --api-key-file or HEARTWIRE_API_KEY"
                return _error(403, "no_api_key_configured", message)
            key = self._key_of(request)
            if key is None:
                answer = _error(401, "unauthenticated", "send `Authorization: Bearer <api key>`")
                answer.headers["WWW-Authenticate"] = "Bearer"
                return answer
            if scope not in key.scopes:
                return _error(403, "forbidden", f"this API key lacks the scope {scope!r}")
            return await handler(request)

        return checked

    def _key_of(self, request: web.Request) -> ApiKey | None:
        scheme, _, presented = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        found = None
        for key in self._keys:  # all of them, so that the time tells nothing
            if hmac.compare_digest(presented.strip().encode(), key.key.encode()):
                found = key
        return found

    async def _api_health(self, request: web.Request) -> web.Response:
        registry = self._registry
        return _json({
            "status": "healthy", "clients": len(registry.clients), "channels": len(registry.channels),
            "version": __version__,
        })  # fmt: skip

    async def _clients(self, request: web.Request) -> web.Response:
        limit = _limit(request)
        user_id = request.query.get("user_id")
        if user_id is None:
            clients: dict[str, Client] = self._registry.clients
        else:
            clients = {client.id: client for client in self._registry.clients_of(user_id)}
        ids = list(clients)
        start = 0
        if after := request.query.get("after"):
            if after not in clients:
                raise BadField("after", "the `next` of an earlier page; that client has left", "after=<next>")
            start = ids.index(after) + 1
        page = ids[start : start + limit]
        more = start + limit < len(ids)
        return _json({
            "clients": [client_json(clients[i]) for i in page], "total": len(ids), "next": page[-1] if more else None,
        })  # fmt: skip

    async def _client(self, request: web.Request) -> web.Response:
        client = self._registry.clients.get(request.match_info["id"])
        if client is None:
            return _error(404, "not_found", "no client with this id is connected")
        return _json(client_json(client))


def client_json(client: Client) -> dict[str, Any]:
    """A client as the API shows it."""
    host, port = client.remote_address
    return {
        "id": client.id,
        "user_id": client.user_id,
        "username": client.username,
        "channels": sorted(client.channels),
        "remote_address": f"[{host}]:{port}" if ":" in host else f"{host}:{port}" if host else "unix",
        "user_agent": client.user_agent,
        "connected_at": rfc3339(client.connected_at),
        "last_seen": rfc3339(client.last_seen),
        "rtt_ms": client.rtt_ms,
        "queued_bytes": client.connection.queued_bytes,
    }


class BadField(Exception):
    """A field of the request that cannot be used: names it, what was expected, and an example."""

    def __init__(self, field: str, expected: str, example: str) -> None:
        super().__init__(f"{field}: expected {expected}; example: {example}")


def _limit(request: web.Request) -> int:
    text = request.query.get("limit", str(PAGE_DEFAULT))
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= PAGE_MOST:
        raise BadField("limit", f"a number from 1 to {PAGE_MOST}", f"limit={PAGE_DEFAULT}")
    return int(text)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def _error(status: int, code: str, message: str) -> web.Response:
    return _json({"code": code, "message": message}, status)


_CODES: Final = {404: "not_found", 405: "method_not_allowed", 413: "too_big"}


@web.middleware
async def _json_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Errors in one form: {"code", "message"}."""
    try:
        return await handler(request)
    except BadField as error:
        return _error(400, "bad_field", str(error))
    except web.HTTPException as error:
        if error.status < 400:
            raise
        answer = _error(error.status, _CODES.get(error.status, "bad_request"), error.reason)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
