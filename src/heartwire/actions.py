"""The built-in actions (protocol.md 3): authenticate, join_channel, leave_channel, send_message, ping.

Each takes the client and the envelope, and returns the event and data of its direct answer, or None. What it
refuses, it raises as ActionError; the dispatcher sends it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

from heartwire.errors import ActionError, ConnectionClosed
from heartwire.messages import CHANNEL_NAME, EVENT_NAME, OWN_EVENTS, Envelope, encode_event, encode_head, rfc3339
from heartwire.registry import Registry, kind_of, send_to

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.registry import Channel

__all__ = ["Actions", "Answer"]

Answer = tuple[str, Any] | None
Authenticate = Callable[["Client", str], Answer | Awaitable[Answer]]
Authorize = Callable[["Client", str, str], bool | Awaitable[bool]]

logger = logging.getLogger("heartwire")

METADATA_LIMIT: Final = 1024
MEMBERS_SHOWN: Final = 100


class Actions:
    """The built-in actions over one registry.

    Args:
        registry: the maps.
        authenticate: (client, token) -> answer; raises ActionError.
        authorize: the application's `(client, verb, channel) -> bool`, sync or async, or None.
        channels_per_client: most memberships of one client.
    """

    def __init__(
        self,
        registry: Registry,
        authenticate: Authenticate,
        authorize: Authorize | None,
        channels_per_client: int,
    ) -> None:
        self._registry = registry
        self._authenticate = authenticate
        self._authorize = authorize
        self._channels_per_client = channels_per_client
        self.table: Final[dict[str, Callable[[Client, Envelope], Answer | Awaitable[Answer]]]] = {
            "authenticate": self.authenticate,
            "join_channel": self.join_channel,
            "leave_channel": self.leave_channel,
            "send_message": self.send_message,
            "ping": self.ping,
        }

    # -------------------------------------------------------------- from clients

    def ping(self, client: Client, envelope: Envelope) -> Answer:
        return "pong", msgspec.UNSET

    def authenticate(self, client: Client, envelope: Envelope) -> Answer | Awaitable[Answer]:
        if not isinstance(envelope.token, str):
            example = '{"action": "authenticate", "token": "eyJ…"}'
            raise bad_field("token", envelope.token, "a string", example)
        return self._authenticate(client, envelope.token)

    def join_channel(self, client: Client, envelope: Envelope) -> Answer | Awaitable[Answer]:
        name = channel_name(envelope, "join_channel")
        metadata = _metadata(envelope)
        allowed = self._may(client, "join", name)
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
        return "joined_channel", self.joined_data(self.join(client, name, metadata))

    def joined_data(self, channel: Channel) -> dict[str, Any]:
        """What a new member is told of its channel: `data` of `joined_channel`."""
        data: dict[str, Any] = {"channel": channel.name}
        if channel.kind == "presence":
            data["members"] = _members(channel)
            data["member_count"] = len({member.user_id for member in channel.members})
        return data

    def leave_channel(self, client: Client, envelope: Envelope) -> Answer:
        name = channel_name(envelope, "leave_channel")
        if not self.leave(client, name):
            raise ActionError("not_a_member", f"not a member of {name}")
        return "left_channel", {"channel": name}

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
                raise bad_field("event", event, "1 to 64 of A-Z a-z 0-9 _ . : -", '"event": "message"')
            if event in OWN_EVENTS:
                detail = f"event: {event!r} is an event of the server; choose another name"
                raise ActionError("bad_message", detail)
        data = msgspec.Raw(b"null") if envelope.data is msgspec.UNSET else envelope.data
        if (channel.kind if channel is not None else kind_of(name)) != "public":
            if channel is None or client not in channel.members:
                raise ActionError("not_a_member", f"join {name} before sending to it")
        elif client.credentials is None and self._authorize is None:
            raise ActionError("forbidden", "anonymous clients cannot publish: authenticate first")
        if self._authorize is not None:
            allowed = self._ask(client, "publish", name)
            if not isinstance(allowed, bool):
                # `data` is a view that ends with this call: the copy lives as long as the decision takes.
                return self._publish_when(client, name, event, msgspec.Raw(bytes(data)), envelope.id, allowed)
            if not allowed:
                raise ActionError("forbidden", f"not allowed to send to {name}")
        elif client.credentials is not None and not client.credentials.allows_publish(name):
            raise ActionError("forbidden", f"the token does not allow sending to {name}")
        return self._publish(client, name, event, data, envelope.id)

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
        members = self._registry.members(name)
        recipients = 0
        if members:
            head = encode_head(event, name, client.user_id, client.username, client.id)
            recipients = send_to(members, head, data=data)  # copied once, to where all queues find it
        return None if message_id is None else ("message_sent", {"channel": name, "recipients": recipients})

    def _may(self, client: Client, verb: str, name: str) -> bool | Awaitable[bool]:
        """Private and presence channels: the claim, or the application's word; refused without either."""
        if self._authorize is not None:
            return self._ask(client, verb, name)
        if kind_of(name) == "public":
            return True
        return client.credentials is not None and client.credentials.allows_channel(name)

    def _ask(self, client: Client, verb: str, name: str) -> bool | Awaitable[bool]:
        assert self._authorize is not None
        allowed = self._authorize(client, verb, name)
        return allowed if inspect.isawaitable(allowed) else bool(allowed)

    # -------------------------------------------------------------- from clients and the application

    def join(self, client: Client, name: str, metadata: bytes | None) -> Channel:
        """Makes the client a member and tells the others of a presence channel."""
        if not isinstance(name, str) or not CHANNEL_NAME.match(name):
            raise bad_field("channel", name, CHANNEL_EXPECTED, '"channel": "lobby"')
        if not client.is_connected:
            raise ConnectionClosed(client.connection.code or 1006, "", client.connection.cause or "peer_gone")
        channel = self._registry.channels.get(name)
        known = channel is not None and client in channel.members
        if not known and len(client.memberships or ()) >= self._channels_per_client:
            raise ActionError("too_many_channels", f"a client can be in {self._channels_per_client} channels")
        raw = None if metadata is None else msgspec.Raw(metadata)
        announce = kind_of(name) == "presence" and not (channel and _has_user(channel, client.user_id, None))
        channel = self._registry.join(client, name, raw)
        if announce:
            self.announce("member_joined", channel, client, raw)
        return channel

    def leave(self, client: Client, name: str) -> bool:
        """Ends a membership and tells the others. False if there was none."""
        channel = self._registry.channels.get(name)
        if channel is None or client not in channel.members:
            return False
        raw = channel.members[client]
        self._registry.leave(client, channel)
        self.left(client, channel, raw)
        return True

    def revise(self, client: Client) -> Awaitable[None] | None:
        """Ends the memberships that a client's new token, or the application, does not allow any more."""
        undecided: list[tuple[str, Awaitable[bool]]] = []
        for channel in client.memberships or ():
            try:
                allowed = self._may(client, "join", channel.name)
            except Exception:
                logger.exception("authorize failed for client %s, which loses %s", client.id, channel.name)
                allowed = False
            if not isinstance(allowed, bool):
                undecided.append((channel.name, allowed))
            elif not allowed:
                self._take_away(client, channel.name)
        return self._revise_when(client, undecided) if undecided else None

    async def _revise_when(self, client: Client, undecided: list[tuple[str, Awaitable[bool]]]) -> None:
        for name, awaited in undecided:
            try:
                allowed = await awaited
            except Exception:
                logger.exception("authorize failed for client %s, which loses %s", client.id, name)
                allowed = False
            if not allowed:
                self._take_away(client, name)

    def _take_away(self, client: Client, name: str) -> None:
        if self.leave(client, name):
            left = {"channel": name, "reason": "the new token does not allow it"}
            client.send_text_bytes(encode_event("left_channel", left))

    def left(self, client: Client, channel: Channel, metadata: msgspec.Raw | None = None) -> None:
        """Tells the members of a presence channel that a user is gone."""
        if channel.kind == "presence" and channel.members and not _has_user(channel, client.user_id, client):
            self.announce("member_left", channel, client, metadata)

    def announce(
        self, event: str, channel: Channel, client: Client, metadata: msgspec.Raw | None
    ) -> None:
        """Sends `member_joined` or `member_left` to the other members."""
        data = {"user_id": client.user_id, "username": client.username, "data": metadata}
        send_to(channel.members, encode_event(event, data, channel=channel.name), client)


CHANNEL_EXPECTED: Final = "1 to 200 of A-Z a-z 0-9 _ - = @ , . ; : /"


def bad_field(field: str, value: Any, expected: str, example: str) -> ActionError:
    """`bad_message` that names the field, what was expected and an example."""
    got = "it is missing" if value is msgspec.UNSET else "got something else"
    return ActionError("bad_message", f"{field}: expected {expected}, {got}; example: {example}")


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


def _members(channel: Channel) -> list[dict[str, Any]]:
    """The first MEMBERS_SHOWN users of a presence channel, each once."""
    shown: dict[str | None, dict[str, Any]] = {}
    for member, metadata in channel.members.items():
        if len(shown) == MEMBERS_SHOWN:
            break
        shown.setdefault(
            member.user_id, {"user_id": member.user_id, "username": member.username, "data": metadata}
        )
    return list(shown.values())


def _has_user(channel: Channel, user_id: str | None, but: Client | None) -> bool:
    return any(member.user_id == user_id for member in channel.members if member is not but)


def expires_text(expires_at: float | None) -> str | None:
    """A token's end as it is told to clients."""
    return None if expires_at is None else rfc3339(expires_at)
