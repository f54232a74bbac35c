"""The server: wires the parts, and is what applications program against. How it ends is in `lifetime`."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import gc
import logging
import sys
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

from heartwire._core.engine import Engine
from heartwire.actions import Actions
from heartwire.admission import Admission
from heartwire.authorization_hook import AuthorizationHook
from heartwire.brokers import Broker, MemoryBroker
from heartwire.channel_settings import ChannelRules
from heartwire.client import Client
from heartwire.config import ServerConfig
from heartwire.dispatch import Dispatcher
from heartwire.errors import ConfigError
from heartwire.exposition import Exposition
from heartwire.handler_tasks import HandlerTasks
from heartwire.handlers import Handlers
from heartwire.heartbeat import Heartbeat
from heartwire.http_api import HttpApi
from heartwire.http_server import HttpServer
from heartwire.lifetime import Lifetime, loop_factory
from heartwire.listeners import Listeners, notify_systemd
from heartwire.memberships import Authorize, Memberships, claims_allow
from heartwire.messages import encode_event
from heartwire.metrics import Metrics
from heartwire.monitor import Monitor
from heartwire.presence import Presence
from heartwire.refusals import Refusals
from heartwire.registry import Channel, Registry, Users
from heartwire.tokens import Tokens
from heartwire.verification import Verification
from heartwire.webhooks import Webhooks

__all__ = ["Server"]

F = TypeVar("F", bound=Callable[..., Any])

logger: logging.Logger = logging.getLogger("heartwire")


class Server:
    """A WebSocket server for authenticated JSON messaging.

    Register handlers with the decorators, then `run()`, or `async with server:` inside a running program.

    Args:
        broker: carries what goes to many clients; without one, this process is all there is.
        options: every option of the command, by the same name (docs/options.md).
    Raises:
        ConfigError: an option does not exist or does not fit.
    """

    def __init__(self, *, broker: Broker | None = None, **options: Any) -> None:
        self.config: ServerConfig = ServerConfig.from_kwargs(**options)
        self.config.check_together()
        self._verification = Verification.of(self.config)
        self.metrics: Metrics = Metrics()
        self._handlers = Handlers()
        self._registry = Registry(ChannelRules(self.config.channel_settings))
        self._broker = broker or MemoryBroker()
        self._heartbeat = Heartbeat(self.metrics)
        self._lifetime = Lifetime(self.config, self._registry, self._heartbeat)

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
        return Users(self._registry)

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
        engine: dict[str, int] = self._engine.statistics() if self._lifetime.state != "new" else {}
        return {
            "clients": len(registry.clients),
            "users": len(registry.members_by_user),
            "channels": len(registry.channels),
            "disconnects": dict(self.metrics.disconnects),
            "ping_stopped": dict(self.metrics.ping_stopped),
            "refusals": dict(self.metrics.refusals),
            "rate_limited": dict(self.metrics.rate_limited),
            "errors": dict(self.metrics.errors),
            "tokens_renewed": self.metrics.tokens_renewed,
            "tokens_waiting_for_keys": self.metrics.waiting_for_keys,
            "hooks": self.metrics.hooks.snapshot(),
            **engine,
        }

    # -------------------------------------------------------------- sending to many

    def to_channel(self, channel: str, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to a channel's members. Returns as `broadcast`."""
        but = None if skip is None else skip.id
        return self._publish(
            lambda payload: self._broker.to_channel(channel, payload, skip=but), event, data, channel
        )

    def to_user(self, user_id: str, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to all of a user's clients. Returns as `broadcast`."""
        but = None if skip is None else skip.id
        return self._publish(lambda payload: self._broker.to_user(user_id, payload, skip=but), event, data)

    def to_all(self, event: str, data: Any = None, *, skip: Client | None = None) -> Any:
        """Sends an event to every client. Returns as `broadcast`."""
        but = None if skip is None else skip.id
        return self._publish(lambda payload: self._broker.to_all(payload, skip=but), event, data)

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

    def _publish(
        self, publish: Callable[[bytes], int], event: str, data: Any, channel: str | None = None
    ) -> int | concurrent.futures.Future[int]:
        if self._lifetime.state in ("new", "stopped"):
            raise RuntimeError("the server is not running")
        payload = encode_event(event, data, channel=msgspec.UNSET if channel is None else channel)
        if not self._engine.is_foreign():
            return publish(payload)
        future: concurrent.futures.Future[int] = concurrent.futures.Future()

        def deliver() -> None:
            future.set_result(publish(payload))

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
        lifetime = self._lifetime
        if lifetime.state != "new":
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
        dispatcher.apply(config)
        dispatcher.tasks = HandlerTasks(
            loop, config.handler_timeout, dispatcher.failed, dispatcher.handle_text, dispatcher.disconnected
        )
        dispatcher.handlers = self._handlers
        dispatcher.registry = self._registry
        dispatcher.heartbeat = self._heartbeat
        dispatcher.metrics = self.metrics
        dispatcher.refusals = Refusals(self.metrics)
        dispatcher.message_handler = self._handlers.on_message
        dispatcher.text_handler = self._handlers.on_text
        dispatcher.binary_handler = self._handlers.on_binary
        tokens = Tokens(config, self._verification, dispatcher)
        self._admission = Admission(config, tokens, dispatcher, lambda conn: self._http.take(conn))
        dispatcher.admission = self._admission
        authorize = self._wire_hooks(dispatcher)
        presence = Presence(
            self._broker, config.presence_grace, loop.call_later, loop.time,
            lambda: dispatcher.speaks_json, dispatcher.webhooks,
        )  # fmt: skip
        dispatcher.memberships = Memberships(
            self._registry,
            presence,
            self._broker,
            authorize,
            config.max_channels_per_client,
            dispatcher.refusals,
            dispatcher.webhooks,
        )
        dispatcher.actions = Actions(
            self._registry,
            dispatcher.memberships,
            self._broker,
            tokens.authenticate,
            authorize,
        )
        self._listeners = Listeners(config, self._engine, dispatcher, dispatcher.refusals)
        exposition = Exposition(
            self._engine, self._registry, self.metrics, self._verification, tokens.revocations
        )
        monitor = Monitor(self._engine, self._registry, self.metrics, lifetime.not_ready)
        api = HttpApi(
            self._registry,
            dispatcher.memberships,
            self._broker,
            exposition,
            config.api_keys(),
            config.metrics_public,
            lifetime.not_ready,
            monitor,
            tokens,
        )
        self._http = HttpServer(config, api, self._listeners)
        lifetime.engine = self._engine
        lifetime.admission = self._admission
        lifetime.tasks = dispatcher.tasks
        lifetime.log = dispatcher.log
        lifetime.listeners = self._listeners
        lifetime.http = self._http
        lifetime.verification = self._verification
        lifetime.broker = self._broker
        lifetime.presence = presence
        await lifetime.begin()

    def _wire_hooks(self, dispatcher: Dispatcher) -> Authorize | None:
        """Makes the hooks that are configured; returns who decides on joins and publishes, if not claims."""
        config, figures = self.config, self.metrics.hooks
        if config.webhook_url is not None:
            dispatcher.webhooks = Webhooks(config, figures)
            self._lifetime.hooks += (dispatcher.webhooks,)
        authorize: Authorize | None = self._handlers.authorize
        if config.authorize_url is not None:
            if authorize is not None:
                raise ConfigError("authorize_url", "@server.authorize decides already: use one of the two")
            authorize = hook = AuthorizationHook(
                config, figures, functools.partial(claims_allow, self._registry.rules)
            )
            self._lifetime.hooks += (hook,)
        return authorize

    async def drain(self) -> None:
        """Sends every client away in an orderly way, then stops: what SIGTERM does (protocol.md 7).

        Readiness goes at once; new handshakes get 503 during `drain_delay`; then 1012 goes out spread over
        `drain_window`, each with its own `reconnect_in`; what is left after `drain_timeout` is aborted.
        """
        await self._lifetime.drain()

    def reload(self) -> None:
        """Reads the files of secrets, keys and certificates again, as SIGHUP does.

        Open connections do not notice. Files that cannot be used are told in the log, and change nothing.
        Loop thread only.
        """
        self._lifetime.reload()

    async def stop(self) -> None:
        """Closes every client with 1001 now and stops serving. A second call waits for the first."""
        await self._lifetime.stop()

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def wait_closed(self) -> None:
        """Waits until the server has stopped."""
        await self._lifetime.wait_closed()

    def run(self) -> int:
        """Serves until a signal says otherwise: SIGTERM drains, SIGINT or a second signal stops at once.

        Returns:
            The exit status, 0.
        Raises:
            OSError: the address cannot be had.
        """
        with asyncio.Runner(loop_factory=loop_factory(self.config.loop)) as runner:
            runner.run(self._serve())
        return 0

    async def _serve(self) -> None:
        await self.start()
        self._lifetime.heed_signals()
        if self._verification is not None:
            for warning in self._verification.warnings:
                logger.warning("%s", warning)
        place = self.config.unix or f"{self.config.host}:{self.port}"
        logger.info("listening on %s%s (%s)", place, self.config.path, self.config.summary())
        # What is there now lives as long as the process: no full pass of the collector need walk it again.
        # Clients add nothing that it walks, so such a pass stays short however many there are.
        gc.collect()
        gc.freeze()
        notify_systemd("READY=1")
        try:
            await self.wait_closed()
        finally:
            gc.unfreeze()
        logger.info("stopped")


def _log_engine_error(error: BaseException) -> None:
    logger.error("internal error", exc_info=error)
