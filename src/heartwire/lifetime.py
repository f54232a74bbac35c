"""How a server lives and ends: draining, stopping, and what signals ask for (protocol.md 7).

`Server.start` makes the parts; here is the order in which they are ended.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

from heartwire.errors import ConfigError
from heartwire.listeners import notify_systemd

if TYPE_CHECKING:
    from heartwire._core.engine import Engine
    from heartwire.admission import Admission
    from heartwire.authorization_hook import AuthorizationHook
    from heartwire.brokers import Broker
    from heartwire.client import Client
    from heartwire.config import ServerConfig
    from heartwire.handler_tasks import HandlerTasks
    from heartwire.heartbeat import Heartbeat
    from heartwire.http_server import HttpServer
    from heartwire.listeners import Listeners
    from heartwire.logs import RateLimited
    from heartwire.presence import Presence
    from heartwire.registry import Registry
    from heartwire.verification import Verification
    from heartwire.webhooks import Webhooks

__all__ = ["Lifetime", "loop_factory"]

LAG_EVERY_S: Final = 1.0
SHUTDOWN_SPREAD_MS: Final = 3000  # the most a client is told to wait after a shutdown without a drain

logger: logging.Logger = logging.getLogger("heartwire")


class Lifetime:
    """From "new" to "stopped", once. Loop thread only.

    Args:
        config: the server's options.
        registry: whom to send away.
        heartbeat: is told who is let go of.
    """

    # Filled in by `Server.start`, which wires the parts.
    engine: Engine
    admission: Admission
    tasks: HandlerTasks
    listeners: Listeners
    http: HttpServer
    verification: Verification | None
    log: RateLimited
    broker: Broker
    presence: Presence
    hooks: tuple[Webhooks | AuthorizationHook, ...] = ()

    def __init__(self, config: ServerConfig, registry: Registry, heartbeat: Heartbeat) -> None:
        self._config = config
        self._registry = registry
        self._heartbeat = heartbeat
        self._stopping: asyncio.Task[None] | None = None
        self._ended: asyncio.Event | None = None
        self.state: Literal["new", "running", "draining", "stopped"] = "new"

    async def begin(self) -> None:
        """Listens.

        Raises:
            OSError: the address cannot be had.
        """
        for hook in self.hooks:
            hook.start()
        try:
            await self.broker.start(self._registry)
            await self.http.start()
            await self.listeners.open()
        except BaseException:
            await self.http.stop()
            await self._stop_hooks()
            await self.broker.stop()
            self.state = "stopped"
            raise
        if self.verification is not None:
            self.verification.start()
        self._ended = asyncio.Event()
        self.state = "running"
        self._measure_lag()

    def _measure_lag(self) -> None:
        """Once a second: how late does the loop call? Without clients no deadline tells."""
        due = time.monotonic() + LAG_EVERY_S

        def wake() -> None:
            if self.state != "stopped":
                self.engine.note_lag(time.monotonic() - due)
                self._measure_lag()

        self._lag_timer = asyncio.get_running_loop().call_later(LAG_EVERY_S, wake)

    def not_ready(self) -> str | None:
        """Why new clients should not come here, or None if they should."""
        if self.state != "running":
            return "draining"
        if self.verification is not None and (problem := self.verification.problem()):
            return problem
        if self.broker.away() is not None:
            return "the broker is away"
        return "out of descriptors" if self.listeners.starved else None

    # -------------------------------------------------------------- draining

    async def drain(self) -> None:
        """`Server.drain`."""
        if self._stopping is not None:
            await self.stop()
        if self.state != "running":
            return
        self.state = "draining"
        self.admission.draining = True
        logger.info("draining %d clients", len(self._registry.clients))
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.drain_timeout
        try:
            async with asyncio.timeout_at(end):
                if self._registry.clients:
                    await self._pause(self._config.drain_delay)
                await self._send_away(end - loop.time())
        except TimeoutError:
            for client in list(self._registry.clients.values()):
                client.connection.abort("drain", 1012)
            self.listeners.abort_all()
        await self.stop()

    async def _send_away(self, time_left: float) -> None:
        window = min(self._config.drain_window, max(time_left - self._config.close_timeout, 0))
        clients = list(self._registry.clients.values())
        random.shuffle(clients)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for i, client in enumerate(clients):
            behind = start + window * i / len(clients) - loop.time()
            if behind > 0.001:
                await self._pause(behind)
            self._let_go(client, 1012, "drain", round(window * 1000))
        while self.admission.open:  # noqa: ASYNC110 - connections need not know who waits for their end
            await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        """Waits, but not longer than the server runs: somebody may stop it during a drain."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.wait_closed()

    def _let_go(self, client: Client, code: int, cause: str, spread_ms: int) -> None:
        """The registry lets an open client go: the heartbeat says so, and the client is told when to come
        back."""
        conn = client.connection
        if not conn.is_open:
            return
        self._heartbeat.unregister(client.id, conn)
        conn.close(code, f"reconnect_in={random.randint(0, max(spread_ms, 1))}", cause)

    # -------------------------------------------------------------- stopping

    async def stop(self) -> None:
        """`Server.stop`."""
        if self.state in ("new", "stopped"):
            return
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self.state = "draining"
        self.admission.draining = True
        await self.listeners.close()
        self.admission.turn_away()
        for client in list(self._registry.clients.values()):
            self._let_go(client, 1001, "shutdown", SHUTDOWN_SPREAD_MS)
        await self._wait_for_clients()
        await self._stop_hooks()  # they were told of every end by now
        self.state = "stopped"
        if self.verification is not None:
            await self.verification.stop()
        self.presence.stop()
        await self.broker.stop()
        await self.http.stop()
        self.listeners.stop()
        self.admission.close()
        self.engine.stop()
        self.log.tell(at_once=True)
        self._lag_timer.cancel()
        assert self._ended is not None
        self._ended.set()

    async def _wait_for_clients(self) -> None:
        """Connections end, at the latest after `close_timeout`; then handlers, after `handler_timeout`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self._config.close_timeout
        await asyncio.sleep(0)  # in which answers leave that nobody waits for
        while self.admission.open and loop.time() < end:  # noqa: ASYNC110 - as in `_send_away`
            await asyncio.sleep(0.005)
        self.listeners.abort_all()
        await asyncio.sleep(0)
        await self.tasks.wait()

    async def _stop_hooks(self) -> None:
        for hook in self.hooks:
            await hook.stop()

    async def wait_closed(self) -> None:
        """Waits until the server has stopped."""
        assert self._ended is not None
        await self._ended.wait()

    # -------------------------------------------------------------- signals

    def reload(self) -> None:
        """Reads files with secrets, keys and certificates again; connections stay. Files that cannot be used
        are told in the log, and what was loaded stays."""
        if self.verification is not None:
            self.verification.reload()
        if self.listeners.tls is None:
            return
        try:
            self.listeners.tls.reload()
        except ConfigError as error:
            logger.error("the certificates were not loaded again: %s", error)
        else:
            logger.info("the certificates were loaded again")

    def heed_signals(self) -> None:
        """From now on SIGTERM drains; SIGINT, or a second signal, stops at once; SIGHUP reads files again."""
        loop = asyncio.get_running_loop()
        ending: list[asyncio.Task[None]] = []

        def on_signal(gently: bool) -> None:
            notify_systemd("STOPPING=1")
            if ending or not gently:
                logger.info("stopping")
                ending.append(loop.create_task(self.stop()))
            else:
                ending.append(loop.create_task(self.drain()))

        _handle_signal(loop, signal.SIGTERM, on_signal, True)
        _handle_signal(loop, signal.SIGINT, on_signal, False)
        if hasattr(signal, "SIGHUP"):  # not on Windows
            _handle_signal(loop, signal.SIGHUP, self.reload)


def _handle_signal(
    loop: asyncio.AbstractEventLoop, number: signal.Signals, call: Callable[..., None], *args: Any
) -> None:
    try:
        loop.add_signal_handler(number, call, *args)
    except NotImplementedError:  # the loops of Windows
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(call, *args))


def loop_factory(wanted: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the event loop that the option `loop` names; None is asyncio's own.

    Raises:
        ConfigError: uvloop is wanted and not installed.
    """
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if wanted == "uvloop":
            raise ConfigError("loop", "uvloop is not installed: pip install uvloop") from None
        return None
    return uvloop.new_event_loop
