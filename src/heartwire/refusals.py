"""Who was turned away, and why: counted each time, told in the log once in a while for each reason."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from heartwire.logs import RateLimited

if TYPE_CHECKING:
    from heartwire.metrics import Metrics

__all__ = ["Refusals"]

# What an operator should see: limits that are reached, a proxy that does not do as agreed.
_WARNINGS: Final = ("429 ", "503 ", "4429 ", "closed proxy_header", "too_many_channels", "channel_full")

logger: logging.Logger = logging.getLogger("heartwire.refusals")


class Refusals:
    """The refusals of one server. Loop thread only.

    Args:
        metrics: where they count.
        clock: seconds, monotonic.
    """

    def __init__(self, metrics: Metrics, clock: Callable[[], float] = time.monotonic) -> None:
        self._metrics = metrics
        self._log = RateLimited(logger, burst=1, clock=clock)

    def count(self, status: int | str, code: str, address: tuple[str, int]) -> None:
        """A handshake was refused.

        Args:
            status: of the HTTP answer, or `closed` where there was none.
            code: the reason in one word, from the answer.
            address: of the peer.
        """
        reason = f"{status} {code}"
        self._metrics.refusals[reason] += 1
        self.tell(reason, address)

    def tell(self, reason: str, address: tuple[str, int]) -> None:
        """Writes a line for a reason, at most one in ten seconds; those left out are counted."""
        level = logging.WARNING if reason.startswith(_WARNINGS) else logging.INFO
        kind = reason.replace("%", "%%")
        self._log.log(level, f"refused: {kind}, from %s", address[0] or "a Unix socket")

    def close(self) -> None:
        """Tells what was left out so far."""
        self._log.tell(at_once=True)
