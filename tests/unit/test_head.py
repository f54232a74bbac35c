"""The shortcut for ordinary heads: accepts nothing http_head refuses, and reads the same where both do."""

from __future__ import annotations

import random

import pytest

from heartwire._core.head import read_ordinary_head
from heartwire.errors import Refusal
from heartwire.handshake import find_token
from heartwire.http_head import Request, classify

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = [
    b"Host: example.com:8085", b"Upgrade: websocket", b"Connection: Upgrade",
    b"Sec-WebSocket-Key: " + KEY.encode(), b"Sec-WebSocket-Version: 13",
]  # fmt: skip
CHROME = [
    b"Host: localhost:8085", b"Connection: Upgrade", b"Pragma: no-cache", b"Cache-Control: no-cache",
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130"
    b" Safari/537.36",
    b"Upgrade: websocket", b"Origin: http://localhost:8000", b"Sec-WebSocket-Version: 13",
    b"Accept-Encoding: gzip, deflate, br", b"Accept-Language: en-US,en;q=0.9",
    b"Sec-WebSocket-Key: " + KEY.encode(),
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
]  # fmt: skip


def head(fields: list[bytes], line: bytes = b"GET /ws HTTP/1.1") -> bytes:
    return b"\r\n".join([line, *fields]) + b"\r\n\r\n"


def test_what_browsers_send_takes_the_shortcut() -> None:
    found = read_ordinary_head(head(CHROME, b"GET /ws?token=a.b-c_d HTTP/1.1"))
    assert found is not None
    assert (found.path, found.key, found.host) == ("/ws", KEY, "localhost:8085")
    assert (found.origin, found.query_token, found.bearer) == ("http://localhost:8000", "a.b-c_d", None)
    assert (found.has_extensions, found.has_cookie) == (True, False)
    assert (found.user_agent or "").startswith("Mozilla/5.0 (X11")


def test_firefox_spelling_and_authorization() -> None:
    fields = [b"Connection: keep-alive, Upgrade" if f.startswith(b"Connection") else f for f in FIELDS]
    found = read_ordinary_head(head([*fields, b"authorization: Bearer x.y.z", b"Cookie: a=b"]))
    assert found is not None
    assert (found.bearer, found.has_cookie) == ("x.y.z", True)


@pytest.mark.parametrize(
    "raw",
    [
        head(FIELDS, b"POST /ws HTTP/1.1"),
        head(FIELDS, b"GET /ws HTTP/1.0"),
        head(FIELDS, b"GET /w%73 HTTP/1.1"),
        head(FIELDS, b"GET /ws?token=a&token=b HTTP/1.1"),
        head(FIELDS, b"GET http://example.com/ws HTTP/1.1"),
        head([*FIELDS, b"Host: other"]),
        head([*FIELDS, b"Content-Length: 0"]),
        head([*FIELDS, b"Transfer-Encoding: chunked"]),
        head([*FIELDS, b"Sec-WebSocket-Protocol: chat"]),
        head([*FIELDS, b"Authorization: Basic eA=="]),
        head([*FIELDS, b"X: a\tb"]),
        head([*FIELDS, b"X : a"]),
        head([*FIELDS, b" folded"]),
        head([*FIELDS, b"X: \xc3\xa9"]),
        head([*FIELDS, b"X: a\x00b"]),
        head([*FIELDS, b"Sec-WebSocket-Key: " + KEY.encode()]),
        head(FIELDS[:-1]),
        head(FIELDS).replace(b"\r\n", b"\n"),
        head(FIELDS)[:-2],
        b"",
    ],
)
def test_what_is_unusual_goes_the_long_way(raw: bytes) -> None:
    assert read_ordinary_head(raw) is None


def mutate(raw: bytes, rng: random.Random) -> bytes:
    """A head with up to four small changes of the kinds that parsers disagree about."""
    data = bytearray(raw)
    for _ in range(rng.randint(1, 4)):
        kind = rng.randrange(6)
        at = rng.randrange(len(data))
        if kind == 0:
            data[at] = rng.choice(b"\r\n\t :;,=?&/%#\x00\x7f\x80Aa0-_")
        elif kind == 1:
            del data[at : at + rng.randint(1, 3)]
        elif kind == 2:
            data[at:at] = rng.choice([b" ", b"\r\n", b"\n", b"\t", b"=", b"&token=x", b"Host: b\r\n", b":"])
        elif kind == 3:
            lines = bytes(data).split(b"\r\n")
            lines.insert(rng.randrange(1, len(lines)), rng.choice(lines))
            data = bytearray(b"\r\n".join(lines))
        elif kind == 4:
            data[at : at + 1] = bytes(data[at : at + 1]).swapcase()
        else:
            lines = bytes(data).split(b"\r\n")
            del lines[rng.randrange(len(lines))]
            data = bytearray(b"\r\n".join(lines))
        if not data:
            data = bytearray(b"G")
    return bytes(data)


def test_agrees_with_the_full_parser_on_mutated_heads(rng: random.Random) -> None:
    bases = [
        head(FIELDS), head(CHROME, b"GET /ws?a=1&token=a.b.c HTTP/1.1"),
        head([*FIELDS, b"Authorization: Bearer a.b.c", b"Cookie: s=1"]),
    ]  # fmt: skip
    accepted = 0
    for _ in range(20_000):
        raw = mutate(rng.choice(bases), rng)
        found = read_ordinary_head(raw)
        if found is None:
            continue
        try:
            verdict = classify(raw, found.path)
        except Refusal as refusal:
            pytest.fail(f"the shortcut took what http_head refuses ({refusal}): {raw!r}")
        accepted += 1
        assert isinstance(verdict, Request), raw
        headers = verdict.headers
        assert verdict.path == found.path, raw
        assert headers["Sec-WebSocket-Key"] == found.key, raw
        assert headers["Host"] == found.host, raw
        assert (headers.get("Origin") or None) == found.origin, raw
        assert (headers.get("User-Agent") or None) == found.user_agent, raw
        assert ("Cookie" in headers) == found.has_cookie, raw
        assert ("Sec-WebSocket-Extensions" in headers) == found.has_extensions, raw
        token = find_token(verdict, cookie_name=None, query_token=True)
        assert (None if token is None else token.value) == (found.bearer or found.query_token), raw
    assert accepted > 500, "the mutations leave too few ordinary heads to compare"
