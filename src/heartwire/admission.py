"""Who comes in: from a request head to an open, registered client, or to an HTTP answer.

The rules are in `http_head`, `origin`, `handshake` and `auth`; here they are applied in the order of
protocol.md 2, and their outcome is told to the connection.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from binascii import b2a_base64
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final

from heartwire import handshake
from heartwire._core.head import read_ordinary_head
from heartwire.auth import KeyUnknown
from heartwire.client import GATED, Client
from heartwire.credentials import Credentials, credentials_of
from heartwire.errors import Refusal, TokenError
from heartwire.greeting import Greeting
from heartwire.http_head import PassToHttp, Request, classify, head_too_large, parse_head, request_timeout
from heartwire.limits import AddressLimits, user_is_full
from heartwire.messages import next_id
from heartwire.origin import origin_allowed
from heartwire.proxies import TrustedProxies, read_proxy_header
from heartwire.tokens import Tokens

if TYPE_CHECKING:
    from heartwire._core.connection import Connection
    from heartwire.config import ServerConfig
    from heartwire.dispatch import Dispatcher

__all__ = ["Admission"]

REJECT_CODES: Final = {401: (4401, "auth_failed"), 403: (4403, "forbidden"), 429: (4429, "rate_limited")}
USER_AGENTS_KEPT: Final = 1024
ORIGINS_KEPT: Final = 1024
ACCEPT_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
HTTP_UPGRADES: Final = ("/api/monitor",)  # the monitor page's feed, which aiohttp serves

logger: logging.Logger = logging.getLogger("heartwire")


class Admission:
    """Judges request heads and opens clients. Loop thread only.

    Args:
        config: the server's options.
        tokens: judges them.
        dispatcher: the sink whose connections these are.
        pass_to_http: takes (connection) whose request is for the HTTP server.
    """

    def __init__(
        self,
        config: ServerConfig,
        tokens: Tokens,
        dispatcher: Dispatcher,
        pass_to_http: Callable[[Connection], None],
    ) -> None:
        self._config = config
        self._tokens = tokens
        self._dispatcher = dispatcher
        self._pass_to_http = pass_to_http
        self._limit = config.connection_limit()
        self._addresses = AddressLimits(config)
        self._proxies = TrustedProxies.of(config)
        self._behind_proxies = bool(self._proxies)
        self._user_agents: dict[str, str] = {}
        self._greeting = Greeting(config, dispatcher)
        self._origins: set[tuple[str, str]] = set()
        """(Origin, Host) pairs that were allowed."""
        self._date_of = 0
        self._switching_head = b""
        self._compression = handshake.compression_factories(config.compression)
        self._needs_request = config.keep_request or dispatcher.handlers.on_connect is not None
        self._deciding: dict[Connection, asyncio.Task[None]] = {}
        self.open: int = 0
        """Sockets of clients, those that are closing included."""
        self.draining = False

    # -------------------------------------------------------------- the request

    def on_proxy_header(self, conn: Connection, received: bytes) -> int | None:
        """Reads the PROXY header of a trusted peer: as `Sink.on_proxy_header`."""
        if not self._proxies.trusts(conn.remote_address[0]):
            return 0
        try:
            header = read_proxy_header(received)
        except ValueError:
            self._dispatcher.refusals.count("closed", "proxy_header", conn.remote_address)
            conn.abort()
            return None
        if header is None:
            return None
        if header.host is not None:
            conn.set_peer(header.host, header.port)
        return header.size

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        """Judges one request head and answers it, now or, with an asynchronous authenticator, later."""
        try:
            if head is None:
                raise head_too_large()
            own_host = None
            if self._behind_proxies and self._proxies.trusts(conn.remote_address[0]):
                own_host = self._proxies.host(head)
                if address := self._proxies.client_address(head):
                    conn.set_peer(address, 0)
            if self._open_ordinary(conn, head, own_host):
                return
            verdict = classify(head, self._config.path, http_upgrade_paths=HTTP_UPGRADES)
            if isinstance(verdict, PassToHttp):
                self._pass_to_http(conn)
                return
            self._check_capacity()
            if self._addresses.active:
                self._addresses.check(conn)
            token = self._token(verdict, own_host)
            request = verdict.with_remote_address(conn.remote_address)
            custom = self._dispatcher.handlers.authenticate
            if custom is not None:
                identity = custom(request)
                if inspect.isawaitable(identity):
                    self._decide_later(conn, request, identity, head, own_host)
                    return
                self._accept(conn, request, credentials_of(identity), own_host)
                return
            try:
                credentials = self._verify(token)
            except KeyUnknown:
                assert token is not None
                self._decide_later(conn, request, self._tokens.verify_later(token.value), head, own_host)
                return
            self._accept(conn, request, credentials, own_host)
        except Refusal as refusal:
            self._refuse(conn, refusal, head)
        except TokenError as error:  # of the application's authenticator
            self._refuse(conn, handshake.token_refused(error), head)
        except Exception:
            self._dispatcher.log.exception("the handshake failed")
            self._refuse(conn, Refusal(500, "internal", "the server failed to judge the request"), head)

    def _open_ordinary(self, conn: Connection, head: bytes, own_host: str | None) -> bool:
        """The shortcut: what nearly every client sends is read in one native pass (48 µs become 3).

        Returns:
            False if anything about the request is unusual: the long way decides, refusals included.
        Raises:
            Refusal: too many connections of the address or the user; the token is not accepted, or missing.
        """
        found = read_ordinary_head(head)
        config = self._config
        if (
            found is None
            or found.path != config.path
            or (found.has_cookie and config.auth_cookie is not None)
            or (found.has_extensions and self._compression)
            or self._dispatcher.handlers.authenticate is not None
            or self.draining
            or self.open >= self._limit
            or (found.origin is not None and (found.origin, own_host or found.host) not in self._origins)
        ):
            return False
        if self._addresses.active:
            self._addresses.check(conn)
        token = None
        if found.bearer is not None:
            token = handshake.Token(found.bearer, "header")
        elif found.query_token is not None and config.query_token:
            token = handshake.Token(found.query_token, "query")
        try:
            credentials = self._verify(token)
        except KeyUnknown:
            # Not the long way: there it would count twice for the connect rate.
            assert token is not None
            request = parse_head(head).with_remote_address(conn.remote_address)
            self._decide_later(conn, request, self._tokens.verify_later(token.value), head, own_host)
            return True
        client = self._open(conn, self._switching(found.key), credentials, found.user_agent)
        if client is None:
            return True
        if self._needs_request:
            client.request = parse_head(head).with_remote_address(conn.remote_address)
        self._greeting.tell(client)
        return True

    def _switching(self, key: str) -> bytes:
        """The 101 without anything negotiated, as `handshake.accept` would write it (RFC 6455 4.2.2)."""
        now = int(time.time())
        if now != self._date_of:
            self._date_of = now
            self._switching_head = (
                f"HTTP/1.1 101 Switching Protocols\r\nDate: {formatdate(now, usegmt=True)}\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
            ).encode()
        digest = sha1(key.encode() + ACCEPT_GUID, usedforsecurity=False).digest()
        return self._switching_head + b2a_base64(digest, newline=False) + b"\r\n\r\n"

    def _token(self, request: Request, own_host: str | None) -> handshake.Token | None:
        """The request's token, after its origin was judged: a bad origin is 403 also where two tokens are
        401. For a handler that decides instead, what is no token of ours is none."""
        handler = self._dispatcher.handlers.authenticate
        try:
            token = handshake.find_token(
                request, cookie_name=self._config.auth_cookie, query_token=self._config.query_token
            )
        except Refusal:
            by_cookie = handler is not None and self._config.auth_cookie is not None  # it may go by that
            origin_allowed(request, self._config.origin, "cookie" if by_cookie else None, own_host)
            if handler is not None:
                return None
            raise
        origin_allowed(request, self._config.origin, None if token is None else token.place, own_host)
        return token

    def _check_capacity(self) -> None:
        if self.draining:
            raise _draining()
        if self.open >= self._limit:
            headers = (("Retry-After", "5"),)
            raise Refusal(503, "full", "the server has as many connections as it may", headers)

    def _verify(self, token: handshake.Token | None) -> Credentials | None:
        if token is None:
            if self._config.auth == "handshake":
                raise handshake.token_missing()
            return None
        try:
            return self._tokens.verify(token.value)
        except KeyUnknown:
            raise
        except TokenError as error:
            raise handshake.token_refused(error) from None

    def _decide_later(
        self, conn: Connection, request: Request, identity: Awaitable[Any], head: bytes, own_host: str | None
    ) -> None:
        async def decide() -> None:
            try:
                credentials = credentials_of(await identity)
                self._check_capacity()  # again: it took time
                if self._addresses.active:
                    self._addresses.check_room(conn)
                self._accept(conn, request, credentials, own_host)
            except Refusal as refusal:
                self._refuse(conn, refusal, head)
            except TokenError as error:
                self._refuse(conn, handshake.token_refused(error), head)
            except Exception:
                self._dispatcher.log.exception("authenticate failed")
                self._refuse(conn, Refusal(500, "internal", "the server failed to judge the request"), head)

        def decided(task: asyncio.Task[None]) -> None:
            self._deciding.pop(conn, None)

        task = self._dispatcher.tasks.loop.create_task(decide())
        self._dispatcher.tasks.keep(task)
        self._deciding[conn] = task
        task.add_done_callback(decided)

    def _refuse(self, conn: Connection, refusal: Refusal, head: bytes | None) -> None:
        self._dispatcher.refusals.count(refusal.status, refusal.code, conn.remote_address)
        if self._config.reject == "close" and refusal.status in REJECT_CODES and head is not None:
            # Browsers cannot read the status of a failed handshake: upgrade, and close at once.
            code, cause = REJECT_CODES[refusal.status]
            verdict = classify(head, self._config.path)
            assert isinstance(verdict, Request)
            if conn.accept(handshake.accept(verdict).response, None):
                conn.close(code, refusal.code, cause)
            return
        conn.refuse(handshake.refusal_bytes(refusal, head=head or b""))

    # -------------------------------------------------------------- the client

    def _accept(
        self, conn: Connection, request: Request, credentials: Credentials | None, own_host: str | None
    ) -> None:
        """Negotiates, and opens the client of a request that came the long way."""
        accepted = handshake.accept(request, extensions=self._compression or None)
        if deflate := accepted.compression:
            conn.use_deflate(
                deflate.local_max_window_bits, deflate.remote_max_window_bits,
                not deflate.local_no_context_takeover, not deflate.remote_no_context_takeover,
            )  # fmt: skip
        if origin := request.headers.get("Origin"):
            # It was allowed: the next one like it may take the shortcut.
            if len(self._origins) >= ORIGINS_KEPT:
                self._origins.clear()
            self._origins.add((origin, own_host or request.headers["Host"]))
        user_agents = request.headers.get_all("User-Agent")  # nothing forbids several
        client = self._open(conn, accepted.response, credentials, user_agents[0] if user_agents else None)
        if client is not None:
            client.request = request
            self._greeting.tell(client)

    def _open(
        self, conn: Connection, response: bytes, credentials: Credentials | None, user_agent: str | None
    ) -> Client | None:
        """Answers 101; from here on the client exists. None if the peer has gone meanwhile.

        Raises:
            Refusal: the user has as many connections as they may.
        """
        if credentials is not None and self._tokens.user_full(credentials.user_id):
            raise user_is_full()
        client = Client(conn)
        client.id = next_id()
        client.credentials = credentials
        client.user_agent = self._shared(user_agent)
        if credentials is None and self._config.auth == "message":
            conn.special = GATED
        if not conn.accept(response, client):
            return None
        self.open += 1
        if self._addresses.active:
            self._addresses.opened(conn)
        self._dispatcher.metrics.connects += 1
        self._dispatcher.registry.add(client)
        if self._dispatcher.webhooks is not None:
            self._dispatcher.webhooks.client_connected(client)
        if conn.special & GATED:
            conn.set_due("opening", self._config.auth_timeout)
        if credentials is not None and credentials.expires_at is not None:
            self._tokens.watch(client)
        if self._config.welcome and self._dispatcher.speaks_json:
            conn.send(1, self._greeting.event(client))
        return client

    def _shared(self, user_agent: str | None) -> str | None:
        """One string for the many clients with the same browser."""
        if user_agent is None:
            return None
        if len(self._user_agents) >= USER_AGENTS_KEPT:
            self._user_agents.clear()
        return self._user_agents.setdefault(user_agent, user_agent)

    def turn_away(self) -> None:
        """The server stops: requests that are still being decided on get their answer now."""
        for conn, deciding in list(self._deciding.items()):
            deciding.cancel()
            self._refuse(conn, _draining(), None)

    def close(self) -> None:
        """The server has stopped."""
        self._dispatcher.refusals.close()

    def connection_closed(self, conn: Connection) -> None:
        """A connection's socket is closed."""
        if conn.owner is not None:  # one that was refused by closing has none, and was not counted
            self.open -= 1
            if self._addresses.active:
                self._addresses.closed(conn)
        elif (deciding := self._deciding.get(conn)) is not None:
            deciding.cancel()

    # -------------------------------------------------------------- deadlines

    def on_expired(self, conn: Connection, which: str) -> None:
        """A deadline of this module, or of its tokens, passed."""
        client: Client | None = conn.owner
        if which == "token":
            if client is not None:
                self._tokens.due(client)
        elif which == "opening":
            if client is None:
                self._opening_timed_out(conn)
            else:
                conn.close(4401, "authentication timeout", "auth_timeout")

    def _opening_timed_out(self, conn: Connection) -> None:
        """The head did not come in time, or our own decision about it."""
        deciding = self._deciding.get(conn)
        if deciding is None:
            refusal = request_timeout()
        else:
            deciding.cancel()
            refusal = _undecided()
        self._dispatcher.refusals.count(refusal.status, refusal.code, conn.remote_address)
        conn.refuse(handshake.refusal_bytes(refusal))


def _draining() -> Refusal:
    return Refusal(503, "draining", "the server is going down: reconnect", (("Retry-After", "1"),))


def _undecided() -> Refusal:
    """The answer when `@server.authenticate` does not come to an end in time."""
    return Refusal(503, "timeout", "the server could not judge the request in time", (("Retry-After", "1"),))
