"""Fuzzes the opening handshake: a request head through a whole server without sockets.

An input is one byte that says how to cut, and what a client sends first. It must be answered by one
well-formed HTTP response, or wait for more, or go to the HTTP server; the answer must be the same however it
is cut, and the same whether the native shortcut (csrc/head.h) or `http_head` reads it. What is answered 101
must be so by websockets too, with the same accept key; but a list without elements is none here, and an error
there. The other way round nothing is said: heartwire is stricter on purpose (docs/hostile-clients.md).
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import jwt
from websockets.server import ServerProtocol

from fuzz import harness
from heartwire import Server, features
from heartwire.testing import FakeLink
from serverless import SECRET, Serverless

KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
TOKEN: Final = jwt.encode({"sub": "fuzz"}, SECRET, algorithm="HS256").encode()
STATUSES: Final = {101, 400, 401, 403, 404, 405, 426, 431, 505}
WEBSOCKETS_LINE_MOST: Final = 8192  # websockets reads no longer line
EMPTY_LIST: Final = re.compile(
    rb"(?i)\r\n(?:Connection|Upgrade|Sec-WebSocket-Protocol|Sec-WebSocket-Extensions):[ \t,]*(?=\r\n)"
)
"""Lines that name nothing: websockets refuses what a recipient must ignore (RFC 9110 section 5.6.1.2)."""

class Answer(NamedTuple):
    """What came back."""

    status: int
    """0: none yet; 1: the request goes to the HTTP server."""
    rest: bytes
    """The response without its status and date."""
    client: Any


def serverless() -> Serverless:
    """The server of all inputs."""
    return Serverless(Server(
        port=0, jwt_secret=[SECRET], auth="optional", allow_no_exp=True, auth_cookie="session", welcome=False,
        compression="shared" if features.DEFLATE else "off", origin=["https://app.example"],
        log_level="warning", handshake_timeout=3600,
    ))  # fmt: skip


def one_input(data: bytes) -> None:
    """Judges one input.

    Raises:
        AssertionError: the contract is broken.
    """
    if not data:
        return
    world = harness.server(serverless)
    settings, stream = data[0], data[1:]
    whole = _ask(world, [stream])
    cut = _ask(world, _cut(stream, settings))
    if (cut.status, whole.status) != (400, 400):  # which of several faults is named may differ
        assert cut == whole, "how the head is cut makes a difference"
    admission = world.server._admission
    shortcut = admission._open_ordinary
    admission._open_ordinary = lambda *_: False  # type: ignore[method-assign]
    try:
        assert _ask(world, [stream]) == whole, "the shortcut makes a difference"
    finally:
        admission._open_ordinary = shortcut  # type: ignore[method-assign]
    if whole.status == 101:
        _compare(stream, whole)


def _cut(stream: bytes, settings: int) -> list[bytes]:
    if settings & 1 or len(stream) > 600:
        at = random.Random(settings).randint(0, len(stream))
        return [stream[:at], stream[at:]]
    return harness.pieces(stream, 1)


def _ask(world: Serverless, pieces: list[bytes]) -> Answer:
    with world.link() as link:
        for piece in pieces:
            if link.connection.phase in ("CONNECTING", "OPEN"):
                link.feed(piece)
        world.turn()
        return _answer(world, link, is_head=b"".join(pieces).startswith(b"HEAD "))


def _answer(world: Serverless, link: FakeLink, is_head: bool) -> Answer:
    written = bytes(link.written)
    if link in world.passed:
        assert not written
        return Answer(1, b"", None)
    if not written:
        assert link.connection.phase == "CONNECTING"
        return Answer(0, b"", None)
    head, separator, body = written.partition(b"\r\n\r\n")
    assert separator
    status = int(re.fullmatch(rb"HTTP/1\.1 (\d{3}) [A-Za-z ]+", head.split(b"\r\n")[0])[1])  # type: ignore[index]
    assert status in STATUSES
    head = re.sub(rb"\r\nDate: [^\r]*", b"", head)
    if status == 101:
        client = link.connection.owner  # None: what followed has ended the connection already
        facts = None if client is None else (client.user_agent, client.user_id)
        return Answer(101, head, (facts, link.connection.statistics()["messages_in"]))
    fields = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
    assert fields[b"Connection"] == b"close"
    if is_head and not body:
        return Answer(status, head, None)
    assert int(fields[b"Content-Length"]) == len(body)
    assert set(json.loads(body)) == {"code", "message"}
    assert TOKEN[-20:] not in written
    return Answer(status, head + body, None)


def _compare(stream: bytes, ours: Answer) -> None:
    head = stream[: stream.index(b"\r\n\r\n") + 4]
    if max(map(len, head.split(b"\r\n"))) > WEBSOCKETS_LINE_MOST - 2:
        return
    head = EMPTY_LIST.sub(b"", head)
    protocol = ServerProtocol()
    protocol.receive_data(head)
    (request,) = protocol.events_received()
    response = protocol.accept(request)
    assert response.status_code == 101, response
    accepted = re.search(rb"\r\nSec-WebSocket-Accept: ([^\r]*)", ours.rest)
    assert accepted is not None
    assert response.headers["Sec-WebSocket-Accept"].encode() == accepted[1]


# ---------------------------------------------------------------- seeds


def head(*fields: bytes, line: bytes = b"GET /ws HTTP/1.1") -> bytes:
    """A good handshake with more fields."""
    good = (
        b"Host: localhost:8080", b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Key: " + KEY,
        b"Sec-WebSocket-Version: 13",
    )  # fmt: skip
    return b"\r\n".join([line, *good, *fields]) + b"\r\n\r\n"


def seeds() -> Iterator[bytes]:
    """Inputs to begin with."""
    chrome = head(
        b"Pragma: no-cache", b"User-Agent: Mozilla/5.0 (X11)", b"Origin: http://localhost:8080",
        b"Accept-Encoding: gzip, deflate, br",
        b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    )  # fmt: skip
    heads = [
        head(), chrome, chrome.replace(b"Connection: Upgrade", b"Connection: keep-alive, Upgrade"),
        head(b"Authorization: Bearer " + TOKEN), head(b"Authorization: Bearer x"),
        head(b"Cookie: session=" + TOKEN),
        head(b"Cookie: session=" + TOKEN, b"Origin: https://app.example"), head(b"Origin: https://evil.example"),
        head(line=b"GET /ws?token=" + TOKEN + b" HTTP/1.1"),
        head(line=b"GET /ws?a=1&token=x&token=y HTTP/1.1"),
        head(b"Sec-WebSocket-Protocol: heartwire.bearer, " + TOKEN),
        head(b"Sec-WebSocket-Protocol: heartwire.v1"),
        head(line=b"POST /ws HTTP/1.1"), head(line=b"GET /w%73 HTTP/1.1"), head(line=b"GET /x HTTP/1.1"),
        head(line=b"GET /ws HTTP/1.0"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\n\n", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01",
        b"GET /ws HTTP/1.1\r\nHo",
        head(b"Content-Length: 5") + b"hello", head(b"Transfer-Encoding: chunked"), head(b"X: a\r\n b"),
        head(b"X : a"),
        head(b"Connection:"), head(b"Upgrade: ,"), head(b"Connection: , ,upgrade,"),
        head(b"Sec-WebSocket-Protocol: ,"),
        head(b"Host: b"), head(b"X: a\0b"), head(b"X:" + b"y" * 9000), head(b"X:" + b"y" * 17000),
        head().replace(b"\r\n", b"\n"), head().replace(b"13", b"8"),
        head() + b"\x89\x80\0\0\0\0\x81\x81\0\0\0\0" + b"1",
        head(b"Sec-WebSocket-Extensions: a;;;=,;"), head(b"Sec-WebSocket-Extensions: permessage-deflate; x"),
    ]  # fmt: skip
    for i, one in enumerate(heads):
        yield bytes([i & 1]) + one
