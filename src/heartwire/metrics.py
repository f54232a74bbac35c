"""Counters of the shell, by name and label. Those of the data path live in the core (`Engine.statistics`)."""

from __future__ import annotations

from collections import Counter
from typing import Final

__all__ = ["HookFigures", "Metrics"]

LABELS_MOST: Final = 100


class LabelCounter(Counter[str]):
    """Counts by label; labels beyond the hundredth count as `other`.

    Applications choose error codes, and one that puts an id into them must not fill the memory.
    """

    def __setitem__(self, label: str, count: int) -> None:
        if label in self or len(self) < LABELS_MOST:
            super().__setitem__(label, count)
        else:  # count is 1: what is not there counted 0
            super().__setitem__("other", self["other"] + count)


class HookFigures:
    """What the hooks of one server count."""

    __slots__ = ("answers", "delivered", "dropped", "queued", "queued_bytes", "requests")

    def __init__(self) -> None:
        self.queued: int = 0
        """Events that wait, those under way included."""
        self.queued_bytes: int = 0
        self.delivered: int = 0
        self.dropped: Counter[str] = Counter(queue_full=0, refused=0, gave_up=0, shutdown=0)
        """Events that were not delivered, by reason."""
        self.requests: Counter[str] = Counter(ok=0, refused=0, busy=0, timeout=0, unreachable=0)
        """Requests to `webhook_url`, by outcome."""
        self.answers: Counter[str] = Counter(allowed=0, denied=0, failed=0)
        """Requests to `authorize_url`, by answer."""

    def snapshot(self) -> dict[str, int | dict[str, int]]:
        """All of it, by name."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return {name: dict(v) if isinstance(v, Counter) else v for name, v in values.items()}


class Metrics:
    """What one server counts. Written by the loop's thread; reading from others sees a recent value."""

    __slots__ = (
        "bad_json", "connects", "disconnects", "errors", "hooks", "ping_stopped", "rate_limited", "refusals",
        "tokens_renewed", "waiting_for_keys",
    )  # fmt: skip

    def __init__(self) -> None:
        self.connects: int = 0
        self.disconnects: Counter[str] = Counter()
        """By cause."""
        self.ping_stopped: Counter[str] = Counter(invalid=0, unregistered=0, nil_during_ping=0, send_error=0)
        """By reason: why the heartbeat let a client go."""
        self.refusals: Counter[str] = LabelCounter()
        """Handshakes refused, by HTTP status and code, as `401 token_invalid`."""
        self.rate_limited: Counter[str] = Counter(messages=0, bytes=0)
        """Messages thrown away because they came too fast, by the limit they broke."""
        self.errors: Counter[str] = LabelCounter()
        """`error` events sent, by code."""
        self.bad_json: int = 0
        self.hooks: HookFigures = HookFigures()
        self.tokens_renewed: int = 0
        """Tokens that replaced one of the same user in place."""
        self.waiting_for_keys: int = 0
        """Tokens whose verdict waits for new keys, now."""
