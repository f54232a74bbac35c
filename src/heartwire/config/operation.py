"""Options: how it is run: draining, the HTTP API, hooks, logs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from heartwire.config.bounds import DAY, GIB
from heartwire.config.limits import LimitOptions
from heartwire.options import Option, Pattern

__all__ = ["OperationOptions"]

_DRAIN = "Draining"
_HTTP = "HTTP API"
_HOOKS = "Hooks"
_RUN = "Running"

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


class OperationOptions(LimitOptions, frozen=True, kw_only=True):
    """How it is run: draining, the HTTP API, hooks, logs."""

    # fmt: off
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
        unit="s", low=0, high=DAY)] = 60.0
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
        "A deployment of the receiver, with room.", unit="s", low=0, high=DAY)] = 300.0
    webhook_queue: Annotated[int, Option(
        _HOOKS, "Most events that wait; further ones are dropped and counted.",
        "Bounds what a receiver that is down can cost.", low=1, high=1 << 24)] = 10000
    webhook_queue_size: Annotated[int, Option(
        _HOOKS, "Most bytes of events that wait.",
        "As above, where events are large.", unit="bytes", low=1024, high=GIB)] = 16 << 20
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
