"""Options: how much a client, a user and an address may use; TLS, and proxies in front."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from heartwire.config.bounds import GIB, KEPT_DESCRIPTORS
from heartwire.config.messages import MessageOptions
from heartwire.options import Option, Pattern

__all__ = ["LimitOptions"]

_LIMITS = "Limits"
_TLS = "TLS"
_PROXY = "Proxies in front"

_NETWORK = Pattern(
    r"unix|[0-9a-fA-F.:]+(/[0-9]{1,3})?", "an address or a network such as 10.0.0.0/8 or fd00::/8, or unix"
)


class LimitOptions(MessageOptions, frozen=True, kw_only=True):
    """How much a client, a user and an address may use; TLS, and proxies in front."""

    # fmt: off
    send_buffer_limit: Annotated[int, Option(
        _LIMITS, "Unsent data at which a slow client is let go.",
        "Bounds the memory one client that does not read can hold.", unit="bytes", low=1, high=GIB
    )] = 1 << 20
    max_channels_per_client: Annotated[int, Option(
        _LIMITS, "Channels a client may be in.",
        "More than any page needs; each membership costs memory.", low=1, high=1 << 20)] = 128
    max_connections: Annotated[int | None, Option(
        _LIMITS, "Connections at which new ones are answered 503.",
        "Keeps descriptors for logs, brokers and the HTTP API.",
        low=1, high=1 << 24, default_text=f"descriptor limit - {KEPT_DESCRIPTORS}")] = None
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
        "0 is no limit.", "What is normal depends on the application.", unit="bytes", low=0, high=GIB)] = 0
    byte_burst: Annotated[int | None, Option(
        _LIMITS, "How many of them may come at once. A larger message is taken too, and then paid for.",
        "As above.", unit="bytes", low=1, high=GIB, default_text="those of 2 s")] = None
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
    # fmt: on
