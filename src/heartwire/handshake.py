"""The opening handshake: where the token is, what the 101 says, how a refusal looks on the wire.

Sans-I/O. Works on the `Request` that `heartwire.http_head.classify` returned; every function either returns
or raises `Refusal`. No message, repr or answer made here holds a token.
Sources: RFC 6455 section 4.2.2; RFC 6750 sections 2 and 3.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Literal

import msgspec
from websockets.datastructures import Headers
from websockets.extensions import Extension, ServerExtensionFactory
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.http11 import Request as OpeningRequest
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from heartwire.errors import LocalProtocolError, Refusal, TokenError
from heartwire.http_head import Request, cookie_pairs, header_list, redact

__all__ = [
    "BEARER_SUBPROTOCOL",
    "SUBPROTOCOL",
    "Accepted",
    "Token",
    "TokenPlace",
    "accept",
    "compression_factories",
    "find_token",
    "redact",
    "refusal_bytes",
    "token_missing",
    "token_refused",
]

SUBPROTOCOL: Final = "heartwire.v1"
BEARER_SUBPROTOCOL: Final = "heartwire.bearer"

TokenPlace = Literal["header", "subprotocol", "cookie", "query"]

# RFC 6750 section 2.1: b64token.
_bearer_token = re.compile(r"[0-9A-Za-z\-._~+/]+=*").fullmatch

# websockets logs what it negotiates, and the exceptions it answers with 400: not into our logs.
_silent: Final = logging.Logger("heartwire.handshake", level=logging.CRITICAL + 1)


class Token(msgspec.Struct, frozen=True, gc=False):
    """A token as the peer sent it, not verified yet. Its repr is masked."""

    value: str
    place: TokenPlace

    def __repr__(self) -> str:
        return f"<Token *** from {self.place}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("value", "***"), ("place", self.place)]


class Accepted(msgspec.Struct, frozen=True, eq=False):
    """What was agreed.

    Attributes:
        response: the whole 101, to be sent before any frame.
        subprotocol: the one selected, if any.
        extensions: those in use, in the order in which they apply.
    """

    response: bytes
    subprotocol: str | None
    extensions: tuple[Extension, ...]

    @property
    def compression(self) -> PerMessageDeflate | None:
        """The terms of permessage-deflate, if it is in use."""
        return next((each for each in self.extensions if isinstance(each, PerMessageDeflate)), None)


def find_token(request: Request, *, cookie_name: str | None, query_token: bool) -> Token | None:
    """Find the token; the first place that holds one decides, later places are not looked at.

    The places: `Authorization: Bearer T`; the subprotocol pair `heartwire.bearer, T`; the cookie; the query
    parameter `token`. An empty value is no token. A scheme other than Bearer is another program's.

    Args:
        request: the request.
        cookie_name: the cookie that may hold a token, `None` for no cookie.
        query_token: whether `?token=T` is looked at.

    Raises:
        Refusal: 401, when one place holds two.
    """
    value = _token_in_header(request)
    if value:
        return Token(value, "header")
    value = _one(_split_subprotocols(request)[1], "the subprotocols")
    if value:
        return Token(value, "subprotocol")
    value = _token_in_cookie(request, cookie_name) if cookie_name is not None else None
    if value:
        return Token(value, "cookie")
    value = _one(request.query.get_all("token"), "the query") if query_token and request.raw_query else None
    if value:
        return Token(value, "query")
    return None


def token_missing() -> Refusal:
    """The answer to a request without a token where one is needed."""
    message = (
        "A token is needed: `Authorization: Bearer TOKEN`, or the subprotocols `heartwire.bearer, TOKEN`; "
        "the server may take it from a cookie or from `?token=TOKEN` too."
    )
    return _unauthorized("unauthenticated", message, "invalid_request")


def token_refused(error: TokenError) -> Refusal:
    """The answer to a request whose token is not accepted: 401, or 503 if there is no key to judge it by."""
    if error.code == "keys_missing":
        return Refusal(503, "keys_missing", error.detail, (("Retry-After", "5"),))
    return _unauthorized(error.code, error.detail, "invalid_token")


def accept(
    request: Request,
    *,
    subprotocols: Sequence[str] = (),
    extensions: Sequence[ServerExtensionFactory] | None = None,
) -> Accepted:
    """Agree to a handshake: compute the 101 and what was negotiated.

    Args:
        request: an upgrade request as `classify` returned it.
        subprotocols: the application's own, in order of preference; those of heartwire come after them. A
            token offered as subprotocol is never selected. Without a common one, none is selected.
        extensions: factories of the extensions on offer, in order of preference.

    Raises:
        Refusal: 400 if the extensions offered cannot be read, 500 if a factory fails. Never without
            `extensions`: a refused request can be accepted, to be closed at once with a code.
        LocalProtocolError: `request` does not ask for an upgrade.
    """
    if not request.upgrade:
        raise LocalProtocolError("only an upgrade request can be accepted: ask `classify` first")
    # websockets sees what it negotiates and nothing else: no cookie, no token can be in what it raises.
    offer = Headers()
    offer["Connection"] = "Upgrade"
    offer["Upgrade"] = "websocket"
    offer["Sec-WebSocket-Key"] = request.headers["Sec-WebSocket-Key"]
    offer["Sec-WebSocket-Version"] = request.headers.get("Sec-WebSocket-Version") or ""
    offered = _split_subprotocols(request)[0]
    if offered:
        offer["Sec-WebSocket-Protocol"] = ", ".join(offered)
    for value in request.headers.get_all("Sec-WebSocket-Extensions") if extensions else ():
        offer["Sec-WebSocket-Extensions"] = value
    protocol = ServerProtocol(
        subprotocols=[Subprotocol(name) for name in (*subprotocols, SUBPROTOCOL, BEARER_SUBPROTOCOL)],
        extensions=extensions,
        select_subprotocol=_first_common,
        logger=_silent,
    )
    response = protocol.accept(OpeningRequest(request.raw_path, offer))
    if response.status_code >= 500:
        message = "The server failed while it negotiated the connection."
        raise Refusal(500, "internal", message) from protocol.handshake_exc
    if response.status_code != 101:
        message = "`Sec-WebSocket-Extensions` or another field of the handshake cannot be read."
        raise Refusal(400, "bad_request", message)
    return Accepted(response.serialize(), protocol.subprotocol, tuple(protocol.extensions))


def compression_factories(mode: Literal["off", "shared", "dedicated"]) -> list[ServerExtensionFactory]:
    """What to offer as `extensions` of `accept`.

    Args:
        mode: `shared` keeps no context in either direction. `dedicated` keeps windows of 4 KiB; from a client
            that cannot bound its own window, none.

    Source: RFC 7692 section 7.1.
    """
    if mode == "off":
        return []
    if mode == "shared":
        return [
            ServerPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)
        ]
    bits = 12
    return [
        ServerPerMessageDeflateFactory(
            server_max_window_bits=bits, client_max_window_bits=bits, require_client_max_window_bits=True
        ),
        ServerPerMessageDeflateFactory(server_max_window_bits=bits, client_no_context_takeover=True),
    ]


def refusal_bytes(refusal: Refusal, *, head: bytes = b"", now: Callable[[], float] | None = None) -> bytes:
    """The whole HTTP answer to a refused handshake.

    Args:
        refusal: what to say.
        head: the request's head as far as there is one: an answer to HEAD has no body.
        now: the clock for `Date`, Unix seconds; by default the system's.
    """
    # A handler's message may hold lone surrogates, and an answer must go out in any case.
    code, message = (text.encode("utf-8", "replace").decode() for text in (refusal.code, refusal.message))
    body = msgspec.json.encode({"code": code, "message": message})
    try:
        phrase = HTTPStatus(refusal.status).phrase
    except ValueError:
        phrase = ""
    headers = Headers()
    headers["Date"] = formatdate(now() if now else None, usegmt=True)
    headers["Content-Type"] = "application/json"
    headers["Content-Length"] = str(len(body))
    headers["Connection"] = "close"
    for name, value in refusal.headers:
        headers[name] = value
    start = f"HTTP/1.1 {refusal.status} {phrase}\r\n".encode("ascii")
    return start + headers.serialize() + (b"" if head.startswith(b"HEAD ") else body)


def _first_common(protocol: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol | None:
    for name in protocol.available_subprotocols or ():
        if name in offered:
            return name
    return None


def _split_subprotocols(request: Request) -> tuple[list[str], list[str]]:
    """The subprotocols offered, without tokens; what follows each `heartwire.bearer` (`""`: nothing)."""
    offered = header_list(request.headers, "Sec-WebSocket-Protocol")
    if BEARER_SUBPROTOCOL not in offered:
        return offered, []
    tokens = [
        "" if after in (SUBPROTOCOL, BEARER_SUBPROTOCOL) else after
        for name, after in zip(offered, [*offered[1:], ""], strict=True)
        if name == BEARER_SUBPROTOCOL
    ]
    # The same text elsewhere in the list would be echoed, were it the name of a subprotocol.
    return [name for name in offered if name not in tokens], tokens


def _token_in_header(request: Request) -> str | None:
    values = request.headers.get_all("Authorization")
    tokens = []
    for value in values:
        scheme, _, rest = value.partition(" ")
        if scheme.lower() == "bearer":
            tokens.append(rest.strip(" \t"))
    if not tokens:
        return None
    # Two lines are ambiguous even when one of them is of another scheme: proxies keep the first or the last.
    if len(values) > 1:
        raise _two_tokens("`Authorization`")
    if tokens[0] and not _bearer_token(tokens[0]):
        message = "`Authorization` does not hold one token after `Bearer`."
        raise _unauthorized("token_invalid", message, "invalid_request")
    return tokens[0]


def _token_in_cookie(request: Request, cookie_name: str) -> str | None:
    values = [value for name, value in cookie_pairs(request.headers) if name == cookie_name]
    return _one(values, "the cookies")


def _one(values: list[str], place: str) -> str | None:
    if len(values) > 1:
        raise _two_tokens(place)
    return values[0] if values else None


def _two_tokens(place: str) -> Refusal:
    return _unauthorized("token_invalid", f"There are two tokens in {place}: send one.", "invalid_request")


def _unauthorized(code: str, message: str, error: str) -> Refusal:
    return Refusal(401, code, message, (("WWW-Authenticate", f'Bearer error="{error}"'),))
