"""One client as the application sees it: who it is, what it is in, sending to it and reading from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

import msgspec

from heartwire._core.session import Session
from heartwire.closing import valid_application_close_code
from heartwire.errors import ConnectionClosed, LocalProtocolError
from heartwire.messages import encode_event

if TYPE_CHECKING:
    from heartwire.credentials import Credentials
    from heartwire.dispatch import Dispatcher
    from heartwire.registry import Channel

__all__ = ["Client"]

T = TypeVar("T")

GATED: Final = 1  # Connection.special: not authenticated yet
READING: Final = 2  # Connection.special: messages go to read_json until the handler that reads ends
HELD: Final = 4  # Connection.special: they do for good, since it was called outside of handlers


class Client(Session):
    """One connected client. Made by the server; handlers receive it.

    `send_*`, `ping`, `close` and `kick` may be called from any thread, never block, and are safe after the
    end: a send raises `ConnectionClosed`, the others do nothing. Everything else belongs to the loop's
    thread.

    Attributes:
        id: its id, unique across servers and restarts.
        state: the application's own, any value; cleared after `on_disconnect`.
        user_agent: the header, or None.
        request: path, query and headers of the handshake, during `on_connect` (always with `keep_request`).
    """

    __slots__ = ()

    # Declared in the compiled base; here for type checkers.
    if TYPE_CHECKING:
        id: str
        credentials: Credentials | None
        memberships: tuple[Channel, ...] | None
        reader: asyncio.Future[bytes] | bytes | None  # who waits for a message, or a message left unread
        running: list[asyncio.Task[Any]] | None

    def __repr__(self) -> str:
        return f"<Client {self.id} user={self.user_id!r} {self.connection.phase}>"

    # -------------------------------------------------------------- identity

    @property
    def user_id(self) -> str | None:
        """The token's `sub`; None while anonymous."""
        return None if self.credentials is None else self.credentials.user_id

    @property
    def username(self) -> str | None:
        """The token's `username`; None without one."""
        return None if self.credentials is None else self.credentials.username

    @property
    def claims(self) -> dict[str, Any]:
        """All claims of the token, decoded anew at each access; empty while anonymous."""
        return {} if self.credentials is None else self.credentials.claims

    @property
    def roles(self) -> frozenset[str]:
        """The claim `roles`, a list of strings or one; empty without it. Decoded anew at each access."""
        roles = self.claims.get("roles")
        named = roles if isinstance(roles, list) else [roles]
        return frozenset(role for role in named if isinstance(role, str))

    @property
    def channels(self) -> frozenset[str]:
        """Names of the channels it is in."""
        return frozenset(channel.name for channel in self.memberships or ())

    @property
    def _dispatcher(self) -> Dispatcher:
        return self.connection.sink  # type: ignore[no-any-return]

    # -------------------------------------------------------------- sending

    def send_event(
        self, event: str, data: Any = None, *, channel: str | None = None, reply_to: int | str | None = None
    ) -> None:
        """Sends one event in the server's envelope: `{"id", "event", "channel"?, "data", "timestamp", …}`.

        Args:
            event: its name.
            data: any value msgspec can write as JSON; `msgspec.Raw` is passed on as it is.
            channel: names the channel it belongs to.
            reply_to: the `id` of the message it answers.
        Raises:
            ConnectionClosed: the connection is no longer open.
        """
        name = msgspec.UNSET if channel is None else channel
        self.send_text_bytes(encode_event(event, data, channel=name, reply_to=reply_to))

    def send_text_bytes(self, text: bytes) -> None:
        """Sends a text message that is UTF-8 already. As `send_text`."""
        self.connection.send(1, text)

    async def drain(self) -> None:
        """Waits until everything queued has been handed to the kernel.

        Raises:
            ConnectionClosed: the connection ended first.
        """
        if self.connection.queued_bytes:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.connection.add_drain_waiter(future)
            await future

    # -------------------------------------------------------------- ending

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Starts the closing handshake: what is queued still goes out. Idempotent, from any thread.

        Args:
            code: 1000, 3000–3999 or 4000–4399 (4400–4599 are the server's own).
            reason: at most 123 bytes of it travel.
        Raises:
            LocalProtocolError: another code.
        """
        if not valid_application_close_code(code):
            raise LocalProtocolError(
                f"close code {code} is not the application's to send: use 1000, 3000-3999 or 4000-4399"
            )
        self.connection.close(code, reason, "server_closed")

    def kick(self, reason: str = "") -> None:
        """Sends `kicked` `{reason}`, then closes with 4403: the client should stay away. From any thread."""
        if self.is_connected:
            try:
                if self._dispatcher.speaks_json:
                    self.send_event("kicked", {"reason": reason})
            except ConnectionClosed:
                return
            self.connection.close(4403, reason, "kicked")

    def set_read_deadline(self, seconds: float | None) -> None:
        """Closes with 4408 (`read_deadline`) in so many seconds from now, unless set again; None takes it
        back."""
        self.connection.set_due("read", seconds)

    # -------------------------------------------------------------- channels

    def join(self, channel: str, data: Any = None) -> None:
        """Makes the client a member, as the application's own decision: no claim is asked for.

        Args:
            channel: its name.
            data: presence metadata.
        Raises:
            ConnectionClosed: the connection is no longer open.
            ActionError: the name is not one, the client is in too many channels, or the channel is full.
        """
        self._dispatcher.memberships.join(self, channel, None if data is None else msgspec.json.encode(data))

    def leave(self, channel: str) -> None:
        """Ends its membership; nothing happens if there is none."""
        self._dispatcher.memberships.leave(self, channel)

    # -------------------------------------------------------------- reading

    @overload
    async def read_json(self, type: None = None, timeout: float | None = None) -> Any: ...
    @overload
    async def read_json(self, type: type[T], timeout: float | None = None) -> T: ...
    async def read_json(self, type: Any = None, timeout: float | None = None) -> Any:
        """Waits for the client's next message, the server's own actions excepted.

        From the first call until the handler that made it ends (for ever, outside of handlers), the client's
        messages come here and to no handler; between two calls it is not read from.

        Args:
            type: what the message must be, for msgspec to check; any JSON value without.
            timeout: seconds; None waits for ever. A message that comes later is not lost.
        Raises:
            ConnectionClosed: the connection ended.
            TimeoutError: nothing came in time.
            msgspec.DecodeError: it is not JSON; msgspec.ValidationError: not of that type.
        """
        if isinstance(self.reader, asyncio.Future):
            raise RuntimeError("the client is being read already: one read_json at a time")
        data, self.reader = self.reader, None
        if data is None:
            data = await self._receive(timeout)
        return msgspec.json.decode(data, type=Any if type is None else type)

    async def _receive(self, timeout: float | None) -> bytes:
        """The next message for a reader. One that came is returned or kept, whatever ends the wait."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._dispatcher.tasks.start_reading(self, future)
        unread = None
        try:
            # Not asyncio.timeout: it would throw a message away that came together with it.
            await asyncio.wait((future,), timeout=timeout)
            if not future.done():
                raise TimeoutError
            return future.result()
        except asyncio.CancelledError:
            if future.done() and future.exception() is None:
                unread = future.result()
            raise
        finally:
            future.cancel()
            self._dispatcher.tasks.stop_reading(self, unread)

    async def __aiter__(self) -> AsyncIterator[Any]:
        """Yields the client's messages until the connection ends."""
        try:
            while True:
                yield await self.read_json()
        except ConnectionClosed:
            return
