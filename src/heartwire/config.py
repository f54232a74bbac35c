"""The configuration of a server: every option, with its unit, default and reason.

`ServerConfig` is the one table. The command's flags, the environment, TOML files, the keywords of
`Server` and `docs/options.md` are all made from it. To add an option, add a field; then run
`make docs/options.md`.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import ceil
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from heartwire import features
from heartwire.channel_settings import CHANNEL_SETTINGS, ChannelRule
from heartwire.errors import ConfigError
from heartwire.options import Field, Option, Pattern, fields_of, nearest

if sys.platform != "win32":  # which has no such limit either
    import resource

__all__ = ["FIELDS", "ApiKey", "ServerConfig", "burst"]

Algorithm = Literal[
    "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
    "ES256", "ES384", "ES512", "EdDSA",
]  # fmt: skip

_LISTEN = "Listening"
_AUTH = "Authentication"
_MESSAGES = "Messages"
_CHANNEL_GROUP = "Channels"
_ALIVE = "Heartbeat and timeouts"
_LIMITS = "Limits"
_TLS = "TLS"
_PROXY = "Proxies in front"
_DRAIN = "Draining"
_HTTP = "HTTP API"
_HOOKS = "Hooks"
_RUN = "Running"

_DAY: Final = 86400.0
_GIB: Final = 1 << 30
_KEPT_DESCRIPTORS: Final = 256
_WEBHOOK_KEY_LEAST: Final = 24  # bytes, as Standard Webhooks says

_HOST = Pattern(r"[^\s/]+", "a host name or an IP address, such as 127.0.0.1, 0.0.0.0 or ::")
_PATH = Pattern(r"/[^\s?#%\x00-\x1f\x7f-\U0010ffff]*", "a path such as /ws, without query, fragment or %")
_TEXT = Pattern(r"[^\x00-\x1f\x7f]+", "text of at least one character")
_COOKIE = Pattern(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", "the name of a cookie, such as session")
_ORIGIN = Pattern(r"[a-z][a-z0-9+.-]*://[^\s/?#@]+", "an origin such as https://example.com, with no path")
_URL = Pattern(
    r"https?://[^\s/?#@\x00-\x1f\x7f-\U0010ffff]+(/[^\s#\x00-\x1f\x7f-\U0010ffff]*)?",
    "an address such as https://id.example.com/.well-known/jwks.json, without user name and #fragment",
)
_NETWORK = Pattern(
    r"unix|[0-9a-fA-F.:]+(/[0-9]{1,3})?", "an address or a network such as 10.0.0.0/8 or fd00::/8, or unix"
)
_API_KEY = Pattern(
    r"[A-Za-z0-9_.-]+:(read|publish|admin)(\+(read|publish|admin))*:[!-~]+|[!-9;-~]+",
    "a key, or name:scopes:key with scopes of read, publish and admin joined by +",
)

_HOOK_URL = Pattern(
    r"https?://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?(/[!-\"$-~]*)?(\?[!-\"$-~]*)?",
    "a URL such as https://backend.example/hooks, without user, password and fragment",
)
_CHANNELS = Pattern(
    r"[A-Za-z0-9_\-=@,.;:/*]{1,200}", "the name of a channel, in which * stands for any text: private-*"
)

WebhookEvent = Literal[
    "client_connected", "client_authenticated", "client_disconnected", "channel_occupied", "channel_vacated",
    "member_joined", "member_left", "message",
]  # fmt: skip


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the HTTP API, as `[name:scopes:]key` says. Its repr does not show the key."""

    name: str
    scopes: frozenset[str]
    key: str

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Reads `key` (all scopes) or `name:scope+scope:key`, already checked for its form."""
        if ":" not in text:
            return cls(name="default", scopes=frozenset(("read", "publish", "admin")), key=text)
        name, scopes, key = text.split(":", 2)
        return cls(name=name, scopes=frozenset(scopes.split("+")), key=key)

    def __repr__(self) -> str:
        return f"ApiKey(name={self.name!r}, scopes={sorted(self.scopes)!r}, key='***')"

    def __rich_repr__(self) -> Any:  # msgspec's own would show the key
        yield "name", self.name


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a server can be told. Immutable, and valid once it exists.

    Each value may also be given as text ("30s", "1MiB", "true"). Use `from_kwargs`, which knows
    misspelt names.

    Raises:
        ConfigError: a value does not fit; names the option and says what was expected.
    """

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
        unit="s", low=1, high=_DAY)] = 300.0
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
        "Expired means expired; clients are warned in time to renew.", unit="s", low=0, high=_DAY)] = 0.0
    token_expiring_before: Annotated[float, Option(
        _AUTH, "How long before its token ends a client is sent `token_expiring`; 0 sends none.",
        "A client that renews by a round trip to its backend has time for retries.",
        unit="s", low=0, high=_DAY)] = 60.0
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
        unit="s", low=1, high=366 * _DAY)] = _DAY
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
    welcome: Annotated[bool, Option(
        _MESSAGES, "Send the `connected` event right after the upgrade.",
        "Clients learn their id. Off for protocols of your own.")] = True
    max_message_size: Annotated[int, Option(
        _MESSAGES, "Largest message, inclusive.",
        "Far above real JSON messages, far below what one client could exhaust memory with.",
        unit="bytes", low=1, high=_GIB)] = 1 << 20
    max_fragments: Annotated[int, Option(
        _MESSAGES, "Most fragments of one message.",
        "1 MiB in pieces of 64 bytes; tiny fragments cost more to handle than they carry.",
        low=1, high=1 << 24)] = 16384
    max_json_depth: Annotated[int, Option(
        _MESSAGES, "Deepest nesting of arrays and objects.",
        "Well below what any Python version decodes without running out of stack.", low=1, high=512)] = 128
    compression: Annotated[Literal["off", "shared", "dedicated"], Option(
        _MESSAGES, "permessage-deflate: each message by itself, or with a context kept for each connection.",
        "Compressing costs far more CPU than sending. `shared` keeps no memory per connection and compresses "
        "a broadcast once; `dedicated` makes small messages smaller, for up to 50 KiB a connection.")] = "off"
    compression_threshold: Annotated[int, Option(
        _MESSAGES, "Shortest message that is compressed.",
        "Below it everything fits into one packet anyway.", unit="bytes", low=1, high=_GIB)] = 1024
    message_timeout: Annotated[float, Option(
        _MESSAGES, "Time from the first byte of a message to its last.",
        "1 MiB at 140 kbit/s; slower is somebody holding memory.", unit="s", low=0.1, high=_DAY)] = 60.0
    handler_timeout: Annotated[float, Option(
        _MESSAGES, "How long an async handler may run; waiting in `read_json` does not count, and each "
        "message read begins anew. Then it is cancelled and its client closed with 1011. After its client "
        "has left it has as long again.",
        "Lets a database write finish, and not hang for ever: its client is not read from meanwhile.",
        unit="s", low=0.1, high=_DAY)] = 30.0
    keep_request: Annotated[bool, Option(
        _MESSAGES, "Keep `client.request` after `on_connect`.",
        "Path and headers cost memory for each connection and are rarely looked at later.")] = False
    channel_settings: Annotated[tuple[ChannelRule, ...], Option(
        _CHANNEL_GROUP, "What holds in channels whose names begin so (channels.md).",
        "The name of a channel says enough for most.", custom=CHANNEL_SETTINGS)] = ()
    presence_grace: Annotated[float, Option(
        _CHANNEL_GROUP, "From the moment a member's last client has left a channel to `member_left`.",
        "A page that is loaded anew is back by then, and nobody has heard of it.", unit="s", low=0, high=3600
    )] = 3.0
    handshake_timeout: Annotated[float, Option(
        _ALIVE, "Time for the head of the request to arrive.",
        "It is one packet; slow heads are an old attack (slowloris).", unit="s", low=0.1, high=3600)] = 10.0
    ping_interval: Annotated[float, Option(
        _ALIVE, "Silence after which a client is pinged.",
        "Below the 60 s after which many proxies and NATs forget a connection.",
        unit="s", low=0.05, high=_DAY)] = 30.0
    ping_timeout: Annotated[float, Option(
        _ALIVE, "Silence after a ping, or of a blocked send, that ends the connection.",
        "A phone that changes cells is back within a minute.", unit="s", low=0.05, high=_DAY)] = 60.0
    ping_always: Annotated[bool, Option(
        _ALIVE, "Ping clients that are not silent too.",
        "What was just heard from is known to be alive. On to measure round trips.")] = False
    close_timeout: Annotated[float, Option(
        _ALIVE, "Wait for the peer's CLOSE after ours.",
        "A round trip, with room for data under way.", unit="s", low=0, high=3600)] = 5.0
    send_buffer_limit: Annotated[int, Option(
        _LIMITS, "Unsent data at which a slow client is let go.",
        "Bounds the memory one client that does not read can hold.", unit="bytes", low=1, high=_GIB
    )] = 1 << 20
    max_channels_per_client: Annotated[int, Option(
        _LIMITS, "Channels a client may be in.",
        "More than any page needs; each membership costs memory.", low=1, high=1 << 20)] = 128
    max_connections: Annotated[int | None, Option(
        _LIMITS, "Connections at which new ones are answered 503.",
        "Keeps descriptors for logs, brokers and the HTTP API.",
        low=1, high=1 << 24, default_text=f"descriptor limit - {_KEPT_DESCRIPTORS}")] = None
    max_connections_per_address: Annotated[int, Option(
        _LIMITS, "Connections of one IPv4 address, or one /64 of IPv6, at which new ones get 429. "
        "0 is no limit.",
        "A whole office or mobile network may share an address: how many that is, you know.",
        low=0, high=1 << 24)] = 0
    max_connections_per_user: Annotated[int, Option(
        _LIMITS, "Connections of one user at which new ones get 429. 0 is no limit.",
        "Every open page and device is one.", low=0, high=1 << 24)] = 0
    connect_rate: Annotated[float, Option(
        _LIMITS, "New connections a second of one address (as above), refused ones too; more get 429. "
        "0 is no limit.", "As above: addresses are shared, and after a restart all come at once.",
        low=0, high=1e6)] = 0.0
    connect_burst: Annotated[int | None, Option(
        _LIMITS, "How many of them may come at once.", "A browser opens all its pages together.",
        low=1, high=1 << 24, default_text="those of 2 s")] = None
    message_rate: Annotated[float, Option(
        _LIMITS, "Messages a second of one client; those beyond are thrown away and answered by the error "
        "`rate_limited`. 0 is no limit.", "What is normal depends on the application.",
        low=0, high=1e6)] = 0.0
    message_burst: Annotated[int | None, Option(
        _LIMITS, "How many of them may come at once.",
        "While an async handler runs, its client's messages wait, and then come together.",
        low=1, high=1 << 24, default_text="those of 2 s")] = None
    byte_rate: Annotated[int, Option(
        _LIMITS, "Bytes a second in the messages of one client, after inflating; beyond as above. "
        "0 is no limit.", "What is normal depends on the application.", unit="bytes", low=0, high=_GIB)] = 0
    byte_burst: Annotated[int | None, Option(
        _LIMITS, "How many of them may come at once. A larger message is taken too, and then paid for.",
        "As above.", unit="bytes", low=1, high=_GIB, default_text="those of 2 s")] = None
    tls_cert: Annotated[Path | None, Option(
        _TLS, "Serve TLS 1.2 and later with this certificate (PEM, with its chain); SIGHUP reads it again.",
        "A proxy in front does it with less memory: docs/behind-a-proxy.md.")] = None
    tls_key: Annotated[Path | None, Option(
        _TLS, "Private key of `tls_cert` (PEM, not encrypted).", "It may stand in the same file.")] = None
    tls_client_ca: Annotated[Path | None, Option(
        _TLS, "Accept only clients with a certificate of one of these authorities (PEM).",
        "Tokens say who clients are; this keeps everybody else away from the server altogether.")] = None
    trusted_proxy: Annotated[tuple[str, ...], Option(
        _PROXY, "Address or network of your own proxies, or `unix` for peers of a Unix socket: what they say "
        "of the client counts.", "Anybody can send such headers.", pattern=_NETWORK)] = ()
    forwarded_header: Annotated[Literal["x-forwarded-for", "forwarded"], Option(
        _PROXY, "Where trusted proxies write the client's address. The other header is not looked at: they "
        "pass on what the client put there.", "What nginx, HAProxy and Caddy write.")] = "x-forwarded-for"
    proxy_protocol: Annotated[bool, Option(
        _PROXY, "Trusted proxies begin each connection with a header of the PROXY protocol, version 1 or 2; "
        "without one they are cut off.", "The client's address where TCP is passed on as it is.")] = False
    drain_delay: Annotated[float, Option(
        _DRAIN, "From SIGTERM to the first client sent away; 0 is used when there are none.",
        "Load balancers need a few probes to notice that the server is not ready.",
        unit="s", low=0, high=3600)] = 5.0
    drain_window: Annotated[float, Option(
        _DRAIN, "Time over which clients are told to reconnect.",
        "The other servers get them one after the other and not in one storm.", unit="s", low=0, high=3600
    )] = 30.0
    drain_timeout: Annotated[float, Option(
        _DRAIN, "After this what is left is aborted.",
        "Delay, window and close handshakes fit in; orchestrators should wait longer than that.",
        unit="s", low=0, high=_DAY)] = 60.0
    http_port: Annotated[int | None, Option(
        _HTTP, "Serve API and metrics on this TCP port instead; 0 lets the kernel choose. "
        "`/health` and `/ready` are on both.",
        "One port is enough until the API should be reachable from fewer places than the clients.",
        low=0, high=65535)] = None
    metrics_public: Annotated[bool, Option(
        _HTTP, "Answer `/metrics` without an API key.",
        "Figures tell strangers how busy a server is. On where only Prometheus reaches the port.")] = False
    api_key: Annotated[tuple[str, ...], Option(
        _HTTP, "Key of the HTTP API as `[name:scopes:]key`, bare for all scopes.",
        "Without a key the API is closed.", pattern=_API_KEY, secret=True)] = ()
    api_key_file: Annotated[Path | None, Option(
        _HTTP, "File with further keys, one a line.",
        "Flags are visible to other users of the machine, files need not be.")] = None
    webhook_url: Annotated[str | None, Option(
        _HOOKS, "Where events are sent by POST, in signed batches.",
        "Most servers are asked, by the HTTP API, and tell nobody.", pattern=_HOOK_URL, secret=True)] = None
    webhook_secret: Annotated[str | None, Option(
        _HOOKS, "Secret that signs what is sent to `webhook_url` and `authorize_url`: text, or `whsec_` and "
        "base64.",
        "Nobody should act on an event that anybody could have sent.", secret=True)] = None
    webhook_secret_file: Annotated[Path | None, Option(
        _HOOKS, "File that holds the secret.",
        "Flags are visible to other users of the machine, files need not be.")] = None
    webhook_events: Annotated[tuple[WebhookEvent, ...], Option(
        _HOOKS, "Events that are sent; `message` is what neither an action nor a handler claims.",
        "Whoever wants fewer says which.")] = (
            "client_connected", "client_authenticated", "client_disconnected", "channel_occupied",
            "channel_vacated", "member_joined", "member_left", "message")
    webhook_batch: Annotated[int, Option(
        _HOOKS, "Most events of one request.",
        "Enough that a request costs little for each event, few enough to be handled in one go.",
        low=1, high=10000)] = 100
    webhook_delay: Annotated[float, Option(
        _HOOKS, "How long an event waits for others to go with.",
        "Nobody notices, and a burst becomes a few requests.", unit="s", low=0, high=60)] = 0.1
    webhook_timeout: Annotated[float, Option(
        _HOOKS, "Time for the answer to one request.",
        "A receiver that takes longer should put events into a queue of its own.",
        unit="s", low=0.05, high=600)] = 10.0
    webhook_retry: Annotated[float, Option(
        _HOOKS, "How long a batch is tried again, before it is dropped and the next one's turn comes.",
        "A deployment of the receiver, with room.", unit="s", low=0, high=_DAY)] = 300.0
    webhook_queue: Annotated[int, Option(
        _HOOKS, "Most events that wait; further ones are dropped and counted.",
        "Bounds what a receiver that is down can cost.", low=1, high=1 << 24)] = 10000
    webhook_queue_size: Annotated[int, Option(
        _HOOKS, "Most bytes of events that wait.",
        "As above, where events are large.", unit="bytes", low=1024, high=_GIB)] = 16 << 20
    webhook_flush: Annotated[float, Option(
        _HOOKS, "How long the server, once its clients are gone, waits for events to be delivered.",
        "A few requests; longer only keeps a server from ending whose receiver is down.",
        unit="s", low=0, high=3600)] = 5.0
    authorize_url: Annotated[str | None, Option(
        _HOOKS, "Asked by POST whether a client may join or publish; then the token's claims are not.",
        "Claims decide without a request.", pattern=_HOOK_URL, secret=True)] = None
    authorize_channels: Annotated[tuple[str, ...], Option(
        _HOOKS, "Channels that `authorize_url` is asked about; * stands for any text.",
        "Public channels are for everybody.", pattern=_CHANNELS)] = ("private-*", "presence-*")
    authorize_verbs: Annotated[tuple[Literal["join", "publish"], ...], Option(
        _HOOKS, "What it is asked about.",
        "Both, so that nothing is open by oversight. `join` alone spares a request for each message: who is "
        "not a member cannot publish in these channels.")] = ("join", "publish")
    authorize_timeout: Annotated[float, Option(
        _HOOKS, "Time for its answer.",
        "A person waits for it; messages of that client wait too.", unit="s", low=0.05, high=60)] = 2.0
    authorize_fail: Annotated[Literal["closed", "open"], Option(
        _HOOKS, "What it means if there is no answer: refused, or allowed.",
        "A backend that is down must not open what is private.")] = "closed"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Option(
        _RUN, "Least important messages that are logged.",
        "Connections that come and go are the daily life of a server, told at debug.")] = "info"
    log_format: Annotated[Literal["text", "json"], Option(
        _RUN, "Log lines for people, or one JSON object a line.",
        "The first reader is a person.")] = "text"
    log_connections: Annotated[bool, Option(
        _RUN, "Log the end of each connection, whatever the level.",
        "A busy server closes thousands a second; metrics count them by cause.")] = False
    loop: Annotated[Literal["auto", "asyncio", "uvloop"], Option(
        _RUN, "Event loop; `auto` takes uvloop if it is installed.",
        "Whoever installs uvloop wants it used.")] = "auto"
    link: Annotated[Literal["auto", "epoll", "asyncio"], Option(
        _RUN, "What carries the bytes: the epoll core (Linux) or asyncio transports.",
        "`auto` takes epoll where there is one: it is faster and needs less memory.")] = "auto"

    # fmt: on
    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            msgspec.structs.force_setattr(self, name, _parsed(field, getattr(self, name)))
        self._check_build()
        self.jwt_secrets()
        self.api_keys()
        self.webhook_key()
        self.trusted_networks()

    def _check_build(self) -> None:
        """Nothing is asked for that this build of the package cannot do."""
        if self.link == "epoll" and not features.REACTOR:
            raise ConfigError("link", "there is no epoll in this build (Linux has it); use auto or asyncio")
        if self.compression != "off" and not features.DEFLATE:
            raise ConfigError("compression", "there is no zlib in this build; use off")
        if self.unix is not None and not features.UNIX_SOCKETS:
            raise ConfigError("unix", "there are no Unix sockets on this platform; use host and port")
        if self.tls_cert is not None and sys.platform == "win32":
            raise ConfigError("tls_cert", "not on this platform: put a proxy in front of it")
        if self.reuse_port and not features.REUSE_PORT:
            raise ConfigError("reuse_port", "this platform has no SO_REUSEPORT; leave it off")

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> ServerConfig:
        """Makes a configuration from keywords: those of `Server`, which are the options' names.

        Raises:
            ConfigError: no such option (says which is near), or a value does not fit.
        """
        for name in kwargs:
            if name not in FIELDS:
                raise ConfigError(name, "no such option" + nearest(name, list(FIELDS)))
        return cls(**kwargs)

    def jwt_secrets(self) -> tuple[str, ...]:
        """All secrets, those of `jwt_secret_file` last; read again at each call.

        Raises:
            ConfigError: the file cannot be read.
        """
        return self.jwt_secret + _lines("jwt_secret_file", FIELDS["jwt_secret"], self.jwt_secret_file)

    def verifies_tokens(self) -> bool:
        """Whether there is anything to verify tokens with."""
        files = self.jwt_secret_file or self.jwt_public_key_file or self.jwks_file
        return bool(self.jwt_secret or files or self.jwks_url)

    def signing_algorithm(self) -> str | None:
        """What tokens are signed with by a secret of this server; None if it accepts no such algorithm."""
        wanted = self.jwt_algorithms or ("HS256",)
        return next((name for name in wanted if name.startswith("HS")), None)

    def api_keys(self) -> tuple[ApiKey, ...]:
        """All keys of the HTTP API, those of `api_key_file` last; read again at each call.

        Raises:
            ConfigError: the file cannot be read, or holds a line that is no key.
        """
        texts = self.api_key + _lines("api_key_file", FIELDS["api_key"], self.api_key_file)
        return tuple(map(ApiKey.parse, texts))

    def webhook_key(self) -> bytes:
        """The key that signs what hooks send, read again at each call; b"" if none is given.

        Raises:
            ConfigError: there are two, or it is no key, or too short.
        """
        field = FIELDS["webhook_secret"]
        given = () if self.webhook_secret is None else (self.webhook_secret,)
        secrets = [*given, *_lines("webhook_secret_file", field, self.webhook_secret_file)]
        if not secrets:
            return b""
        if len(secrets) > 1:
            wrong = "one secret signs: in webhook_secret, or as the one line of webhook_secret_file"
            raise ConfigError("webhook_secret", wrong)
        text = secrets[0]
        if text.startswith("whsec_"):
            try:
                key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except ValueError:
                raise ConfigError("webhook_secret", "what follows `whsec_` must be base64") from None
        else:
            key = text.encode("utf-8", "surrogateescape")
        if len(key) < _WEBHOOK_KEY_LEAST:
            wrong = f"it must be at least {_WEBHOOK_KEY_LEAST} bytes: take 32 random ones"
            raise ConfigError("webhook_secret", wrong)
        return key

    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxy` without `unix`.

        Raises:
            ConfigError: one is no network.
        """
        try:
            return tuple(ip_network(text) for text in self.trusted_proxy if text != "unix")
        except ValueError:
            expected = FIELDS["trusted_proxy"].expects
            message = f"expected {expected}, without bits behind the prefix"
            raise ConfigError("trusted_proxy", message) from None

    def check_together(self) -> None:
        """Judges options that only fit with others; the rest is judged when it is made.

        Raises:
            ConfigError: two do not fit together.
        """
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                raise ConfigError(name, "it needs tls_cert")
        if self.tls_cert is not None and self.link == "epoll":
            raise ConfigError("link", "TLS goes over asyncio transports: leave it out, or say asyncio")
        if self.proxy_protocol and not self.trusted_proxy:
            raise ConfigError("proxy_protocol", "say whose headers count: it needs trusted_proxy")
        if not self.webhook_key():
            for name in ("webhook_url", "authorize_url"):
                if getattr(self, name) is not None:
                    wrong = "its requests are signed: webhook_secret or webhook_secret_file is needed"
                    raise ConfigError(name, wrong)

    def connection_limit(self) -> int:
        """`max_connections`, or what the soft limit on descriptors leaves as it is now."""
        if self.max_connections is not None:
            return self.max_connections
        if sys.platform == "win32":
            return 1 << 24
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 24 if soft == resource.RLIM_INFINITY else max(soft - _KEPT_DESCRIPTORS, 1)

    def summary(self) -> str:
        """What differs from the defaults, as `name=value` words, for the log; no secrets."""
        words = (
            f"{name}={field.show(value)}"
            for name, field in FIELDS.items()
            if (value := getattr(self, name)) != field.default
        )
        return " ".join(words) or "defaults"

    def __repr__(self) -> str:
        values = (
            f"{name}={'***' if field.option.secret and value else repr(value)}"
            for name, field in FIELDS.items()
            if (value := getattr(self, name)) != field.default
        )
        return f"ServerConfig({', '.join(values)})"

    def __rich_repr__(self) -> Any:  # msgspec's own would show the secrets
        yield self.summary()


FIELDS: Final[Mapping[str, Field]] = fields_of(ServerConfig)
"""The options by name, in the order of the table."""


def burst(rate: float, given: int | None) -> int:
    """What a limit of `rate` a second lets through at once: what was given, or what is due in two seconds."""
    return given if given is not None else max(ceil(2 * rate), 1)


def _parsed(field: Field, value: object) -> Any:
    try:
        return field.parse(value)
    except ValueError as error:
        raise ConfigError(field.name, str(error)) from None


def _lines(name: str, field: Field, path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(name, f"cannot read the file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(name, "the file is not UTF-8 text") from None
    values: list[str] = []
    for number, line in enumerate(lines, 1):
        if text := line.rstrip("\r"):
            try:
                value = field.parse(text)
                values.extend(value if field.repeatable else (value,))
            except ValueError as error:
                raise ConfigError(name, f"line {number}: {error}") from None
    if not values:
        raise ConfigError(name, "the file is empty: one value a line is expected")
    return tuple(values)
