"""One message for 1,000 members: queueing (`Broker.to_channel`), and queueing with the sends that follow.

Beside one system call for each member, which is what they cost at least, and beside websockets (Sans-I/O).
"""

from __future__ import annotations

from typing import Any

import pytest
from websockets.server import ServerProtocol

from heartwire.brokers import MemoryBroker

MEMBERS = 1000


@pytest.fixture
def memory(memory_server: Any) -> Any:
    memory = memory_server(send_buffer_limit="1GiB")
    memory.broker = MemoryBroker()
    memory.broker.local = memory.registry
    links = []
    for i in range(MEMBERS):
        conn, link = memory.connect(f"user-{i}")
        memory.registry.join(conn.owner, "room")
        links.append(link)
    memory.links = links
    while memory.engine.backlog:
        memory.engine.run_batch()
    return memory


def system_calls(call: Any) -> None:
    for _ in range(MEMBERS):
        call()


def copies(view: memoryview) -> None:
    for _ in range(MEMBERS):
        bytes(view)


def websockets_peers(tools: Any) -> list[ServerProtocol]:
    peers = []
    for _ in range(MEMBERS):
        protocol = ServerProtocol()
        protocol.receive_data(tools.request_head("x"))
        protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
        protocol.data_to_send()
        peers.append(protocol)
    return peers


def websockets_send(peers: list[ServerProtocol], payload: bytes) -> None:
    for protocol in peers:
        protocol.send_text(payload)
        protocol.data_to_send()


@pytest.mark.parametrize("size", [128, 4096])
def test_queue_and_send(beside: Any, tools: Any, memory: Any, size: int) -> None:
    payload = tools.document(size)

    def fan_out() -> int:
        count: int = memory.broker.to_channel("room", payload)
        while memory.engine.backlog:
            memory.engine.run_batch()
        return count

    for link in memory.links:
        link.sent  # noqa: B018
    assert fan_out() == MEMBERS
    assert all(link.sent.endswith(payload) for link in memory.links)
    for link in memory.links:
        link.kept = None
    beside(
        (fan_out,),
        per=MEMBERS,
        limit_system_call=(system_calls, tools.system_call),
        limit_memcpy=(copies, memoryview(payload)),
        websockets=(websockets_send, websockets_peers(tools), payload),
    )


@pytest.mark.parametrize("size", [128, 4096])
def test_queue(benchmark: Any, tools: Any, memory: Any, size: int) -> None:
    """Queueing alone: what a handler waits for. The rest is sent after it, in slices."""
    payload = tools.document(size)
    for link in memory.links:
        link.kept = None

    def drain() -> None:
        while memory.engine.backlog:
            memory.engine.run_batch()

    assert benchmark.pedantic(memory.broker.to_channel, ("room", payload), setup=drain, rounds=200) == MEMBERS
