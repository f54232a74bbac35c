"""Who may be in which channel, and what follows from joining and leaving (docs/channels.md).

`Registry` holds the maps, `Presence` the members by user; here are the rules, and the order in which others
are told.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from heartwire.errors import ActionError, ConnectionClosed
from heartwire.messages import CHANNEL_EXPECTED, CHANNEL_NAME, encode_event
from heartwire.presence import key_of
from heartwire.registry import Registry, kind_of

if TYPE_CHECKING:
    from heartwire.brokers import Broker
    from heartwire.channel_settings import ChannelRules
    from heartwire.client import Client
    from heartwire.presence import Observer, Presence
    from heartwire.refusals import Refusals
    from heartwire.registry import Channel

__all__ = ["Authorize", "Memberships", "ask", "bad_field", "claims_allow"]

Authorize = Callable[["Client", str, str], bool | Awaitable[bool]]
"""The application's word: (client, "join" or "publish", channel)."""

logger: logging.Logger = logging.getLogger("heartwire")


class Memberships:
    """Makes and ends memberships. Loop thread only.

    Args:
        registry: the maps.
        presence: the members by user.
        broker: is told which channels this process has.
        authorize: the application's word, or None.
        channels_per_client: most memberships of one client.
        refusals: tell the log of limits that are reached.
        observer: is told of channels that come and go.
    """

    def __init__(
        self,
        registry: Registry,
        presence: Presence,
        broker: Broker,
        authorize: Authorize | None,
        channels_per_client: int,
        refusals: Refusals,
        observer: Observer | None = None,
    ) -> None:
        self._registry = registry
        self._presence = presence
        self._broker = broker
        self._authorize = authorize
        self._refusals = refusals
        self._channels_per_client = channels_per_client
        self._observer = observer

    # -------------------------------------------------------------- the rules

    def may_join(self, client: Client, name: str) -> bool | Awaitable[bool]:
        """The claim, or the application's word: private and presence channels are refused without either.

        Raises:
            ActionError: the channel is not for anonymous clients.
        """
        settings = self._registry.rules.of(name)
        if settings.require_auth and client.credentials is None:
            raise ActionError("unauthenticated", f"only authenticated clients may join {name}")
        if self._authorize is not None:
            return ask(self._authorize, client, "join", name)
        return claims_allow(self._registry.rules, client, "join", name)

    def revise(self, client: Client, was_anonymous: bool) -> Awaitable[None] | None:
        """A client has a new token: ends the memberships that are not allowed any more.

        Args:
            was_anonymous: it is its first token.
        """
        undecided: list[tuple[str, Awaitable[bool]]] = []
        for channel in client.memberships or ():
            if was_anonymous and channel.present is not None:
                self._presence.identify(channel, client, channel.members[client])
            try:
                allowed = self.may_join(client, channel.name)
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

    # -------------------------------------------------------------- joining and leaving

    def join(self, client: Client, name: str, metadata: bytes | None) -> Channel:
        """Makes the client a member, whatever it may, and tells others.

        Args:
            metadata: presence metadata, JSON; replaces that of a member.
        Raises:
            ActionError: no name of a channel, or a limit is reached.
            ConnectionClosed: the client has gone.
        """
        if not isinstance(name, str) or not CHANNEL_NAME.match(name):
            raise bad_field("channel", name, CHANNEL_EXPECTED, '"channel": "lobby"')
        if not client.is_connected:
            raise ConnectionClosed(client.connection.code or 1006, "", client.connection.cause or "peer_gone")
        channel = self._registry.channels.get(name)
        known = channel is not None and client in channel.members
        if not known:
            if len(client.memberships or ()) >= self._channels_per_client:
                self._refusals.tell("too_many_channels", client.connection.remote_address)
                detail = f"a client can be in {self._channels_per_client} channels"
                raise ActionError("too_many_channels", detail)
            if channel is not None and _is_full(channel, client):
                self._refusals.tell("channel_full", client.connection.remote_address)
                raise ActionError("channel_full", f"{name} has as many members as it may")
        data = None if metadata is None else msgspec.Raw(metadata)
        joined = self._registry.join(client, name, data)
        if channel is None:
            self._broker.occupied(name)
            if self._observer is not None:
                self._observer.channel_occupied(joined)
        if joined.present is not None:
            self._presence.join(joined, client, data, known)
        return joined

    def joined_data(self, channel: Channel) -> dict[str, Any]:
        """What a new member is told of its channel: `data` of `joined_channel`."""
        data: dict[str, Any] = {"channel": channel.name}
        if channel.present is not None:
            data["members"] = self._presence.shown(channel)
            data["member_count"] = len(channel.present)
        return data

    def leave(self, client: Client, name: str) -> bool:
        """Ends a membership and tells others. False if there was none."""
        channel = self._registry.channels.get(name)
        if channel is None or client not in channel.members:
            return False
        self._registry.leave(client, channel)
        self._left(client, channel)
        return True

    def client_left(self, client: Client) -> None:
        """The client can no longer be sent to: it leaves every map at once."""
        for channel in self._registry.remove(client):
            self._left(client, channel)

    def _left(self, client: Client, channel: Channel) -> None:
        if channel.members:
            if channel.present is not None:
                self._presence.leave(channel, client)
            return
        if channel.present is not None:
            self._presence.vacate(channel)
        self._broker.vacated(channel.name)
        if self._observer is not None:
            self._observer.channel_vacated(channel)


def claims_allow(rules: ChannelRules, client: Client, verb: str, name: str) -> bool:
    """Whether a client may "join" or "publish" by its token; that it is a member is asked for elsewhere."""
    credentials = client.credentials
    if verb == "publish":
        if credentials is None:
            return rules.of(name).anonymous_publish
        return credentials.allows_publish(name)
    if kind_of(name) == "public" and not rules.of(name).require_claim:
        return True
    return credentials is not None and credentials.allows_channel(name)


def ask(authorize: Authorize, client: Client, verb: str, name: str) -> bool | Awaitable[bool]:
    """The application's word, now or later."""
    allowed = authorize(client, verb, name)
    return allowed if inspect.isawaitable(allowed) else bool(allowed)


def bad_field(field: str, value: Any, expected: str, example: str) -> ActionError:
    """`bad_message` that names the field, what was expected and an example."""
    got = "it is missing" if value is msgspec.UNSET else "got something else"
    return ActionError("bad_message", f"{field}: expected {expected}, {got}; example: {example}")


def _is_full(channel: Channel, client: Client) -> bool:
    most = channel.settings.max_members
    if most is None:
        return False
    if channel.present is None:
        return len(channel.members) >= most
    return len(channel.present) >= most and key_of(client) not in channel.present
