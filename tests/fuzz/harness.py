"""What the fuzzers share: a connection of the core, or a whole server, for their inputs; cutting streams."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

from heartwire.testing import ManualClock, RecordingSink
from pair import Pair
from serverless import Serverless

S = TypeVar("S", bound=Serverless)

_clock: Final = ManualClock()
_engine: Final = _clock.engine()
_servers: dict[Callable[[], Serverless], Serverless] = {}


@contextmanager
def connection(**settings: Any) -> Iterator[Pair]:
    """A connection after its handshake, with nothing that is due by time; in the end it is closed, and
    nothing of it may be left.

    Args:
        settings: of RecordingSink.
    """
    quiet = {"ping_interval": 0, "handshake_timeout": 0, "message_timeout": 0}
    pair = Pair(_clock, _engine, RecordingSink(**quiet, **settings))
    yield pair
    pair.conn.abort()
    _clock.run()
    assert pair.sink.of("failure") == []
    assert (pair.conn.phase, pair.link.closes, pair.link.late_writes) == ("CLOSED", 1, 0)


def server(make: Callable[[], S]) -> S:
    """The server of all inputs: made by `make` for the first of them."""
    if make not in _servers:
        _servers[make] = make()
    return cast(S, _servers[make])


def close() -> None:
    """Stops the servers."""
    while _servers:
        _servers.popitem()[1].close()


def pieces(stream: bytes, most: int, seed: int = 0) -> list[bytes]:
    """The stream in pieces of 1 to `most` bytes, drawn by a seed."""
    rng = random.Random(seed)
    cut, at = [], 0
    while at < len(stream):
        step = rng.randint(1, most)
        cut.append(stream[at : at + step])
        at += step
    return cut
