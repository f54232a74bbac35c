"""A server whose clients do their worst, in a process of its own: what else ran in one leaves freed memory
behind, and growth into that does not show. The sizes come as one JSON argument; prints the bytes it grew by.
"""

import asyncio
import contextlib
import gc
import json
import os
import socket
import sys
from pathlib import Path

from heartwire import Client, Server
from heartwire.testing import BINARY, BackgroundServer, FramePeer, background_server, build_frame


def main(link: str, count: int, message: int, limit: int, sent: int) -> int:
    """None reads; each has a message handled, and more sent behind it, and its queue is full.

    Returns:
        By how many bytes the process grew.
    """
    server = Server(
        port=0, jwt_secret="x" * 32, welcome=False, link=link, max_message_size=message,
        send_buffer_limit=limit, ping_interval=60, handler_timeout=60,
    )  # fmt: skip
    held: list[Client] = []
    release = asyncio.Event()

    @server.on_binary
    async def hold(client: Client, data: bytes) -> None:
        held.append(client)
        await release.wait()
        assert len(data) == message  # so it was kept

    def fill() -> None:
        data = bytes(sent)
        for client in held:
            while client.connection.queued_bytes <= limit:
                client.send_bytes(data)

    with background_server(server) as background:
        peers = [peer(background) for _ in range(count)]
        before = resident()
        one = build_frame(BINARY, bytes(message))
        for each in peers:
            each.send_raw(one[:1000])
            each.send_raw(one[1000:])
        background.until(lambda: len(held) == count)
        for each in peers:
            send_until_full(each.socket, one * 4)
        for _ in range(100):  # until the kernels take no more either
            background.call(fill)
            background.wait(asyncio.sleep(0.02))
            if all(client.connection.queued_bytes > limit for client in held):
                break
        grown = resident() - before
        assert all(client.is_connected for client in held)
        assert all(client.connection.queued_bytes > limit for client in held), "the queues are not full"
        background.call(release.set)
        for each in peers:
            each.disconnect()
        background.until(lambda: not server.clients)
    return grown


def resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Raw(FramePeer):
    """A peer whose socket is at hand."""

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
    with contextlib.suppress(BlockingIOError):
        sock.sendall(data)
    sock.setblocking(True)


if __name__ == "__main__":
    print(main(**json.loads(sys.argv[1])))
