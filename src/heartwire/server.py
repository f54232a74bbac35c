"""The server: wires the parts, owns their lifetime, and is what applications program against."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import logging
import random
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar

import msgspec

from heartwire._core.engine import Engine
from heartwire.actions import Actions
from heartwire.admission import Admission
from heartwire.auth import TokenVerifier
from heartwire.client import Client
from heartwire.config import ServerConfig
from heartwire.dispatch import Dispatcher
from heartwire.errors import ConfigError
from heartwire.exposition import Exposition
from heartwire.handlers import Handlers
from heartwire.heartbeat import Heartbeat
from heartwire.http_api import HttpApi
from heartwire.http_server import HttpServer
from heartwire.listeners import Listeners, notify_systemd
from heartwire.messages import encode_event
from heartwire.metrics import Metrics
from heartwire.monitor import Monitor
from heartwire.registry import Channel, Registry, send_to
from heartwire.tokens import Tokens

__all__ = ["Server"]

F = TypeVar("F", bound=Callable[..., Any])
SHUTDOWN_SPREAD_MS: Final = 3000  # the most a client is told to wait after a shutdown without a drain

logger = logging.getLogger("heartwire")


class Server:
    """A WebSocket server for authenticated JSON messaging.

    Register handlers with the decorators, then `run()`, or `async with server:` inside a running program.

    Args:
        options: every option of the command, by the same name (docs/options.md).
    Raises:
        ConfigError: an option does not exist or does not fit.
    """

    def __init__(self, **options: Any) -> None:
        self.config = ServerConfig.from_kwargs(**options)
        secrets = self.config.jwt_secrets()
        self._verifier = _verifier(self.config, secrets) if secrets else None
        self.metrics = Metrics()
        self._handlers = Handlers()
        self._registry = Registry()
        self._heartbeat = Heartbeat(self.metrics)
        self._state: Literal["new", "running", "draining", "stopped"] = "new"
        self._ended: asyncio.Event | None = None
        self._stopping: asyncio.Task[None] | None = None

    # -------------------------------------------------------------- handlers

    def action(self, name: str) -> Callable[[F], F]:
        """Registers the handler of an action: `(client)` or `(client, message)`, sync or async.

        The annotation of `message`, a `Message` or any type msgspec knows, is checked before the handler
        runs. What it returns, unless None, goes back as `{event: name, data, reply_to}`; `ActionError` is
        sent as error.

        Raises:
            ValueError: the name is built in or taken, or the signature does not fit.
        """
        names = sys._getframe(1).f_locals

        def register(handler: F) -> F:
            self._handlers.add_action(name, handler, names)
            return handler

        return register

    def on_message(self, handler: F) -> F:
        """Registers `(client, value)` for every JSON message that no action claims."""
        return self._set("on_message", handler)

    def on_text(self, handler: F) -> F:
        """Registers `(client, text)` for every text message, undecoded. The server then sends no JSON of its
        own."""
        return self._set("on_text", handler)

    def on_binary(self, handler: F) -> F:
        """Registers `(client, data)` for binary messages. Without it they end the connection with 1003."""
        return self._set("on_binary", handler)

    def on_connect(self, handler: F) -> F:
        """Registers `(client)`, called after the upgrade, before the first message. False refuses (4403)."""
        return self._set("on_connect", handler)

    def on_disconnect(self, handler: F) -> F:
        """Registers `(client, cause)`, called once for each client, after its last handler has ended."""
        return self._set("on_disconnect", handler)

    def authenticate(self, handler: F) -> F:
        """Registers `(request)`, which decides before the upgrade instead of the token: it returns a user id,
        a dict of claims with `sub`, or Credentials; None or a raised Refusal refuses."""
        return self._set("authenticate", handler)

    def authorize(self, handler: F) -> F:
        """Registers `(client, verb, channel) -> bool`, asked for each "join" and "publish"."""
        return self._set("authorize", handler)

    def _set(self, name: str, handler: F) -> F:
        self._handlers.set(name, handler)
        return handler

    # -------------------------------------------------------------- who is here

    @property
    def clients(self) -> Mapping[str, Client]:
        """Connected clients by id: a live view."""
        return MappingProxyType(self._registry.clients)

    @property
    def channels(self) -> Mapping[str, Channel]:
        """Channels with members by name: a live view."""
        return MappingProxyType(self._registry.channels)

    @property
    def users(self) -> Mapping[str, tuple[Client, ...]]:
        """Users and their clients: a live view."""
        return _Users(self._registry)

    @property
    def port(self) -> int:
        """The TCP port, once started: also where `port=0` let the kernel choose."""
        return self._listeners.port

    @property
    def http_port(self) -> int:
        """The TCP port of the HTTP API, once started: `port`, unless the option `http_port` sets it apart."""
        return self._http.port or self._listeners.port

    def stats(self) -> dict[str, Any]:
        """A snapshot of what the server counted since its start."""
        registry = self._registry
        engine: dict[str, int] = self._engine.statistics() if self._state != "new" else {}
        return {
            "clients": len(registry.clients),
            "users": len(registry.members_by_user),
            "channels": len(registry.channels),
            "disconnects": dict(self.metrics.disconnects),
            "ping_stopped": dict(self.metrics.ping_stopped),
            "refusals": dict(self.metrics.refusals),
            "errors": dict(self.metrics.errors),
            **engine,
        }

    # -------------------------------------------------------------- sending to many

    def to_channel(self, channel: str, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to a channel's members. Returns as `broadcast`."""
        return self._fan_out(lambda: self._registry.members(channel), event, data, channel, skip)

    def to_user(self, user_id: str, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to all of a user's clients. Returns as `broadcast`."""
        return self._fan_out(lambda: self._registry.clients_of(user_id), event, data, None, skip)

    def to_all(self, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to every client. Returns as `broadcast`."""
        return self._fan_out(self._registry.everybody, event, data, None, skip)

    def broadcast(
        self, event: str, data: Any = None, *, channel: str | None = None, user_id: str | None = None,
        skip: Client | None = None,
    ) -> Any:  # fmt: skip
        """Sends an event to a channel, a user, or everybody: encoded once, never blocking.

        Args:
            event, data: as in `Client.send_event`.
            channel, user_id: at most one of them.
            skip: a client that gets nothing.
        Returns:
            In the loop's thread, for how many clients it was queued; from another thread a
            `concurrent.futures.Future` of that number.
        Raises:
            TypeError: both were given, or data cannot be written as JSON.
            RuntimeError: the server is not running.
        """
        if channel is not None and user_id is not None:
            raise TypeError("broadcast goes to a channel or to a user, not to both")
        if channel is not None:
            return self.to_channel(channel, event, data, skip=skip)
        if user_id is not None:
            return self.to_user(user_id, event, data, skip=skip)
        return self.to_all(event, data, skip=skip)

    def _fan_out(
        self, members: Callable[[], dict[Client, Any]], event: str, data: Any, channel: str | None,
        skip: Client | None,
    ) -> int | concurrent.futures.Future[int]:  # fmt: skip
        if self._state in ("new", "stopped"):
            raise RuntimeError("the server is not running")
        payload = encode_event(event, data, channel=msgspec.UNSET if channel is None else channel)
        if not self._engine.is_foreign():
            return send_to(members(), payload, skip)
        future: concurrent.futures.Future[int] = concurrent.futures.Future()

        def deliver() -> None:
            future.set_result(send_to(members(), payload, skip))

        if not self._engine.post(deliver):
            future.set_exception(RuntimeError("the server is not running"))
        return future

    # -------------------------------------------------------------- lifetime

    async def start(self) -> None:
        """Listens and serves in the running loop.

        Raises:
            OSError: the address cannot be had.
            RuntimeError: it was started before: a server runs once.
        """
        if self._state != "new":
            raise RuntimeError("a server runs once: make a new one")
        loop = asyncio.get_running_loop()
        config = self.config
        interval_ms = round(config.ping_interval * 1000)
        self._engine = Engine(
            loop.call_soon,
            loop.call_later,
            loop.call_soon_threadsafe,
            tick_ms=max(1, min(10, interval_ms // 8)),
        )
        self._engine.error_handler = _log_engine_error
        self._dispatcher = dispatcher = Dispatcher()
        dispatcher.configure(
            max_message_size=config.max_message_size, max_fragments=config.max_fragments,
            send_buffer_limit=config.send_buffer_limit, ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout, ping_always=config.ping_always,
            close_timeout=config.close_timeout, handshake_timeout=config.handshake_timeout,
            message_timeout=config.message_timeout,
            compression_threshold=config.compression_threshold,
        )  # fmt: skip
        dispatcher.max_depth = config.max_json_depth
        dispatcher.handler_timeout_s = config.handler_timeout
        dispatcher.loop = loop
        dispatcher.handlers = self._handlers
        dispatcher.registry = self._registry
        dispatcher.heartbeat = self._heartbeat
        dispatcher.metrics = self.metrics
        dispatcher.message_handler = self._handlers.on_message
        dispatcher.text_handler = self._handlers.on_text
        dispatcher.binary_handler = self._handlers.on_binary
        tokens = Tokens(config, self._verifier, dispatcher)
        self._admission = Admission(config, tokens, dispatcher, lambda conn: self._http.take(conn))
        dispatcher.admission = self._admission
        dispatcher.actions = Actions(
            self._registry,
            tokens.authenticate,
            self._handlers.authorize,
            config.max_channels_per_client,
        )
        self._listeners = Listeners(config, self._engine, dispatcher)
        exposition = Exposition(self._engine, self._registry, self.metrics)
        monitor = Monitor(self._engine, self._registry, self.metrics, self._not_ready)
        api = HttpApi(
            self._registry,
            dispatcher.actions,
            exposition,
            config.api_keys(),
            config.metrics_public,
            self._not_ready,
            monitor,
        )
        self._http = HttpServer(config, api, self._listeners)
        try:
            await self._http.start()
            await self._listeners.open()
        except BaseException:
            await self._http.stop()
            self._state = "stopped"
            raise
        self._ended = asyncio.Event()
        self._state = "running"

    def _not_ready(self) -> str | None:
        if self._state != "running":
            return "draining"
        return "out of descriptors" if self._listeners.starved else None

    async def drain(self) -> None:
        """Sends every client away in an orderly way, then stops: what SIGTERM does (protocol.md 7).

        Readiness goes at once; new handshakes get 503 during `drain_delay`; then 1012 goes out spread over
        `drain_window`, each with its own `reconnect_in`; what is left after `drain_timeout` is aborted.
        """
        if self._stopping is not None:
            await self.stop()
        if self._state != "running":
            return
        self._state = "draining"
        self._admission.draining = True
        logger.info("draining %d clients", len(self._registry.clients))
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.drain_timeout
        try:
            async with asyncio.timeout_at(end):
                if self._registry.clients:
                    await self._pause(self.config.drain_delay)
                await self._send_away(end - loop.time())
        except TimeoutError:
            for client in list(self._registry.clients.values()):
                client.connection.abort("drain", 1012)
            self._listeners.abort_all()
        await self.stop()

    async def _send_away(self, time_left: float) -> None:
        window = min(self.config.drain_window, max(time_left - self.config.close_timeout, 0))
        clients = list(self._registry.clients.values())
        random.shuffle(clients)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for i, client in enumerate(clients):
            behind = start + window * i / len(clients) - loop.time()
            if behind > 0.001:
                await self._pause(behind)
            self._let_go(client, 1012, "drain", round(window * 1000))
        while self._admission.open:  # noqa: ASYNC110 - connections need not know who waits for their end
            await asyncio.sleep(0.02)

    async def _pause(self, seconds: float) -> None:
        """Waits, but not longer than the server runs: somebody may stop it during a drain."""
        assert self._ended is not None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ended.wait()

    def _let_go(self, client: Client, code: int, cause: str, spread_ms: int) -> None:
        """The registry lets an open client go: the heartbeat says so, and the client is told when to come
        back."""
        conn = client.connection
        if not conn.is_open:
            return
        self._heartbeat.unregister(client.id, conn)
        conn.close(code, f"reconnect_in={random.randint(0, max(spread_ms, 1))}", cause)

    async def stop(self) -> None:
        """Closes every client with 1001 now and stops serving. A second call waits for the first."""
        if self._state in ("new", "stopped"):
            return
        if self._stopping is None:
            self._stopping = asyncio.get_running_loop().create_task(self._stop())
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        self._state = "draining"
        self._admission.draining = True
        await self._listeners.close()
        for client in list(self._registry.clients.values()):
            self._let_go(client, 1001, "shutdown", SHUTDOWN_SPREAD_MS)
        await self._wait_closed()
        self._state = "stopped"
        await self._http.stop()
        self._listeners.stop()
        self._engine.stop()
        assert self._ended is not None
        self._ended.set()

    async def _wait_closed(self) -> None:
        """Connections end, at the latest after `close_timeout`; then handlers, after `handler_timeout`."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.config.close_timeout
        while self._admission.open and loop.time() < end:  # noqa: ASYNC110 - as in `drain`
            await asyncio.sleep(0.005)
        self._listeners.abort_all()
        await asyncio.sleep(0)
        if self._dispatcher.tasks:
            _, late = await asyncio.wait(list(self._dispatcher.tasks), timeout=self.config.handler_timeout)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        await asyncio.sleep(0)  # on_disconnect of those whose handler has just ended
        if self._dispatcher.tasks:
            await asyncio.wait(list(self._dispatcher.tasks), timeout=self.config.handler_timeout)

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def wait_closed(self) -> None:
        """Waits until the server has stopped."""
        assert self._ended is not None
        await self._ended.wait()

    def run(self) -> int:
        """Serves until a signal says otherwise: SIGTERM drains, SIGINT or a second signal stops at once.

        Returns:
            The exit status, 0.
        Raises:
            OSError: the address cannot be had.
        """
        with asyncio.Runner(loop_factory=_loop_factory(self.config.loop)) as runner:
            runner.run(self._serve())
        return 0

    async def _serve(self) -> None:
        await self.start()
        loop = asyncio.get_running_loop()
        ending: list[asyncio.Task[None]] = []

        def on_signal(gently: bool) -> None:
            notify_systemd("STOPPING=1")
            if ending or not gently:
                logger.info("stopping")
                ending.append(loop.create_task(self.stop()))
            else:
                ending.append(loop.create_task(self.drain()))

        loop.add_signal_handler(signal.SIGTERM, on_signal, True)
        loop.add_signal_handler(signal.SIGINT, on_signal, False)
        if self._verifier is not None:
            for warning in self._verifier.warnings:
                logger.warning("%s", warning)
        place = self.config.unix or f"{self.config.host}:{self.port}"
        logger.info("listening on %s%s (%s)", place, self.config.path, self.config.summary())
        notify_systemd("READY=1")
        await self.wait_closed()
        logger.info("stopped")


class _Users(Mapping[str, tuple[Client, ...]]):
    """The registry's users as a mapping."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def __getitem__(self, user_id: str) -> tuple[Client, ...]:
        clients = tuple(self._registry.clients_of(user_id))
        if not clients:
            raise KeyError(user_id)
        return clients

    def __iter__(self) -> Iterator[str]:
        return self._registry.users()

    def __len__(self) -> int:
        return len(self._registry.members_by_user)


def _verifier(config: ServerConfig, secrets: tuple[str, ...]) -> TokenVerifier:
    return TokenVerifier(
        secrets, algorithms=config.jwt_algorithms, audience=config.jwt_audience, issuer=config.jwt_issuer,
        leeway_s=config.jwt_leeway, allow_no_exp=config.allow_no_exp,
    )  # fmt: skip


def _loop_factory(wanted: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if wanted == "asyncio":
        return None
    try:
        import uvloop
    except ImportError:
        if wanted == "uvloop":
            raise ConfigError("loop", "uvloop is not installed: pip install uvloop") from None
        return None
    return uvloop.new_event_loop


def _log_engine_error(error: BaseException) -> None:
    logger.error("internal error", exc_info=error)
