"""Asynchronous handlers, and clients that a handler reads by hand.

While a handler of a client runs, the client is not read from, unless that handler reads it itself. Tasks that
nobody else keeps are kept here, so that the collector does not end them and the server can wait for them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from heartwire.client import HELD, READING
from heartwire.errors import ConnectionClosed

if TYPE_CHECKING:
    from heartwire.client import Client

__all__ = ["HandlerTasks", "Then", "start_task"]

Then = Callable[["Client", Any], None]


class HandlerTasks:
    """The tasks of one server's handlers. Loop thread only.

    Args:
        loop: runs them.
        timeout_s: how long a handler may run; what is late is told to `Dispatcher.on_expired`.
        failed: (client, error, message_id): a handler raised.
        handle: (client, text): handles a message that no reader took. True: it goes on asynchronously.
        disconnected: (client): its connection has gone, and now its last handler has ended.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        failed: Callable[[Client, BaseException, Any], None],
        handle: Callable[[Client, bytes], bool],
        disconnected: Callable[[Client], None],
    ) -> None:
        self.loop = loop
        self.timeout_s = timeout_s
        self.running: set[asyncio.Task[Any]] = set()
        """All that have not ended yet, of whatever client."""
        self._failed = failed
        self._handle = handle
        self._disconnected = disconnected

    def keep(self, task: asyncio.Task[Any]) -> None:
        """Holds on to a task until it ends."""
        self.running.add(task)
        task.add_done_callback(self.running.discard)

    def run(self, client: Client, awaitable: Awaitable[Any], then: Then, message_id: Any) -> bool:
        """Runs a handler to its first wait. True if it goes on: the client is then not read from."""
        conn = client.connection
        outside = conn.special & HELD
        task = start_task(awaitable, self.loop)
        if conn.special & HELD > outside:  # an eager task reads already: it does so inside of this handler
            conn.special ^= HELD | READING
        if task.done():
            self._finish(client, task, then, message_id)
            return False
        self.running.add(task)
        client.running = [*(client.running or ()), task]
        task.add_done_callback(functools.partial(self._finished, client, then, message_id))
        if isinstance(client.reader, asyncio.Future):
            return False
        conn.set_due("handler", self.timeout_s)
        return True

    def _finished(self, client: Client, then: Then, message_id: Any, task: asyncio.Task[Any]) -> None:
        self.running.discard(task)
        client.running = [t for t in client.running or () if t is not task] or None
        self._finish(client, task, then, message_id)
        conn = client.connection
        if conn.phase == "CLOSED":
            if client.running is None and conn.owner is None:
                self._disconnected(client)
            return
        reader = client.reader
        if client.running is None:
            conn.set_due("handler", None)
            if conn.special & READING:
                conn.special &= ~READING
                if isinstance(reader, asyncio.Future):
                    conn.special |= HELD  # the handler has left somebody who reads: outside of handlers now
            if not conn.special & HELD:
                client.reader = None
                goes_on = isinstance(reader, bytes) and conn.is_open and self._handle(client, reader)
                if not goes_on:
                    conn.resume()
                return
        if isinstance(reader, asyncio.Future) and not reader.done():  # done: it has one to take first
            conn.resume()

    def _finish(self, client: Client, task: asyncio.Task[Any], then: Then, message_id: Any) -> None:
        if task.cancelled():
            return
        error = task.exception()
        try:
            if error is None:
                then(client, task.result())
        except Exception as failure:
            error = failure
        if error is not None:
            self._failed(client, error, message_id)
        else:
            client.connection.errors_in_a_row = 0

    def cancel(self, client: Client) -> None:
        """Cancels the handlers of a client."""
        for task in client.running or ():
            task.cancel()

    def cancel_later(self, client: Client) -> None:
        """The client has gone: its handlers have as long again."""
        self.loop.call_later(self.timeout_s, self.cancel, client)

    async def wait(self) -> None:
        """Waits for all, cancels those that are late, and waits for what they start at their end."""
        if self.running:
            _, late = await asyncio.wait(list(self.running), timeout=self.timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await asyncio.sleep(0)  # on_disconnect of those whose handler has just ended
        if self.running:
            await asyncio.wait(list(self.running), timeout=self.timeout_s)

    # -------------------------------------------------------------- reading by hand

    def start_reading(self, client: Client, future: asyncio.Future[bytes]) -> None:
        """Lets the next message through to `future`."""
        conn = client.connection
        if not conn.is_open:
            raise ConnectionClosed(conn.code or 1006, conn.reason or "", conn.cause or "peer_gone")
        client.reader = future
        conn.special |= READING if client.running else HELD
        conn.set_due("handler", None)
        conn.resume()

    def stop_reading(self, client: Client, unread: bytes | None) -> None:
        """The wait is over: what comes next stays with the peer until somebody reads again.

        Args:
            unread: a message that came when its reader was cancelled; the next one gets it.
        """
        client.reader = unread
        conn = client.connection
        if conn.is_open:
            if client.running:
                conn.set_due("handler", self.timeout_s)
            conn.pause()


def start_task(awaitable: Awaitable[Any], loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any]:
    """A task that has run to its first wait already where Python can do that (3.12)."""
    coroutine = awaitable if inspect.iscoroutine(awaitable) else _await(awaitable)
    if sys.version_info >= (3, 12):
        return asyncio.Task(coroutine, loop=loop, eager_start=True)
    return asyncio.Task(coroutine, loop=loop)


async def _await(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
