"""The token bucket of the rate limits, beside one that counts tokens."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest

from heartwire._core.bucket import TokenBucket

SECOND = 1_000_000_000


class Tokens:
    """The oracle: a bucket that fills up as time passes, in exact numbers."""

    def __init__(self, per_second: Fraction, burst: int) -> None:
        self.per_second = per_second
        self.burst = burst
        self.tokens = Fraction(burst)
        self.seen_ns = 0

    def take(self, units: int, now_ns: int) -> bool:
        flowed = self.per_second * (now_ns - self.seen_ns) / SECOND
        self.tokens = min(self.tokens + flowed, Fraction(self.burst))
        self.seen_ns = now_ns
        if min(units, self.burst) > self.tokens:
            return False
        self.tokens -= units
        return True


# Rates whose nanoseconds a unit are whole: with others the two may differ by a nanosecond's rounding.
RATES = (Fraction(1, 10), Fraction(1), Fraction(8), Fraction(1000), Fraction(1_000_000), Fraction(SECOND))


@pytest.mark.parametrize("rate", RATES)
def test_as_the_oracle_in_any_order(rng: random.Random, rate: Fraction) -> None:
    answers = set()
    for _ in range(50):
        burst = rng.choice((1, 2, 10, 1000, 1 << 20))
        bucket, tokens = TokenBucket(float(rate), burst), Tokens(rate, burst)
        now_ns = rng.randrange(3) * rng.randrange(SECOND)
        tokens.seen_ns = now_ns
        unit_ns = int(SECOND / rate)
        for _ in range(100):
            now_ns += rng.choice((0, 0, 1, unit_ns - 1, unit_ns, rng.randrange(1, 3 * burst * unit_ns)))
            units = rng.choice((1, 1, burst - 1 or 1, burst, burst + 1, rng.randrange(1, 3 * burst)))
            answers.add(answer := tokens.take(units, now_ns))
            assert bucket.take(units, now_ns) is answer, (burst, units, now_ns)
    assert answers == {True, False}


def test_a_burst_then_the_rate() -> None:
    bucket = TokenBucket(3, 5)
    assert [bucket.take(1, 0) for _ in range(7)] == [True] * 5 + [False] * 2
    taken = sum(bucket.take(1, t * SECOND // 100) for t in range(1, 10_001))
    assert 299 <= taken <= 300  # 100 s


def test_more_than_it_holds_needs_a_full_bucket_and_leaves_a_debt() -> None:
    bucket = TokenBucket(10, 10)
    assert bucket.take(25, 0)
    assert not bucket.take(1, 15 * SECOND // 10)  # 2.5 s of debt, less 1.5 s: still empty
    assert bucket.take(1, 16 * SECOND // 10)
    assert not bucket.take(25, 20 * SECOND // 10)
    assert bucket.take(25, 26 * SECOND // 10)


def test_sizes_that_a_connection_can_have_do_not_overflow() -> None:
    bucket = TokenBucket(1, 1)
    assert bucket.take(1 << 30, 0)
    assert not bucket.take(1, ((1 << 30) - 1) * SECOND)
    assert bucket.take(1, (1 << 30) * SECOND)


@pytest.mark.parametrize(("rate", "burst"), [(0, 1), (-1, 1), (float("nan"), 1), (1, 0)])
def test_what_is_no_bucket(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate above 0"):
        TokenBucket(rate, burst)
