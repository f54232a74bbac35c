"""Timers (csrc/wheel.c) beside asyncio's heap, uvloop's, and beside one system call."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import uvloop

from heartwire._core.wheel import TimerHandle, TimingWheel

TIMERS = 10_000


def move(wheel: TimingWheel, handles: list[TimerHandle], deadlines: list[int]) -> None:
    for handle, deadline in zip(handles, deadlines, strict=True):
        wheel.add(handle, deadline)


def call_later(loop: asyncio.AbstractEventLoop, delays: list[int]) -> None:
    for handle in [loop.call_later(delay, int) for delay in delays]:
        handle.cancel()


def system_calls(count: int) -> None:
    call = os.getppid
    for _ in range(count):
        call()


def test_add_or_move(beside: Any) -> None:
    """One of 10,000 timers that are set is set again: what every ping and every deadline does."""
    wheel = TimingWheel(4096)
    handles = [TimerHandle() for _ in range(TIMERS)]
    deadlines = [i * 7919 % 6000 + 1 for i in range(TIMERS)]
    move(wheel, handles, deadlines)
    assert len(wheel) == TIMERS
    plain, fast = asyncio.new_event_loop(), uvloop.new_event_loop()
    try:
        beside(
            (move, wheel, handles, deadlines),
            per=TIMERS,
            limit_system_call=(system_calls, TIMERS),
            asyncio_call_later_and_cancel=(call_later, plain, deadlines),
            uvloop_call_later_and_cancel=(call_later, fast, deadlines),
        )
    finally:
        plain.close()
        fast.close()


def expire(wheel: TimingWheel, handles: list[TimerHandle]) -> int:
    """Sets every timer within the next turn, and lets them all pass, tick by tick."""
    now = wheel.now
    for i, handle in enumerate(handles):
        wheel.add(handle, now + 1 + i % 1000)
    return sum(len(wheel.advance(now + tick)) for tick in range(1, 1001))


def test_add_and_expire(beside: Any) -> None:
    wheel = TimingWheel(4096)
    handles = [TimerHandle() for _ in range(TIMERS)]
    assert expire(wheel, handles) == TIMERS
    beside((expire, wheel, handles), per=TIMERS, limit_system_call=(system_calls, TIMERS))


def test_advance_with_nothing_due(beside: Any) -> None:
    """A wake-up at which no timer has passed, with 10,000 far away."""
    wheel = TimingWheel(4096)
    handles = [TimerHandle() for _ in range(TIMERS)]
    move(wheel, handles, [1 << 40] * TIMERS)

    def step() -> None:
        assert not wheel.advance(wheel.now + 1)

    beside((step,), limit_system_call=(os.getppid,))
