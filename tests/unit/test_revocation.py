"""revocation: what is revoked, for how long, and when the set is full."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from heartwire.credentials import Credentials
from heartwire.revocation import Revocations, RevocationsFull

NOW = 1_800_000_000.0


class Clock:
    now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def holder(sub: str = "alice", **claims: Any) -> Credentials:
    return Credentials(sub, None, None, json.dumps({"sub": sub, **claims}).encode())


def test_nothing_is_revoked_at_first(clock: Clock) -> None:
    revoked = Revocations(10, clock)
    assert not revoked
    assert not revoked.covers(holder(jti="1", iat=0))


def test_one_token(clock: Clock) -> None:
    revoked = Revocations(10, clock)
    revoked.revoke_token("1", NOW + 60)
    assert revoked
    assert revoked.covers(holder(jti="1"))
    assert revoked.covers(holder("bob", jti="1", iat=NOW + 9))
    for other in (holder(jti="2"), holder(), holder(jti=1), holder(jti=None), holder("1")):
        assert not revoked.covers(other)
    clock.now = NOW + 60
    assert not revoked.covers(holder(jti="1"))


def test_a_user(clock: Clock) -> None:
    revoked = Revocations(10, clock)
    revoked.revoke_user("alice", NOW, NOW + 60)
    assert revoked.covers(holder(iat=NOW - 1))
    assert not revoked.covers(holder(iat=NOW))
    assert not revoked.covers(holder("bob", iat=NOW - 1))
    assert not revoked.covers(holder("bob", iat=NOW, jti="alice"))


@pytest.mark.parametrize("iat", [..., None, "now", [1]])
def test_a_token_of_unknown_age_is_old(clock: Clock, iat: Any) -> None:
    revoked = Revocations(10, clock)
    revoked.revoke_user("alice", 1, NOW + 60)
    assert revoked.covers(holder() if iat is ... else holder(iat=iat))


def test_everybody(clock: Clock) -> None:
    revoked = Revocations(1, clock)
    revoked.revoke_before(NOW - 10)
    revoked.revoke_before(NOW - 20)  # takes nothing back
    assert revoked
    assert len(revoked) == 0
    assert revoked.covers(holder(iat=NOW - 11))
    assert not revoked.covers(holder("bob", iat=NOW - 10))
    clock.now = NOW + 1e9
    assert revoked.covers(holder("bob", iat=NOW - 11))


def test_the_later_word_counts(clock: Clock) -> None:
    revoked = Revocations(10, clock)
    revoked.revoke_user("alice", NOW, NOW + 60)
    revoked.revoke_user("alice", NOW - 100, NOW + 30)
    assert revoked.covers(holder(iat=NOW - 1))
    revoked.revoke_user("alice", NOW - 100, NOW + 90)
    clock.now = NOW + 60
    revoked.revoke_token("x", NOW + 99)  # those that have ended are forgotten now
    assert revoked.covers(holder(iat=NOW - 1))
    assert len(revoked) == 2


def test_full_means_full(clock: Clock) -> None:
    revoked = Revocations(2, clock)
    revoked.revoke_token("1", NOW + 10)
    revoked.revoke_user("alice", NOW, NOW + 20)
    with pytest.raises(RevocationsFull):
        revoked.revoke_token("2", NOW + 30)
    assert not revoked.covers(holder("bob", jti="2", iat=NOW))
    assert revoked.covers(holder("bob", jti="1", iat=NOW))
    revoked.revoke_token("1", NOW + 15)  # it is there already
    revoked.revoke_before(1)  # needs no room
    clock.now = NOW + 15
    revoked.revoke_token("2", NOW + 30)
    assert revoked.covers(holder("bob", jti="2", iat=NOW))
    assert not revoked.covers(holder("bob", jti="1", iat=NOW))


def test_prolonging_for_ever_needs_no_more_memory(clock: Clock) -> None:
    revoked = Revocations(50, clock)
    for i in range(1000):
        revoked.revoke_user(f"u{i % 3}", NOW, NOW + i)
    assert len(revoked) == 3
    assert len(revoked._ends) <= 100


def test_against_a_plain_list() -> None:
    """Random revocations and times, beside a list that forgets nothing."""
    seed = int(os.environ.get("HEARTWIRE_SEED", random.randrange(1 << 32)))
    print(f"HEARTWIRE_SEED={seed}")
    draw = random.Random(seed)
    clock = Clock()
    revoked = Revocations(8, clock)
    plain: list[tuple[str, str, float, float]] = []
    for _ in range(5000):
        clock.now += draw.choice((0, 1, 5))
        kind, name = draw.choice(("jti", "sub")), f"n{draw.randrange(12)}"
        until, before = clock.now + draw.randrange(1, 60), clock.now - draw.randrange(30)
        alive = {(k, n) for k, n, _, u in plain if u > clock.now}
        try:
            if kind == "jti":
                revoked.revoke_token(name, until)
            else:
                revoked.revoke_user(name, before, until)
        except RevocationsFull:
            assert len(alive) >= 8
            assert (kind, name) not in alive
        else:
            if (kind, name) in alive:  # the later of both counts, from now on for both
                earlier = [(b, u) for k, n, b, u in plain if (k, n) == (kind, name) and u > clock.now]
                before = max(before, *(b for b, _ in earlier))
                until = max(until, *(u for _, u in earlier))
            plain.append((kind, name, before, until))
        jti, sub, iat = f"n{draw.randrange(12)}", f"n{draw.randrange(12)}", clock.now - draw.randrange(40)
        expected = any(
            u > clock.now and ((k == "jti" and n == jti) or (k == "sub" and n == sub and iat < b))
            for k, n, b, u in plain
        )
        assert revoked.covers(holder(sub, jti=jti, iat=iat)) == expected
