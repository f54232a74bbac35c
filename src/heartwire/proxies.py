"""Our own proxies, and what is believed of them: the address of the client behind, by header fields or by the
PROXY protocol.

Sans-I/O. Nothing is believed from peers that are not listed: anybody can send such fields.
Sources: RFC 7239 (Forwarded); https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt (versions 1 and 2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

if TYPE_CHECKING:
    from heartwire.config import ServerConfig

__all__ = ["ProxyHeader", "TrustedProxies", "header_bytes_to_come", "read_proxy_header"]

Network = IPv4Network | IPv6Network
ForwardedHeader = Literal["x-forwarded-for", "forwarded"]

HOPS_MOST: Final = 32  # proxies behind each other that are looked at
V1_LEAST: Final = 15  # bytes of the shortest header, `PROXY UNKNOWN`
V1_MOST: Final = 107  # bytes of a header of version 1, its line end included
V2_MOST: Final = 4096  # of version 2; far above what address and TLS details need
_SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"

# A head that was found well-formed holds each field in one line.
_fields: Final = {
    name: re.compile(rb"\r\n" + name.encode() + rb":([^\r\n]*)", re.IGNORECASE).findall
    for name in ("x-forwarded-for", "x-forwarded-host", "forwarded")
}
_v1 = re.compile(
    rb"PROXY TCP([46]) ([0-9a-fA-F.:]+) ([0-9a-fA-F.:]+) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
).fullmatch


class TrustedProxies:
    """The peers that may say for whom they speak.

    Args:
        networks: of their addresses.
        unix: whether peers of a Unix socket are among them.
        header: where they write addresses. The other field, which they pass on as the client sent it, is
            not looked at.
    """

    def __init__(self, networks: Sequence[Network], *, unix: bool, header: ForwardedHeader) -> None:
        self._networks = tuple(networks)
        self._unix = unix
        self._header = header
        self._among = lru_cache(maxsize=1024)(self._look_up)

    @classmethod
    def of(cls, config: ServerConfig) -> TrustedProxies:
        """Those that a configuration names."""
        return cls(
            config.trusted_networks(), unix="unix" in config.trusted_proxy, header=config.forwarded_header
        )

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, host: str) -> bool:
        """Is the peer with this address one of them? `""` stands for a Unix socket."""
        return self._among(host) if host else self._unix

    def _look_up(self, host: str) -> bool:
        address = ip_address(host)
        return any(address in network for network in self._networks)

    def client_address(self, head: bytes) -> str | None:
        """The address of the client for whom a trusted peer sent this request.

        Every proxy appends the address of its own peer, so the last one that is no proxy of ours is the
        client's; what stands before it the client wrote itself.

        Args:
            head: a well-formed request head.
        Returns:
            None if the peer says nothing that can be believed.
        """
        found = None
        elements = b",".join(_fields[self._header](head)).decode("latin-1").split(",")
        for element in elements[: -HOPS_MOST - 1 : -1]:
            address = _address(element if self._header == "x-forwarded-for" else _parameter(element, "for"))
            if address is None:
                break
            found = address
            if not self.trusts(found):
                break
        return found

    def host(self, head: bytes) -> str | None:
        """The `Host` that the client sent, where a trusted peer has put another in its place.

        Only the check of `Origin` may use it: a program can write there what it likes, as it can in `Origin`,
        but no page in a browser can.
        """
        if self._header == "x-forwarded-for":
            values = b",".join(_fields["x-forwarded-host"](head)).decode("latin-1").split(",")
            return values[0].strip(" \t") or None
        elements = b",".join(_fields["forwarded"](head)).decode("latin-1").split(",")
        return _parameter(elements[0], "host") or None


def _parameter(element: str, name: str) -> str:
    """One parameter of an element of `Forwarded`; empty if there is none."""
    for pair in element.split(";"):
        key, _, value = pair.strip(" \t").partition("=")
        if key.lower() == name:
            quoted = len(value) >= 2 and value[0] == value[-1] == '"'
            return value[1:-1] if quoted else value
    return ""


def _address(text: str) -> str | None:
    """An address as proxies write it, with or without port, in the usual form."""
    text = text.strip(" \t")
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    if "%" in text:  # an interface of another machine
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(address)


class ProxyHeader(NamedTuple):
    """A header of the PROXY protocol.

    Attributes:
        size: its bytes: what follows is the client's.
        host: of the client; None if the proxy speaks for itself, or for a client without address.
        port: of the client.
    """

    size: int
    host: str | None
    port: int


def read_proxy_header(received: bytes) -> ProxyHeader | None:
    """Reads the header that a connection begins with.

    Args:
        received: what has come so far.
    Returns:
        None if more bytes are needed.
    Raises:
        ValueError: it does not begin with one, or it is malformed.
    """
    if received.startswith(_SIGNATURE):
        return _version_2(received)
    if received.startswith(b"PROXY "):
        return _version_1(received)
    if _SIGNATURE.startswith(received) or b"PROXY ".startswith(received):
        return None
    raise ValueError("it does not begin with a PROXY header")


def header_bytes_to_come(received: bytes) -> int:
    """How many more bytes may be read without reading beyond a header that is not complete yet.

    Args:
        received: for which `read_proxy_header` returned None.
    """
    if len(received) < V1_LEAST:
        return V1_LEAST - len(received)
    if received.startswith(_SIGNATURE):
        size = 16 + int.from_bytes(received[14:16], "big") if len(received) >= 16 else 16
        return size - len(received)
    return 1


def _version_1(received: bytes) -> ProxyHeader | None:
    line, end, _ = received[:V1_MOST].partition(b"\r\n")
    if not end:
        if len(received) >= V1_MOST or b"\n" in line:
            raise ValueError("the PROXY header's line has no end")
        return None
    line += end
    if line.startswith((b"PROXY UNKNOWN\r", b"PROXY UNKNOWN ")):
        return ProxyHeader(len(line), None, 0)
    found = _v1(line)
    if found is None or int(found[4]) > 65535 or int(found[5]) > 65535:
        raise ValueError("the PROXY header is not `PROXY TCP4|TCP6|UNKNOWN source destination port port`")
    kind = IPv4Address if found[1] == b"4" else IPv6Address
    address = kind(found[2].decode())
    kind(found[3].decode())
    return ProxyHeader(len(line), str(address), int(found[4]))


def _version_2(received: bytes) -> ProxyHeader | None:
    if len(received) < 16:
        return None
    version, command = received[12] >> 4, received[12] & 15
    family = received[13]
    size = 16 + int.from_bytes(received[14:16], "big")
    if version != 2 or command > 1:
        raise ValueError("the PROXY header has an unknown version or command")
    if size > V2_MOST:
        raise ValueError("the PROXY header is too large")
    if command == 1 and family not in (0x00, 0x11, 0x21, 0x31):
        raise ValueError("the PROXY header is of a connection that is no stream")
    length = {0x11: 4, 0x21: 16}.get(family, 0) if command == 1 else 0
    if size < 16 + 2 * length + (4 if length else 0):
        raise ValueError("the PROXY header is too short for its addresses")
    if len(received) < size:
        return None
    if not length:
        return ProxyHeader(size, None, 0)
    host = str(ip_address(received[16 : 16 + length]))
    at = 16 + 2 * length
    return ProxyHeader(size, host, int.from_bytes(received[at : at + 2], "big"))
