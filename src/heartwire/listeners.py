"""Listening sockets and the link that serves them: TCP, a Unix path, or what systemd hands over.

Source: sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from heartwire import features
from heartwire._core.engine import Engine
from heartwire.accepting import Listener, PlainListener
from heartwire.proxies import TrustedProxies
from heartwire.tls import ServerTls, TlsListener
from heartwire.transport import TransportLink

if TYPE_CHECKING or features.REACTOR:
    from heartwire._core.reactor import Reactor

if TYPE_CHECKING:
    from heartwire._core.link import Sink
    from heartwire.config import ServerConfig
    from heartwire.refusals import Refusals

__all__ = ["Listeners", "notify_systemd", "open_sockets"]

SYSTEMD_FIRST_FD: Final = 3
IP: Final = (socket.AF_INET, socket.AF_INET6)
UNIX_PATH_MOST: Final = 107 if sys.platform == "linux" else 103  # unix(7); beyond it Python gives no errno


async def open_sockets(config: ServerConfig) -> list[socket.socket]:
    """Opens what the configuration says, or takes what systemd opened (socket activation).

    Raises:
        OSError: the address cannot be had.
    """
    inherited = _systemd_sockets()
    if inherited:
        return inherited
    if config.unix is not None:
        return [_unix_socket(config.unix, config.backlog)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    port = config.port
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            sockets.append(sock)
            if sys.platform == "win32":  # where SO_REUSEADDR lets others take the port
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if config.reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], port, *address[2:]))
            port = sock.getsockname()[1]  # port 0: the second family gets the same
            sock.listen(config.backlog)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def _set_options(sock: socket.socket, config: ServerConfig) -> None:
    """Non-blocking; TCP sends at once and gives up in time. Accepted sockets inherit the latter two."""
    sock.setblocking(False)
    if sock.family in IP:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(config.ping_timeout * 1000))


def _unix_socket(path: Path, backlog: int) -> socket.socket:
    """A listening Unix socket; one that a dead server left behind is replaced, a live one is not."""
    if len(os.fsencode(path)) > UNIX_PATH_MOST:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), str(path))
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a socket", str(path))
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                os.unlink(path)
            else:
                raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE), str(path))
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(str(path))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _systemd_sockets() -> list[socket.socket]:
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    count = int(os.environ.get("LISTEN_FDS", "0"))
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)
    for fd in range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + count):
        os.set_inheritable(fd, False)  # they came through an exec, and shall go no further
    return [socket.socket(fileno=fd) for fd in range(SYSTEMD_FIRST_FD, SYSTEMD_FIRST_FD + count)]


def notify_systemd(state: str) -> None:
    """Tells systemd `READY=1`, `STOPPING=1` and the like, if it asked to be told."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(state.encode(), address)


class Listeners:
    """The listening sockets of one server and the link behind them. Loop thread only.

    Args:
        config: `link`, `unix`, `backlog`.
        engine, sink: what accepted connections belong to.
        refusals: hears of those that came no further than TLS.
    Raises:
        ConfigError: a certificate cannot be used.
    """

    def __init__(self, config: ServerConfig, engine: Engine, sink: Sink, refusals: Refusals) -> None:
        self._config = config
        self._engine = engine
        self._sink = sink
        self._refusals = refusals
        self._loop = asyncio.get_running_loop()
        self.sockets: list[socket.socket] = []
        self._servers: list[asyncio.Server] = []
        self._links: set[TransportLink] = set()
        self._reactor: Reactor | None = None
        self._listeners: list[Listener] = []
        self.tls: ServerTls | None = None if config.tls_cert is None else ServerTls(config)
        """None: plain TCP."""
        self._epoll = features.REACTOR and config.link != "asyncio" and self.tls is None

    async def open(self) -> None:
        """Opens the sockets and accepts from them.

        Raises:
            OSError: an address cannot be had.
        """
        self.sockets = await open_sockets(self._config)
        for sock in self.sockets:
            _set_options(sock, self._config)
        if self._epoll:
            self._reactor = Reactor(self._engine, self._sink)
            self._loop.add_reader(self._reactor.fileno(), self._reactor.on_ready)
            for sock in self.sockets:
                self._reactor.listen(sock.fileno())
            return
        if self.tls is not None:
            self._listeners = [self._accept_tls(sock, self.tls) for sock in self.sockets]
            return
        if sys.platform == "win32":  # a loop that cannot watch sockets
            for sock in self.sockets:
                server = await self._loop.create_server(self.link, sock=sock, backlog=self._config.backlog)
                self._servers.append(server)
            return
        self._listeners = [PlainListener(sock, lambda peer: self.link(address=peer)) for sock in self.sockets]

    def _accept_tls(self, sock: socket.socket, tls: ServerTls) -> TlsListener:
        return TlsListener(
            sock, tls, lambda address: self.link(introduced=True, address=address),
            timeout_s=self._config.handshake_timeout,
            proxies=TrustedProxies.of(self._config) if self._config.proxy_protocol else None,
            refusals=self._refusals,
        )  # fmt: skip

    def link(self, *, introduced: bool = False, address: tuple[str, int] | None = None) -> TransportLink:
        """A protocol for one asyncio transport. The arguments are those of TransportLink."""
        return TransportLink(self._engine, self._sink, self._links, introduced=introduced, address=address)

    @property
    def starved(self) -> bool:
        """True while the process is out of descriptors and the listeners pause."""
        if self._reactor is not None:
            return self._reactor.starved
        return any(listener.starved for listener in self._listeners)

    @property
    def port(self) -> int:
        """The TCP port, also where the kernel chose it; 0 on a Unix socket."""
        for sock in self.sockets:
            if sock.family in IP:
                port: int = sock.getsockname()[1]
                return port
        return 0

    def adopt(
        self, transport: asyncio.Transport, received: bytes, address: tuple[str, int] | None = None
    ) -> None:
        """Takes over the connection of another protocol, whose request head was read from it.

        Args:
            address: of the peer, where a PROXY header told it.
        """
        if self._reactor is not None:
            fd = os.dup(transport.get_extra_info("socket").fileno())
            os.set_blocking(fd, False)
            transport.abort()  # closes the transport's descriptor, not the connection
            self._reactor.adopt(fd, received, address)
            return
        link = self.link(introduced=True, address=address)
        transport.set_protocol(link)
        link.connection_made(transport)
        transport.resume_reading()
        link.receive(received)

    def hand_over(self, released: Any, received: bytes, protocol: asyncio.Protocol) -> None:
        """Gives a released connection (a descriptor or a transport) to another protocol, with its first
        bytes."""
        if isinstance(released, int):
            sock = socket.socket(fileno=released)
            sock.setblocking(False)
            first = _FirstBytes(protocol, received)
            task = self._loop.create_task(self._connect(first, sock))
            _kept.add(task)
            task.add_done_callback(_kept.discard)
        else:
            released.set_protocol(protocol)
            protocol.connection_made(released)
            protocol.data_received(received)

    async def _connect(self, protocol: _FirstBytes, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: protocol, sock)
        except OSError:
            sock.close()  # it has gone already

    async def close(self) -> None:
        """Accepts no more; the sockets and a Unix path are gone. Open connections stay."""
        for server in self._servers:
            server.close()
        for listener in self._listeners:
            listener.close()
        for sock in self.sockets:
            if self._reactor is not None:
                self._reactor.unlisten(sock.fileno())
            if self._config.unix is not None and sock.family not in IP:
                with contextlib.suppress(OSError):
                    os.unlink(self._config.unix)
            sock.close()
        self.sockets = []

    def abort_all(self) -> None:
        """Closes every connection at once."""
        if self._reactor is not None:
            self._reactor.abort_all()
        for link in list(self._links):
            link.abort()

    def stop(self) -> None:
        """Ends the link itself, once every connection is closed."""
        if self._reactor is not None:
            self._loop.remove_reader(self._reactor.fileno())
            self._reactor.close()
            self._reactor = None


_kept: set[asyncio.Task[None]] = set()


class _FirstBytes(asyncio.Protocol):
    """Gives way to another protocol at once, and hands it the bytes that were read before."""

    def __init__(self, protocol: asyncio.Protocol, received: bytes) -> None:
        self._protocol = protocol
        self._received = received

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).set_protocol(self._protocol)  # uvloop's is no subclass of it
        self._protocol.connection_made(transport)
        self._protocol.data_received(self._received)
