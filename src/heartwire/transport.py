"""The portable link: asyncio transports carry the bytes of the same Connection.

For TLS, macOS and Windows, and for `--link asyncio`. Plain TCP on Linux uses the reactor, which needs no
transport and no protocol object per connection.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Any, Final, cast

from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.link import Link, Sink

__all__ = ["TransportLink"]

WRITE_HIGH_WATER: Final = 65536  # above it bytes stay in the connection's queue, where its limit counts them
ABORT_AFTER_S: Final = 1.0


class TransportLink(Link, asyncio.BufferedProtocol):
    """One transport and its Connection. A protocol factory's product. Loop thread only.

    Args:
        engine, sink: of the connection.
        links: it stands there while its connection is open.
        introduced: no PROXY header will come.
        address: of the peer, where such a header told it before.
    """

    def __init__(
        self,
        engine: Engine,
        sink: Sink,
        links: set[TransportLink],
        *,
        introduced: bool = False,
        address: tuple[str, int] | None = None,
    ) -> None:
        self._engine = engine
        self._sink = sink
        self._links = links
        self._introduced = introduced
        self._address = address
        self._tls = False
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._blocked = False
        self._abort: asyncio.TimerHandle | None = None

    # -------------------------------------------------------------- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=WRITE_HIGH_WATER)
        self._connection = Connection(self._engine, self._sink, self)
        self._links.add(self)
        self._connection.armed()
        self._connection.introduced = self._introduced
        self._tls = transport.get_extra_info("sslcontext") is not None
        address: Any = self._address or transport.get_extra_info("peername")
        if isinstance(address, tuple):
            self._connection.set_peer(address[0].partition("%")[0], address[1])

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._engine.receive_buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._connection is not None:
            self._connection.feed_buffer(nbytes)

    def receive(self, data: bytes) -> None:
        """Takes bytes that another protocol of the same transport had read."""
        if self._connection is not None:
            self._connection.feed(data)

    def eof_received(self) -> bool:
        if self._connection is not None:
            self._connection.feed_eof()
        return not self._tls  # the connection decides when to close; TLS knows no half-closed ones

    def connection_lost(self, exc: Exception | None) -> None:
        connection, self._connection = self._connection, None
        self._links.discard(self)
        if self._abort is not None:
            self._abort.cancel()  # a transport that has ended cannot be aborted any more
        if connection is not None:
            connection.feed_loss(exc.errno or 0 if isinstance(exc, OSError) else 0)
        self._transport = None

    def pause_writing(self) -> None:
        self._blocked = True

    def resume_writing(self) -> None:
        self._blocked = False
        if self._connection is not None:
            self._connection.writable()

    # -------------------------------------------------------------- the connection's side

    def write(self, conn: Connection, data: bytes) -> int:
        transport = self._transport
        if transport is None or transport.is_closing():
            raise BrokenPipeError(errno.EPIPE, "the transport is closed")
        taken = 0
        view = memoryview(data)
        # In pieces: a transport takes whatever it is given, and says only afterwards that it was too much.
        while taken < len(data) and not self._blocked:
            piece = view[taken : taken + WRITE_HIGH_WATER]
            transport.write(piece)
            taken += len(piece)
        return taken

    def update(self, conn: Connection, reading: bool, writing: bool) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if reading:
            transport.resume_reading()
        else:
            transport.pause_reading()

    def write_eof(self, conn: Connection) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and transport.can_write_eof():
            transport.write_eof()

    def abort(self) -> None:
        """Closes the connection at once."""
        if self._connection is not None:
            self._connection.abort("shutdown", 1001)

    def close(self, conn: Connection) -> None:
        transport, self._transport, self._connection = self._transport, None, None
        self._links.discard(self)
        if transport is None:
            return
        if self._tls or transport.get_write_buffer_size():
            transport.close()  # what it took still goes out, for a while
            self._abort = asyncio.get_running_loop().call_later(ABORT_AFTER_S, transport.abort)
        else:
            transport.abort()

    def release(self, conn: Connection) -> asyncio.Transport:
        transport, self._transport, self._connection = self._transport, None, None
        self._links.discard(self)
        assert transport is not None
        return transport
