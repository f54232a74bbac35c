"""handshake: token places and their order, the 101, and refusals as bytes."""

from __future__ import annotations

import base64
import email.utils
import hashlib
import json
import logging
from collections.abc import Sequence
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.extensions import Extension, ServerExtensionFactory
from websockets.extensions.permessage_deflate import ServerPerMessageDeflateFactory
from websockets.http11 import Response
from websockets.typing import ExtensionParameter, Subprotocol
from websockets.uri import parse_uri

from heartwire.errors import LocalProtocolError, Refusal, TokenError
from heartwire.handshake import (
    Token,
    accept,
    compression_factories,
    find_token,
    refusal_bytes,
    token_missing,
    token_refused,
)
from heartwire.http_head import PassToHttp, Request, classify

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455 section 1.3
SECRET = "S3CRET.S3CRET.S3CRET"


def request(*fields: str, target: str = "/ws") -> Request:
    lines = [
        f"GET {target} HTTP/1.1",
        "Host: example.com",
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade",
        f"Sec-WebSocket-Key: {KEY}",
        "Sec-WebSocket-Version: 13",
        *fields,
    ]
    verdict = classify(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), "/ws")
    assert isinstance(verdict, Request)
    return verdict


def find(
    *fields: str, target: str = "/ws", cookie: str | None = "session", query: bool = True
) -> Token | None:
    return find_token(request(*fields, target=target), cookie_name=cookie, query_token=query)


HEADER = "Authorization: Bearer in.the.header"
SUBPROTOCOL = "Sec-WebSocket-Protocol: heartwire.bearer, in.the.subprotocol"
COOKIE = "Cookie: a=b; session=in.the.cookie"
QUERY = "/ws?a=b&token=in.the.query"


# Token places


def test_precedence() -> None:
    places = [HEADER, SUBPROTOCOL, COOKIE]
    for first, name in enumerate(("header", "subprotocol", "cookie")):
        assert find(*places[first:], target=QUERY) == Token(f"in.the.{name}", name)  # type: ignore[arg-type]
        assert find(*reversed(places[first:]), target=QUERY) == Token(f"in.the.{name}", name)  # type: ignore[arg-type]
    assert find(target=QUERY) == Token("in.the.query", "query")
    assert find() is None


def test_places_that_are_turned_off() -> None:
    assert find(COOKIE, cookie=None) is None
    assert find(COOKIE, cookie="other") is None
    assert find(target=QUERY, query=False) is None
    assert find("Cookie: session=a; session=b", HEADER, cookie=None) == Token("in.the.header", "header")
    assert find(target="/ws?token=a&token=b", query=False) is None


def test_later_places_are_not_looked_at() -> None:
    """A stale or doubled cookie does not break a good header."""
    twice = "Cookie: session=a; session=b"
    assert find(HEADER, twice, target="/ws?token=a&token=b") == Token("in.the.header", "header")
    assert find(SUBPROTOCOL, twice) == Token("in.the.subprotocol", "subprotocol")
    assert find(COOKIE, target="/ws?token=a&token=b") == Token("in.the.cookie", "cookie")


@pytest.mark.parametrize(
    ("fields", "value"),
    [
        (["Authorization: bearer a.b.c"], "a.b.c"),
        (["Authorization: BEARER  \t a.b-_~+/c=="], "a.b-_~+/c=="),
        (["Authorization: Bearer"], None),
        (["Authorization: Bearer  "], None),
        (["Authorization: Basic dXNlcjpw"], None),
        (["Authorization: Basic a", "Authorization: Digest b"], None),
        (["Authorization: Bearerx a"], None),
        (["Authorization:"], None),
        (["Sec-WebSocket-Protocol: heartwire.bearer,a.b.c"], "a.b.c"),
        (["Sec-WebSocket-Protocol: heartwire.bearer", "Sec-WebSocket-Protocol: a.b.c"], "a.b.c"),
        (["Sec-WebSocket-Protocol: heartwire.v1, heartwire.bearer, a.b.c"], "a.b.c"),
        (["Sec-WebSocket-Protocol: heartwire.bearer, a.b.c, heartwire.v1"], "a.b.c"),
        (["Sec-WebSocket-Protocol: heartwire.bearer"], None),
        (["Sec-WebSocket-Protocol: heartwire.bearer, heartwire.v1"], None),
        (["Sec-WebSocket-Protocol: a.b.c"], None),
        (["Sec-WebSocket-Protocol: chat, a.b.c"], None),
        (["Sec-WebSocket-Protocol:"], None),
        (["Cookie: session=a.b.c"], "a.b.c"),
        (['Cookie: x=y;session="a.b.c" ; z'], "a.b.c"),
        (["Cookie: x=y", "Cookie: session=a.b.c"], "a.b.c"),
        (["Cookie: session=a=b"], "a=b"),
        (['Cookie: session="'], '"'),
        (["Cookie: session="], None),
        (["Cookie: session"], None),
        (["Cookie: xsession=a; Session=b; session2=c"], None),
    ],
)
def test_what_is_a_token(fields: list[str], value: str | None) -> None:
    token = find(*fields)
    assert (token and token.value) == value


@pytest.mark.parametrize(
    ("target", "value"),
    [
        ("/ws?token=a.b.c", "a.b.c"),
        ("/ws?%74oken=a%2Eb", "a.b"),
        ("/ws?token=", None),
        ("/ws?token", None),
        ("/ws?Token=a", None),
        ("/ws?xtoken=a", None),
        ("/ws?", None),
    ],
)
def test_query_token(target: str, value: str | None) -> None:
    token = find(target=target)
    assert (token and token.value) == value


@pytest.mark.parametrize(
    ("fields", "target"),
    [
        (["Authorization: Bearer S3CRET1", "Authorization: Bearer S3CRET2"], "/ws"),
        (["Authorization: Bearer S3CRET1", "Authorization: Bearer S3CRET1"], "/ws"),
        (["Authorization: Bearer S3CRET1", "Authorization: Basic S3CRET2"], "/ws"),
        (["Authorization: Bearer S3CRET1, Bearer S3CRET2"], "/ws"),
        (["Authorization: Bearer S3CRET1 S3CRET2"], "/ws"),
        (["Sec-WebSocket-Protocol: heartwire.bearer, S3CRET1, heartwire.bearer, S3CRET2"], "/ws"),
        (["Sec-WebSocket-Protocol: heartwire.bearer, heartwire.bearer"], "/ws"),
        (["Cookie: session=S3CRET1; session=S3CRET2"], "/ws"),
        (["Cookie: session=S3CRET1", "Cookie: session=S3CRET1"], "/ws"),
        ([], "/ws?token=S3CRET1&token=S3CRET2"),
        ([], "/ws?token=&token=S3CRET2"),
        ([], "/ws?token=S3CRET1&%74oken=S3CRET1"),
    ],
)
def test_two_tokens_in_one_place(fields: list[str], target: str) -> None:
    with pytest.raises(Refusal) as caught:
        find(*fields, target=target)
    refusal = caught.value
    assert (refusal.status, refusal.code) == (401, "token_invalid")
    assert refusal.headers == (("WWW-Authenticate", 'Bearer error="invalid_request"'),)
    assert b"S3CRET" not in refusal_bytes(refusal)
    assert "S3CRET" not in repr(refusal.args)


def test_token_is_masked() -> None:
    token = Token(SECRET, "query")
    assert repr(token) == "<Token *** from query>"
    for shown in (repr([token]), f"{token}", f"{token!s}", repr(token.__rich_repr__())):
        assert "S3CRET" not in shown


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["Authorization", "Cookie", "Sec-WebSocket-Protocol"]),
            st.one_of(
                st.text(st.characters(max_codepoint=255), max_size=30),
                st.text(alphabet="beartokn. ,;=\"", max_size=30).map("Bearer ".__add__),
                st.lists(st.sampled_from(["heartwire.bearer", "heartwire.v1", "a.b.c"])).map(", ".join),
            ),
        ),
        max_size=4,
    ),
    st.text(alphabet="token=&%4Ff+;a", max_size=20),
)
def test_any_places(fields: list[tuple[str, str]], query: str) -> None:
    try:
        asked = request(*(f"{name}: {value}" for name, value in fields), target=f"/ws?{query}")
        token = find_token(asked, cookie_name="session", query_token=True)
    except Refusal as refusal:
        if refusal.status == 400:
            return
        token = None
    accepted = accept(asked)
    if token is not None and token.place == "subprotocol":
        assert accepted.subprotocol in ("heartwire.v1", "heartwire.bearer")


# The 101


def fields_of(answer: bytes) -> tuple[str, Headers, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    start, *lines = head.decode("ascii").split("\r\n")
    headers = Headers()
    for line in lines:
        name, value = line.split(": ", 1)
        headers[name] = value
    return start, headers, body


def test_example_of_the_rfc() -> None:
    asked = request("Origin: http://example.com", "Sec-WebSocket-Protocol: chat, superchat")
    accepted = accept(asked, subprotocols=["chat"])
    start, headers, rest = fields_of(accepted.response)
    assert start == "HTTP/1.1 101 Switching Protocols"
    assert rest == b""
    assert headers["Upgrade"] == "websocket"
    assert headers["Connection"] == "Upgrade"
    assert headers["Sec-WebSocket-Accept"] == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert headers["Sec-WebSocket-Protocol"] == accepted.subprotocol == "chat"
    assert "Sec-WebSocket-Extensions" not in headers
    assert accepted.extensions == ()


def test_a_client_of_another_make_agrees() -> None:
    client = ClientProtocol(
        parse_uri("ws://example.com/ws"),
        subprotocols=[Subprotocol("heartwire.bearer"), Subprotocol("a.b.c")],
    )
    client.send_request(client.connect())
    (head,) = client.data_to_send()
    asked = classify(head, "/ws")
    assert isinstance(asked, Request)
    accepted = accept(asked)
    client.receive_data(accepted.response)
    assert client.handshake_exc is None
    (response,) = client.events_received()
    assert isinstance(response, Response)
    assert client.subprotocol == "heartwire.bearer"
    guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
    digest = hashlib.sha1((asked.headers["Sec-WebSocket-Key"] + guid).encode()).digest()
    assert response.headers["Sec-WebSocket-Accept"] == base64.b64encode(digest).decode()


@pytest.mark.parametrize(
    ("offered", "ours", "selected"),
    [
        (None, [], None),
        (None, ["chat"], None),
        ("chat", [], None),
        ("chat", ["other"], None),
        ("other, chat", ["chat", "other"], "chat"),
        ("heartwire.v1", [], "heartwire.v1"),
        ("heartwire.bearer, a.b.c", [], "heartwire.bearer"),
        ("heartwire.bearer, a.b.c, heartwire.v1", [], "heartwire.v1"),
        ("heartwire.v1, heartwire.bearer, a.b.c", [], "heartwire.v1"),
        ("heartwire.bearer, heartwire.v1", [], "heartwire.v1"),
        ("heartwire.bearer", [], "heartwire.bearer"),
        ("heartwire.bearer, a.b.c, chat", ["chat"], "chat"),
        ("heartwire.bearer, chat", ["chat"], "heartwire.bearer"),
        ("chat, heartwire.bearer, chat", ["chat"], "heartwire.bearer"),
        ("CHAT", ["chat"], None),
        ("heartwire.bearer, chat, heartwire.bearer, other", ["other", "chat"], "heartwire.bearer"),
        ("heartwire.bearer, heartwire.bearer", [], "heartwire.bearer"),
        ("", ["chat"], None),
    ],
)
def test_subprotocols(offered: str | None, ours: list[str], selected: str | None) -> None:
    fields = [] if offered is None else [f"Sec-WebSocket-Protocol: {offered}"]
    accepted = accept(request(*fields), subprotocols=ours)
    assert accepted.subprotocol == selected
    assert fields_of(accepted.response)[1].get("Sec-WebSocket-Protocol") == selected


def test_extensions() -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    without = accept(request(offer))
    assert without.extensions == ()
    accepted = accept(request(offer), extensions=[ServerPerMessageDeflateFactory()])
    assert [extension.name for extension in accepted.extensions] == ["permessage-deflate"]
    assert fields_of(accepted.response)[1]["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
    assert accept(request(), extensions=[ServerPerMessageDeflateFactory()]).extensions == ()


COMPRESSION = {  # mode, what is offered, what is answered, windows of server and client, their takeover
    "off": ("off", "", None, None),
    "shared": (
        "shared", "", "; server_no_context_takeover; client_no_context_takeover", (15, 15, False, False),
    ),
    "shared, a small window asked for": (
        "shared", "; server_max_window_bits=10",
        "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=10",
        (10, 15, False, False),
    ),
    "dedicated": (
        "dedicated", "; client_max_window_bits", "; server_max_window_bits=12; client_max_window_bits=12",
        (12, 12, True, True),
    ),
    "dedicated, smaller windows": (
        "dedicated", "; client_max_window_bits=9; server_max_window_bits=9",
        "; server_max_window_bits=9; client_max_window_bits=9", (9, 9, True, True),
    ),
    "dedicated, the client's window has no bound": (
        "dedicated", "", "; client_no_context_takeover; server_max_window_bits=12", (12, 15, True, False),
    ),
    "dedicated, no context wanted": (
        "dedicated", "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits",
        "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=12; "
        "client_max_window_bits=12", (12, 12, False, False),
    ),
    "a window that zlib has not": ("shared", "; server_max_window_bits=8", None, None),
}  # fmt: skip


@pytest.mark.parametrize(("mode", "offer", "answer", "terms"), COMPRESSION.values(), ids=COMPRESSION)
def test_compression(
    mode: Literal["off", "shared", "dedicated"],
    offer: str,
    answer: str | None,
    terms: tuple[int, int, bool, bool] | None,
) -> None:
    asked = request(f"Sec-WebSocket-Extensions: permessage-deflate{offer}")
    accepted = accept(asked, extensions=compression_factories(mode))
    said = fields_of(accepted.response)[1].get("Sec-WebSocket-Extensions")
    assert said == (None if answer is None else f"permessage-deflate{answer}")
    agreed = accepted.compression
    assert (agreed is None) == (terms is None)
    if agreed is not None:
        takeover = (not agreed.local_no_context_takeover, not agreed.remote_no_context_takeover)
        assert (agreed.local_max_window_bits, agreed.remote_max_window_bits, *takeover) == terms


def test_extensions_that_cannot_be_read() -> None:
    asked = request("Sec-WebSocket-Extensions: ;;", HEADER)
    assert accept(asked).extensions == ()
    with pytest.raises(Refusal) as caught:
        accept(asked, extensions=[ServerPerMessageDeflateFactory()])
    assert caught.value.status == 400


class _Factory(ServerExtensionFactory):
    def __init__(self, error: Exception) -> None:
        self.name = "x"  # type: ignore[assignment]
        self.error = error

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Extension]
    ) -> tuple[list[ExtensionParameter], Extension]:
        raise self.error


def test_factories_that_decline_and_fail() -> None:
    asked = request("Sec-WebSocket-Extensions: x")
    assert accept(asked, extensions=[_Factory(NegotiationError("no"))]).extensions == ()
    with pytest.raises(Refusal) as caught:
        accept(asked, extensions=[_Factory(KeyError("bug"))])
    assert caught.value.status == 500
    assert isinstance(caught.value.__cause__, KeyError)


def test_tokens_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fields = (f"Sec-WebSocket-Protocol: heartwire.bearer, {SECRET}", "Sec-WebSocket-Extensions: ;;")
    with pytest.raises(Refusal):
        accept(request(*fields), extensions=[ServerPerMessageDeflateFactory()])
    accepted = accept(request(fields[0]))
    assert not caplog.records
    assert SECRET.encode() not in accepted.response


def test_only_upgrades_are_accepted() -> None:
    verdict = classify(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "/ws")
    assert isinstance(verdict, PassToHttp)
    with pytest.raises(LocalProtocolError, match="classify"):
        accept(verdict.request)


# Refusals


def test_refusal_bytes() -> None:
    answer = refusal_bytes(token_refused(TokenError("token_expired", "It \u2014 expired.")), now=lambda: 0.0)
    start, headers, body = fields_of(answer)
    assert start == "HTTP/1.1 401 Unauthorized"
    assert json.loads(body) == {"code": "token_expired", "message": "It \u2014 expired."}
    assert dict(headers.raw_items()) == {
        "Date": "Thu, 01 Jan 1970 00:00:00 GMT",
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        "Connection": "close",
        "WWW-Authenticate": 'Bearer error="invalid_token"',
    }


def test_date_is_now_by_default() -> None:
    date = fields_of(refusal_bytes(token_missing()))[1]["Date"]
    assert email.utils.parsedate_to_datetime(date).year >= 2024


def test_token_missing() -> None:
    refusal = token_missing()
    assert (refusal.status, refusal.code) == (401, "unauthenticated")
    assert refusal.headers == (("WWW-Authenticate", 'Bearer error="invalid_request"'),)


@pytest.mark.parametrize(
    ("refusal", "start", "field"),
    [
        (Refusal(503, "full", "x", (("Retry-After", "5"),)), "503 Service Unavailable", ("Retry-After", "5")),
        (Refusal(499, "odd", "x"), "499 ", ("Connection", "close")),
    ],
)
def test_status_lines(refusal: Refusal, start: str, field: tuple[str, str]) -> None:
    line, headers, _ = fields_of(refusal_bytes(refusal))
    assert line == f"HTTP/1.1 {start}"
    assert headers[field[0]] == field[1]


def test_answer_to_head_has_no_body() -> None:
    refusal = Refusal(405, "method_not_allowed", "x")
    _, headers, body = fields_of(refusal_bytes(refusal, head=b"HEAD /ws HTTP/1.1\r\n\r\n"))
    assert body == b""
    assert int(headers["Content-Length"]) > 0


@given(st.text(), st.text())
def test_any_message_can_be_answered(code: str, message: str) -> None:
    _, headers, body = fields_of(refusal_bytes(Refusal(403, code + "\ud800", message + "\udfff")))
    assert len(body) == int(headers["Content-Length"])
    assert json.loads(body)["message"] == message.encode("utf-8", "replace").decode() + "?"
