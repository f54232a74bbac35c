"""A broker for several servers of one process: what an adapter for a network has to do, without the network.

It shows that the contract can be kept by an adapter that only has bytes to send, and lets tests cut the wire.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import msgspec

from heartwire.brokers import Broker, whole

__all__ = ["LoopbackBroker", "Wire"]


class Wire:
    """Carries bytes between the brokers that are plugged in; not for one that is cut off."""

    def __init__(self) -> None:
        self.brokers: list[LoopbackBroker] = []
        self.cut: set[LoopbackBroker] = set()

    def carry(self, sender: LoopbackBroker, message: bytes) -> None:
        """To all others, at some later time, in order."""
        loop = asyncio.get_running_loop()
        if sender in self.cut:
            return
        for broker in self.brokers:
            if broker is not sender and broker not in self.cut:
                loop.call_soon(broker.arrived, message)


class LoopbackBroker(Broker):
    """One server's end of the wire."""

    _numbers = itertools.count()

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._number = next(self._numbers)
        self.channels: set[str] = set()

    async def start(self, local: Any) -> None:
        await super().start(local)
        self._wire.brokers.append(self)

    async def stop(self) -> None:
        if self in self._wire.brokers:
            self._wire.brokers.remove(self)

    def away(self) -> str | None:
        return "the wire is cut" if self in self._wire.cut else None

    def occupied(self, channel: str) -> None:
        assert channel not in self.channels
        self.channels.add(channel)

    def vacated(self, channel: str) -> None:
        self.channels.remove(channel)

    def to_channel(
        self, channel: str, payload: bytes, *, data: Any = None, skip: str | None = None,
        except_user: str | None = None,
    ) -> int:  # fmt: skip
        here = self.local.to_channel(channel, payload, data=data, skip=skip, except_user=except_user)
        self._send("to_channel", [channel, whole(payload, data)], skip=skip, except_user=except_user)
        return here

    def to_user(self, user_id: str, payload: bytes, *, skip: str | None = None) -> int:
        here = self.local.to_user(user_id, payload, skip=skip)
        self._send("to_user", [user_id, payload], skip=skip)
        return here

    def to_all(
        self, payload: bytes, *, skip: str | None = None, except_user: str | None = None,
        authenticated: bool = False,
    ) -> int:  # fmt: skip
        here = self.local.to_all(payload, skip=skip, except_user=except_user, authenticated=authenticated)
        self._send("to_all", [payload], skip=skip, except_user=except_user, authenticated=authenticated)
        return here

    def to_client(self, client_id: str, payload: bytes) -> int:
        here = self.local.to_client(client_id, payload)
        if not here:
            self._send("to_client", [client_id, payload])
        return here

    def _send(self, call: str, values: list[Any], **options: Any) -> None:
        self._wire.carry(self, msgspec.msgpack.encode([call, values, options]))

    def arrived(self, message: bytes) -> None:
        """Something came over the wire."""
        if self not in self._wire.brokers:
            return
        call, values, options = msgspec.msgpack.decode(message)
        if call != "to_channel" or values[0] in self.channels:
            getattr(self.local, call)(*values, **options)
