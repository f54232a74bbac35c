"""Who is here: clients by id, users by id, channels by name. Owns these maps and nothing else.

Loop thread only. A client is in the maps from its upgrade until its connection is no longer OPEN.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from heartwire._core.fanout import Frame, fan_out
from heartwire._core.listing import page_after
from heartwire.channel_settings import DEFAULT, ChannelRules, ChannelSettings

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from heartwire.client import Client
    from heartwire.presence import Member

__all__ = ["Channel", "ChannelKind", "Registry", "Users"]

ChannelKind = Literal["public", "private", "presence"]


class Channel:
    """One channel: made by its first member, gone with its last."""

    __slots__ = ("created_at", "kind", "members", "name", "present", "settings")

    def __init__(self, name: str, settings: ChannelSettings = DEFAULT) -> None:
        self.name: str = name
        self.kind: ChannelKind = kind_of(name)
        self.settings: ChannelSettings = settings
        self.members: dict[Client, msgspec.Raw | None] = {}
        """Clients in the order they joined, with their presence metadata (owned bytes) or None."""
        wanted = self.kind == "presence" if settings.presence is None else settings.presence
        self.present: dict[str | Client, Member] | None = {} if wanted else None
        """With presence: the members by user id, an anonymous client by itself; `Presence` keeps them."""
        self.created_at: float = time.time()

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"<Channel {self.name!r}, {len(self.members)} members>"


def kind_of(name: str) -> ChannelKind:
    """The kind a channel's name says."""
    if name.startswith("private-"):
        return "private"
    return "presence" if name.startswith("presence-") else "public"


class Registry:
    """The maps, and fan-out over them: encoded once, queued for many.

    Args:
        rules: the settings of channels.
    """

    __slots__ = ("channels", "clients", "members_by_user", "rules")

    def __init__(self, rules: ChannelRules | None = None) -> None:
        self.rules: ChannelRules = rules or ChannelRules()
        self.clients: dict[str, Client] = {}
        """By id, in the order of their ids, which grow: `page` relies on it."""
        self.channels: dict[str, Channel] = {}
        # A user's one client, or the dict of their clients: nearly everybody has one, and a dict costs 232
        # bytes.
        self.members_by_user: dict[str, Client | dict[Client, None]] = {}

    # -------------------------------------------------------------- clients and users

    def add(self, client: Client) -> None:
        """Registers a client that has just been upgraded."""
        self.clients[client.id] = client
        if client.user_id is not None:
            self.add_user(client)

    def add_user(self, client: Client) -> None:
        """Notes whose client it is, once that is known."""
        user_id = client.user_id
        assert user_id is not None
        there = self.members_by_user.setdefault(user_id, client)
        if there is client:
            return
        if not isinstance(there, dict):
            there = self.members_by_user[user_id] = {there: None}
        there[client] = None

    def remove(self, client: Client) -> list[Channel]:
        """Forgets a client; returns the channels it was in. Nothing happens for one that is not there."""
        if self.clients.pop(client.id, None) is None:
            return []
        user_id = client.user_id
        if user_id is not None:
            there = self.members_by_user.get(user_id)
            if there is client:
                del self.members_by_user[user_id]
            elif isinstance(there, dict):
                there.pop(client, None)
                if not there:
                    del self.members_by_user[user_id]
        left = list(client.memberships or ())
        for channel in left:
            self.leave(client, channel)
        return left

    def clients_of(self, user_id: str) -> dict[Client, Any]:
        """A user's clients, as a mapping that `fan_out` takes; empty if they are not here."""
        there = self.members_by_user.get(user_id)
        if there is None:
            return {}
        return there if isinstance(there, dict) else {there: None}

    def page(self, after: str | None, limit: int) -> tuple[list[Client], bool]:
        """At most `limit` clients with later ids than `after`, in their order, and whether more follow.

        As quick at the end of a long list as at its beginning; `after` may have left meanwhile.
        """
        return page_after(self.clients, after, limit)

    # -------------------------------------------------------------- channels

    def join(self, client: Client, name: str, metadata: msgspec.Raw | None = None) -> Channel:
        """Makes the client a member; a member's metadata is replaced."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name, self.rules.of(name))
        if client not in channel.members:
            client.memberships = (*(client.memberships or ()), channel)
        channel.members[client] = metadata
        return channel

    def leave(self, client: Client, channel: Channel) -> None:
        """Ends a membership; the last one ends the channel."""
        channel.members.pop(client, None)
        client.memberships = tuple(c for c in client.memberships or () if c is not channel) or None
        if not channel.members:
            self.channels.pop(channel.name, None)

    def users(self) -> Iterator[str]:
        """The ids of the users who are here."""
        return iter(self.members_by_user)

    # -------------------------------------------------------------- fan-out (brokers.LocalDelivery)

    def to_channel(
        self, channel: str, payload: bytes, *, data: Buffer | None = None, skip: str | None = None,
        except_user: str | None = None,
    ) -> int:  # fmt: skip
        there = self.channels.get(channel)
        if there is None:
            return 0
        members: dict[Client, Any] = there.members
        if except_user is not None:
            members = self._without(members, except_user)
        frame = Frame(payload, data=data)  # `data` is copied once, to where all queues find it
        return fan_out(frame, members, None if skip is None else self.clients.get(skip))

    def to_user(self, user_id: str, payload: bytes, *, skip: str | None = None) -> int:
        clients = self.clients_of(user_id)
        return fan_out(Frame(payload), clients, None if skip is None else self.clients.get(skip))

    def to_all(
        self, payload: bytes, *, skip: str | None = None, except_user: str | None = None,
        authenticated: bool = False,
    ) -> int:  # fmt: skip
        clients = self.clients.values()
        everybody: dict[Client, Any] = (
            {client: None for client in clients if client.credentials is not None}
            if authenticated
            else dict.fromkeys(clients)
        )
        if except_user is not None:
            everybody = self._without(everybody, except_user)
        return fan_out(Frame(payload), everybody, None if skip is None else self.clients.get(skip))

    def to_client(self, client_id: str, payload: bytes) -> int:
        client = self.clients.get(client_id)
        return 0 if client is None else fan_out(Frame(payload), {client: None})

    def _without(self, members: dict[Client, Any], user_id: str) -> dict[Client, Any]:
        of_user = self.clients_of(user_id)
        return {client: None for client in members if client not in of_user}


class Users(Mapping[str, "tuple[Client, ...]"]):
    """A registry's users and their clients, as a mapping that is a live view."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, user_id: str) -> tuple[Client, ...]:
        clients = tuple(self._registry.clients_of(user_id))
        if not clients:
            raise KeyError(user_id)
        return clients

    def __iter__(self) -> Iterator[str]:
        return self._registry.users()

    def __len__(self) -> int:
        return len(self._registry.members_by_user)
