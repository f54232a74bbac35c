"""The events that the application's backend is told by POST (docs/webhooks.md).

Each method tells one event: it is written as JSON at once, as things are now, and given to `Delivery`, which
is where waiting, dropping and trying again happen.
"""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Any

import msgspec

from heartwire.endings import Ending
from heartwire.messages import rfc3339, timestamp
from heartwire.webhook_delivery import Delivery, DeliveryLimits

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.config import ServerConfig
    from heartwire.metrics import HookFigures
    from heartwire.presence import Member
    from heartwire.registry import Channel

__all__ = ["Webhooks"]


class _Event(msgspec.Struct):
    seq: int
    type: str
    timestamp: str
    data: Any


class Webhooks:
    """What one server tells. Loop thread only; nothing here waits.

    Args:
        config: its `webhook_` options; there is a `webhook_url`.
        figures: where it counts.
    """

    def __init__(self, config: ServerConfig, figures: HookFigures) -> None:
        assert config.webhook_url is not None
        limits = DeliveryLimits(
            events=config.webhook_queue, size_bytes=config.webhook_queue_size, batch=config.webhook_batch,
            delay_s=config.webhook_delay, timeout_s=config.webhook_timeout, retry_s=config.webhook_retry,
        )  # fmt: skip
        run = secrets.token_hex(8)
        self._delivery = Delivery(config.webhook_url, config.webhook_key(), limits, figures, run)
        self._flush_s = config.webhook_flush
        self._wanted = frozenset(config.webhook_events)
        self._seq = 0

    def start(self) -> None:
        """Begins to deliver, in the running loop."""
        self._delivery.start()

    async def stop(self) -> None:
        """Delivers what waits, within `webhook_flush`."""
        await self._delivery.stop(self._flush_s)

    def _tell(self, type: str, data: dict[str, Any] | Ending) -> bool:
        self._seq += 1  # also for what is dropped: a gap tells the receiver
        return self._delivery.put(msgspec.json.encode(_Event(self._seq, type, timestamp(), data)))

    # -------------------------------------------------------------- clients

    def client_connected(self, client: Client) -> None:
        """A client is here, known or anonymous."""
        if "client_connected" in self._wanted:
            data = _who(client)
            data["remote_address"] = client.remote_address[0]
            data["user_agent"] = client.user_agent
            self._tell("client_connected", data)
        if client.credentials is not None:
            self.client_authenticated(client)

    def client_authenticated(self, client: Client) -> None:
        """It is known whose client it is: from its handshake on, or by its first `authenticate`."""
        if "client_authenticated" in self._wanted:
            assert client.credentials is not None
            expires_at = client.credentials.expires_at
            data = _who(client)
            data["expires_at"] = None if expires_at is None else rfc3339(expires_at)
            self._tell("client_authenticated", data)

    def client_disconnected(self, client: Client) -> None:
        """Its connection has ended: called from `on_closed`."""
        if "client_disconnected" in self._wanted:
            self._tell("client_disconnected", Ending.of(client))

    # -------------------------------------------------------------- channels

    def channel_occupied(self, channel: Channel) -> None:
        """It has its first client."""
        if "channel_occupied" in self._wanted:
            self._tell("channel_occupied", {"channel": channel.name})

    def channel_vacated(self, channel: Channel) -> None:
        """Its last client has left: it is gone."""
        if "channel_vacated" in self._wanted:
            lasted_ms = max(round((time.time() - channel.created_at) * 1000), 0)
            self._tell("channel_vacated", {"channel": channel.name, "duration_ms": lasted_ms})

    def member_joined(self, channel: Channel, member: Member) -> None:
        """A user came to a channel with presence, or has new metadata there."""
        if "member_joined" in self._wanted:
            self._tell("member_joined", {"channel": channel.name, **member.shown()})

    def member_left(self, channel: Channel, member: Member) -> None:
        """A user has gone, and did not come back within the time of grace."""
        if "member_left" in self._wanted:
            self._tell("member_left", {"channel": channel.name, **member.shown()})

    # -------------------------------------------------------------- messages

    def message(self, client: Client, value: Any) -> bool:
        """A message that nothing on this server claims. False: it is not sent to the backend.

        Raises:
            ValueError: the message cannot be passed on: it cannot be written as JSON again.
            OverflowError: it waits too much already.
        """
        if "message" not in self._wanted:
            return False
        data = _who(client)
        data["message"] = value
        if not self._tell("message", data):
            raise OverflowError("as many events wait for the webhook as may")
        return True


def _who(client: Client) -> dict[str, Any]:
    return {"client_id": client.id, "user_id": client.user_id, "username": client.username}
