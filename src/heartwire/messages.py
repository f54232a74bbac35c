"""What goes over the wire: the envelope of a client's message, and the server's events (protocol.md 3).

Documentation for clients: docs/protocol.md.
"""

from __future__ import annotations

import re
import secrets
from typing import Any, Final

import msgspec

from heartwire._core.envelope import EventWriter, instant_text
from heartwire.json_codec import encode

__all__ = [
    "CHANNEL_EXPECTED",
    "CHANNEL_NAME",
    "EVENT_EXPECTED",
    "EVENT_NAME",
    "METADATA_LIMIT",
    "OWN_EVENTS",
    "Envelope",
    "Event",
    "Message",
    "encode_event",
    "encode_head",
    "is_own_id",
    "next_id",
    "timestamp",
]

CHANNEL_NAME: Final = re.compile(r"[A-Za-z0-9_\-=@,.;:/]{1,200}\Z")
CHANNEL_EXPECTED: Final = "1 to 200 of A-Z a-z 0-9 _ - = @ , . ; : /"
EVENT_NAME: Final = re.compile(r"[A-Za-z0-9_.:\-]{1,64}\Z")
EVENT_EXPECTED: Final = "1 to 64 of A-Z a-z 0-9 _ . : -"
METADATA_LIMIT: Final = 1024
"""Bytes of presence metadata."""

OWN_EVENTS: Final = frozenset({
    "connected", "authenticated", "joined_channel", "left_channel", "message_sent", "pong", "member_joined",
    "member_left", "token_expiring", "kicked", "error",
})  # fmt: skip
"""Events only the server itself may send."""

BUILT_IN_ACTIONS: Final = ("authenticate", "join_channel", "leave_channel", "send_message", "ping")


class Message(msgspec.Struct):
    """Base of an application's typed messages: the fields stand at the top level of the JSON object, beside
    `action` and `id`. Decoded and checked before the handler runs; unknown fields are ignored."""


class Envelope(msgspec.Struct):
    """The fields the server itself reads from a message. `data` is not decoded: it is passed on as it came.

    Everything but `data` is taken as any JSON value and checked by the action, whose error names the field.
    """

    action: Any = msgspec.UNSET
    id: Any = None
    channel: Any = msgspec.UNSET
    event: Any = "message"
    token: Any = msgspec.UNSET
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Event(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What the server sends. Absent fields are left out."""

    id: str
    event: str
    channel: str | msgspec.UnsetType = msgspec.UNSET
    data: Any = msgspec.UNSET
    user_id: str | msgspec.UnsetType = msgspec.UNSET
    username: str | msgspec.UnsetType = msgspec.UNSET
    client_id: str | msgspec.UnsetType = msgspec.UNSET
    timestamp: str
    reply_to: int | str | msgspec.UnsetType = msgspec.UNSET


_NODE: Final = secrets.token_hex(5)  # unique across nodes and restarts; the counter makes the rest
_writer: Final = EventWriter(_NODE)
_LAST_MS: Final = 253_402_300_799_999  # of the year 9999
_COUNTER: Final = re.compile(r"[1-9a-f][0-9a-f]{0,15}\Z")


next_id: Final = _writer.next_id
"""An id that no other event or client has, on any node, before or after a restart."""
timestamp: Final = _writer.timestamp
"""The instant as RFC 3339 UTC with milliseconds and `Z`."""


def is_own_id(text: str) -> bool:
    """Does the text look like an id this process gave?"""
    return text.startswith(_NODE) and _COUNTER.match(text, len(_NODE)) is not None


def rfc3339(seconds: float) -> str:
    """A Unix time (of the years 1970 to 9999) as RFC 3339 UTC with milliseconds and `Z`."""
    return instant_text(min(round(seconds * 1000), _LAST_MS))


def encode_event(
    event: str,
    data: Any = msgspec.UNSET,
    *,
    channel: str | msgspec.UnsetType = msgspec.UNSET,
    reply_to: int | str | None = None,
    user_id: str | None = None,
    username: str | None = None,
    client_id: str | None = None,
) -> bytes:
    """Encodes one event of the server; `data` may be `msgspec.Raw`, which is copied as it is."""
    return encode(
        Event(
            id=next_id(),
            event=event,
            channel=channel,
            data=data,
            user_id=msgspec.UNSET if user_id is None else user_id,
            username=msgspec.UNSET if username is None else username,
            client_id=msgspec.UNSET if client_id is None else client_id,
            timestamp=timestamp(),
            reply_to=msgspec.UNSET if reply_to is None else reply_to,
        )
    )


def encode_head(
    event: str, channel: str, user_id: str | None, username: str | None, client_id: str
) -> bytes:
    """Encodes the event in which a client's message goes out, without its `data`: a Frame carries that."""
    head = _writer.head(event, channel, user_id, username, client_id)
    if head is None:  # a text has something to escape
        return encode_event(event, channel=channel, user_id=user_id, username=username, client_id=client_id)
    return head
