"""Members by user, and the time of grace: a clock that stands still, and a broker that writes down."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from heartwire import presence as module
from heartwire.presence import Member, Presence
from heartwire.registry import Channel
from heartwire.testing import ManualClock

GRACE_S = 3.0


class Recorder:
    """What others are told: events, and what the observer hears."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.sent: list[tuple[str, Any, str | None]] = []
        self.observed: list[tuple[str, str | None]] = []
        self.timers = 0

    def to_channel(self, channel: str, payload: bytes, *, skip: str | None = None) -> int:
        event = json.loads(payload)
        assert event["channel"] == channel
        self.sent.append((event["event"], event["data"]["user_id"], skip))
        return 1

    def call_later(self, seconds: float, callback: Any) -> Any:
        self.timers += 1
        return self.clock.call_later(seconds, callback)

    def member_joined(self, channel: Channel, member: Member) -> None:
        self.observed.append(("member_joined", member.user_id))

    def member_left(self, channel: Channel, member: Member) -> None:
        self.observed.append(("member_left", member.user_id))

    def heard(self) -> list[tuple[str, Any, str | None]]:
        """The events since the last call; the observer heard the same."""
        sent, self.sent = self.sent, []
        observed, self.observed = self.observed, []
        assert observed == [(event, user_id) for event, user_id, _ in sent]
        return sent


class Room:
    """One channel with presence."""

    def __init__(self, grace_s: float = GRACE_S) -> None:
        self.clock = ManualClock()
        self.recorder: Any = Recorder(self.clock)
        self.presence = Presence(
            self.recorder, grace_s, self.recorder.call_later, self.clock.time, lambda: True, self.recorder
        )
        self.channel = Channel("presence-room")

    def join(self, client: Any, data: bytes | None = None) -> Any:
        raw = None if data is None else msgspec.Raw(data)
        again = client in self.channel.members
        self.channel.members[client] = raw
        self.presence.join(self.channel, client, raw, again)
        return client

    def leave(self, client: Any) -> None:
        del self.channel.members[client]
        if self.channel.members:
            self.presence.leave(self.channel, client)
        else:
            self.presence.vacate(self.channel)

    @property
    def users(self) -> list[str | None]:
        return [member["user_id"] for member in self.presence.shown(self.channel)]


class Someone(SimpleNamespace):
    """As much of a client as presence looks at."""

    __hash__ = object.__hash__
    __eq__ = object.__eq__


def client(user_id: str | None, username: str | None = None) -> Any:
    return Someone(id=f"client-of-{user_id}", user_id=user_id, username=username)


def test_a_user_with_three_tabs_is_one_member() -> None:
    room = Room()
    room.join(client("bob"))
    tabs = [room.join(client("alice")) for _ in range(3)]
    assert room.recorder.heard() == [
        ("member_joined", "bob", "client-of-bob"), ("member_joined", "alice", "client-of-alice"),
    ]  # fmt: skip
    assert room.users == ["bob", "alice"]
    for tab in tabs:
        assert room.recorder.heard() == []
        room.leave(tab)
        room.clock.advance(GRACE_S / 2)
    assert room.recorder.heard() == []
    room.clock.advance(GRACE_S / 2 - 0.001)
    assert room.recorder.heard() == []
    assert room.users == ["bob", "alice"], "who may come back is still there"
    room.clock.advance(0.001)
    assert room.recorder.heard() == [("member_left", "alice", None)]
    assert room.users == ["bob"]


def test_a_page_that_is_loaded_anew_is_no_leave() -> None:
    room = Room()
    room.join(client("bob"))
    tab = room.join(client("alice"), b'"here"')
    room.recorder.heard()
    for _ in range(5):
        room.leave(tab)
        room.clock.advance(GRACE_S - 0.001)
        tab = room.join(client("alice"), b'"here"')
        room.clock.advance(0.5)
    assert room.recorder.heard() == []
    room.leave(tab)
    room.clock.advance(GRACE_S - 0.001)
    assert room.recorder.heard() == [], "the time runs from the last leave"
    room.clock.advance(0.001)
    assert room.recorder.heard() == [("member_left", "alice", None)]
    room.clock.advance(100)
    assert room.recorder.heard() == []


def test_without_grace_a_leave_is_told_at_once() -> None:
    room = Room(grace_s=0)
    room.join(client("bob"))
    alice = room.join(client("alice"))
    room.leave(alice)
    assert [event for event, *_ in room.recorder.heard()] == ["member_joined", "member_joined", "member_left"]
    assert room.recorder.timers == 0


def test_one_timer_for_all() -> None:
    room = Room()
    room.join(client("bob"))
    crowd = [room.join(client(f"user-{i}")) for i in range(1000)]
    room.recorder.heard()
    for member in crowd:
        room.leave(member)
    assert room.recorder.timers == 1
    room.clock.advance(GRACE_S)
    assert [user for _, user, _ in room.recorder.heard()] == [f"user-{i}" for i in range(1000)]
    room.clock.advance(100)
    assert room.users == ["bob"]


def test_leaves_are_told_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TURN_S", -1)  # a turn is over after each
    room = Room()
    room.join(client("bob"))
    crowd = [room.join(client(f"user-{i}")) for i in range(10)]
    room.recorder.heard()
    for member in crowd:
        room.leave(member)
    room.clock.advance(GRACE_S)
    assert [user for _, user, _ in room.recorder.heard()] == [f"user-{i}" for i in range(10)]
    assert room.recorder.timers == 10


def test_a_channel_that_is_gone_has_no_members_left() -> None:
    room = Room()
    alice, bob = room.join(client("alice")), room.join(client("bob"))
    room.leave(alice)
    assert room.recorder.heard()[-1] == ("member_joined", "bob", "client-of-bob")
    room.leave(bob)
    assert room.recorder.sent == [], "nobody is there to hear it"
    assert room.recorder.observed == [("member_left", "alice"), ("member_left", "bob")]
    room.recorder.observed.clear()
    room.join(client("alice"))  # a new channel of the same name: here it is the same object
    room.clock.advance(GRACE_S)
    assert room.recorder.heard() == [("member_joined", "alice", "client-of-alice")]
    assert room.users == ["alice"]


def test_metadata_is_replaced_by_who_joins_again() -> None:
    room = Room()
    room.join(client("bob"))
    alice = room.join(client("alice"), b"1")
    room.recorder.heard()
    second = room.join(client("alice"), b"2")
    assert room.recorder.heard() == [], "one more tab says nothing new"
    assert [m["data"] for m in room.presence.shown(room.channel)] == [None, msgspec.Raw(b"1")]
    room.join(alice, b"3")
    assert room.recorder.heard() == [("member_joined", "alice", "client-of-alice")]
    room.join(alice, b"3")
    room.join(second, b"3")
    assert room.recorder.heard() == [], "they know"
    room.leave(second)
    room.leave(alice)
    room.join(client("alice", "Alice"), b"4")
    assert room.recorder.heard() == [("member_joined", "alice", "client-of-alice")], "came back with news"
    assert room.presence.shown(room.channel)[1] == {
        "user_id": "alice", "username": "Alice", "data": msgspec.Raw(b"4"),
    }  # fmt: skip


def test_strangers_are_a_member_each() -> None:
    room = Room()
    one, other = room.join(client(None)), room.join(client(None))
    assert room.users == [None, None]
    assert [event for event, *_ in room.recorder.heard()] == ["member_joined", "member_joined"]
    one.user_id = "alice"  # it has authenticated
    room.presence.identify(room.channel, one, None)
    assert room.recorder.heard() == [
        ("member_left", None, "client-of-None"), ("member_joined", "alice", "client-of-None"),
    ]  # fmt: skip
    assert room.users == [None, "alice"]
    room.leave(one)
    room.clock.advance(GRACE_S)
    assert room.recorder.heard() == [("member_left", "alice", None)]
    room.leave(other)
    assert room.users == []


def test_nothing_is_told_after_the_end() -> None:
    room = Room()
    room.join(client("bob"))
    room.leave(room.join(client("alice")))
    room.recorder.heard()
    room.presence.stop()
    room.clock.advance(GRACE_S)
    assert room.recorder.heard() == []


def test_the_first_hundred_are_shown() -> None:
    room = Room()
    for i in range(150):
        room.join(client(f"user-{i}"))
    assert room.users == [f"user-{i}" for i in range(100)]
