"""Why the heartbeat let a client go: four log lines, word for word as the seed wrote them, and counters.

Who is due a ping and who missed one is judged in the core (`Connection.expire`), on one timing wheel and
without a task or a timer per client. A client is let go exactly once.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from heartwire._core.connection import Connection
    from heartwire.metrics import Metrics

__all__ = ["Heartbeat", "Reason"]

Reason = Literal["invalid", "unregistered", "nil_during_ping", "send_error"]

_LINES: Final[dict[Reason, tuple[int, str]]] = {
    "invalid": (logging.DEBUG, "Client %s connection is no longer valid, stopping ping handler"),
    "unregistered": (logging.DEBUG, "Client %s no longer registered, stopping ping handler"),
    "nil_during_ping": (logging.WARNING, "Client %s connection became nil during ping"),
    "send_error": (logging.ERROR, "Failed to send ping to client %s: %s"),
}

logger: logging.Logger = logging.getLogger("heartwire.heartbeat")


class Heartbeat:
    """Tells, once per client, how its pings ended."""

    __slots__ = ("_metrics",)

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def stopped(self, client_id: str, reason: Reason, error: OSError | None = None) -> None:
        """The core let the client go.

        Args:
            client_id: its id.
            reason: `invalid`, a normal end; `nil_during_ping`, it ended before an accepted ping left;
                `send_error`, the operating system failed the send for another reason than a peer that left.
            error: what it said, with `send_error`.
        """
        self._metrics.ping_stopped[reason] += 1
        level, line = _LINES[reason]
        if reason == "send_error":
            logger.log(level, line, client_id, error)
        else:
            logger.log(level, line, client_id)

    def unregister(self, client_id: str, connection: Connection) -> None:
        """The registry lets go of a client whose connection is still open (clean shutdown)."""
        if connection.stop_ping():
            self.stopped(client_id, "unregistered")
