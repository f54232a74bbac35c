"""The client's address from trusted proxies, by header field and by PROXY protocol, and from nobody else."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from heartwire import Server
from integration.peers import PATIENCE_S, Ends, RawPeer, get, handshake, raw_peer, refusal, token, until

Make = Callable[..., Server]

KEY = "api-key-of-the-tests"
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 50000 80\r\n"
ADDRESS = bytes.fromhex("20010db8" + "0" * 23 + "1")
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x21" + struct.pack(">H", 36) + ADDRESS * 2 + struct.pack(">HH", 50001, 443)


async def address_of(server: Server, *sent: bytes, source: str = "127.0.0.1") -> tuple[str, int]:
    """Connects with these bytes; the remote address the server then has of the client."""
    async with raw_peer(server, local_addr=(source, 0)) as peer:
        for part in sent:
            peer.send(part)
            await peer.writer.drain()
        assert (await peer.answer()).status == 101
        await until(lambda: len(server.clients) == 1)
        (client,) = server.clients.values()
        address: tuple[str, int] = client.remote_address
    await until(lambda: not server.clients)
    return address


def said(value: str, *more: str) -> bytes:
    return handshake("/ws", f"X-Forwarded-For: {value}", *more, bearer=token())


async def test_the_field_counts_from_trusted_peers_only(make: Make) -> None:
    server = make(trusted_proxy=["127.0.0.1", "10.0.0.0/8"])
    await server.start()
    assert await address_of(server, said("1.1.1.1, 203.0.113.9, 10.0.0.7")) == ("203.0.113.9", 0)
    long_way = said("2001:db8::5", "Sec-WebSocket-Protocol: heartwire.v1")
    assert await address_of(server, long_way) == ("2001:db8::5", 0)
    assert (await address_of(server, said("203.0.113.9"), source="127.0.0.2"))[0] == "127.0.0.2"
    assert (await address_of(server, handshake(bearer=token())))[0] == "127.0.0.1"


async def test_nobody_is_trusted_by_default(server: Server) -> None:
    assert (await address_of(server, said("203.0.113.9")))[0] == "127.0.0.1"


async def test_forwarded(make: Make) -> None:
    server = make(trusted_proxy=["127.0.0.1"], forwarded_header="forwarded")
    await server.start()
    head = said("8.8.8.8", 'Forwarded: for="[2001:db8::6]:99";proto=https')
    assert await address_of(server, head) == ("2001:db8::6", 0)


async def test_a_proxy_on_a_unix_socket(make: Make, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    server = make(unix=path, trusted_proxy=["unix"])
    ends = Ends(server)
    await server.start()
    reader, writer = await asyncio.open_unix_connection(path)
    peer = RawPeer(reader, writer)
    peer.send(said("203.0.113.9"))
    assert (await peer.answer()).status == 101
    assert (await ends.client()).remote_address == ("203.0.113.9", 0)
    writer.close()
    await ends.cause()


async def test_limits_and_the_api_see_the_client(make: Make) -> None:
    server = make(trusted_proxy=["127.0.0.1"], max_connections_per_address=1, api_key=[KEY])
    await server.start()
    async with raw_peer(server) as peer, raw_peer(server) as other:
        peer.send(said("203.0.113.9"))
        assert (await peer.answer()).status == 101
        assert (await refusal(server, said("203.0.113.9"))).status == 429
        other.send(said("203.0.113.10"))
        assert (await other.answer()).status == 101
        async with raw_peer(server) as backend:
            backend.send(get("/api/clients", f"Authorization: Bearer {KEY}"))
            shown = (await backend.answer()).json["clients"]
        assert [client["remote_address"] for client in shown] == ["203.0.113.9", "203.0.113.10"]


async def test_a_host_that_the_proxy_replaced(make: Make) -> None:
    server = make(trusted_proxy=["127.0.0.1"])
    await server.start()
    lines = ("Origin: https://chat.example", "X-Forwarded-Host: chat.example")
    for _ in range(2):  # the second time it is known
        await address_of(server, handshake("/ws", *lines, bearer=token()))
    assert (await refusal(server, handshake("/ws", lines[0], bearer=token()))).status == 403
    evil = handshake("/ws", lines[0], "X-Forwarded-Host: other.example", bearer=token())
    assert (await refusal(server, evil)).status == 403
    async with raw_peer(server, local_addr=("127.0.0.2", 0)) as peer:
        peer.send(handshake("/ws", *lines, bearer=token()))
        assert (await peer.answer()).status == 403


# ------------------------------------------------------------------ the PROXY protocol


@pytest.mark.parametrize(
    ("header", "address"), [(V1, ("203.0.113.9", 50000)), (V2, ("2001:db8::1", 50001))], ids=["1", "2"]
)
async def test_proxy_protocol(make: Make, header: bytes, address: tuple[str, int]) -> None:
    server = make(proxy_protocol=True, trusted_proxy=["127.0.0.1"])
    await server.start()
    head = handshake(bearer=token())
    assert await address_of(server, header + head) == address
    assert await address_of(server, header[:7], header[7:] + head[:20], head[20:]) == address
    assert await address_of(server, header + said("8.8.8.8")) == address  # the client is no proxy of ours
    unknown = b"PROXY UNKNOWN\r\n"
    assert (await address_of(server, unknown + head))[0] == "127.0.0.1"


async def test_without_header_or_with_a_bad_one(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(proxy_protocol=True, trusted_proxy=["127.0.0.1"])
    await server.start()
    bad = b"PROXY TCP4 a b c d\r\n"
    for sent in (handshake(bearer=token()), bad + handshake(), V2[:13] + b"\xff" + V2[14:]):
        async with raw_peer(server) as peer:
            peer.send(sent)
            await peer.gone()
    assert server.stats()["refusals"] == {"closed proxy_header": 3}
    said_so = [record.getMessage() for record in caplog.records if record.name == "heartwire.refusals"]
    assert said_so == ["refused: closed proxy_header, from 127.0.0.1"]


async def test_peers_that_are_not_trusted_speak_for_themselves(make: Make) -> None:
    server = make(proxy_protocol=True, trusted_proxy=["127.0.0.1"])
    await server.start()
    assert (await address_of(server, handshake(bearer=token()), source="127.0.0.2"))[0] == "127.0.0.2"
    async with raw_peer(server, local_addr=("127.0.0.2", 0)) as peer:
        peer.send(V1 + handshake(bearer=token()))
        assert (await peer.answer()).status == 400


async def test_http_and_a_later_upgrade_on_the_same_connection(make: Make) -> None:
    server = make(proxy_protocol=True, trusted_proxy=["127.0.0.1"])
    ends = Ends(server)
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(V1 + get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(handshake(bearer=token()))
        assert (await peer.answer()).status == 101
        assert (await ends.client()).remote_address == ("203.0.113.9", 50000)
    async with asyncio.timeout(PATIENCE_S):
        await ends.cause()


async def test_a_proxy_that_has_gone_again_before_it_is_accepted(make: Make) -> None:
    """Health checks of proxies reset at once: the header they sent is still one."""
    server = make(trusted_proxy=["127.0.0.1"], proxy_protocol=True)
    await server.start()
    accepted = server.stats()["bytes_in"]
    with socket.create_connection(("127.0.0.1", server.port)) as check:  # the loop does not run meanwhile
        check.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        check.sendall(V2)
    await until(lambda: server.stats()["bytes_in"] > accepted)
    assert server.stats()["refusals"] == {}
