"""The head of an HTTP/1.1 request, read strictly: who asks for a WebSocket, who for plain HTTP.

Sans-I/O. The caller collects bytes up to the first empty line (at most `MAX_HEAD_BYTES`), then calls
`classify`. Contract: any bytes either give a verdict or raise `Refusal`, never another exception.

Strict on purpose: two programs that read one head differently are how requests are smuggled, so a head
that is ambiguous in any way is refused instead of repaired (RFC 9112 section 11.2).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qsl, unquote, unquote_plus

import msgspec
from websockets.datastructures import Headers

from heartwire.errors import Refusal

__all__ = [
    "MAX_HEADERS",
    "MAX_HEAD_BYTES",
    "PassToHttp",
    "Query",
    "Request",
    "RequestHeaders",
    "Verdict",
    "classify",
    "cookie_pairs",
    "head_too_large",
    "header_list",
    "parse_head",
    "redact",
    "request_timeout",
]

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_HEADERS: Final = 128

_SECRET_FIELDS: Final = frozenset(
    {"authorization", "cookie", "proxy-authorization", "sec-websocket-protocol"}
)
_SECRET_PARAMETERS: Final = frozenset({"access_token", "ticket", "token"})

# RFC 9110 section 5.6.2 (token), RFC 9112 section 3 (request line), RFC 9110 section 7.2 (Host). The host
# is narrower than RFC 3986 allows: `a,b` is two hosts that something folded into one.
_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_upgrade_protocol = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+(?:/[!#$%&'*+\-.^_`|~0-9A-Za-z]+)?").fullmatch
_target = re.compile(r"/[\x21-\x7e]*").fullmatch
_version = re.compile(r"HTTP/([0-9]\.[0-9])").fullmatch
_host = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z\-._~%]+)(?::[0-9]{0,5})?").fullmatch
_key = re.compile(r"[0-9A-Za-z+/]{22}==").fullmatch
_digits = re.compile(r"[0-9]+").fullmatch
_control_byte = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]").search
_bare_line_end = re.compile(r"\r(?!\n)|(?<!\r)\n").search
_bad_percent = re.compile(r"%(?![0-9A-Fa-f]{2})").search
_decoded_control = re.compile(r"[\x00-\x1f\x7f]").search


class RequestHeaders(Headers):
    """Header fields of a request; as text, those that can hold a token are masked."""

    __slots__ = ()

    def __repr__(self) -> str:
        shown = [(k, "***" if k.lower() in _SECRET_FIELDS else v) for k, v in self.raw_items()]
        return f"RequestHeaders({shown!r})"

    __str__ = __repr__


class Query(Mapping[str, str]):
    """The parameters of a query string; `query[name]` is the first value, `get_all` has every one.

    Percent-encoding is undone; what is not UTF-8 becomes U+FFFD. As text, values are left out.
    """

    __slots__ = ("_values",)

    def __init__(self, raw_query: str) -> None:
        self._values: dict[str, list[str]] = {}
        for name, value in parse_qsl(raw_query, keep_blank_values=True):
            self._values.setdefault(name, []).append(value)

    def __getitem__(self, name: str) -> str:
        return self._values[name][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Query of {', '.join(map(repr, self._values)) or 'nothing'}>"

    def get_all(self, name: str) -> list[str]:
        """Every value of a parameter, in order; empty if it is absent."""
        return list(self._values.get(name, ()))


class Request(msgspec.Struct, frozen=True, eq=False):
    """The head of one request. Immutable, and its repr shows no token.

    Attributes:
        method: as sent; methods are case-sensitive.
        target: path and query as sent. It may hold a token: log `redact(target)`.
        raw_path: the path as sent.
        path: the path, percent-decoded.
        raw_query: what follows `?`, as sent; empty without.
        http_version: `"1.1"`, or another of one digit, a dot and one digit.
        headers: all fields in order; names are looked up in any case.
        upgrade: whether it asks for a WebSocket. Then Host, key, Connection and Upgrade are good, no body
            is announced, the HTTP version is 1.1 and the WebSocket version is given at most once.
        remote_address: of the peer, once `with_remote_address` told it.
    """

    method: str
    target: str
    raw_path: str
    path: str
    raw_query: str
    http_version: str
    headers: RequestHeaders
    upgrade: bool
    remote_address: Any = None

    @property
    def query(self) -> Query:
        """The parameters of the query, parsed anew at each access."""
        return Query(self.raw_query)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies by name; of several with one name, the first. Parsed anew at each access."""
        return dict(reversed(cookie_pairs(self.headers)))

    def with_remote_address(self, address: Any) -> Request:
        """The same request, knowing the peer's address."""
        return msgspec.structs.replace(self, remote_address=address)

    def __repr__(self) -> str:
        return f"<Request {self.method} {redact(self.target)} HTTP/{self.http_version}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("method", self.method), ("target", redact(self.target))]


class PassToHttp(msgspec.Struct, frozen=True, eq=False):
    """Not for the WebSocket server: the HTTP server gets the socket and the head's bytes."""

    request: Request


Verdict: TypeAlias = Request | PassToHttp


def redact(target: str) -> str:
    """A request target or URL fit for a log: `token=abc` becomes `token=***`.

    Names are compared as they decode, since `%74oken=abc` carries a token too.
    """
    before, mark, query = target.partition("?")
    if not mark:
        return target
    parts = []
    for part in query.split("&"):
        name, equals, _ = part.partition("=")
        secret = equals and unquote_plus(name).strip().lower() in _SECRET_PARAMETERS
        parts.append(f"{name}=***" if secret else part)
    return before + mark + "&".join(parts)


def head_too_large() -> Refusal:
    """The answer to a head that is not complete after `MAX_HEAD_BYTES`."""
    return Refusal(431, "head_too_large", f"The request's head is larger than {MAX_HEAD_BYTES} bytes.")


def request_timeout() -> Refusal:
    """The answer to a head that is not complete in time."""
    return Refusal(408, "request_timeout", "The request's head did not arrive in time.")


def header_list(headers: Headers, name: str) -> list[str]:
    """The elements of a comma-separated field, over all its lines, without the empty ones.

    Source: RFC 9110 section 5.6.1.
    """
    items = (item.strip(" \t") for value in headers.get_all(name) for item in value.split(","))
    return [item for item in items if item]


def cookie_pairs(headers: Headers) -> list[tuple[str, str]]:
    """Name and value of each cookie, over all lines; what is no pair is left out.

    Source: RFC 6265 section 4.2.1.
    """
    pairs = []
    for line in headers.get_all("Cookie"):
        for pair in line.split(";"):
            name, equals, value = pair.partition("=")
            if equals:
                value = value.strip(" \t")
                quoted = len(value) >= 2 and value[0] == value[-1] == '"'
                pairs.append((name.strip(" \t"), value[1:-1] if quoted else value))
    return pairs


def parse_head(head: bytes) -> Request:
    """Read one request head.

    Args:
        head: everything up to and with the empty line that ends it.

    Returns:
        The request. See `Request.upgrade` for what is already checked when it asks for a WebSocket.

    Raises:
        Refusal: 400 for what is malformed or ambiguous; 505 for an upgrade request that is not HTTP/1.1.

    Source: RFC 9112 sections 2, 3, 5 and 6.3; RFC 6455 section 4.2.1.
    """
    text = head.decode("latin-1")
    if _control_byte(text):
        raise _bad("The head holds a control byte.")
    if _bare_line_end(text):
        raise _bad("A line ends with CR or LF alone: lines end with CR LF.")
    if not text.endswith("\r\n\r\n"):
        raise _bad("The head does not end with an empty line.")
    request_line, *lines = text[:-4].split("\r\n")
    parts = request_line.split(" ")
    if len(parts) != 3 or not _token(parts[0]):
        raise _bad("The request line is not `METHOD /path HTTP/1.1`.")
    method, target, protocol = parts
    version = _version(protocol)
    if version is None:
        raise _bad("The request line does not end with an HTTP version.")
    raw_path, path, raw_query = _split_target(target)
    headers = _parse_fields(lines)
    upgrade = _asks_for_websocket(headers)
    http_version = version[1]
    _check_host(headers, http_version)
    _check_body(headers, upgrade, http_version)
    if upgrade:
        _check_handshake_fields(headers)
        if http_version != "1.1":
            raise _http_version_not_supported()
    return Request(method, target, raw_path, path, raw_query, http_version, headers, upgrade)


def classify(head: bytes, ws_path: str, *, http_upgrade_paths: Collection[str] = ()) -> Verdict:
    """Decide whose request this is.

    Args:
        head: see `parse_head`.
        ws_path: the path of the WebSocket endpoint, percent-decoded, such as `/ws`.
        http_upgrade_paths: other paths where the HTTP server takes upgrade requests itself.

    Returns:
        A `Request` to go on with the handshake (origin and token are not judged yet), or `PassToHttp`.

    Raises:
        Refusal: in this order 400, 505, 405 (not GET), 404 (an upgrade asked for on an unknown path),
            426 (no upgrade asked for on `ws_path`, or another WebSocket version).
    """
    request = parse_head(head)
    # An encoded slash is data inside one segment, so `/a%2Fb` is not the path `/a/b`.
    on_ws_path = request.path == ws_path and "%2f" not in request.raw_path.lower()
    if not (request.upgrade or on_ws_path):
        if request.http_version not in ("1.0", "1.1"):
            raise _http_version_not_supported()
        return PassToHttp(request)
    if request.http_version != "1.1":
        raise _http_version_not_supported()
    if request.method != "GET":
        message = "A WebSocket is opened with GET."
        raise Refusal(405, "method_not_allowed", message, (("Allow", "GET"),))
    if not on_ws_path:
        if request.path in http_upgrade_paths:
            return PassToHttp(request)
        raise Refusal(404, "not_found", "There is no WebSocket endpoint at this path.")
    if not request.upgrade:
        raise _upgrade_required(
            "This is a WebSocket endpoint: send `Connection: Upgrade` and `Upgrade: websocket`. "
            "If the client does, a proxy on the way drops them."
        )
    if request.headers.get("Sec-WebSocket-Version") != "13":
        raise _upgrade_required("Only WebSocket version 13 is spoken here.")
    return request


def _split_target(target: str) -> tuple[str, str, str]:
    # Only origin-form: absolute-form would be a second place for the host, and no WebSocket client sends it.
    if not _target(target) or "#" in target:
        raise _bad("The request target is not a path: it starts with `/`, in ASCII without spaces or `#`.")
    raw_path, _, raw_query = target.partition("?")
    if "\\" in raw_path or _bad_percent(raw_path):
        raise _bad("The path holds a backslash or a `%` without two hexadecimal digits.")
    path = raw_path
    if "%" in raw_path:
        try:
            path = unquote(raw_path, errors="strict")
        except UnicodeDecodeError:
            raise _bad("The path does not decode to UTF-8.") from None
        if _decoded_control(path):
            raise _bad("The path decodes to control characters.")
    if "/." in raw_path or "%2e" in raw_path.lower():
        for segment in raw_path.split("/"):
            if unquote(segment) in (".", ".."):
                raise _bad("The path holds `.` or `..`: resolve them before sending.")
    return raw_path, path, raw_query


def _parse_fields(lines: list[str]) -> RequestHeaders:
    if len(lines) > MAX_HEADERS:
        raise _bad(f"There are more than {MAX_HEADERS} header fields.")
    headers = RequestHeaders()
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _token(name):
            raise _bad(_line_problem(line, name, colon))
        headers[name] = value.strip(" \t")
    return headers


def _line_problem(line: str, name: str, colon: str) -> str:
    if not line:
        return "There is an empty line inside the head."
    if line[0] in " \t":
        return "A header field is folded over two lines."
    if not colon:
        return "A header line has no colon."
    if not name:
        return "A header field has no name."
    if name[-1] in " \t":
        return "There is white space between a header's name and its colon."
    return "A header's name holds a character that is not allowed."


def _asks_for_websocket(headers: Headers) -> bool:
    protocols = header_list(headers, "Upgrade")
    options = header_list(headers, "Connection")
    if not all(map(_token, options)):
        raise _bad("`Connection` is not a list of tokens.")
    if not any(protocol.lower() == "websocket" for protocol in protocols):
        return False
    if len(protocols) != 1 or not all(map(_upgrade_protocol, protocols)):
        raise _bad("`Upgrade` must name `websocket` alone.")
    if not any(option.lower() == "upgrade" for option in options):
        raise _bad("`Upgrade: websocket` came without `Connection: Upgrade`: a proxy on the way may drop it.")
    return True


def _check_host(headers: Headers, http_version: str) -> None:
    hosts = headers.get_all("Host")
    # HTTP/1.0 knows no Host: old health checkers leave it out. Upgrade requests end as 505 in any case.
    if not hosts and http_version == "1.0" and not headers.get_all("Upgrade"):
        return
    if len(hosts) != 1:
        raise _bad("There must be exactly one `Host`.")
    if not _host(hosts[0]):
        raise _bad("`Host` is not `host` or `host:port`.")


def _check_body(headers: Headers, upgrade: bool, http_version: str) -> None:
    lengths = headers.get_all("Content-Length")
    encodings = headers.get_all("Transfer-Encoding")
    if not lengths and not encodings:
        return
    if lengths and encodings:
        raise _bad("`Content-Length` and `Transfer-Encoding` exclude each other.")
    if len(lengths) > 1 or not all(map(_digits, lengths)):
        raise _bad("`Content-Length` must be one decimal number.")
    if encodings and (len(encodings) > 1 or encodings[0].lower() != "chunked"):
        raise _bad("`Transfer-Encoding` must be `chunked` alone.")
    if encodings and http_version != "1.1":
        raise _bad("`Transfer-Encoding` needs HTTP/1.1.")
    if upgrade and (encodings or lengths[0].strip("0")):
        raise _bad("A WebSocket handshake has no body.")


def _check_handshake_fields(headers: Headers) -> None:
    keys = headers.get_all("Sec-WebSocket-Key")
    if len(keys) != 1 or not _key(keys[0]):
        raise _bad("There must be exactly one `Sec-WebSocket-Key`: 16 bytes in base64.")
    versions = headers.get_all("Sec-WebSocket-Version")
    if len(versions) > 1 or (versions and "," in versions[0]):
        raise _bad("There must be exactly one `Sec-WebSocket-Version`.")
    if len(headers.get_all("Origin")) > 1:
        raise _bad("There is more than one `Origin`.")
    if not all(map(_token, header_list(headers, "Sec-WebSocket-Protocol"))):
        raise _bad("`Sec-WebSocket-Protocol` is not a list of tokens.")


def _bad(message: str) -> Refusal:
    # Messages are constants: what is wrong may be a header that holds a secret.
    return Refusal(400, "bad_request", message)


def _http_version_not_supported() -> Refusal:
    return Refusal(505, "http_version_not_supported", "Only HTTP/1.1 is spoken here.")


def _upgrade_required(message: str) -> Refusal:
    fields = (("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"))
    return Refusal(426, "upgrade_required", message, fields)
