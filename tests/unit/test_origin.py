"""origin: which pages may connect."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartwire.errors import ConfigError, Refusal
from heartwire.http_head import Request, classify
from heartwire.origin import origin_allowed, parse_origin_pattern


def request(origin: str | None, host: str = "example.com") -> Request:
    lines = [
        "GET /ws HTTP/1.1",
        f"Host: {host}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    ]
    if origin is not None:
        lines.append(f"Origin: {origin}")
    verdict = classify(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"), "/ws")
    assert isinstance(verdict, Request)
    return verdict


def is_allowed(origin: str | None, host: str, *allowed: str, place: str | None = None) -> bool:
    try:
        origin_allowed(request(origin, host), allowed, place)
    except Refusal as refusal:
        answer = (refusal.status, refusal.code)
    else:
        return True
    assert answer == (403, "origin_not_allowed")
    return False


@pytest.mark.parametrize("place", [None, "header", "subprotocol", "query"])
def test_absent(place: str | None) -> None:
    assert is_allowed(None, "example.com", place=place)


@pytest.mark.parametrize("allowed", [(), ("https://example.com",), ("*",)])
def test_absent_with_a_cookie(allowed: tuple[str, ...]) -> None:
    assert not is_allowed(None, "example.com", *allowed, place="cookie")
    assert is_allowed("https://example.com", "example.com", *allowed, place="cookie")


@pytest.mark.parametrize(
    ("origin", "host", "expected"),
    [
        ("https://example.com", "example.com", True),
        ("http://example.com", "example.com", True),
        ("https://EXAMPLE.com", "example.COM", True),
        ("HTTPS://example.com", "example.com", True),
        ("https://example.com", "example.com:443", True),
        ("https://example.com:443", "example.com", True),
        ("http://example.com", "example.com:80", True),
        ("http://example.com:80", "example.com", True),
        ("http://example.com:8080", "example.com:8080", True),
        ("http://[::1]:8080", "[::1]:8080", True),
        ("https://example.com", "example.com:", True),
        ("https://example.com", "example.com:80", False),
        ("http://example.com", "example.com:443", False),
        ("http://example.com:8080", "example.com", False),
        ("http://example.com", "example.com:8080", False),
        ("https://evil.example", "example.com", False),
        ("https://sub.example.com", "example.com", False),
        ("https://example.com.evil.example", "example.com", False),
        ("https://evilexample.com", "example.com", False),
        ("https://example.com@evil.example", "example.com", False),
        ("https://example.com/", "example.com", False),
        ("https://example.com https://evil.example", "example.com", False),
        ("https://example.com:99999999", "example.com", False),
        ("capacitor://example.com", "example.com", False),
        ("null", "example.com", False),
        ("NULL", "null", False),
        ("", "example.com", False),
        ("example.com", "example.com", False),
        ("//example.com", "example.com", False),
        ("https://" + "a" * 256, "a" * 256, False),
    ],
)
def test_same_host(origin: str, host: str, expected: bool) -> None:
    assert is_allowed(origin, host) is expected


@pytest.mark.parametrize(
    ("origin", "pattern", "expected"),
    [
        ("https://app.example", "https://app.example", True),
        ("HTTPS://App.Example", "https://aPP.example", True),
        ("https://app.example:443", "https://app.example", True),
        ("https://app.example", "https://app.example:443", True),
        ("http://app.example", "https://app.example", False),
        ("https://app.example:8443", "https://app.example", False),
        ("https://x.app.example", "https://app.example", False),
        ("https://x.app.example", "https://*.app.example", True),
        ("https://x.y.app.example", "https://*.app.example", True),
        ("https://app.example", "https://*.app.example", False),
        ("https://.app.example", "https://*.app.example", False),
        ("https://xapp.example", "https://*.app.example", False),
        ("https://x.app.example.evil.example", "https://*.app.example", False),
        ("https://xxapp.example", "https://**.app.example", False),
        ("https://axapp.example", "https://*.example", True),
        ("https://a-b-c", "https://*-*-*", True),
        ("https://ab-c", "https://*-*-*", False),
        ("https://xaapp-example", "https://x.app.example", False),
        ("http://localhost:5173", "http://localhost:*", True),
        ("http://localhost", "http://localhost:*", True),
        ("https://localhost:5173", "http://localhost:*", False),
        ("https://localhost:5173", "*://localhost:*", True),
        ("https://localhost", "*://localhost", True),
        ("capacitor://localhost", "capacitor://localhost", True),
        ("chrome-extension://abcdef", "chrome-extension://*", True),
        ("http://[::1]:3000", "http://[::1]:3000", True),
        ("null", "https://*", False),
        ("null", "*://*:*", False),
    ],
)
def test_patterns(origin: str, pattern: str, expected: bool) -> None:
    assert is_allowed(origin, "example.com", pattern) is expected
    assert is_allowed(origin, "example.com", "https://first.example", pattern) is expected


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "nonsense"])
def test_star_alone(origin: str) -> None:
    assert is_allowed(origin, "example.com", "*")
    assert is_allowed(origin, "example.com", "https://a.example", "*")


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        "null",
        "example.com",
        "https://",
        "https://example.com/",
        "https://example.com/app",
        "https://user@example.com",
        "https://b\xfccher.example",
        "https://example.com:port",
        "**",
    ],
)
def test_bad_patterns_are_found_at_start(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"such as https://example\.com") as caught:
        parse_origin_pattern(pattern)
    assert caught.value.option == "origin"


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
def test_any_origin(origin: str) -> None:
    is_allowed(origin, "example.com", "https://*.example.com", "http://localhost:*")


@given(st.text(alphabet="abc.:-[]/*", max_size=12), st.text(alphabet="abc.-:", min_size=1, max_size=12))
def test_no_pattern_without_star_allows_another_host(host: str, other: str) -> None:
    """The oracle is plain equality."""
    if is_allowed(f"https://{other}", "example.com", "https://abc.a"):
        assert other in ("abc.a", "abc.a:443", "example.com")
    assert not is_allowed(f"https://{host}.evil", "example.com", "https://*.a")
