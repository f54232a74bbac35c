"""Memory is bounded by configuration: clients do their worst, and docs/memory.md says how much that is."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import os
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heartwire import Client, Server
from heartwire.testing import BINARY, BackgroundServer, FramePeer, background_server, build_frame
from hostile.peer import PATIENCE_S, text
from hostile.watched import Attack
from links import LINKS

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
KIB = 1024
MESSAGE = 256 * KIB
LIMIT = 256 * KIB
SENT = 128 * KIB
COUNT = 40


def formulas() -> dict[str, Callable[..., int]]:
    """The functions of the page."""
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names


def resident() -> int:
    """Bytes of this process that are in use. What earlier tests have freed does not count: memory taken from
    it would not show."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others keep less
    if trim is not None:
        trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def fill(client: Client) -> None:
    """Sends as much as may wait."""
    data = bytes(SENT)
    while client.connection.queued_bytes <= LIMIT:
        client.send_bytes(data)


@pytest.mark.parametrize("link", LINKS)
def test_clients_that_do_their_worst(link: str) -> None:
    """None reads; each has a message handled, and more sent behind it, and its queue is full."""
    server = Server(
        port=0, jwt_secret="x" * 32, welcome=False, link=link, max_message_size=MESSAGE,
        send_buffer_limit=LIMIT, ping_interval=60, handler_timeout=60,
    )  # fmt: skip
    held: list[Client] = []
    release = asyncio.Event()

    @server.on_binary
    async def hold(client: Client, data: bytes) -> None:
        del data
        held.append(client)
        await release.wait()

    with background_server(server) as background:
        peers = [peer(background) for _ in range(COUNT)]
        before = resident()
        for each in peers:
            message = build_frame(BINARY, bytes(MESSAGE))
            each.send_raw(message[:1000])
            each.send_raw(message[1000:])
        background.until(lambda: len(held) == COUNT)
        for each in peers:
            send_until_full(each.socket, build_frame(BINARY, bytes(MESSAGE)) * 4)
        for _ in range(100):  # until the kernels take no more either
            background.call(lambda: [fill(client) for client in held])
            background.wait(asyncio.sleep(0.02))
            if all(client.connection.queued_bytes > LIMIT for client in held):
                break
        grown = resident() - before
        assert all(client.is_connected for client in held)
        assert all(client.connection.queued_bytes > LIMIT for client in held), "the queues are not full"
        background.call(release.set)
        for each in peers:
            each.disconnect()
        background.until(lambda: not server.clients)
    known = formulas()
    each_most = known["connection_bytes"](MESSAGE, LIMIT, SENT, asyncio_link=link == "asyncio")
    each_most += MESSAGE  # the handler's own
    print(f"{grown / KIB / COUNT:.0f} KiB of {each_most / KIB:.0f}")
    assert grown > COUNT * (MESSAGE + LIMIT), "that was not their worst"
    assert grown < known["server_bytes"](COUNT, MESSAGE, each_most)


class Raw(FramePeer):
    """A peer whose socket the test has."""

    socket: socket.socket


def peer(background: BackgroundServer) -> Raw:
    """A client that takes little into its kernel's buffers."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", background.port))
    made = Raw(sock)
    made.socket = sock
    made.open(background.target(background.mint()))
    return made


def send_until_full(sock: socket.socket, data: bytes) -> None:
    """As much as the server and the two kernels take."""
    sock.setblocking(False)
    try:
        sock.sendall(data)
    except BlockingIOError:
        pass
    finally:
        sock.setblocking(True)


def test_requests_that_never_end(attack: Attack, link: str) -> None:
    """Heads of nearly 16 KiB."""
    known = formulas()
    most = known["connection_bytes"](0, 0, 0, asyncio_link=link == "asyncio")
    with attack(handshake_timeout=30) as server:
        before = server.memory
        peers = [server.connect() for _ in range(200)]
        for each in peers:
            each.send(b"GET /ws HTTP/1.1\r\nX: " + b"x" * (15 * KIB))
        end = time.monotonic() + PATIENCE_S
        while server.memory - before < 200 * 12 * KIB:  # until it has been read
            assert time.monotonic() < end, "that was not their worst"
            time.sleep(0.01)
        with server.open() as witness:
            witness.send(text("1"))
            assert witness.message() == 1
        assert server.memory - before < known["server_bytes"](200, 0, most)
        for each in peers:
            each.reset()
