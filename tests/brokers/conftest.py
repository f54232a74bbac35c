"""The adapters that are held to the contract, and servers that use them.

To hold another adapter to it, add a function that makes an `Adapter` to ADAPTERS.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import pytest

from brokers.loopback import LoopbackBroker, Wire
from heartwire import Server
from heartwire.brokers import Broker, MemoryBroker
from integration.peers import SECRET


class Adapter(NamedTuple):
    """An adapter under test."""

    make: Callable[[], Broker]
    """A broker for one more server."""
    cut_off: Callable[[Broker], None] | None
    """Takes a broker's network away; None: it has none, and no other server is reached."""
    restore: Callable[[Broker], None] | None


def memory() -> Adapter:
    return Adapter(MemoryBroker, None, None)


def loopback() -> Adapter:
    wire = Wire()
    return Adapter(lambda: LoopbackBroker(wire), wire.cut.add, wire.cut.discard)  # type: ignore[arg-type]


ADAPTERS = {"memory": memory, "loopback": loopback}
SHARED = [name for name, make in ADAPTERS.items() if make().cut_off is not None]


@pytest.fixture(params=ADAPTERS)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each of them."""
    return ADAPTERS[request.param]()


@pytest.fixture
async def start(adapter: Adapter) -> AsyncIterator[Callable[[], Awaitable[Server]]]:
    """Starts servers that share the adapter's network."""
    started: list[Server] = []

    async def start() -> Server:
        server = Server(
            broker=adapter.make(), port=0, jwt_secret=[SECRET], auth="optional", ping_interval=3600,
            close_timeout=2, presence_grace=0,
        )  # fmt: skip
        started.append(server)
        await server.start()
        return server

    yield start
    for server in started:
        await server.stop()
