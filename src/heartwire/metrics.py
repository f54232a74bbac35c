"""Counters of the shell, by name and label. Those of the data path live in the core (`Engine.statistics`)."""

from __future__ import annotations

from collections import Counter

__all__ = ["Metrics"]


class Metrics:
    """What one server counts. Written by the loop's thread; reading from others sees a recent value."""

    __slots__ = ("bad_json", "connects", "disconnects", "errors", "ping_stopped", "refusals")

    def __init__(self) -> None:
        self.connects = 0
        self.disconnects: Counter[str] = Counter()
        """By cause."""
        self.ping_stopped: Counter[str] = Counter(invalid=0, unregistered=0, nil_during_ping=0, send_error=0)
        """By reason: why the heartbeat let a client go."""
        self.refusals: Counter[str] = Counter()
        """Handshakes refused, by HTTP status and code, as `401 token_invalid`."""
        self.errors: Counter[str] = Counter()
        """`error` events sent, by code."""
        self.bad_json = 0
