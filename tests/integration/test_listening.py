"""Listening sockets, and what the sockets accepted from them inherit (protocol.md 5, 7)."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from heartwire import Server, features
from integration.peers import RawPeer, json_client, raw_client, raw_peer, token

Make = Callable[..., Server]

TCP_INFO_SIZE = 104
MAX_BACKLOG_AT = 28  # tcpi_sacked of struct tcp_info: of a listening socket, what was given to listen(2)


@pytest.mark.skipif(not features.REUSE_PORT, reason="a platform without SO_REUSEPORT")
async def test_two_servers_share_a_port(make: Make) -> None:
    """The kernel spreads connections over them; a third that did not ask for it gets no share."""
    one = make(reuse_port=True)
    await one.start()
    two = make(reuse_port=True, port=one.port)
    await two.start()
    async with AsyncExitStack() as crowd:
        for _ in range(40):  # that all of them meet one server has a chance of 2 to the -39th
            await crowd.enter_async_context(json_client(one, token()))
        assert len(one.clients) + len(two.clients) == 40
        assert one.clients
        assert two.clients
        with pytest.raises(OSError, match="in use"):
            await make(port=one.port).start()
        await one.stop()
        async with json_client(two, token()) as client:  # the port is the other one's alone now
            await client.quiet()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="Linux tells it")
async def test_the_backlog_is_the_kernels(make: Make) -> None:
    server = make(backlog=7)
    await server.start()
    (listener,) = server._listeners.sockets
    info = listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
    assert struct.unpack_from("I", info, MAX_BACKLOG_AT) == (7,)


def servers_end(peer: RawPeer) -> socket.socket:
    """The server's socket of a connection, both of whose ends are this process's."""
    wanted = peer.writer.get_extra_info("sockname")
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:  # no socket, or the listing's own
            continue
        try:
            if sock.getpeername() == wanted:
                return sock
        except OSError:  # not connected
            pass
        sock.close()
    raise AssertionError("the server has no such connection")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux lists descriptors there")
async def test_the_kernel_gives_up_when_the_heartbeat_would(make: Make) -> None:
    """TCP_USER_TIMEOUT is `ping_timeout`; and what is sent is not held back for company."""
    server = make(ping_timeout=12.5)
    await server.start()
    async with raw_client(server, token()) as peer:
        with servers_end(peer) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 12_500
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0


async def test_the_listener_stays_while_the_server_drains(make: Make) -> None:
    """Connections are taken, and answered, until the last client has gone; then there is no listener."""
    server = make(drain_delay=60)
    await server.start()
    port = server.port
    async with json_client(server, token()):
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        async with raw_peer(port) as late:
            late.send(b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await late.answer()).status == 503
        await server.stop()
        await draining
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
