"""A real server beside a synchronous test, in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar
from urllib.parse import quote

import jwt

from heartwire.server import Server
from heartwire.testing.peer import FramePeer

__all__ = ["BackgroundServer", "background_server"]

T = TypeVar("T")

_SECRET: Final = "for tests only: 32 bytes or more"


class BackgroundServer:
    """What `background_server` yields. Any thread, `server` excepted where it says otherwise.

    Attributes:
        server: the server itself.
    """

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop

    @property
    def port(self) -> int:
        """The port the kernel chose."""
        return self.server.port

    def mint(self, sub: str = "user", *, ttl: float = 3600.0, **claims: Any) -> str:
        """A token this server accepts.

        Args:
            sub: the user's id.
            ttl: seconds until it expires; not above 0: it has expired.
            claims: more of them, such as `channels=["private-*"]`.
        Raises:
            ValueError: the server has no secret to sign with.
        """
        secrets = self.server.config.jwt_secrets()
        if not secrets:
            raise ValueError("the server has no jwt_secret: give it one, or none of `server` and `auth`")
        now = int(time.time())
        algorithm = self.server.config.signing_algorithm()
        return jwt.encode({"sub": sub, "exp": now + ttl, "iat": now, **claims}, secrets[0], algorithm)

    def target(self, token: str | None = None) -> str:
        """Path and query of the WebSocket, for an HTTP request line."""
        return self.server.config.path + (f"?token={quote(token)}" if token is not None else "")

    def url(self, token: str | None = None) -> str:
        """The URL for a client; with a token, it carries that in its query."""
        return f"ws://{self.server.config.host}:{self.port}{self.target(token)}"

    def peer(self, token: str | None = None, *, timeout: float = 5.0) -> FramePeer:
        """Connects a frame-level client; without a token given, one is minted.

        Raises:
            ConnectionError: the server refused.
        """
        target = self.target(self.mint() if token is None else token)
        return FramePeer.connect(self.server.config.host, self.port, target, timeout=timeout)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Runs `function(*args)` in the loop's thread and waits for what it returns, or raises it."""

        async def run() -> T:
            return function(*args)

        return self.wait(run())

    def wait(self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Runs a coroutine in the server's loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def until(self, condition: Callable[[], object], timeout: float = 10.0) -> None:
        """Asks `condition` in the server's loop, every few milliseconds, until it is true.

        Raises:
            TimeoutError: it did not become true in so many seconds.
        """
        end = time.monotonic() + timeout
        while not self.call(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"still not so after {timeout} s")
            time.sleep(0.002)


@contextmanager
def background_server(server: Server | None = None, **options: Any) -> Iterator[BackgroundServer]:
    """Runs a server on a free port of the loopback address, and stops it in the end.

    Args:
        server: one with its handlers registered, not started, made with `port=0`. Without, one is made of the
            options.
        options: of `Server`; `port` and `jwt_secret` have defaults here.
    Raises:
        ConfigError: an option does not fit.
        OSError: it could not start.
    """
    if server is None:
        server = Server(**{"port": 0, "jwt_secret": _SECRET, **options})
    elif options:
        raise TypeError("give a server or its options, not both")
    started = threading.Event()
    loops: list[asyncio.AbstractEventLoop] = []
    failures: list[BaseException] = []
    the_server = server

    async def serve() -> None:
        loops.append(asyncio.get_running_loop())
        try:
            await the_server.start()
        except BaseException as error:
            failures.append(error)
            return
        finally:
            started.set()
        await the_server.wait_closed()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="heartwire test server", daemon=True)
    thread.start()
    started.wait()
    if failures:
        thread.join()
        raise failures[0]
    background = BackgroundServer(server, loops[0])
    try:
        yield background
    finally:
        if thread.is_alive():
            background.wait(server.stop())
        thread.join()
