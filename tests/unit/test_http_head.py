"""http_head: what is refused, in which order, and what goes to the HTTP server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartwire.errors import Refusal
from heartwire.http_head import (
    MAX_HEADERS,
    PassToHttp,
    Query,
    Request,
    classify,
    head_too_large,
    parse_head,
    redact,
    request_timeout,
)

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
UPGRADE = {
    "Host": "example.com",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": KEY,
    "Sec-WebSocket-Version": "13",
}


def head(line: str = "GET /ws HTTP/1.1", *extra: str, **changes: str | None) -> bytes:
    """An upgrade request; `changes` replace fields (`_` for `-`, None removes), `extra` lines follow."""
    fields = dict(UPGRADE)
    for name, value in changes.items():
        name = {"Key": "Sec-WebSocket-Key", "Version": "Sec-WebSocket-Version"}.get(name, name)
        name = name.replace("_", "-")
        if value is None:
            fields.pop(name)
        else:
            fields[name] = value
    lines = [line, *(f"{name}: {value}" for name, value in fields.items()), *extra]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def plain(line: str, *fields: str) -> bytes:
    return "\r\n".join([line, *fields, "", ""]).encode("latin-1")


def refused(data: bytes, ws_path: str = "/ws") -> Refusal:
    with pytest.raises(Refusal) as caught:
        classify(data, ws_path)
    return caught.value


def accepted(data: bytes, ws_path: str = "/ws") -> Request:
    verdict = classify(data, ws_path)
    assert isinstance(verdict, Request)
    assert verdict.upgrade
    return verdict


def passed(data: bytes) -> Request:
    verdict = classify(data, "/ws")
    assert isinstance(verdict, PassToHttp)
    return verdict.request


def test_request() -> None:
    request = accepted(head("GET /ws?a=1&b=%20x&a=2&c HTTP/1.1", "X-Name: \t caf\xe9 \t"))
    assert (request.method, request.target) == ("GET", "/ws?a=1&b=%20x&a=2&c")
    assert (request.raw_path, request.path, request.raw_query) == ("/ws", "/ws", "a=1&b=%20x&a=2&c")
    assert request.http_version == "1.1"
    assert request.headers["x-NAME"] == "caf\xe9"
    assert request.query["b"] == " x"
    assert request.query["a"] == "1"
    assert request.query.get_all("a") == ["1", "2"]
    assert request.query.get_all("none") == []
    assert dict(request.query) == {"a": "1", "b": " x", "c": ""}
    assert request.remote_address is None
    known = request.with_remote_address(("127.0.0.1", 5))
    assert known.remote_address == ("127.0.0.1", 5)
    assert known.target == request.target


def test_request_is_frozen() -> None:
    request = accepted(head())
    with pytest.raises(AttributeError):
        request.method = "POST"  # type: ignore[misc]
    assert not hasattr(request, "__dict__")


@pytest.mark.parametrize(
    "data",
    [
        head(Connection="keep-alive, Upgrade"),  # Firefox
        head(Connection="keep-alive,,\tuPGRADE ,"),
        head("GET /ws HTTP/1.1", "Connection: keep-alive"),
        head(Upgrade="WebSocket"),
        head("GET /ws HTTP/1.1", "Content-Length: 0"),
        head(Host="[::1]:8080"),
        head(Host="example.com:8080"),
        head("GET /ws? HTTP/1.1"),
        head("GET /%77s HTTP/1.1"),
        head("GET /ws?next=http://example.com/../x HTTP/1.1"),
        head().replace(b"Sec-WebSocket-Key: ", b"sEC-wEBSOCKET-kEY:").replace(b"Host: ", b"HOST:"),
        head("GET /ws HTTP/1.1", *(f"X-{i}: y" for i in range(MAX_HEADERS - len(UPGRADE)))),
    ],
)
def test_upgrades(data: bytes) -> None:
    accepted(data)


def test_ws_path_is_compared_as_it_decodes() -> None:
    assert accepted(head("GET /a/%C3%A9 HTTP/1.1"), "/a/\xe9").path == "/a/\xe9"
    assert refused(head("GET /a%2Fb HTTP/1.1"), "/a/b").status == 404
    assert refused(head("GET /ws/ HTTP/1.1")).status == 404


MALFORMED = {
    "nothing": b"",
    "only the end": b"\r\n\r\n",
    "no end": head()[:-2],
    "leading line": b"\r\n" + head(),
    "garbage": b"\x16\x03\x01\x02\x00\r\n\r\n",
    "no version": head("GET /ws"),
    "two spaces": head("GET  /ws HTTP/1.1"),
    "tab": head("GET\t/ws HTTP/1.1"),
    "trailing space": head("GET /ws HTTP/1.1 "),
    "leading space": head(" GET /ws HTTP/1.1"),
    "bad method": head("G@T /ws HTTP/1.1"),
    "no method": head(" /ws HTTP/1.1"),
    "gibberish version": head("GET /ws HTTQ/1.1"),
    "long version": head("GET /ws HTTP/1.10"),
    "small version": head("GET /ws http/1.1"),
    "other digits": "GET /ws HTTP/\xb9.1\r\nHost: a\r\n\r\n".encode("latin-1"),
    "absolute-form": head("GET http://example.com/ws HTTP/1.1"),
    "authority-form": head("CONNECT example.com:80 HTTP/1.1"),
    "asterisk-form": head("OPTIONS * HTTP/1.1"),
    "empty target": head("GET  HTTP/1.1"),
    "fragment": head("GET /ws#x HTTP/1.1"),
    "bytes in the target": head("GET /w\xe9 HTTP/1.1"),
    "bad percent": head("GET /w%zz HTTP/1.1"),
    "cut percent": head("GET /ws% HTTP/1.1"),
    "encoded NUL": head("GET /ws%00 HTTP/1.1"),
    "encoded CR LF": head("GET /ws%0d%0aX:y HTTP/1.1"),
    "encoded bytes": head("GET /w%ff HTTP/1.1"),
    "backslash": head("GET /ws\\ HTTP/1.1"),
    "dot segment": head("GET /x/../ws HTTP/1.1"),
    "one dot": head("GET /./ws HTTP/1.1"),
    "last dots": head("GET /ws/.. HTTP/1.1"),
    "encoded dots": head("GET /x/%2e%2E/ws HTTP/1.1"),
    "bare LF": head().replace(b"Upgrade: websocket\r\n", b"Upgrade: websocket\n"),
    "bare CR": head("GET /ws HTTP/1.1", "X: a\rb"),
    "CR CR LF": head("GET /ws HTTP/1.1", "X: a\r"),
    "LF LF": head().replace(b"\r\n", b"\n"),
    "obs-fold": head("GET /ws HTTP/1.1", "X: a", " b"),
    "obs-fold by tab": head("GET /ws HTTP/1.1", "X: a", "\tb: c"),
    "fold after the request line": head().replace(b"HTTP/1.1\r\n", b"HTTP/1.1\r\n X: y\r\n"),
    "NUL": head("GET /ws HTTP/1.1", "X: a\0b"),
    "escape": head("GET /ws HTTP/1.1", "X: a\x1bb"),
    "DEL": head("GET /ws HTTP/1.1", "X: a\x7fb"),
    "vertical tab": head("GET /ws HTTP/1.1", "X: a\x0bb"),
    "space before colon": head("GET /ws HTTP/1.1", "X : a"),
    "tab before colon": head("GET /ws HTTP/1.1", "X\t: a"),
    "no colon": head("GET /ws HTTP/1.1", "X"),
    "no name": head("GET /ws HTTP/1.1", ": a"),
    "bad name": head("GET /ws HTTP/1.1", "X(y): a"),
    "name with bytes": head("GET /ws HTTP/1.1", "X\xe9: a"),
    "empty line inside": head("GET /ws HTTP/1.1", "", "GET /ws HTTP/1.1"),
    "too many fields": head("GET /ws HTTP/1.1", *(f"X-{i}: y" for i in range(MAX_HEADERS - 4))),
    "no host": head(Host=None),
    "two hosts": head("GET /ws HTTP/1.1", "Host: example.com"),
    "hosts in two cases": head("GET /ws HTTP/1.1", "hOST: other.example"),
    "empty host": head(Host=""),
    "folded hosts": head(Host="a,b"),
    "host with user": head(Host="user@a"),
    "host with path": head(Host="a/b"),
    "host with words": head(Host="a b"),
    "host with bad port": head(Host="a:8x"),
    "body": head("GET /ws HTTP/1.1", "Content-Length: 5"),
    "chunked body": head("GET /ws HTTP/1.1", "Transfer-Encoding: chunked"),
    "identity": head("GET /ws HTTP/1.1", "Transfer-Encoding: identity"),
    "two keys": head("GET /ws HTTP/1.1", f"Sec-WebSocket-Key: {KEY}"),
    "no key": head(Key=None),
    "empty key": head(Key=""),
    "short key": head(Key="dGhlIHNhbXBsZSBub25j"),
    "long key": head(Key="dGhlIHNhbXBsZSBub25jZSEh"),
    "key without padding": head(Key=KEY[:-2]),
    "key with half of its padding": head(Key=KEY[:-1]),
    "key of 17 bytes": head(Key="dGhlIHNhbXBsZSBub25jZSE="),
    "key one short": head(Key=KEY[1:]),
    "key not base64": head(Key="!" * 22 + "=="),
    "key url-safe": head(Key="_" * 22 + "=="),
    "two versions": head("GET /ws HTTP/1.1", "Sec-WebSocket-Version: 13"),
    "versions in one": head(Version="13, 8"),
    "upgrade to two": head(Upgrade="websocket, h2c"),
    "upgrade twice": head("GET /ws HTTP/1.1", "Upgrade: websocket"),
    "upgrade to no token": head(Upgrade="websocket, <x>"),
    "connection without upgrade": head(Connection="keep-alive"),
    "no connection": head(Connection=None),
    "connection no token": head(Connection="Upgrade; x"),
    "connection one word": head(Connection="keep-aliveUpgrade"),
    "two origins": head("GET /ws HTTP/1.1", "Origin: https://a", "Origin: https://b"),
    "subprotocols no tokens": head("GET /ws HTTP/1.1", "Sec-WebSocket-Protocol: a b"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_is_400(name: str) -> None:
    refusal = refused(MALFORMED[name])
    assert (refusal.status, refusal.code) == (400, "bad_request")
    assert refusal.message.endswith(".")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("obs-fold", "folded"),
        ("space before colon", "white space"),
        ("no colon", "no colon"),
        ("no name", "no name"),
        ("bad name", "not allowed"),
        ("empty line inside", "empty line inside"),
        ("bare LF", "alone"),
        ("NUL", "control byte"),
        ("two hosts", "exactly one `Host`"),
        ("body", "no body"),
        ("connection without upgrade", "proxy"),
        ("encoded bytes", "UTF-8"),
        ("dot segment", "`..`"),
    ],
)
def test_messages_say_what_is_wrong(name: str, words: str) -> None:
    assert words in refused(MALFORMED[name]).message


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Transfer-Encoding: chunked", "Content-Length: 0"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5, 5",),
        ("Content-Length: +5",),
        ("Content-Length: -1",),
        ("Content-Length: 0x5",),
        ("Content-Length: \xb2",),
        ("Content-Length:",),
        ("Content-Length : 5",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: x", "\tchunked"),
        ("Transfer-Encoding: chunked\x0b",),
        ("X: y\nTransfer-Encoding: chunked",),
        ("X: y\rTransfer-Encoding: chunked",),
    ],
)
@pytest.mark.parametrize("path", ["/ws", "/api/broadcast"])
def test_smuggling_shapes_are_400_for_plain_http_too(path: str, fields: tuple[str, ...]) -> None:
    assert refused(plain(f"POST {path} HTTP/1.1", "Host: a", *fields)).status == 400


def test_transfer_encoding_of_http_1_0_is_400() -> None:
    assert refused(plain("POST /x HTTP/1.0", "Transfer-Encoding: chunked")).status == 400


@pytest.mark.parametrize("version", ["1.0", "0.9", "1.2", "2.0", "3.0"])
def test_505(version: str) -> None:
    assert refused(head(f"GET /ws HTTP/{version}")).status == 505
    assert refused(head(f"GET /other HTTP/{version}")).status == 505
    assert refused(plain(f"GET /ws HTTP/{version}", "Host: a")).status == 505
    if version != "1.0":
        assert refused(plain(f"GET /health HTTP/{version}", "Host: a")).status == 505
    with pytest.raises(Refusal, match="505"):
        parse_head(head(f"GET /ws HTTP/{version}"))


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "PUT", "get"])
def test_405(method: str) -> None:
    for data in (head(f"{method} /ws HTTP/1.1"), plain(f"{method} /ws HTTP/1.1", "Host: a")):
        refusal = refused(data)
        assert (refusal.status, refusal.headers) == (405, (("Allow", "GET"),))


def test_404() -> None:
    assert refused(head("GET /other HTTP/1.1")).status == 404


@pytest.mark.parametrize(
    "data",
    [
        plain("GET /ws HTTP/1.1", "Host: a"),
        plain("GET /ws HTTP/1.1", "Host: a", "Connection: Upgrade"),
        plain("GET /ws HTTP/1.1", "Host: a", "Connection: Upgrade", "Upgrade: h2c"),
        head(Version=None),
        head(Version="8"),
        head(Version="013"),
        head(Version=""),
    ],
)
def test_426(data: bytes) -> None:
    refusal = refused(data)
    assert (refusal.status, refusal.code) == (426, "upgrade_required")
    assert ("Sec-WebSocket-Version", "13") in refusal.headers


def test_order_of_judgement() -> None:
    """Each request breaks every rule from one on: the first one broken is the answer."""
    wrong = {"Version": "8"}
    assert refused(head("POST /other HTTP/1.0", "Host: b", **wrong)).status == 400
    assert refused(head("POST /other HTTP/1.0", **wrong)).status == 505
    assert refused(head("POST /other HTTP/1.1", **wrong)).status == 405
    assert refused(head("GET /other HTTP/1.1", **wrong)).status == 404
    assert refused(head("GET /ws HTTP/1.1", **wrong)).status == 426


@pytest.mark.parametrize(
    "data",
    [
        plain("GET / HTTP/1.1", "Host: a"),
        plain("GET /health HTTP/1.0"),
        plain("POST /api/broadcast HTTP/1.1", "Host: a", "Content-Length: 12"),
        plain("POST /api/broadcast HTTP/1.1", "Host: a", "Transfer-Encoding: chunked"),
        plain("GET /api/channels/a%2F..%2Fb/clients HTTP/1.1", "Host: a"),
        plain("GET /health HTTP/1.1", "Host: a", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c"),
    ],
)
def test_plain_http_is_passed_on(data: bytes) -> None:
    assert not passed(data).upgrade


def test_upgrades_that_the_http_server_takes() -> None:
    data = head("GET /api/monitor?ticket=x HTTP/1.1")
    verdict = classify(data, "/ws", http_upgrade_paths={"/api/monitor"})
    assert isinstance(verdict, PassToHttp)
    assert verdict.request.upgrade
    assert refused(data).status == 404


def test_answers_for_the_caller() -> None:
    assert (head_too_large().status, request_timeout().status) == (431, 408)


@pytest.mark.parametrize(
    ("target", "shown"),
    [
        ("/ws", "/ws"),
        ("/ws?", "/ws?"),
        ("/ws?token=abc", "/ws?token=***"),
        ("/ws?a=1&token=abc&b=2", "/ws?a=1&token=***&b=2"),
        ("/ws?token=abc&token=def", "/ws?token=***&token=***"),
        ("/ws?%74oken=abc", "/ws?%74oken=***"),
        ("/ws?TOKEN=abc", "/ws?TOKEN=***"),
        ("/ws?+token=abc", "/ws?+token=***"),
        ("/ws?token=a=b?c", "/ws?token=***"),
        ("/ws?access_token=abc&ticket=x", "/ws?access_token=***&ticket=***"),
        ("/ws?token", "/ws?token"),
        ("/ws?tokens=abc", "/ws?tokens=abc"),
        ("wss://h/ws?token=abc", "wss://h/ws?token=***"),
    ],
)
def test_redact(target: str, shown: str) -> None:
    assert redact(target) == shown


@given(st.text(alphabet="token=&?%74+T;", max_size=30))
def test_redact_hides_whatever_is_read_as_token(query: str) -> None:
    for value in Query(f"{query}=S3CRET").get_all("token"):
        if "S3CRET" in value:
            assert "S3CRET" not in redact(f"/ws?{query}=S3CRET")


def test_text_forms_hide_tokens() -> None:
    secret = "S3CRET"
    data = head(
        f"GET /ws?token={secret} HTTP/1.1",
        f"Authorization: Bearer {secret}",
        f"Cookie: session={secret}",
        f"sec-websocket-protocol: heartwire.bearer, {secret}",
    )
    request = accepted(data)
    for shown in (request, request.headers, request.query, request.__rich_repr__(), [request]):
        assert secret not in repr(shown)
        assert secret not in str(shown)
    assert repr(request) == "<Request GET /ws?token=*** HTTP/1.1>"
    assert request.headers["Authorization"].endswith(secret)


@pytest.mark.parametrize("name", MALFORMED)
def test_refusals_repeat_nothing_of_the_request(name: str) -> None:
    lines = MALFORMED[name].split(b"\r\n")
    data = b"\r\n".join([lines[0], b"Authorization: Bearer S3CRET", *lines[1:]])
    with pytest.raises(Refusal) as caught:
        classify(data, "/ws")
    assert "S3CRET" not in repr(caught.value.args)


def verdict_or_refusal(data: bytes) -> None:
    try:
        verdict = classify(data, "/ws")
    except Refusal:
        return
    assert isinstance(verdict, Request | PassToHttp)


@given(st.binary(max_size=300))
def test_any_bytes(data: bytes) -> None:
    verdict_or_refusal(data)
    verdict_or_refusal(data + b"\r\n\r\n")


NAMES = st.sampled_from(
    [*UPGRADE, "Content-Length", "Transfer-Encoding", "Origin", "Cookie", "Authorization", "X", "", "X "]
)
VALUES = st.one_of(
    st.sampled_from([*UPGRADE.values(), "upgrade", "chunked", "0", "5", "null", ",", "keep-alive, Upgrade"]),
    st.text(st.characters(max_codepoint=255), max_size=20),
)
TARGETS = st.one_of(
    st.just("/ws"),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20).map("/".__add__),
    st.text(alphabet="/.%2eEfF0?&=tokn", max_size=20).map("/".__add__),
)


@given(
    st.sampled_from(["GET", "POST", "HEAD", ""]),
    TARGETS,
    st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "x"]),
    st.lists(st.tuples(NAMES, VALUES), max_size=8),
)
def test_any_request(method: str, target: str, version: str, fields: list[tuple[str, str]]) -> None:
    lines = [f"{method} {target} {version}", *(f"{name}: {value}" for name, value in fields)]
    verdict_or_refusal("\r\n".join([*lines, "", ""]).encode("latin-1", "replace"))
    good = [f"{name}: {value}" for name, value in UPGRADE.items()]
    verdict_or_refusal("\r\n".join([lines[0], *good, *lines[1:], "", ""]).encode("latin-1", "replace"))
