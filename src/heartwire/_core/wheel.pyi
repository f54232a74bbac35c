"""A hashed timing wheel: timers that cost O(1) to set and to cancel, however many there are."""

from typing import Any, Self, final

__all__ = ["TimerHandle", "TimingWheel"]

@final
class TimerHandle:
    """One timer, which can be set again and again; `value` is the owner's, the wheel ignores it."""

    value: Any
    def __new__(cls, value: Any = None) -> Self: ...
    @property
    def deadline(self) -> int:
        """The tick it was last set to, 0 if it never was."""

    @property
    def linked(self) -> bool:
        """Whether it is in a wheel."""

@final
class TimingWheel:
    """Timers by absolute tick; what a tick is, the owner decides.

    The wheel keeps the handles it holds alive. One thread at a time.

    Args:
        slot_count: a power of two of at least 64. A timer further away than this many ticks is
            looked at once a turn.
        now: the tick to begin with.

    Raises:
        ValueError: `slot_count` is no such number.
    """

    def __new__(cls, slot_count: int = 1024, now: int = 0) -> Self: ...
    def add(self, handle: TimerHandle, deadline: int) -> None:
        """Set a timer, or move one that is set. One that is already due expires with the next `advance`.

        Raises:
            ValueError: the handle is in another wheel.
        """

    def remove(self, handle: TimerHandle) -> None:
        """Cancel a timer; nothing happens if it is not set.

        Raises:
            ValueError: the handle is in another wheel.
        """

    def advance(self, now: int) -> list[TimerHandle]:
        """Move time to `now` (never backwards) and take out what is due by then.

        Costs one look at each slot in use between the two times, at most one turn of the wheel.

        Returns:
            The expired handles, no longer in the wheel. From one call to the next they come in order
            of their deadlines; within one call the order is not fixed.
        """

    def next_deadline(self) -> int | None:
        """The earliest tick at which `advance` may find something, `now` if it would at once.

        It is never late; it is early where the next slot in use holds only timers of a later turn.

        Returns:
            The tick, or None if the wheel is empty.
        """

    def check(self) -> None:
        """Verify every invariant of the structure, for tests.

        Raises:
            AssertionError: one is broken.
        """

    def __len__(self) -> int: ...
    @property
    def slot_count(self) -> int:
        """Slots of the wheel, which is the ticks of one turn."""

    @property
    def now(self) -> int:
        """The last tick that was advanced to."""
