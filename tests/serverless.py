"""A whole server whose clients are fake links and whose time stands still: everything but the sockets."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from heartwire import Server
from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire.testing import FakeLink

SECRET = "for tests without sockets: 32 bytes or more"


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that runs when told to, and whose clock is moved by tests."""

    def __init__(self) -> None:
        self._now = 1000.0
        super().__init__()

    def time(self) -> float:
        return self._now

    def turn(self) -> None:
        """Runs what is ready now."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """Runs what is ready, and what that makes ready, until nothing is."""
        for _ in range(1000):
            self.turn()
            if not self._ready:  # type: ignore[attr-defined]
                return
        raise RuntimeError("callbacks made others ready without end")

    def advance(self, seconds: float) -> None:
        """Moves time on; every timer runs when it is due."""
        end = self._now + seconds
        self.settle()
        while (due := self._next_due()) is not None and due <= end:
            self._now = max(self._now, due)
            self.settle()
        self._now = end
        self.settle()

    def jump(self, seconds: float) -> None:
        """Moves time at once, as for a program that was stalled: timers run late."""
        self._now += seconds
        self.settle()

    def _next_due(self) -> float | None:
        due = [timer.when() for timer in self._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
        return min(due, default=None)


class Serverless:
    """A running Server without sockets for its clients. `close` it in the end.

    Args:
        server: with its handlers, not started.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.loop = VirtualLoop()
        engine = functools.partial(Engine, clock=self.loop.time)
        same = mock.patch("heartwire._core.engine.urandom", bytes)  # it draws when pings begin
        with mock.patch("heartwire.server.Engine", engine), same:
            self.loop.run_until_complete(server.start())
        self.passed: list[FakeLink] = []
        """Links whose request is for the HTTP server, which gets none here."""
        server._http.take = self._take  # type: ignore[method-assign]
        self.log = _Errors()
        logging.getLogger("heartwire").addHandler(self.log)
        logging.getLogger("heartwire").propagate = False

    def new_link(self) -> FakeLink:
        """A new connection."""
        return FakeLink(self.server._engine, self.server._dispatcher)

    @contextmanager
    def link(self) -> Iterator[FakeLink]:
        """A new connection; in the end it is closed, and nothing of it may be left."""
        link = self.new_link()
        try:
            yield link
        finally:
            link.connection.abort()
            self.loop.turn()
        assert (link.connection.phase, link.late_writes) == ("CLOSED", 0)
        assert link.closes == (link not in self.passed)
        self.passed.clear()
        assert not self.server.clients

    def turn(self) -> None:
        """One turn of the loop."""
        self.loop.turn()
        self.check_log()

    def check_log(self) -> None:
        """Nothing that clients do may cause a warning."""
        lines, self.log.lines = self.log.lines, []
        assert lines == []

    def close(self) -> None:
        """Stops the server."""
        stopping = self.loop.create_task(self.server.stop())
        while not stopping.done():
            self.loop.advance(1)
        logging.getLogger("heartwire").removeHandler(self.log)
        logging.getLogger("heartwire").propagate = True
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _take(self, conn: Connection) -> None:
        link, _ = conn.release()
        self.passed.append(link)


class _Errors(logging.Handler):
    """Keeps warnings and worse."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), record.exc_info))
