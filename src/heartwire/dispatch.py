"""From events of connections to the application: the Python half of a server's Sink.

Messages of one client are handled in order: while an asynchronous handler runs (`handler_tasks`), its client
is not read from (back-pressure reaches the peer through TCP). Ordinary messages for synchronous handlers do
not come here: `_core.json_reader` calls the application directly.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from heartwire._core.json_reader import JsonReader
from heartwire.actions import Actions
from heartwire.client import GATED
from heartwire.config import burst
from heartwire.endings import log_ending
from heartwire.errors import ActionError, ConnectionClosed
from heartwire.json_codec import encode_value
from heartwire.logs import RateLimited
from heartwire.memberships import Memberships, bad_field
from heartwire.messages import Envelope, encode_event

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from heartwire._core.connection import Connection
    from heartwire.admission import Admission
    from heartwire.client import Client
    from heartwire.config import ServerConfig
    from heartwire.handler_tasks import HandlerTasks, Then
    from heartwire.handlers import Handlers
    from heartwire.heartbeat import Heartbeat, Reason
    from heartwire.metrics import Metrics
    from heartwire.refusals import Refusals
    from heartwire.registry import Registry
    from heartwire.webhooks import Webhooks

__all__ = ["Dispatcher"]

ERRORS_IN_A_ROW: Final = 10
NOT_ONLY_LIMITED: Final = 128  # bit of Connection.errors_in_a_row: not all of them were `rate_limited`

logger: logging.Logger = logging.getLogger("heartwire")


class Dispatcher(JsonReader):
    """One server's messages and endings. Loop thread only."""

    # Filled in by the server, which wires the parts.
    handlers: Handlers
    registry: Registry
    heartbeat: Heartbeat
    metrics: Metrics
    refusals: Refusals
    admission: Admission
    actions: Actions
    memberships: Memberships
    tasks: HandlerTasks
    webhooks: Webhooks | None = None

    def __init__(self) -> None:
        self.decode: Callable[[Buffer], Any] = msgspec.json.Decoder().decode
        self.decode_envelope: Callable[[Buffer], Any] = msgspec.json.Decoder(Envelope).decode
        self.raw: Callable[[Any], Any] | None = msgspec.Raw
        self.encode = encode_value
        self.invalid: type[Exception] = msgspec.ValidationError
        self.log: RateLimited = RateLimited(logger)

    def apply(self, config: ServerConfig) -> None:
        """Takes over the limits and times of a configuration."""
        self.configure(
            max_message_size=config.max_message_size, max_fragments=config.max_fragments,
            send_buffer_limit=config.send_buffer_limit, ping_interval=config.ping_interval,
            ping_timeout=config.ping_timeout, ping_always=config.ping_always,
            close_timeout=config.close_timeout, handshake_timeout=config.handshake_timeout,
            message_timeout=config.message_timeout,
            compression_threshold=config.compression_threshold,
            message_rate=config.message_rate, message_burst=burst(config.message_rate, config.message_burst),
            byte_rate=config.byte_rate, byte_burst=burst(config.byte_rate, config.byte_burst),
            proxy_header=config.proxy_protocol,
        )  # fmt: skip
        self.max_depth: int = config.max_json_depth

    @property
    def speaks_json(self) -> bool:
        """False with `on_text`: the server then sends no JSON of its own."""
        return self.text_handler is None

    # -------------------------------------------------------------- connections

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        self.admission.on_head(conn, head)

    def on_proxy_header(self, conn: Connection, received: bytes) -> int | None:
        return self.admission.on_proxy_header(conn, received)

    def on_left(self, conn: Connection) -> None:
        """The connection can no longer be sent to: its client leaves every map at once."""
        client: Client | None = conn.owner
        if client is None:
            return  # refused by closing: it never was one
        self.memberships.client_left(client)
        reader = client.reader
        if isinstance(reader, asyncio.Future) and not reader.done():
            reader.set_exception(
                ConnectionClosed(conn.code, conn.reason or "", conn.cause or "peer_gone")
            )

    def on_closed(self, conn: Connection) -> None:
        self.admission.connection_closed(conn)
        client: Client | None = conn.owner
        if client is None:
            return
        self.metrics.disconnects[conn.cause or "peer_gone"] += 1
        log_ending(client)
        if self.webhooks is not None:
            self.webhooks.client_disconnected(client)
        if client.running:
            self.tasks.cancel_later(client)
        else:
            self.disconnected(client)

    def disconnected(self, client: Client) -> None:
        """After the last handler: `on_disconnect`, then the client is let go of."""
        cause = client.connection.cause
        handler = self.handlers.on_disconnect
        if handler is None:
            client.state = client.request = None
            return
        try:
            result = handler(client, cause)
        except Exception:
            self.log.exception("on_disconnect failed for client %s", client.id)
        else:
            if inspect.isawaitable(result):
                task = asyncio.ensure_future(result, loop=self.tasks.loop)
                self.tasks.keep(task)
                task.add_done_callback(functools.partial(self._disconnect_told, client))
                return
        client.state = client.request = None

    def _disconnect_told(self, client: Client, task: asyncio.Task[Any]) -> None:
        client.state = client.request = None
        if not task.cancelled() and task.exception() is not None:
            self.log.error("on_disconnect failed for client %s", client.id, exc_info=task.exception())

    def on_ping_stopped(self, conn: Connection, reason: Reason, error: OSError | None) -> None:
        if conn.owner is not None:
            self.heartbeat.stopped(conn.owner.id, reason, error)

    def on_expired(self, conn: Connection, which: str) -> None:
        if which == "read":
            conn.close(4408, "read deadline", "read_deadline")
        elif which == "handler":
            client: Client = conn.owner
            self.log.warning("a handler of client %s did not end within its time and is cancelled", client.id)
            conn.close(1011, "handler timeout", "handler_timeout")
            self.tasks.cancel(client)
        else:
            self.admission.on_expired(conn, which)

    def on_failure(self, conn: Connection, error: Exception) -> None:
        """A bug of ours: the connection ends, the process goes on."""
        self.log.error("internal error on a connection", exc_info=error)
        conn.close(1011, "internal error", "handler_error")

    # -------------------------------------------------------------- messages

    def claims(self, envelope: Envelope) -> bool:
        action = envelope.action
        return isinstance(action, str) and (action in self.actions.table or action in self.handlers.actions)

    def on_action(self, client: Client, envelope: Envelope, view: Any) -> bool:
        """A message that names an action. True: it goes on asynchronously."""
        message_id = envelope.id
        if message_id is not None and not _valid_id(message_id):
            wrong = bad_field("id", message_id, "an integer or a string of at most 64", '"id": 7')
            self.error(client, wrong, None)
            return False
        name: str = envelope.action
        built_in = self.actions.table.get(name)
        try:
            if built_in is not None:
                result: Any = built_in(client, envelope)
                if result is None:  # most messages: sent on, without an answer
                    client.connection.errors_in_a_row = 0
                    return False
                then: Then = functools.partial(self._answer, message_id)
            else:
                route = self.handlers.actions[name]
                try:
                    message = self.read_typed(route.decode, view)
                except msgspec.ValidationError as error:
                    raise ActionError("bad_message", f"{name}: {error}") from None
                result = route.call(client, message)
                then = functools.partial(self._answer_custom, name, message_id)
            if result is not None and type(result) is not tuple and inspect.isawaitable(result):
                return self.tasks.run(client, result, then, message_id)
            then(client, result)
        except Exception as error:
            self.failed(client, error, message_id)
        else:
            client.connection.errors_in_a_row = 0
        return False

    def _answer(self, message_id: Any, client: Client, answer: tuple[str, Any] | None) -> None:
        if answer is not None:
            client.send_text_bytes(encode_event(answer[0], answer[1], reply_to=message_id))

    def _answer_custom(self, name: str, message_id: Any, client: Client, answer: Any) -> None:
        if answer is not None:
            client.send_text_bytes(encode_event(name, answer, reply_to=message_id))

    def on_special(self, client: Client, data: bytes, is_text: bool) -> bool:
        """Messages of a client that is not authenticated yet, or that is read by hand."""
        if client.connection.special & GATED:
            self._gated(client, data, is_text)
            return False
        return self._read_by_hand(client, data)

    def _read_by_hand(self, client: Client, data: bytes) -> bool:
        reader = client.reader
        if self.speaks_json:
            envelope = self._envelope(client, data)
            if envelope is None:
                return False
            if envelope.action in self.actions.table:
                return self.on_action(client, envelope, None)
        if isinstance(reader, asyncio.Future) and not reader.done():
            reader.set_result(data)
        return True

    def _gated(self, client: Client, data: bytes, is_text: bool) -> None:
        envelope = self._envelope(client, data) if is_text else None
        if is_text and envelope is None:
            return
        if envelope is not None and envelope.action in ("authenticate", "ping"):
            self.on_action(client, envelope, None)
        else:
            message_id = envelope.id if envelope is not None and _valid_id(envelope.id) else None
            wrong = ActionError("unauthenticated", "send `authenticate` with a token first")
            self.error(client, wrong, message_id)

    def _envelope(self, client: Client, data: bytes) -> Envelope | None:
        """The envelope of a text; an empty one for what is no object; None, after an error, if it is not
        JSON."""
        try:
            envelope: Envelope = self.decode_envelope(data)
            return envelope
        except msgspec.ValidationError:
            return Envelope()
        except Exception as error:
            self.on_bad_json(client, str(error))
            return None

    def on_unclaimed(self, client: Client, value: Any) -> bool:
        """JSON that neither an action nor `on_message` wants."""
        if self.webhooks is not None and self._told(client, value):
            return False
        if not isinstance(value, dict):
            self.error(client, bad_field("message", value, "a JSON object", '{"action": "ping"}'), None)
            return False
        action = value.get("action")
        message_id = value.get("id")
        if action is None:
            detail = 'no "action"; example: {"action": "ping"}'
        elif isinstance(action, str):
            detail = f"no action {action[:64]!r} here"
        else:
            detail = "the action must be a string"
        reply_to = message_id if _valid_id(message_id) else None
        self.error(client, ActionError("unknown_action", detail), reply_to)
        return False

    def _told(self, client: Client, value: Any) -> bool:
        """Tells the backend of a message. False: it does not want any."""
        assert self.webhooks is not None
        message_id = value.get("id") if isinstance(value, dict) else None
        try:
            if not self.webhooks.message(client, value):
                return False
        except OverflowError as full:
            wrong = ActionError("internal", f"the message was not passed on: {full}")
        except ValueError:
            wrong = ActionError("bad_message", "the message cannot be passed on: a number in it is too long")
        else:
            client.connection.errors_in_a_row = 0
            return True
        self.error(client, wrong, message_id if _valid_id(message_id) else None)
        return True

    def on_bad_json(self, client: Client, detail: str) -> None:
        self.metrics.bad_json += 1
        self.error(client, ActionError("bad_json", detail), None)

    def on_rate_limited(
        self, conn: Connection, limit: Literal["messages", "bytes"], data: bytes | None
    ) -> None:
        """A message that came too fast was thrown away. After ten in a row the client is, too."""
        self.metrics.rate_limited[limit] += 1
        client: Client | None = conn.owner
        if client is None:
            return
        if not self.speaks_json:  # it cannot be told, and must not go on as if the message had arrived
            self._too_fast(conn)
            return
        message_id = None
        if data is not None:
            with contextlib.suppress(Exception):
                message_id = self.decode_envelope(data).id
        wrong = ActionError("rate_limited", f"too many {limit} a second: slow down, and send this again")
        self.error(client, wrong, message_id if _valid_id(message_id) else None)

    def _too_fast(self, conn: Connection) -> None:
        self.refusals.tell("4429 rate_limited", conn.remote_address)
        conn.close(4429, "too many messages", "rate_limited")

    # -------------------------------------------------------------- failures

    def on_handler_failure(self, client: Client, error: Exception) -> None:
        """`on_message`, `on_text` or `on_binary` raised."""
        self.failed(client, error, None)

    def failed(self, client: Client, error: BaseException, message_id: Any) -> None:
        """A handler raised: ActionError is its answer, the rest is logged and answered by `internal`."""
        if isinstance(error, ConnectionClosed):
            return  # it used a connection that has gone: an ordinary end
        if not isinstance(error, ActionError):
            self.log.error("a handler failed for client %s", client.id, exc_info=error)
            if not self.speaks_json:
                client.connection.close(1011, "handler failed", "handler_error")
                return
            error = ActionError("internal", "the server failed to handle the message")
        self.error(client, error, message_id)

    def error(self, client: Client, error: ActionError, message_id: Any) -> None:
        """Sends an `error` event; the tenth in a row without an accepted action ends the connection: with
        4429 if all were `rate_limited`, else with 1008."""
        conn = client.connection
        self.metrics.errors[error.code] += 1
        if not conn.is_open or not self.speaks_json:
            return
        data = {"code": error.code, "message": error.message}
        try:
            client.send_text_bytes(encode_event("error", data, reply_to=message_id))
        except ConnectionClosed:
            return
        if error.code != "rate_limited":
            conn.errors_in_a_row |= NOT_ONLY_LIMITED
        conn.errors_in_a_row += 1
        if conn.errors_in_a_row & ~NOT_ONLY_LIMITED >= ERRORS_IN_A_ROW:
            if conn.errors_in_a_row & NOT_ONLY_LIMITED:
                conn.close(1008, "too many errors", "too_many_errors")
            else:
                self._too_fast(conn)

    def on_result(self, client: Client, result: Any) -> bool:
        """A handler without an answer returned something: a coroutine is run, other values are dropped."""
        if inspect.isawaitable(result):
            return self.tasks.run(client, result, _nothing, None)
        client.connection.errors_in_a_row = 0
        return False


def _nothing(client: Client, result: Any) -> None:
    """What becomes of the result of a handler without an answer."""


def _valid_id(message_id: Any) -> bool:
    if isinstance(message_id, str):
        return len(message_id) <= 64
    # 64 bits, since a longer number is read back differently by different clients.
    if isinstance(message_id, bool):
        return False
    return isinstance(message_id, int) and -(1 << 63) <= message_id < 1 << 64
