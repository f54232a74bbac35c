"""Both ends of a connection without a network, for tests of the core."""

from __future__ import annotations

from typing import Any

from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.link import Sink
from heartwire.testing import FakeLink, Frame, FramePeer, ManualClock, RecordingSink

HEAD = b"GET /ws HTTP/1.1\r\nHost: a\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


def unopened(**settings: Any) -> tuple[ManualClock, FakeLink, RecordingSink]:
    """A connection whose request has not come yet."""
    clock = ManualClock()
    sink = RecordingSink(accept=False, **{"ping_interval": 0, **settings})
    return clock, FakeLink(clock.engine(), sink), sink


class Pair:
    """An OPEN connection over a FakeLink, and its peer. Without `ping_interval`, nothing pings.

    Args:
        clock, engine, sink: those of another pair; made anew without.
        settings: of RecordingSink.
    """

    def __init__(
        self,
        clock: ManualClock | None = None,
        engine: Engine | None = None,
        sink: Any = None,
        **settings: Any,
    ) -> None:
        self.clock = clock or ManualClock()
        self.engine = engine or self.clock.engine()
        self.sink: Any = sink or RecordingSink(**{"ping_interval": 0, **settings})
        assert isinstance(self.sink, Sink)
        self.link = FakeLink(self.engine, self.sink)
        self.conn: Connection = self.link.connection
        self.peer = FramePeer(self.link)
        self.peer.open()
        self.link.writes.clear()
        assert self.conn.phase == "OPEN"

    def beside(self) -> Pair:
        """Another connection of the same engine and sink."""
        return Pair(self.clock, self.engine, self.sink)

    def sent(self) -> list[Frame]:
        """What the server's side has sent since the last call, after everything that is ready has run."""
        self.clock.run()
        return self.peer.frames()


def texts(frames: list[Frame]) -> list[str]:
    """The text messages among them, all in one frame each."""
    return [frame.payload.decode() for frame in frames if frame.opcode == 1 and frame.fin]
