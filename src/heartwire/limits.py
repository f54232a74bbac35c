"""How much one address and one user may have: connections, and new ones a second.

What a client may send is limited in the core (csrc/bucket.h). Loop thread only.
"""

from __future__ import annotations

import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from math import ceil
from typing import TYPE_CHECKING, Final

from heartwire.config import burst
from heartwire.errors import Refusal

if TYPE_CHECKING:
    from heartwire._core.connection import Connection
    from heartwire.config import ServerConfig

__all__ = ["AddressLimits", "ConnectRate", "user_is_full"]

ADDRESSES_MOST: Final = 65536  # whose connect rate is known at a time, in about 10 MiB


class ConnectRate:
    """New connections a second of each address: a token bucket for each that connected lately.

    At most `most` addresses are known. Those whose bucket is full again are forgotten; where all are needed,
    the one that has not connected for the longest is, and may then begin anew: memory is bounded, and a flood
    from very many addresses is not this limit's to stop.

    Args:
        per_second: connections in the long run.
        burst: connections at once.
        most: addresses.
    """

    def __init__(self, per_second: float, burst: int, most: int = ADDRESSES_MOST) -> None:
        self._interval = 1 / per_second
        self._room = self._interval * burst
        self._most = most
        self._full_at: OrderedDict[bytes, float] = OrderedDict()
        """By address: when its bucket will be full again (GCRA); those that connected last come last."""

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, address: bytes, now: float) -> float:
        """Lets one connection in.

        Args:
            address: as `Connection.address_key`.
            now: seconds of a monotonic clock.
        Returns:
            0.0, or, if it may not come in, in how many seconds the next may.
        """
        full_at = max(self._full_at.get(address, now), now) + self._interval
        wait = full_at - now - self._room
        if wait > 1e-9:
            return wait
        self._full_at[address] = full_at
        self._full_at.move_to_end(address)
        for _ in range(2):  # more go than come
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] <= now or len(self._full_at) > self._most:
                del self._full_at[oldest]
        return 0.0


class AddressLimits:
    """Both limits of addresses. Peers without one (of a Unix socket) have none.

    Args:
        config: `max_connections_per_address`, `connect_rate`, `connect_burst`.
        clock: seconds, monotonic.
    """

    def __init__(self, config: ServerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = config.max_connections_per_address
        self._clock = clock
        self._rate: ConnectRate | None = None
        if config.connect_rate:
            most_at_once = burst(config.connect_rate, config.connect_burst)
            self._rate = ConnectRate(config.connect_rate, most_at_once)
        self._open: Counter[bytes] = Counter()
        self.active: Final = bool(self._most or config.connect_rate)
        """False: nothing needs to be asked or told."""

    def check(self, conn: Connection) -> None:
        """Judges a request to connect, and counts it for the connect rate.

        Raises:
            Refusal: 429.
        """
        address = conn.address_key
        if not address:
            return
        if self._rate is not None and (wait := self._rate.take(address, self._clock())):
            message = "Too many connections from this address in a short time."
            raise Refusal(429, "connect_rate", message, (("Retry-After", str(ceil(wait))),))
        self.check_room(conn)

    def check_room(self, conn: Connection) -> None:
        """Judges it once more, where the decision about it took time.

        Raises:
            Refusal: 429.
        """
        address = conn.address_key
        if address and self._most and self._open[address] >= self._most:
            message = "This address has as many connections as it may."
            raise Refusal(429, "address_full", message, (("Retry-After", "5"),))

    def opened(self, conn: Connection) -> None:
        """A client was let in."""
        if self._most and (address := conn.address_key):
            self._open[address] += 1

    def closed(self, conn: Connection) -> None:
        """Its socket is closed."""
        if self._most and (address := conn.address_key):
            self._open[address] -= 1
            if not self._open[address]:
                del self._open[address]


def user_is_full() -> Refusal:
    """The answer to a user who has as many connections as they may."""
    message = "This user has as many connections as they may: close one first."
    return Refusal(429, "user_full", message, (("Retry-After", "5"),))
