"""Options: where the server listens, and who may come in."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from heartwire.config.bounds import DAY
from heartwire.options import Option, Pattern

__all__ = ["AccessOptions"]

_LISTEN = "Listening"
_AUTH = "Authentication"

_HOST = Pattern(r"[^\s/]+", "a host name or an IP address, such as 127.0.0.1, 0.0.0.0 or ::")
_PATH = Pattern(r"/[^\s?#%\x00-\x1f\x7f-\U0010ffff]*", "a path such as /ws, without query, fragment or %")
_TEXT = Pattern(r"[^\x00-\x1f\x7f]+", "text of at least one character")
_COOKIE = Pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "the name of a cookie, such as session")
_ORIGIN = Pattern(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", "an origin such as https://example.com, with no path")
_URL = Pattern(
    r"https?://[^\s/?#@\x00-\x1f\x7f-\U0010ffff]+(/[^\s#\x00-\x1f\x7f-\U0010ffff]*)?",
    "an address such as https://id.example.com/.well-known/jwks.json, without user name and #fragment",
)
Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip


class AccessOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where the server listens, and who may come in."""

    # fmt: off
    host: Annotated[str, Option(
        _LISTEN, "Address to listen on.",
        "Nothing is open to the network until somebody asks for it.", pattern=_HOST)] = "127.0.0.1"
    port: Annotated[int, Option(
        _LISTEN, "TCP port; 0 lets the kernel choose.",
        "The usual port of HTTP services that need no privileges.", low=0, high=65535)] = 8080
    unix: Annotated[Path | None, Option(
        _LISTEN, "Listen on this Unix socket instead of host and port.",
        "TCP is what most clients and proxies speak.")] = None
    path: Annotated[str, Option(
        _LISTEN, "Path of the WebSocket endpoint.",
        "What clients of the Go socket-server use.", pattern=_PATH)] = "/ws"
    backlog: Annotated[int, Option(
        _LISTEN, "Connections the kernel holds until they are accepted.",
        "Takes a reconnect storm; the kernel lowers it to net.core.somaxconn.", low=1, high=65535)] = 4096
    reuse_port: Annotated[bool, Option(
        _LISTEN, "Let several processes listen on the same port (SO_REUSEPORT).",
        "Off, a second server on the port is an error and not a riddle.")] = False
    jwt_secret: Annotated[tuple[str, ...], Option(
        _AUTH, "Secret that verifies tokens. Several may be given, for rotation: each is accepted.",
        "There is no safe default. At least 32 bytes for HS256 (RFC 7518 section 3.2).", secret=True)] = ()
    jwt_secret_file: Annotated[Path | None, Option(
        _AUTH, "File with further secrets, one a line.",
        "Flags are visible to other users of the machine, files need not be.")] = None
    jwt_public_key_file: Annotated[tuple[Path, ...], Option(
        _AUTH, "PEM file with a public key, or a certificate, that verifies tokens. Read again on SIGHUP.",
        "A public key lets this server check tokens and nobody make them.")] = ()
    jwks_url: Annotated[str | None, Option(
        _AUTH, "Address of a JWK Set whose keys verify tokens.",
        "Identity providers publish their keys there, and change them without asking.", pattern=_URL)] = None
    jwks_file: Annotated[Path | None, Option(
        _AUTH, "File with a JWK Set whose keys verify tokens. Read again on SIGHUP.",
        "Where a network is out of reach, or another program brings the keys.")] = None
    jwks_timeout: Annotated[float, Option(
        _AUTH, "Time for `jwks_url` to answer.",
        "A token whose key is not known waits 5 s: later answers help the next one.",
        unit="s", low=0.1, high=60)] = 4.0
    jwks_refresh: Annotated[float, Option(
        _AUTH, "Time after which `jwks_url` is asked for new keys, besides when a token names one.",
        "Keys that are taken back stop to count that much later; providers publish new ones hours before.",
        unit="s", low=1, high=DAY)] = 300.0
    jwt_algorithms: Annotated[tuple[Algorithm, ...], Option(
        _AUTH, "Signature algorithms that are accepted; `none` never is.",
        "The fewer, the less there is to confuse: the usual one for each kind of key.",
        default_text="HS256 with a secret; RS256, ES256, EdDSA with public keys")] = ()
    jwt_required_claims: Annotated[tuple[str, ...], Option(
        _AUTH, "Claim that a token must have, besides `sub` and `exp`.",
        "What else is needed depends on what the application does with it.", pattern=_TEXT)] = ()
    jwt_audience: Annotated[str | None, Option(
        _AUTH, "Audience (`aud`) a token must name.",
        "Needed only where several services share a secret.", pattern=_TEXT)] = None
    jwt_issuer: Annotated[str | None, Option(
        _AUTH, "Issuer (`iss`) a token must come from.",
        "Needed only where several issuers share a secret.", pattern=_TEXT)] = None
    jwt_leeway: Annotated[float, Option(
        _AUTH, "Clock difference that is forgiven in `exp`, `nbf` and `iat`.",
        "Clocks of servers are kept by NTP; forgiveness lengthens the life of stolen tokens.",
        unit="s", low=0, high=3600)] = 0.0
    allow_no_exp: Annotated[bool, Option(
        _AUTH, "Accept tokens that never expire.",
        "A token without end can only be taken back by revoking it.")] = False
    token_grace: Annotated[float, Option(
        _AUTH, "How long a connection outlives its token.",
        "Expired means expired; clients are warned in time to renew.", unit="s", low=0, high=DAY)] = 0.0
    token_expiring_before: Annotated[float, Option(
        _AUTH, "How long before its token ends a client is sent `token_expiring`; 0 sends none.",
        "A client that renews by a round trip to its backend has time for retries.",
        unit="s", low=0, high=DAY)] = 60.0
    token_cache: Annotated[int, Option(
        _AUTH, "Verified tokens that are remembered, so that clients that come back cost less; 0: none.",
        "About 1 KiB each, and clients of a busy server come back with the token they had.",
        low=0, high=1 << 24)] = 8192
    revocation_limit: Annotated[int, Option(
        _AUTH, "Most revocations that are remembered; further ones are answered 507.",
        "About 300 bytes each; none is forgotten before its time to make room.", low=1, high=1 << 24
    )] = 100_000
    revocation_time: Annotated[float, Option(
        _AUTH, "How long a revocation is remembered that does not say when its tokens expire. "
        "With `allow_no_exp` until the process ends.",
        "Has to be longer than tokens live: after it a revoked one is good again.",
        unit="s", low=1, high=366 * DAY)] = DAY
    auth: Annotated[Literal["handshake", "message", "optional"], Option(
        _AUTH, "When clients authenticate: before the upgrade, by their first message, or if they like.",
        "Strangers cost nothing before they are refused.")] = "handshake"
    auth_timeout: Annotated[float, Option(
        _AUTH, "Time to authenticate with `auth` = `message`.",
        "A round trip on a bad mobile network, with room.", unit="s", low=0.1, high=3600)] = 10.0
    auth_cookie: Annotated[str | None, Option(
        _AUTH, "Cookie that may hold the token; such requests must name an allowed Origin.",
        "Browsers send cookies unasked, which is worth choosing on purpose.", pattern=_COOKIE)] = None
    query_token: Annotated[bool, Option(
        _AUTH, "Accept the token as `?token=`.",
        "Every WebSocket tool can send it. Turn it off where a proxy logs addresses.")] = True
    reject: Annotated[Literal["status", "close"], Option(
        _AUTH, "Show a refusal as HTTP status, or upgrade and close with a code.",
        "Proxies and tools understand a status. Browsers can only read a close code.")] = "status"
    origin: Annotated[tuple[str, ...], Option(
        _AUTH, "Origin that may connect, besides the server's own host.",
        "Only pages of the same host, so that no foreign page acts for its visitor.", pattern=_ORIGIN)] = ()
    # fmt: on
