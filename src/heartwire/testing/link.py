"""A link without a network, which fails when told to, and a sink that notes what it is told."""

from __future__ import annotations

import errno as errno_module
import os
from collections.abc import Callable
from typing import Any

from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.link import Link, Sink

__all__ = ["FakeLink", "RecordingSink"]


class FakeLink(Link):
    """Carries the bytes of one connection, which it makes. One thread, the engine's.

    What the server's side writes is appended to `written`; tests give the peer's bytes to `feed`, or let a
    `FramePeer` do both. The faults below stay until they are taken back, `fail` excepted.

    Args:
        engine: see `ManualClock.engine`.
        sink: a `RecordingSink`, or a server's own.

    Attributes:
        connection: what it carries.
        written: the bytes the peer has got so far.
        blocked: True takes nothing, as a full socket does; `unblock` ends it.
        most: takes at most so many bytes a write, None for all; then it is as good as full.
        dropping: True takes everything, and the peer gets none of it.
        reading: False while the connection asked for no input.
        wants_write: True while it waits for `unblock`.
        eof_sent: the sending side was shut.
        closes: how often the socket was closed: once, in the end.
        late_writes: how often something was written after that: never.
    """

    def __init__(self, engine: Engine, sink: Sink) -> None:
        self.written: bytearray = bytearray()
        self.blocked: bool = False
        self.most: int | None = None
        self.dropping = False
        self.reading: bool = True
        self.wants_write: bool = False
        self.eof_sent: bool = False
        self.closes: int = 0
        self.late_writes: int = 0
        self.writes: list[int] = []
        """Bytes taken by each write, in order."""
        self._fault: int | None = None
        self.connection: Connection = Connection(engine, sink, self)
        self.connection.armed()

    # -------------------------------------------------------------- what a test does

    def feed(self, data: bytes) -> None:
        """Gives the connection bytes of the peer, whether or not it asked for input."""
        self.connection.feed(data)

    def eof(self) -> None:
        """The peer shuts its sending side."""
        self.connection.feed_eof()

    def reset(self, error: int = errno_module.ECONNRESET) -> None:
        """The connection is lost, with this errno."""
        self.connection.feed_loss(error)

    def fail(self, error: int) -> None:
        """The next write raises OSError with this errno."""
        self._fault = error

    def block(self) -> None:
        """Takes nothing from now on."""
        self.blocked = True

    def unblock(self) -> None:
        """Takes bytes again, and tells the connection so."""
        self.blocked = False
        self.connection.writable()

    # -------------------------------------------------------------- the connection's side

    def write(self, conn: Connection, data: bytes) -> int:
        if self.closes:
            self.late_writes += 1
            raise BrokenPipeError(errno_module.EPIPE, "the link was closed")
        if self._fault is not None:
            error, self._fault = self._fault, None
            raise OSError(error, os.strerror(error))
        if self.blocked:
            return 0
        taken = len(data) if self.most is None else min(self.most, len(data))
        self.writes.append(taken)
        if not self.dropping:
            self.written += data[:taken]
        return taken

    def update(self, conn: Connection, reading: bool, writing: bool) -> None:
        self.reading = reading
        self.wants_write = writing

    def write_eof(self, conn: Connection) -> None:
        self.eof_sent = True

    def close(self, conn: Connection) -> None:
        self.closes += 1

    def release(self, conn: Connection) -> FakeLink:
        return self  # it stands for the socket, too



class RecordingSink(Sink):
    """Accepts every request, and notes what happens as tuples in `events`.

    `("head", bytes)`, `("text", str)`, `("binary", bytes)`, `("left", cause)`, `("closed", cause)`,
    `("expired", which)`, `("ping_stopped", reason, error)`, `("limited", limit, bytes or None)`,
    `("failure", error)`.

    Args:
        accept: False leaves request heads unanswered, for the test to `accept` or `refuse`.
        on_message: called with (connection, text or bytes) for each message; True holds reading until
            `connection.resume()`.
        deflate: permessage-deflate is in use on these terms: those of `Connection.use_deflate`.
        settings: of `Sink.configure`, which has the server's own defaults.
    """

    def __init__(
        self,
        *,
        accept: bool = True,
        on_message: Callable[[Connection, Any], object] | None = None,
        deflate: tuple[int, int, bool, bool] | None = None,
        **settings: Any,
    ) -> None:
        self.configure(**settings)
        self.events: list[tuple[Any, ...]] = []
        self.on_message = on_message
        self._accept = accept
        self._deflate = deflate

    def of(self, kind: str) -> list[Any]:
        """What was noted of one kind: without the kind, a tuple where there are several values."""
        return [event[1] if len(event) == 2 else event[1:] for event in self.events if event[0] == kind]

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        self.events.append(("head", head))
        if self._deflate is not None:
            conn.use_deflate(*self._deflate)
        if self._accept and conn.accept(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", self):
            conn.resume()

    def on_text(self, conn: Connection, text: str) -> bool:
        return self._message(conn, "text", text)

    def on_binary(self, conn: Connection, data: bytes) -> bool:
        return self._message(conn, "binary", data)

    def on_rate_limited(self, conn: Connection, limit: str, data: bytes | None) -> None:
        self.events.append(("limited", limit, data))

    def _message(self, conn: Connection, kind: str, value: Any) -> bool:
        self.events.append((kind, value))
        return self.on_message is not None and bool(self.on_message(conn, value))

    def on_left(self, conn: Connection) -> None:
        self.events.append(("left", conn.cause))

    def on_closed(self, conn: Connection) -> None:
        self.events.append(("closed", conn.cause))

    def on_expired(self, conn: Connection, which: str) -> None:
        self.events.append(("expired", which))

    def on_ping_stopped(self, conn: Connection, reason: str, error: OSError | None) -> None:
        self.events.append(("ping_stopped", reason, error))

    def on_failure(self, conn: Connection, error: Exception) -> None:
        self.events.append(("failure", error))
