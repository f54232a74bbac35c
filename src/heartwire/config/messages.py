"""Options: what clients send, where it goes, and how long they may be silent."""

from __future__ import annotations

from typing import Annotated, Literal

from heartwire.channel_settings import CHANNEL_SETTINGS, ChannelRule
from heartwire.config.access import AccessOptions
from heartwire.config.bounds import DAY, GIB
from heartwire.options import Option

__all__ = ["MessageOptions"]

_MESSAGES = "Messages"
_CHANNEL_GROUP = "Channels"
_ALIVE = "Heartbeat and timeouts"


class MessageOptions(AccessOptions, frozen=True, kw_only=True):
    """What clients send, where it goes, and how long they may be silent."""

    # fmt: off
    welcome: Annotated[bool, Option(
        _MESSAGES, "Send the `connected` event right after the upgrade.",
        "Clients learn their id. Off for protocols of your own.")] = True
    max_message_size: Annotated[int, Option(
        _MESSAGES, "Largest message, inclusive.",
        "Far above real JSON messages, far below what one client could exhaust memory with.",
        unit="bytes", low=1, high=GIB)] = 1 << 20
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
        "Below it everything fits into one packet anyway.", unit="bytes", low=1, high=GIB)] = 1024
    message_timeout: Annotated[float, Option(
        _MESSAGES, "Time from the first byte of a message to its last.",
        "1 MiB at 140 kbit/s; slower is somebody holding memory.", unit="s", low=0.1, high=DAY)] = 60.0
    handler_timeout: Annotated[float, Option(
        _MESSAGES, "How long an async handler may run; waiting in `read_json` does not count, and each "
        "message read begins anew. Then it is cancelled and its client closed with 1011. After its client "
        "has left it has as long again.",
        "Lets a database write finish, and not hang for ever: its client is not read from meanwhile.",
        unit="s", low=0.1, high=DAY)] = 30.0
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
        unit="s", low=0.05, high=DAY)] = 30.0
    ping_timeout: Annotated[float, Option(
        _ALIVE, "Silence after a ping, or of a blocked send, that ends the connection.",
        "A phone that changes cells is back within a minute.", unit="s", low=0.05, high=DAY)] = 60.0
    ping_always: Annotated[bool, Option(
        _ALIVE, "Ping clients that are not silent too.",
        "What was just heard from is known to be alive. On to measure round trips.")] = False
    close_timeout: Annotated[float, Option(
        _ALIVE, "Wait for the peer's CLOSE after ours.",
        "A round trip, with room for data under way.", unit="s", low=0, high=3600)] = 5.0
    # fmt: on
