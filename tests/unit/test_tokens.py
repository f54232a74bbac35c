"""tokens: when a token's end is told and enforced, by the wall clock, whatever happened to that since."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heartwire import tokens
from heartwire.client import Client
from heartwire.credentials import Credentials
from heartwire.testing import CLOSE, TEXT, Frame
from pair import Pair
from unit.test_heartbeat import wired

NOW = 1_800_000_000.0


class Wall:
    """The wall clock: it goes with the other one until somebody corrects it."""

    def __init__(self) -> None:
        self.pair: Pair
        self.ahead = NOW

    def time(self) -> float:
        return self.pair.clock.time() + self.ahead


class Holder:
    """A client whose token ends at `NOW + life`, on a clock of its own."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, life: float, **options: Any) -> None:
        dispatcher = wired(**options)
        dispatcher.configure(ping_interval=0)
        self.pair = Pair(sink=dispatcher)
        self.wall = Wall()
        self.wall.pair = self.pair
        self.wall.ahead -= self.pair.clock.time()
        monkeypatch.setattr(tokens, "time", self.wall)
        client: Client = self.pair.conn.owner
        client.credentials = Credentials("alice", None, NOW + life, b"{}")
        dispatcher.admission._tokens.watch(client)

    def after(self, seconds: float) -> list[str]:
        """What the client is sent in this time: events, and the code of a CLOSE."""
        self.pair.clock.advance(seconds)
        return [self.word(frame) for frame in self.pair.sent()]

    def word(self, frame: Frame) -> str:
        if frame.opcode == CLOSE:
            return str(frame.close_code)
        assert frame.opcode == TEXT
        return str(json.loads(frame.payload)["event"])


def test_the_warning_and_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(monkeypatch, 600)
    assert holder.after(539) == []
    assert holder.after(2) == ["token_expiring"]
    assert holder.after(58) == []
    assert holder.after(2) == ["4410"]
    assert holder.pair.conn.cause == "token_expired"


def test_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(monkeypatch, 600, token_grace=30)
    assert holder.after(629) == ["token_expiring"]
    assert holder.after(2) == ["4410"]


def test_a_short_life_is_warned_of_in_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    holder = Holder(monkeypatch, 20)
    assert holder.after(9) == []
    assert holder.after(2) == ["token_expiring"]
    assert holder.after(8) == []
    assert holder.after(2) == ["4410"]


@pytest.mark.parametrize("warning", [60, 0])
def test_a_clock_that_was_set_back(monkeypatch: pytest.MonkeyPatch, warning: float) -> None:
    """The timer fires when it was due, and finds that the token has longer to go."""
    holder = Holder(monkeypatch, 600, token_expiring_before=warning)
    warned = ["token_expiring"] if warning else []
    assert holder.after(100) == []
    holder.wall.ahead -= 1000
    assert holder.after(1498 - warning) == []
    assert holder.after(warning) == warned
    assert holder.pair.conn.is_open
    assert holder.after(4) == ["4410"]


def test_a_clock_that_was_set_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is told of that; when the timer fires, the token has ended long since."""
    holder = Holder(monkeypatch, 600)
    holder.wall.ahead += 1000
    assert holder.after(539) == []
    assert holder.after(2) == ["4410"]
