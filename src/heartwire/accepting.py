"""Accepting from a listening socket in an asyncio loop, which pauses while the process is out of descriptors.

asyncio's own servers would pause for a second, uvloop's hang up on who comes, and neither tells readiness.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from heartwire.transport import TransportLink

__all__ = ["Listener", "PlainListener"]

ACCEPTS: Final = 64  # connections of one burst
PAUSE_S: Final = 0.1  # of the listener when descriptors run out
_EXHAUSTED: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))


class Listener:
    """Accepts from one socket. A connection has a task until it has its transport, and none after.

    Args:
        sock: listens, non-blocking.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._loop.add_reader(sock.fileno(), self._accept)

    @property
    def starved(self) -> bool:
        """True while it pauses, since the process is out of descriptors."""
        return self._pause is not None

    def close(self) -> None:
        """Accepts no more; connections without a transport yet are broken off. The socket stays open."""
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        self._loop.remove_reader(self._sock.fileno())
        for task in self._tasks:
            task.cancel()

    def _accept(self) -> None:
        for _ in range(ACCEPTS):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                self._loop.remove_reader(self._sock.fileno())
                self._pause = self._loop.call_later(PAUSE_S, self._go_on)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._open(sock, _peer(address)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _go_on(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock.fileno(), self._accept)
        self._accept()  # at once, so that readiness does not say 200 for a moment while there is still none

    async def _open(self, sock: socket.socket, peer: tuple[str, int] | None) -> None:
        """Gives an accepted socket its transport, or closes it. Where the peer is, the socket itself cannot
        say any more if it has gone meanwhile."""
        raise NotImplementedError  # abstract: with and without TLS there are other transports


class PlainListener(Listener):
    """Without TLS.

    Args:
        sock: listens, non-blocking.
        make_link: a protocol for the transport, given the peer's address; None: a Unix socket.
    """

    def __init__(
        self, sock: socket.socket, make_link: Callable[[tuple[str, int] | None], TransportLink]
    ) -> None:
        self._make_link = make_link
        super().__init__(sock)

    async def _open(self, sock: socket.socket, peer: tuple[str, int] | None) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make_link(peer), sock)
        except OSError:  # it has gone already
            sock.close()
        except BaseException:
            sock.close()
            raise


def _peer(address: Any) -> tuple[str, int] | None:
    """What `accept` said, as limits, logs and `remote_address` have it."""
    if not isinstance(address, tuple):
        return None
    host: str = address[0].partition("%")[0]
    return host.removeprefix("::ffff:") if "." in host else host, address[1]
