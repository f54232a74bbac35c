"""Which web pages may open a connection: the check of `Origin`.

A browser lets any page open a WebSocket to any server and sends the server's cookies along; `Origin` is the
only sign of which page asked. Other programs may leave it out or write what they like: they cannot borrow a
user's cookies, so it protects users from pages, never the server from programs.
Sources: RFC 6454; RFC 6455 section 10.2.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from heartwire.errors import ConfigError, Refusal
from heartwire.http_head import Request

__all__ = ["OriginPattern", "origin_allowed", "parse_origin_pattern"]

_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
# A name has at most 253 characters; the bound also keeps patterns with several `*` quick to match.
_HOST: Final = r"\[[0-9a-f:.]{1,255}\]|[0-9a-z\-._~%]{1,255}"
_origin = re.compile(rf"([a-z][a-z0-9+.\-]*)://({_HOST})(?::([0-9]{{1,5}}))?").fullmatch
_host = re.compile(rf"({_HOST})(?::([0-9]{{0,5}}))?").fullmatch
_pattern = re.compile(
    r"(\*|[a-z][a-z0-9+.\-]*)://(\[[0-9a-f:.]+\]|[0-9a-z\-._~%*]+)(?::([0-9]{1,5}|\*))?"
).fullmatch


class OriginPattern(NamedTuple):
    """One allowed origin, taken apart. `*` stands for any run of characters within its own part."""

    scheme: str
    host: str
    port: str | None

    def matches(self, scheme: str, host: str, port: int | None) -> bool:
        """Whether an origin fits; `port` is the one in effect, default ports filled in."""
        if self.scheme != "*" and self.scheme != scheme:
            return False
        if self.port != "*":
            wanted = int(self.port) if self.port is not None else _DEFAULT_PORTS.get(scheme)
            if wanted != port:
                return False
        if "*" not in self.host:
            return self.host == host
        return _host_regex(self.host).fullmatch(host) is not None


@lru_cache(maxsize=256)
def _host_regex(host: str) -> re.Pattern[str]:
    return re.compile(".+".join(map(re.escape, re.sub(r"\*+", "*", host).split("*"))))


@lru_cache(maxsize=256)
def parse_origin_pattern(text: str) -> OriginPattern | None:
    """Read one entry of the option `origin`; call it at start, so that a slip is found before a page is.

    Args:
        text: an origin (`https://example.com`, `http://localhost:3000`), or one with `*` in its scheme, host
            or port (`https://*.example.com`, `http://localhost:*`), or `*` alone for every page there is.

    Returns:
        The pattern, or `None` for `*` alone.

    Raises:
        ConfigError: it is none of these.
    """
    if text == "*":
        return None
    found = _pattern(text.lower())
    if found is None:
        raise ConfigError(
            "origin",
            f"{text!r} is not an origin: write scheme://host or scheme://host:port without a path, such "
            "as https://example.com or https://*.example.com (host names beyond ASCII in punycode), or * "
            "for all",
        )
    return OriginPattern(*found.groups())


def origin_allowed(
    request: Request, allowed: Sequence[str], token_place: str | None, own_host: str | None = None
) -> None:
    """Return if the page that asks may connect.

    Without `Origin` it is no browser, which is fine unless the token came by cookie. `null` is refused. The
    origin's host and port must be those of `Host`, or `allowed` must list it. `*` allows every value of
    `Origin`, `null` too.

    Args:
        request: as `heartwire.http_head.classify` returned it.
        allowed: further origins, each as `parse_origin_pattern` reads it.
        token_place: where the token was found (`heartwire.handshake.Token.place`), `None` without token.
        own_host: the `Host` the client sent, where a proxy has put another in its place.

    Raises:
        Refusal: 403.
        ConfigError: `allowed` holds what is no origin.
    """
    origins = request.headers.get_all("Origin")
    if not origins:
        if token_place == "cookie":
            raise _refused("A token in a cookie needs an `Origin`, so that other pages cannot use it.")
        return
    patterns = [parse_origin_pattern(text) for text in allowed]
    if len(origins) > 1:
        raise _refused("There is more than one `Origin`.")
    if None in patterns:
        return
    found = _origin(origins[0].lower())
    if found is None:
        raise _refused("The origin is `null` or not scheme://host: such pages may not connect.")
    scheme, host, port_text = found.groups()
    port = int(port_text) if port_text else _DEFAULT_PORTS.get(scheme)
    if _same_host(own_host or request.headers.get("Host", ""), scheme, host, port):
        return
    if any(pattern is not None and pattern.matches(scheme, host, port) for pattern in patterns):
        return
    raise _refused(
        "Pages of this origin may not connect. The server allows its own host, and origins that are "
        "listed with its option `origin`."
    )


def _same_host(own_host: str, scheme: str, host: str, port: int | None) -> bool:
    # Schemes of apps (capacitor://localhost) name no host of the network: they have to be listed.
    if scheme not in _DEFAULT_PORTS:
        return False
    own = _host(own_host.lower())
    if own is None:
        return False
    # A server behind TLS termination does not see the scheme: a Host without port has the origin's default.
    own_port = int(own[2]) if own[2] else _DEFAULT_PORTS[scheme]
    return own[1] == host and own_port == port


def _refused(message: str) -> Refusal:
    return Refusal(403, "origin_not_allowed", message)
