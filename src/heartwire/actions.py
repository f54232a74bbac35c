"""The built-in actions (protocol.md 3): authenticate, join_channel, leave_channel, send_message, ping.

Each takes the client and the envelope, and returns the event and data of its direct answer, or None. What it
refuses, it raises as ActionError; the dispatcher sends it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from heartwire.channel_settings import DEFAULT
from heartwire.errors import ActionError
from heartwire.memberships import Authorize, Memberships, ask, bad_field
from heartwire.messages import (
    CHANNEL_EXPECTED,
    CHANNEL_NAME,
    EVENT_EXPECTED,
    EVENT_NAME,
    METADATA_LIMIT,
    OWN_EVENTS,
    Envelope,
    encode_head,
    rfc3339,
)
from heartwire.registry import Registry, kind_of

if TYPE_CHECKING:
    from heartwire.brokers import Broker
    from heartwire.channel_settings import ChannelSettings
    from heartwire.client import Client

__all__ = ["Actions", "Answer"]

Answer = tuple[str, Any] | None
Authenticate = Callable[["Client", str], Answer | Awaitable[Answer]]


class Actions:
    """The built-in actions of one server. Loop thread only.

    Args:
        registry: the maps.
        memberships: makes and ends them.
        broker: carries what is sent to channels.
        authenticate: (client, token) -> answer; raises ActionError.
        authorize: the application's word, or None.
    """

    def __init__(
        self,
        registry: Registry,
        memberships: Memberships,
        broker: Broker,
        authenticate: Authenticate,
        authorize: Authorize | None,
    ) -> None:
        self._registry = registry
        self._memberships = memberships
        self._broker = broker
        self._authenticate = authenticate
        self._authorize = authorize
        self.table: Final[dict[str, Callable[[Client, Envelope], Answer | Awaitable[Answer]]]] = {
            "authenticate": self.authenticate,
            "join_channel": self.join_channel,
            "leave_channel": self.leave_channel,
            "send_message": self.send_message,
            "ping": self.ping,
        }

    def ping(self, client: Client, envelope: Envelope) -> Answer:
        return "pong", msgspec.UNSET

    def authenticate(self, client: Client, envelope: Envelope) -> Answer | Awaitable[Answer]:
        if not isinstance(envelope.token, str):
            example = '{"action": "authenticate", "token": "eyJ…"}'
            raise bad_field("token", envelope.token, "a string", example)
        return self._authenticate(client, envelope.token)

    # -------------------------------------------------------------- memberships

    def join_channel(self, client: Client, envelope: Envelope) -> Answer | Awaitable[Answer]:
        name = channel_name(envelope, "join_channel")
        metadata = _metadata(envelope)
        allowed = self._memberships.may_join(client, name)
        if isinstance(allowed, bool):
            return self._joined(client, name, metadata, allowed)
        return self._join_when(client, name, metadata, allowed)

    async def _join_when(
        self, client: Client, name: str, metadata: bytes | None, allowed: Awaitable[bool]
    ) -> Answer:
        return self._joined(client, name, metadata, bool(await allowed))

    def _joined(self, client: Client, name: str, metadata: bytes | None, allowed: bool) -> Answer:
        if not allowed:
            raise ActionError("forbidden", f"not allowed to join {name}")
        channel = self._memberships.join(client, name, metadata)
        return "joined_channel", self._memberships.joined_data(channel)

    def leave_channel(self, client: Client, envelope: Envelope) -> Answer:
        name = channel_name(envelope, "leave_channel")
        if not self._memberships.leave(client, name):
            raise ActionError("not_a_member", f"not a member of {name}")
        return "left_channel", {"channel": name}

    # -------------------------------------------------------------- messages

    def send_message(self, client: Client, envelope: Envelope) -> Answer | Awaitable[Answer]:
        # The hot path of fan-out: a channel that exists needs no look at its name, nor the default event at
        # its own.
        name = envelope.channel
        channel = self._registry.channels.get(name) if type(name) is str else None
        if channel is None:
            name = channel_name(envelope, "send_message")
        event = envelope.event
        if event != "message":
            if not isinstance(event, str) or not EVENT_NAME.match(event):
                raise bad_field("event", event, EVENT_EXPECTED, '"event": "message"')
            if event in OWN_EVENTS:
                detail = f"event: {event!r} is an event of the server; choose another name"
                raise ActionError("bad_message", detail)
        data = msgspec.Raw(b"null") if envelope.data is msgspec.UNSET else envelope.data
        if channel is not None:
            settings, kind = channel.settings, channel.kind
        else:
            settings, kind = self._registry.rules.of(name), kind_of(name)
        if settings is not DEFAULT:
            self._check_settings(client, name, settings, data)
        if kind != "public" or settings.require_claim:
            # Who is a member had the claim, or somebody's word.
            if channel is None or client not in channel.members:
                raise ActionError("not_a_member", f"join {name} before sending to it")
        elif client.credentials is None and self._authorize is None and not settings.anonymous_publish:
            raise ActionError("forbidden", "anonymous clients cannot publish: authenticate first")
        if self._authorize is not None:
            allowed = ask(self._authorize, client, "publish", name)
            if not isinstance(allowed, bool):
                # `data` is a view that ends with this call: the copy lives as long as the decision takes.
                return self._publish_when(client, name, event, msgspec.Raw(bytes(data)), envelope.id, allowed)
            if not allowed:
                raise ActionError("forbidden", f"not allowed to send to {name}")
        elif client.credentials is not None and not client.credentials.allows_publish(name):
            raise ActionError("forbidden", f"the token does not allow sending to {name}")
        return self._publish(client, name, event, data, envelope.id)

    def _check_settings(
        self, client: Client, name: str, settings: ChannelSettings, data: msgspec.Raw
    ) -> None:
        if not settings.publish:
            raise ActionError("forbidden", f"clients cannot send to {name}")
        if settings.require_auth and client.credentials is None:
            raise ActionError("unauthenticated", f"only authenticated clients may send to {name}")
        most = settings.max_message_size
        if most is not None and len(data) > most:
            detail = f"data: expected at most {most} bytes in {name}, got {len(data)}; example: {{}}"
            raise ActionError("bad_message", detail)

    async def _publish_when(
        self,
        client: Client,
        name: str,
        event: str,
        data: msgspec.Raw,
        message_id: Any,
        allowed: Awaitable[bool],
    ) -> Answer:
        if not await allowed:
            raise ActionError("forbidden", f"not allowed to send to {name}")
        return self._publish(client, name, event, data, message_id)

    def _publish(
        self, client: Client, name: str, event: str, data: Any, message_id: Any
    ) -> Answer:
        head = encode_head(event, name, client.user_id, client.username, client.id)
        recipients = self._broker.to_channel(name, head, data=data)
        return None if message_id is None else ("message_sent", {"channel": name, "recipients": recipients})


def channel_name(envelope: Envelope, action: str) -> str:
    """The envelope's channel.

    Raises:
        ActionError: it is missing or no channel name.
    """
    name = envelope.channel
    if not isinstance(name, str) or not CHANNEL_NAME.match(name):
        example = f'{{"action": "{action}", "channel": "lobby"}}'
        raise bad_field("channel", name, CHANNEL_EXPECTED, example)
    return name


def _metadata(envelope: Envelope) -> bytes | None:
    if envelope.data is msgspec.UNSET:
        return None
    data = bytes(envelope.data)
    if len(data) > METADATA_LIMIT:
        detail = f"data: presence metadata is {len(data)} bytes, at most {METADATA_LIMIT} fit"
        raise ActionError("bad_message", detail)
    return data


def expires_text(expires_at: float | None) -> str | None:
    """A token's end as it is told to clients."""
    return None if expires_at is None else rfc3339(expires_at)
