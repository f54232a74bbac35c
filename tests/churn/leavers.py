"""Clients that come and leave in every way there is, over raw sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from links import SLOWER

HEAD = (
    "GET /ws?token={} HTTP/1.1\r\nHost: churn\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
JOIN = b'{"action":"join_channel","channel":"lobby"}'
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
PATIENCE_S = 20.0 * SLOWER


def frame(opcode: int, payload: bytes = b"") -> bytes:
    """A masked frame; under the mask 0 the payload stays as it is (RFC 6455 section 5.3)."""
    assert len(payload) < 126
    return bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload


class Peer:
    """One client's socket. Every wait ends after PATIENCE_S."""

    def __init__(self, port: int) -> None:
        self._address = ("127.0.0.1", port)
        self._socket = socket.socket()
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._received = b""

    async def connect(self) -> None:
        await self._loop.sock_connect(self._socket, self._address)

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def _more(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            data = await self._loop.sock_recv(self._socket, 1 << 16)
        self._received += data
        return bool(data)

    async def open(self, token: str) -> str:
        """The opening handshake, and a membership in `lobby`. Returns the client id."""
        await self.connect()
        await self.send(HEAD.format(token).encode())
        while b"\r\n\r\n" not in self._received:
            assert await self._more(), self._received
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 "), head
        opcode, payload = await self.next()
        welcome = json.loads(payload)
        assert (opcode, welcome["event"]) == (TEXT, "connected")
        await self.send(frame(TEXT, JOIN))
        client_id: str = welcome["data"]["client_id"]
        return client_id

    async def next(self) -> tuple[int, bytes]:
        """The next frame; (-1, b"") where the connection ends."""
        while True:
            got = self._received
            if len(got) >= 2:
                start, length = 2, got[1]
                if length == 126 and len(got) >= 4:
                    start, length = 4, int.from_bytes(got[2:4], "big")
                if got[1] < 127 and len(got) >= start + length and (got[1] < 126 or start == 4):
                    self._received = got[start + length :]
                    return got[0] & 15, got[start : start + length]
            try:
                if not await self._more():
                    return -1, b""
            except ConnectionError:
                return -1, b""

    async def live(self, seconds: float) -> int | None:
        """Answers pings for so long. Returns None, or, if the server ended it, the code of its CLOSE."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    opcode, payload = await self.next()
                    if opcode in (CLOSE, -1):
                        return int.from_bytes(payload[:2], "big")
                    if opcode == PING:
                        await self.send(frame(PONG, payload))
        return None

    async def read_to_end(self) -> int:
        """Reads, answering nothing, until the server ends it. Returns the code of its CLOSE, 1006 without."""
        code = 1006
        while True:
            opcode, payload = await self.next()
            if opcode == -1:
                return code
            if opcode == CLOSE:
                code = int.from_bytes(payload[:2], "big")

    def shut(self) -> None:
        """Ends its sending direction: FIN."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self, *, reset: bool = False) -> None:
        """FIN, or RST if `reset` (or if something was left unread)."""
        if reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()


# ---------------------------------------------------------------- ways to leave an open connection


async def reset(peer: Peer) -> None:
    peer.close(reset=True)


async def reset_with_answers_under_way(peer: Peer) -> None:
    await peer.send(frame(TEXT, b'{"echo":"never read"}') * 20)
    peer.close(reset=True)


async def fin(peer: Peer) -> None:
    peer.close()


async def fin_in_mid_frame(peer: Peer) -> None:
    await peer.send(frame(TEXT, b'{"half":"a message"}')[:-7])
    peer.shut()
    await peer.read_to_end()


async def silence(peer: Peer) -> None:
    # Under load the server may end it by a reset behind its CLOSE: then 1006 is what is seen.
    assert await peer.read_to_end() in (4408, 1006)


async def half_close(peer: Peer) -> None:
    peer.shut()
    await peer.read_to_end()


async def clean_close(peer: Peer) -> None:
    await peer.send(frame(CLOSE, b"\x03\xe8"))
    assert await peer.read_to_end() == 1000


# How a client leaves, and the cause the server has to find.
WAYS: dict[Callable[[Peer], Awaitable[None]], str] = {
    reset: "peer_gone",
    reset_with_answers_under_way: "peer_gone",
    fin: "peer_gone",
    fin_in_mid_frame: "peer_gone",
    silence: "ping_timeout",
    half_close: "peer_gone",
    clean_close: "client_closed",
}


class Churn:
    """Clients that leave, each replaced at once by another.

    Attributes:
        left: client id -> cause that the server should have found.
        ways: how many left in which way.
        vanished: how many reset the connection behind a whole request: the server may have had a client.
        worst_lag: by how much this process was late at the most, in seconds: pongs were as late as that.
    """

    def __init__(
        self, port: int, tokens: list[str], rng: random.Random, longest_stay: float, ping_timeout: float
    ) -> None:
        self.left: dict[str, str] = {}
        self.ways: Counter[str] = Counter()
        self.vanished = 0
        self.worst_lag = 0.0
        self._ping_timeout = ping_timeout
        self._port = port
        self._tokens = tokens
        self._rng = rng
        self._longest_stay = longest_stay

    async def run(self, seconds: float) -> None:
        """Keeps one client going for each token, for so long; returns when all have left."""
        end = asyncio.get_running_loop().time() + seconds
        watching = asyncio.create_task(self._watch_lag())
        async with asyncio.TaskGroup() as group:
            for token in self._tokens:
                group.create_task(self._one_after_another(token, end))
        watching.cancel()

    async def _watch_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.01
            await asyncio.sleep(0.01)
            self.worst_lag = max(self.worst_lag, loop.time() - due)

    async def _one_after_another(self, token: str, end: float) -> None:
        loop = asyncio.get_running_loop()
        ways = list(WAYS)
        while loop.time() < end:
            peer = Peer(self._port)
            try:
                choice = self._rng.randrange(len(ways) + 2)
                if choice >= len(ways):
                    await self._leave_in_handshake(peer, token, whole=choice == len(ways))
                    continue
                client_id = await peer.open(token)
                way = ways[choice]
                code = await peer.live(self._rng.uniform(0, self._longest_stay))
                if code is not None:
                    # Nobody who is well is ended, unless this overloaded machine kept us from answering.
                    assert code == 4408, f"the server ended it, and it was well: {code}"
                    assert self.worst_lag > self._ping_timeout / 4, "the server did not see its pongs"
                    way = silence
                await way(peer)
                self.left[client_id] = WAYS[way]
                self.ways[way.__name__] += 1
            finally:
                peer.close()

    async def _leave_in_handshake(self, peer: Peer, token: str, *, whole: bool) -> None:
        head = HEAD.format(token).encode()
        await peer.connect()
        await peer.send(head if whole else head[: self._rng.randrange(1, len(head))])
        if self._rng.random() < 0.5:
            await asyncio.sleep(0)
        peer.close(reset=True)
        self.vanished += whole
        self.ways["reset_behind_the_request" if whole else "reset_in_the_request"] += 1


def differences(churn: Churn, ended: dict[str, list[Any]]) -> list[str]:
    """What of the server's account does not match how the clients left: one line each.

    Args:
        ended: client id -> the causes that `on_disconnect` was called with.
    """
    wrong = [
        f"{client_id}: {ended.get(client_id)} instead of [{cause!r}]"
        for client_id, cause in churn.left.items()
        if ended.get(client_id) != [cause]
    ]
    others = {client_id: causes for client_id, causes in ended.items() if client_id not in churn.left}
    wrong += [f"{i}: {c} of a reset handshake" for i, c in others.items() if c != ["peer_gone"]]
    if len(others) > churn.vanished:
        wrong.append(f"{len(others)} clients nobody was, and only {churn.vanished} could have been")
    return wrong
