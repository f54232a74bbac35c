"""A clock that stands still until a test moves it, with the callbacks that hang on it."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from heartwire._core.engine import Engine

__all__ = ["ManualClock"]


class _Timer:
    """One call_later: what the engine cancels."""

    __slots__ = ("callback", "due_us")

    def __init__(self, due_us: int, callback: Callable[[], Any]) -> None:
        self.due_us: int = due_us
        self.callback: Callable[[], Any] | None = callback

    def cancel(self) -> None:
        self.callback = None


class ManualClock:
    """Stands in for an event loop and its time: both stand still but in `run`, `advance` and `jump`.

    `call_soon_threadsafe` may be called from any thread; everything else belongs to the thread that made the
    engine.

    Args:
        start: the first reading in seconds; any number of whole milliseconds above 1.
    """

    def __init__(self, start: float = 1000.0) -> None:
        self._now_us = round(start * 1_000_000)
        self._ready: deque[Callable[[], Any]] = deque()
        self._timers: list[tuple[int, int, _Timer]] = []
        self._order = itertools.count()

    def time(self) -> float:
        """Seconds."""
        return self._now_us / 1_000_000

    def engine(self, *, tick_ms: int = 10) -> Engine:
        """An engine whose time and callbacks are this clock's."""
        return Engine(self.call_soon, self.call_later, self.call_soon_threadsafe, self.time, tick_ms)

    # -------------------------------------------------------------- what an engine asks of a loop

    def call_soon(self, callback: Callable[..., Any], *args: Any) -> None:
        """Runs `callback(*args)` at the next `run`, `advance` or `jump`, after those already there."""
        self._ready.append((lambda: callback(*args)) if args else callback)

    call_soon_threadsafe = call_soon

    def call_later(self, seconds: float, callback: Callable[..., Any], *args: Any) -> _Timer:
        """Runs `callback(*args)` once the clock has been moved by so many seconds.

        Returns:
            A handle with `cancel()`.
        """
        timer = _Timer(self._now_us + max(round(seconds * 1_000_000), 0), lambda: callback(*args))
        heapq.heappush(self._timers, (timer.due_us, next(self._order), timer))
        return timer

    # -------------------------------------------------------------- what a test does

    def step(self) -> bool:
        """Runs what is ready now, but not what that makes ready: one turn of a loop.

        Returns:
            True if there was anything.
        """
        count = len(self._ready)
        for _ in range(count):
            self._ready.popleft()()
        return count > 0

    def run(self) -> None:
        """Runs what is ready, and what that makes ready, until nothing is.

        Raises:
            RuntimeError: it did not come to an end within 10,000 turns.
        """
        for _ in range(10_000):
            if not self.step():
                return
        raise RuntimeError("callbacks made others ready without end")

    def advance(self, seconds: float) -> None:
        """Moves time on as a loop with nothing else to do would see it pass: every timer runs when it is due.

        Args:
            seconds: 0 runs what is due now.
        """
        end = self._now_us + round(seconds * 1_000_000)
        self.run()
        while self._timers and self._timers[0][0] <= end:
            due_us, _, timer = heapq.heappop(self._timers)
            if timer.callback is None:
                continue
            self._now_us = max(self._now_us, due_us)
            self._fire(timer)
        self._now_us = end

    def jump(self, seconds: float, *, timers_first: bool = True) -> None:
        """Moves time at once, as for a program that was stalled: timers run late, at the end of the stall.

        Args:
            seconds: how long it was stalled.
            timers_first: False leaves them to the next `advance`, so that input can be fed before.
        """
        self._now_us += round(seconds * 1_000_000)
        if timers_first:
            self.advance(0)

    def _fire(self, timer: _Timer) -> None:
        callback, timer.callback = timer.callback, None
        if callback is not None:
            callback()
        self.run()
