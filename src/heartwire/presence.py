"""Who is in a channel, by user: a user with three tabs is one member, and loading a page anew is no leave.

A member is told of by `member_joined` when their first client joins, and by `member_left` when the last one
has been gone for the time of grace. One timer serves all members of a server.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import msgspec

from heartwire.messages import encode_event

if TYPE_CHECKING:
    from heartwire.brokers import Broker
    from heartwire.client import Client
    from heartwire.registry import Channel

__all__ = ["Member", "Observer", "Presence"]

MEMBERS_SHOWN: Final = 100
TURN_S: Final = 0.002  # for announcements; then others have their turn


class Member:
    """A user in a channel, or an anonymous client."""

    __slots__ = ("clients", "data", "leaving", "user_id", "username")

    def __init__(self, client: Client, data: msgspec.Raw | None) -> None:
        self.user_id: str | None = client.user_id
        self.username: str | None = client.username
        self.data: msgspec.Raw | None = data
        """Presence metadata: owned bytes, or None."""
        self.clients: int = 1
        """Their clients in the channel; with 0 the time of grace runs."""
        self.leaving: int = 0
        """Number of the leave that is to be announced; 0: there is none."""

    def shown(self) -> dict[str, Any]:
        """The member in events and lists."""
        return {"user_id": self.user_id, "username": self.username, "data": self.data}


class Observer(Protocol):
    """Is told when channels and their members come and go, in this order: occupied, joined, left, vacated."""

    def channel_occupied(self, channel: Channel) -> None:
        """It has its first client."""

    def channel_vacated(self, channel: Channel) -> None:
        """Its last client has left: it is gone."""

    def member_joined(self, channel: Channel, member: Member) -> None:
        """A user came, or, once more, has new metadata."""

    def member_left(self, channel: Channel, member: Member) -> None:
        """A user has gone."""


class _Leave(NamedTuple):
    due: float
    channel: Channel
    key: str | Client
    number: int


class Presence:
    """Keeps the members of channels with presence. Loop thread only.

    Args:
        broker: carries the announcements.
        grace_s: from the last client's leave to `member_left`; 0: no delay.
        call_later: (seconds, function) -> a handle that can be cancelled, as the loop's.
        clock: () -> seconds, monotonic; that of `call_later`.
        speaks: () -> whether the server sends JSON of its own.
        observer: is told of members too.
    """

    def __init__(
        self,
        broker: Broker,
        grace_s: float,
        call_later: Callable[..., Any],
        clock: Callable[[], float],
        speaks: Callable[[], bool],
        observer: Observer | None = None,
    ) -> None:
        self._broker = broker
        self._grace_s = grace_s
        self._call_later = call_later
        self._clock = clock
        self._speaks = speaks
        self._observer = observer
        self._leaves: deque[_Leave] = deque()  # the grace is the same for all: the next one is the first
        self._timer: Any = None
        self._number = 0

    def join(self, channel: Channel, client: Client, data: msgspec.Raw | None, again: bool) -> None:
        """A client has joined.

        Args:
            data: what it brought along.
            again: it was a member already: `data` replaces what is known of the user.
        """
        assert channel.present is not None
        key = key_of(client)
        member = channel.present.get(key)
        if member is None:
            member = channel.present[key] = Member(client, data)
            self._announce("member_joined", channel, member, client)
            return
        returned = member.leaving != 0
        member.leaving = 0
        if not again:
            member.clients += 1
        if not (again or returned):
            return  # one more tab
        if (member.data, member.username) != (data, client.username):
            member.data, member.username = data, client.username
            self._announce("member_joined", channel, member, client)

    def leave(self, channel: Channel, client: Client) -> None:
        """A client has left, and others are still there."""
        assert channel.present is not None
        key = key_of(client)
        member = channel.present[key]
        member.clients -= 1
        if member.clients:
            return
        if not self._grace_s:
            self._gone(channel, key, member)
            return
        self._number += 1
        member.leaving = self._number
        self._leaves.append(_Leave(self._clock() + self._grace_s, channel, key, self._number))
        if self._timer is None:
            self._timer = self._call_later(self._grace_s, self._announce_leaves)

    def vacate(self, channel: Channel) -> None:
        """The last client has left: nobody is to be told, and no leave is waited for any more."""
        assert channel.present is not None
        members = [*channel.present.values()]
        channel.present.clear()
        if self._observer is not None:
            for member in members:
                self._observer.member_left(channel, member)

    def identify(self, channel: Channel, client: Client, data: msgspec.Raw | None) -> None:
        """An anonymous client in the channel has become a user: one member goes and another comes."""
        assert channel.present is not None
        member = channel.present.pop(client)
        self._announce("member_left", channel, member, client)
        self.join(channel, client, data, again=False)

    def shown(self, channel: Channel) -> list[dict[str, Any]]:
        """The first members of a channel, for who joins it."""
        assert channel.present is not None
        return [member.shown() for member in islice(channel.present.values(), MEMBERS_SHOWN)]

    def stop(self) -> None:
        """Forgets the leaves that are not announced yet."""
        self._leaves.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _announce_leaves(self) -> None:
        self._timer = None
        began = time.perf_counter()
        while self._leaves and self._leaves[0].due <= self._clock():
            _, channel, key, number = self._leaves.popleft()
            member = (channel.present or {}).get(key)
            if member is None or member.leaving != number:
                continue  # came back, or the channel has gone
            self._gone(channel, key, member)
            if time.perf_counter() - began > TURN_S:
                break
        if self._leaves:
            delay = max(self._leaves[0].due - self._clock(), 0)
            self._timer = self._call_later(delay, self._announce_leaves)

    def _gone(self, channel: Channel, key: str | Client, member: Member) -> None:
        assert channel.present is not None
        del channel.present[key]
        self._announce("member_left", channel, member, None)

    def _announce(self, event: str, channel: Channel, member: Member, but: Client | None) -> None:
        """Tells the other members, then the observer."""
        if self._speaks():
            payload = encode_event(event, member.shown(), channel=channel.name)
            self._broker.to_channel(channel.name, payload, skip=None if but is None else but.id)
        if self._observer is not None:
            tell = self._observer.member_joined if event == "member_joined" else self._observer.member_left
            tell(channel, member)


def key_of(client: Client) -> str | Client:
    """What makes two clients one member: their user; an anonymous client is one by itself."""
    return client if client.user_id is None else client.user_id
