"""The application of the state machine: handlers that do as they are told, and tell what they were told."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections import defaultdict
from collections.abc import Callable
from typing import Any, Final

import msgspec

from heartwire import ActionError, Client, ConnectionClosed, Message, Server

MODES: Final = ("echo", "echo", "hold", "read", "cancel", "drain", "raise", "close", "kick", "nothing")
READERS: Final = ("read", "cancel")  # binary messages are not for them


class Raw(Message):
    """Keeps a part of the message as it lies."""

    raw: msgspec.Raw


class Application:
    """Registers its handlers with a server.

    Args:
        server: not started.
        echo: called for each message in the mode "echo".

    Attributes:
        mode: one of MODES: what `on_message` does.
        told: by client id, what the handlers were told, in order: (what, value).
        kept: each value, and a copy of what it was then.
    """

    def __init__(self, server: Server, echo: Callable[[Client], None]) -> None:
        self.mode = "nothing"
        self.told: dict[str, list[tuple[str, Any]]] = defaultdict(list)
        self.kept: list[tuple[Any, Any]] = []
        self._waiting: list[asyncio.Future[None]] = []
        self._reading: set[asyncio.Task[Any]] = set()
        self._busy: dict[str, str] = {}  # client id: what its handler does

        @server.on_connect
        def on_connect(client: Client) -> None:
            self._tell(client, "connect")

        @server.on_disconnect
        def on_disconnect(client: Client, cause: str) -> None:
            assert not client.is_connected
            self._tell(client, "disconnect", cause)

        @server.on_binary
        def on_binary(client: Client, data: bytes) -> None:
            assert self._busy.get(client.id, "read") in READERS
            self._tell(client, "binary", data)

        @server.action("raw")
        def on_raw(client: Client, message: Raw) -> None:
            assert client.id not in self._busy
            self._tell(client, "raw", message.raw)

        @server.on_message
        def on_message(client: Client, value: Any) -> Any:
            assert client.is_connected
            assert client.id not in self._busy  # one message at a time
            self._tell(client, "message", value)
            if self.mode == "raise":
                raise ActionError("no", "it was asked for")
            if self.mode == "close":
                client.close(4000)
            elif self.mode == "kick":
                client.kick("bye")
            elif self.mode == "echo":
                echo(client)
            elif self.mode != "nothing":
                self._busy[client.id] = self.mode
                return self._slowly(client, self.mode)
            return None

    async def _slowly(self, client: Client, mode: str) -> None:
        try:
            await self._act(client, mode)
        finally:
            del self._busy[client.id]

    async def _act(self, client: Client, mode: str) -> None:
        """A handler that goes on: it is never the reason why something is lost."""
        with contextlib.suppress(ConnectionClosed, TimeoutError):
            if mode == "read":
                for _ in range(3):
                    self._tell(client, "message", await client.read_json(timeout=4))
            elif mode == "cancel":
                for _ in range(2):
                    reading = asyncio.ensure_future(client.read_json())
                    self._reading.add(reading)
                    reading.add_done_callback(self._read)
                    await asyncio.wait([reading], timeout=1)
                    if not reading.done():
                        reading.cancel()
                        await asyncio.wait([reading])
                    if not reading.cancelled():
                        self._tell(client, "message", reading.result())
            elif mode == "drain":
                await client.drain()
            else:
                future = asyncio.get_running_loop().create_future()
                self._waiting.append(future)
                await future

    def _tell(self, client: Client, what: str, value: Any = None) -> None:
        if isinstance(value, dict):
            what = "raw"  # the action, which a reader gets as it is
        self.told[client.id].append((what, value))
        self.kept.append((value, copy.deepcopy(value)))

    def _read(self, reading: asyncio.Task[Any]) -> None:
        self._reading.discard(reading)
        if not reading.cancelled():
            reading.exception()  # seen, also where the handler has been cancelled meanwhile

    def cancel_readers(self) -> None:
        """Cancels who reads in the mode "cancel", whatever has come for them."""
        for reading in self._reading:
            reading.cancel()

    def go_on(self) -> None:
        """Lets the handlers end that wait in the mode "hold"."""
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
