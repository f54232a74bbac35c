"""A token bucket: so much at once, so much a second in the long run."""

from typing import Self, final

__all__ = ["TokenBucket"]

@final
class TokenBucket:
    """Begins full. One thread at a time.

    Args:
        per_second: units that flow in each second.
        burst: units it holds, at least 1.

    Raises:
        ValueError: a value is out of its range.
    """

    def __new__(cls, per_second: float, burst: int) -> Self: ...
    def take(self, units: int, now_ns: int) -> bool:
        """Take units out, if there are so many; more than `burst` need a full bucket and leave a debt.

        Args:
            now_ns: nanoseconds of a clock that never goes back.

        Returns:
            False if nothing was taken.
        """
