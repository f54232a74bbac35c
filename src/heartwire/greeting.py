"""What a new client is told first, and the application of it: `connected`, `on_connect`."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from heartwire._version import __version__
from heartwire.errors import ActionError, ConnectionClosed, Refusal
from heartwire.messages import next_id, timestamp

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.config import ServerConfig
    from heartwire.dispatch import Dispatcher

__all__ = ["Greeting"]


class Greeting:
    """For clients that are open and registered. Loop thread only.

    Args:
        config: the server's options.
        dispatcher: the sink whose clients these are.
    """

    def __init__(self, config: ServerConfig, dispatcher: Dispatcher) -> None:
        self._config = config
        self._dispatcher = dispatcher
        self._tail = (
            f'"protocol":1,"ping_interval_ms":{round(config.ping_interval * 1000)},'
            f'"server":"heartwire/{__version__}"'
        )

    def event(self, client: Client) -> bytes:
        """The `connected` event. Written by hand, since only two ids and the time differ between clients."""
        return (
            f'{{"id":"{next_id()}","event":"connected","data":{{"client_id":"{client.id}",{self._tail}'
            f'}},"timestamp":"{timestamp()}"}}'
        ).encode()

    def tell(self, client: Client) -> None:
        """`on_connect`, then the first message."""
        handler = self._dispatcher.handlers.on_connect
        if handler is not None:
            try:
                result = handler(client)
            except Exception as error:
                self._connect_failed(client, error)
                return
            if inspect.isawaitable(result):
                self._dispatcher.tasks.run(client, self._guarded(client, result), self._connected, None)
                return
            if result is False:
                client.connection.close(4403, "", "forbidden")
                return
        self._connected(client, None)

    async def _guarded(self, client: Client, result: Awaitable[Any]) -> Any:
        try:
            return await result
        except Exception as error:
            self._connect_failed(client, error)
            return None

    def _connected(self, client: Client, result: Any) -> None:
        if result is False:
            client.connection.close(4403, "", "forbidden")
        if not self._config.keep_request:
            client.request = None
        if not client.running:
            client.connection.resume()

    def _connect_failed(self, client: Client, error: Exception) -> None:
        """`on_connect` refuses with Refusal, ActionError or False; anything else is its own failure."""
        if isinstance(error, (Refusal, ActionError)):
            client.connection.close(4403, error.code, "forbidden")
        elif not isinstance(error, ConnectionClosed):
            self._dispatcher.log.error("on_connect failed for client %s", client.id, exc_info=error)
            client.connection.close(1011, "on_connect failed", "handler_error")
