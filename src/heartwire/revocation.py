"""Tokens that are taken back before their end: a bounded set that is asked after a token was found good.

It holds what was revoked until the tokens concerned have ended by themselves. It never drops an entry before,
and takes no more when it is full: a revocation either holds or is refused. It belongs to one process and
does not survive it.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import msgspec

if TYPE_CHECKING:
    from heartwire.credentials import Credentials

__all__ = ["Revocations", "RevocationsFull"]

PURGED_AT_ONCE: Final = 256  # many that end together must not hold up the loop

_TOKEN, _USER = 0, 1


class RevocationsFull(Exception):
    """There is no room for another revocation: nothing was revoked."""


class _Identity(msgspec.Struct, gc=False):
    # Any: claims of an application's own authenticator were checked by nobody.
    jti: Any = None
    iat: Any = None


class Revocations:
    """What was revoked. Loop thread only.

    Args:
        limit: most entries, one for each `jti` and each user; an attribute too.
        clock: Unix time, seconds.
    """

    __slots__ = ("_before", "_clock", "_ends", "_entries", "limit")

    def __init__(self, limit: int, clock: Callable[[], float] = time.time) -> None:
        self.limit: Final = limit
        self._clock: Final = clock
        self._before = float("-inf")
        """Every token issued before this instant is revoked."""
        # (kind, name) -> (revoked if issued before, remembered until)
        self._entries: dict[tuple[int, str], tuple[float, float]] = {}
        # (remembered until, key), soonest first. An entry that was prolonged is there more than once.
        self._ends: list[tuple[float, tuple[int, str]]] = []

    def __len__(self) -> int:
        return len(self._entries)

    def __bool__(self) -> bool:
        return bool(self._entries) or self._before > float("-inf")

    def __repr__(self) -> str:
        return f"<Revocations: {len(self)} of {self.limit}>"

    def revoke_token(self, jti: str, until: float) -> None:
        """Revokes the token with this `jti`, which has ended by itself at `until` (Unix seconds).

        Raises:
            RevocationsFull: as all of these.
        """
        self._add((_TOKEN, jti), float("inf"), until)

    def revoke_user(self, user_id: str, before: float, until: float) -> None:
        """Revokes a user's tokens that were issued before an instant and have ended at `until`."""
        self._add((_USER, user_id), before, until)

    def revoke_before(self, before: float) -> None:
        """Revokes everybody's tokens that were issued before an instant. Needs no room."""
        self._before = max(self._before, before)

    def covers(self, credentials: Credentials) -> bool:
        """Whether these claims are of a revoked token. Without `iat` a token counts as issued long ago."""
        if not self:
            return False
        identity = msgspec.json.decode(credentials.claims_json, type=_Identity)
        issued_at = identity.iat if isinstance(identity.iat, int | float) else float("-inf")
        if issued_at < self._before:
            return True
        now = self._clock()
        by_user = self._entries.get((_USER, credentials.user_id))
        if by_user is not None and issued_at < by_user[0] and now < by_user[1]:
            return True
        if not isinstance(identity.jti, str):
            return False
        by_token = self._entries.get((_TOKEN, identity.jti))
        return by_token is not None and now < by_token[1]

    def _add(self, key: tuple[int, str], before: float, until: float) -> None:
        self._purge()
        known = self._entries.get(key)
        if known is None and len(self._entries) >= self.limit:
            raise RevocationsFull
        if known is not None:
            before, until = max(before, known[0]), max(until, known[1])
        self._entries[key] = before, until
        if known is None or until > known[1]:
            heapq.heappush(self._ends, (until, key))
            if len(self._ends) > 2 * self.limit:  # half of it is of entries that were prolonged
                self._ends = [(entry[1], key) for key, entry in self._entries.items()]
                heapq.heapify(self._ends)

    def _purge(self) -> None:
        now = self._clock()
        done = 0
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            entry = self._entries.get(key)
            if entry is not None and entry[1] <= until:
                del self._entries[key]
            done += 1
            if done >= PURGED_AT_ONCE and len(self._entries) < self.limit:
                return
