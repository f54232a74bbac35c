"""The way of everything that goes to many clients, and what it promises (docs/delivery.md)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["Broker", "LocalDelivery", "whole"]


class LocalDelivery(Protocol):
    """Queues a message for clients of this process; the registry does it. Loop thread only.

    Each call queues it for everybody it names before it returns, passing over clients that have not
    authenticated yet, and says for how many.
    """

    def to_channel(
        self, channel: str, payload: bytes, *, data: Buffer | None = None, skip: str | None = None,
        except_user: str | None = None,
    ) -> int:  # fmt: skip
        """To the members of a channel."""
        ...

    def to_user(self, user_id: str, payload: bytes, *, skip: str | None = None) -> int:
        """To all clients of a user."""
        ...

    def to_all(
        self, payload: bytes, *, skip: str | None = None, except_user: str | None = None,
        authenticated: bool = False,
    ) -> int:  # fmt: skip
        """To everybody; `authenticated`: but anonymous clients."""
        ...

    def to_client(self, client_id: str, payload: bytes) -> int:
        """To one client."""
        ...


def whole(payload: bytes, data: Buffer | None) -> bytes:
    """The event that a payload and the `data` given beside it make."""
    return payload if data is None else b'%b,"data":%b}' % (payload[:-1], bytes(data))


class Broker(ABC):
    """Carries what goes to many clients: all of it, whether a client, the application, the backend or the
    server itself says it.

    A publication has a target (a channel, a user, a client, everybody) and a payload: one JSON event, UTF-8,
    which is passed on as it is. `data` is JSON that becomes the member `data` of that event, its last: a view
    of memory that is somebody else's after the call, so an adapter that sends it elsewhere takes `whole`.
    `skip` names a client and `except_user` a user who get nothing.

    **What is delivered.** To clients of this process: before the call returns, the publication is queued for
    everybody whom the target names at this moment; the call returns their number. Being queued is not being
    received: a client may turn out to be slow or gone. To clients of other processes that share the broker:
    what is published while both sides are connected to it, as soon as it gets there. Who is in the target is
    decided there, at that time. The number does not count them.

    **In which order.** What one process publishes reaches each client in the order of the calls, whatever the
    targets are. What different processes publish has no order among each other: two clients may see it in
    different orders, also in one channel.

    **What is not delivered.** Nothing comes twice. Nothing is kept: what other processes published before a
    channel had its first member here, or while the broker was away on either side, is lost for the clients
    here and is not sent later. Publishing while it is away is no error and reaches the clients of this
    process as always; `away` tells, and `/ready` with it. Nothing comes after `stop`.

    Every method is called in the loop's thread, does not block, and raises nothing when the broker has a
    problem. An adapter for several processes publishes to them and calls `self.local` itself, for its own
    publications at once and for those of others as they arrive; `occupied` and `vacated` tell it which
    channels those may concern.
    """

    local: LocalDelivery

    async def start(self, local: LocalDelivery) -> None:
        """Begins to carry; called once, before the first client.

        Args:
            local: delivers to the clients of this process.
        Raises:
            OSError: the broker is not there, and waiting for it is no good.
        """
        self.local = local

    @abstractmethod
    async def stop(self) -> None:
        """Ends it: what was published has been handed over. Nothing is delivered from now on. Idempotent."""

    @abstractmethod
    def away(self) -> str | None:
        """Why other processes are not reached just now, in a few words; None while all is well."""

    @abstractmethod
    def occupied(self, channel: str) -> None:
        """The first client of this process has joined the channel."""

    @abstractmethod
    def vacated(self, channel: str) -> None:
        """The last one has left it."""

    @abstractmethod
    def to_channel(
        self, channel: str, payload: bytes, *, data: Buffer | None = None, skip: str | None = None,
        except_user: str | None = None,
    ) -> int:  # fmt: skip
        """Publishes to the members of a channel; returns for how many of this process it was queued."""

    @abstractmethod
    def to_user(self, user_id: str, payload: bytes, *, skip: str | None = None) -> int:
        """Publishes to all clients of a user; returns as `to_channel`."""

    @abstractmethod
    def to_all(
        self, payload: bytes, *, skip: str | None = None, except_user: str | None = None,
        authenticated: bool = False,
    ) -> int:  # fmt: skip
        """Publishes to everybody, or to everybody who is not anonymous; returns as `to_channel`."""

    @abstractmethod
    def to_client(self, client_id: str, payload: bytes) -> int:
        """Publishes to one client; returns 1 if it is here."""
