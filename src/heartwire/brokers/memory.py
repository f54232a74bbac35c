"""The broker of a server by itself: all clients are in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from heartwire.brokers.base import Broker

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["MemoryBroker"]


class MemoryBroker(Broker):
    """Delivers at once, and is never away: everybody is here."""

    async def stop(self) -> None:
        """Nothing was begun."""

    def away(self) -> str | None:
        return None

    def occupied(self, channel: str) -> None:
        """The registry knows."""

    def vacated(self, channel: str) -> None:
        """The registry knows."""

    def to_channel(
        self, channel: str, payload: bytes, *, data: Buffer | None = None, skip: str | None = None,
        except_user: str | None = None,
    ) -> int:  # fmt: skip
        return self.local.to_channel(channel, payload, data=data, skip=skip, except_user=except_user)

    def to_user(self, user_id: str, payload: bytes, *, skip: str | None = None) -> int:
        return self.local.to_user(user_id, payload, skip=skip)

    def to_all(
        self, payload: bytes, *, skip: str | None = None, except_user: str | None = None,
        authenticated: bool = False,
    ) -> int:  # fmt: skip
        return self.local.to_all(payload, skip=skip, except_user=except_user, authenticated=authenticated)

    def to_client(self, client_id: str, payload: bytes) -> int:
        return self.local.to_client(client_id, payload)
