"""Who is believed about the client's address: header fields of proxies, and the PROXY protocol."""

from __future__ import annotations

import ipaddress
import random
import struct

import pytest

from heartwire.proxies import ForwardedHeader, ProxyHeader, TrustedProxies, read_proxy_header

OURS = ("10.0.0.0/8", "fd00::/8", "192.0.2.1")
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def proxies(header: ForwardedHeader = "x-forwarded-for", *, unix: bool = False) -> TrustedProxies:
    return TrustedProxies([ipaddress.ip_network(text) for text in OURS], unix=unix, header=header)


def head(*lines: str) -> bytes:
    return "\r\n".join(["GET /ws?x=X-Forwarded-For: HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1")


def test_who_is_trusted() -> None:
    ours = proxies()
    for host, trusted in (
        ("10.1.2.3", True), ("192.0.2.1", True), ("fd00::7", True),
        ("11.0.0.1", False), ("192.0.2.2", False), ("fe80::1", False), ("", False),
    ):  # fmt: skip
        assert ours.trusts(host) is trusted
    assert proxies(unix=True).trusts("")
    assert bool(ours)
    assert not TrustedProxies([], unix=False, header="forwarded")
    assert TrustedProxies([], unix=True, header="forwarded")


FOR = "X-Forwarded-For: "
BELIEVED: dict[str, tuple[tuple[str, ...], str | None]] = {
    "none": ((), None),
    "one": ((FOR + "203.0.113.9",), "203.0.113.9"),
    "any case": (("x-forwarded-FOR:203.0.113.9",), "203.0.113.9"),
    "the last that is not ours": ((FOR + "1.1.1.1, 203.0.113.9, 10.0.0.1, 192.0.2.1",), "203.0.113.9"),
    "over two lines": ((FOR + "1.1.1.1", FOR + "203.0.113.9", FOR + "10.0.0.1"), "203.0.113.9"),
    "all ours": ((FOR + "10.0.0.3, 10.0.0.2",), "10.0.0.3"),
    "ipv6": ((FOR + "2001:DB8::1",), "2001:db8::1"),
    "ipv6 with port": ((FOR + "[2001:db8::1]:99",), "2001:db8::1"),
    "with port": ((FOR + "203.0.113.9:1234",), "203.0.113.9"),
    "mapped": ((FOR + "::ffff:203.0.113.9",), "203.0.113.9"),
    "no address": ((FOR + "unknown",), None),
    "no address behind ours": ((FOR + "evil, 10.0.0.1",), "10.0.0.1"),
    "empty": ((FOR,), None),
    "an empty element": ((FOR + "203.0.113.9,",), None),
    "zone": ((FOR + "fe80::1%eth0",), None),
    "octal": ((FOR + "010.0.0.1",), None),
    "the other field": (("Forwarded: for=203.0.113.9",), None),
    "another field": (("X-Not-X-Forwarded-For: 203.0.113.9",), None),
    "many": ((FOR + "1.1.1.1, " + ", ".join(["10.0.0.1"] * 40),), "10.0.0.1"),
}


@pytest.mark.parametrize(("lines", "address"), BELIEVED.values(), ids=BELIEVED)
def test_x_forwarded_for(lines: tuple[str, ...], address: str | None) -> None:
    assert proxies().client_address(head(*lines)) == address


FORWARDED: dict[str, tuple[str, str | None]] = {
    "one": ("for=203.0.113.9", "203.0.113.9"),
    "more parameters": ("proto=https;For=203.0.113.9;by=10.0.0.1", "203.0.113.9"),
    "spaces": ("proto=https ; for=203.0.113.9 , for=10.0.0.1", "203.0.113.9"),
    "quoted ipv6": ('for="[2001:db8::1]:47"', "2001:db8::1"),
    "the last that is not ours": ("for=1.1.1.1, for=203.0.113.9, for=10.0.0.1", "203.0.113.9"),
    "a quote that the client left open": ('for="1.1.1.1, for=203.0.113.9', "203.0.113.9"),
    "hidden": ("for=_secret", None),
    "unknown": ("for=unknown, for=10.0.0.1", "10.0.0.1"),
    "without for": ("host=a, proto=http", None),
}


@pytest.mark.parametrize(("value", "address"), FORWARDED.values(), ids=FORWARDED)
def test_forwarded(value: str, address: str | None) -> None:
    lines = head("Forwarded: " + value, FOR + "8.8.8.8")
    assert proxies("forwarded").client_address(lines) == address


def test_the_host_of_the_client() -> None:
    lines = head("X-Forwarded-Host: chat.example:8443, inner", "Forwarded: for=1.2.3.4;host=chat.example")
    assert proxies().host(lines) == "chat.example:8443"
    assert proxies("forwarded").host(lines) == "chat.example"
    assert proxies().host(head()) is None
    assert proxies("forwarded").host(head()) is None


# ------------------------------------------------------------------ the PROXY protocol


def version_2(
    command: int = 1, family: int = 0x11, body: bytes = b"", *, version: int = 2, length: int | None = None
) -> bytes:
    size = len(body) if length is None else length
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack(">H", size) + body


TCP4 = bytes([203, 0, 113, 9, 10, 0, 0, 1]) + struct.pack(">HH", 50000, 443)
TCP6 = bytes.fromhex("20010db8" + "0" * 23 + "1") * 2 + struct.pack(">HH", 50001, 443)
GOOD: dict[str, tuple[bytes, str | None, int]] = {
    "1 tcp4": (b"PROXY TCP4 203.0.113.9 10.0.0.1 50000 443\r\n", "203.0.113.9", 50000),
    "1 tcp6": (b"PROXY TCP6 2001:DB8::1 fd00::1 1 2\r\n", "2001:db8::1", 1),
    "1 unknown": (b"PROXY UNKNOWN\r\n", None, 0),
    "1 unknown, more": (b"PROXY UNKNOWN ffff:f...f:ffff x y z\r\n", None, 0),
    "2 tcp4": (version_2(body=TCP4), "203.0.113.9", 50000),
    "2 tcp6": (version_2(family=0x21, body=TCP6), "2001:db8::1", 50001),
    "2 with more": (version_2(body=TCP4 + b"\x03\x00\x04abcd"), "203.0.113.9", 50000),
    "2 local": (version_2(command=0, family=0), None, 0),
    "2 local with addresses": (version_2(command=0, body=TCP4), None, 0),
    "2 unspecified": (version_2(family=0, body=b"abc"), None, 0),
    "2 unix": (version_2(family=0x31, body=bytes(216)), None, 0),
}


@pytest.mark.parametrize(("header", "host", "port"), GOOD.values(), ids=GOOD)
def test_headers_of_both_versions_in_any_pieces(header: bytes, host: str | None, port: int) -> None:
    for size in range(len(header)):
        assert read_proxy_header(header[:size]) is None, size
    for behind in (b"", b"GET /ws HTTP/1.1\r\n", header):
        assert read_proxy_header(header + behind) == ProxyHeader(len(header), host, port)


BAD = {
    "none": b"GET /ws HTTP/1.1\r\n",
    "tls": b"\x16\x03\x01",
    "lower case": b"proxy TCP4 1.1.1.1 1.1.1.1 1 2\r\n",
    "too long": b"PROXY UNKNOWN " + b"x" * 100 + b"\r\n",
    "no end": b"PROXY TCP4 " + b"1" * 200,
    "line feed alone": b"PROXY TCP4 1.1.1.1 1.1.1.1 1 2\n",
    "unknown kind": b"PROXY UDP4 1.1.1.1 1.1.1.1 1 2\r\n",
    "another word": b"PROXY UNKNOWNS\r\n",
    "kinds mixed": b"PROXY TCP4 1.1.1.1 ::1 1 2\r\n",
    "kinds mixed up": b"PROXY TCP6 1.1.1.1 1.1.1.1 1 2\r\n",
    "no address": b"PROXY TCP4 1.1.1 1.1.1.1 1 2\r\n",
    "a port too large": b"PROXY TCP4 1.1.1.1 1.1.1.1 65536 2\r\n",
    "a port with zeros": b"PROXY TCP4 1.1.1.1 1.1.1.1 01 2\r\n",
    "two spaces": b"PROXY TCP4  1.1.1.1 1.1.1.1 1 2\r\n",
    "2 version": version_2(version=1, body=TCP4),
    "2 command": version_2(command=2, body=TCP4),
    "2 udp": version_2(family=0x12, body=TCP4),
    "2 short": version_2(body=TCP4[:-1]),
    "2 short ipv6": version_2(family=0x21, body=TCP6[:-1]),
    "2 huge": version_2(body=TCP4, length=65535),
}


@pytest.mark.parametrize("header", BAD.values(), ids=BAD)
def test_what_is_no_header(header: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_proxy_header(header)


def test_anything_is_a_header_or_a_value_error(rng: random.Random) -> None:
    for _ in range(3000):
        data = bytearray(rng.choice([header for header, _, _ in GOOD.values()]))
        for _ in range(rng.randrange(4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            found = read_proxy_header(bytes(data))
        except ValueError:
            continue
        assert found is None or found.host is None or ipaddress.ip_address(found.host)
