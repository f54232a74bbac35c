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

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from heartwire.client import Client

__all__ = ["Channel", "ChannelKind", "Registry", "Users", "send_to"]

ChannelKind = Literal["public", "private", "presence"]


class Channel:
    """One channel: made by its first member, gone with its last."""

    __slots__ = ("created_at", "kind", "members", "name")

    def __init__(self, name: str) -> None:
        self.name = name
        self.kind: ChannelKind = kind_of(name)
        self.members: dict[Client, msgspec.Raw | None] = {}
        """Members in the order they joined, with their presence metadata (owned bytes) or None."""
        self.created_at = time.time()

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
    """The maps, and fan-out over them: encoded once, queued for many."""

    __slots__ = ("channels", "clients", "members_by_user")

    def __init__(self) -> None:
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

    def everybody(self) -> dict[Client, Any]:
        """Every client, as a mapping that `fan_out` takes: made anew, since `clients` is keyed by id."""
        return dict.fromkeys(self.clients.values())

    # -------------------------------------------------------------- channels

    def join(self, client: Client, name: str, metadata: msgspec.Raw | None = None) -> Channel:
        """Makes the client a member; a member's metadata is replaced."""
        channel = self.channels.get(name)
        if channel is None:
            channel = self.channels[name] = Channel(name)
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

    def members(self, name: str) -> dict[Client, Any]:
        """The members of a channel, as a mapping that `fan_out` takes."""
        channel = self.channels.get(name)
        return channel.members if channel is not None else {}

    def users(self) -> Iterator[str]:
        """The ids of the users who are here."""
        return iter(self.members_by_user)


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


def send_to(
    members: dict[Client, Any], payload: bytes, skip: Client | None = None, *, data: Buffer | None = None
) -> int:
    """Queues one text message for many clients; returns for how many.

    Args:
        payload: the text, UTF-8.
        data: JSON that becomes the member `data` of the object that payload then is; copied here.
    """
    return fan_out(Frame(payload, data=data), members, skip) if members else 0
