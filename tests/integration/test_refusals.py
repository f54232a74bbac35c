"""Handshakes that are refused: the answer, and the order of what is judged (protocol.md 2)."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from heartwire import Server
from integration.peers import (
    PATIENCE_S,
    get,
    handshake,
    json_client,
    raw_peer,
    refusal,
    token,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ refusals, in the order of the text

KEY = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="

VERSION = ("Sec-WebSocket-Version",)
REFUSED: list[tuple[str, bytes, int]] = [
    ("no host", handshake(without=("Host",)), 400),
    ("two hosts", handshake("/ws", "Host: other"), 400),
    ("two keys", handshake("/ws", KEY), 400),
    ("two versions", handshake("/ws", "Sec-WebSocket-Version: 13"), 400),
    ("control byte", handshake("/ws", "X-A: a\x01b"), 400),
    ("obs-fold", handshake("/ws", "X-A: a", " folded"), 400),
    ("body", handshake("/ws", "Content-Length: 3"), 400),
    ("path", handshake("/ws%zz"), 400),
    ("not http", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("http/1.0", handshake(version="HTTP/1.0"), 505),
    ("post", handshake(method="POST"), 405),
    ("elsewhere", handshake("/elsewhere"), 404),
    ("no upgrade", get("/ws"), 426),
    (
        "another version",
        handshake("/ws", "Sec-WebSocket-Version: 8", without=("Sec-WebSocket-Version",)),
        426,
    ),
]


@pytest.mark.parametrize(
    ("head", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_every_refusal_is_an_http_answer(server: Server, head: bytes, status: int) -> None:
    answer = await refusal(server, head)
    assert answer.status == status
    if status == 426:
        assert answer.headers["sec-websocket-version"] == "13"
    if status == 405:
        assert answer.headers["allow"] == "GET"


@pytest.mark.parametrize(
    ("head", "status"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
async def test_every_refusal_on_a_kept_alive_connection(server: Server, head: bytes, status: int) -> None:
    """What comes behind a plain request is answered as it would be on a connection of its own."""
    async with raw_peer(server) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(head)
        answer = await peer.answer()
        assert (answer.status, set(answer.json)) == (status, {"code", "message"})
        assert answer.headers["connection"] == "close"
        peer.send(b"abc")  # the body that one of them announced
        assert await peer.eof() == b""


class Faults(NamedTuple):
    """A request that breaks these rules; 503 and 429 are the server's state."""

    statuses: tuple[int, ...]

    @property
    def head(self) -> bytes:
        broken = self.statuses
        lines = ["Host: another"] if 400 in broken else []
        lines += ["Sec-WebSocket-Version: 8"] if 426 in broken else []
        lines += ["Origin: https://evil.example"] if 403 in broken else []
        return handshake(
            "/elsewhere" if 404 in broken else "/ws", *lines,
            bearer=None if 401 in broken else token(),
            without=VERSION if 426 in broken else (),
            method="POST" if 405 in broken else "GET",
            version="HTTP/1.0" if 505 in broken else "HTTP/1.1",
        )  # fmt: skip

    @property
    def options(self) -> dict[str, Any]:
        """Of a server that is in that state once it has one client."""
        full = {"max_connections": 1} if 503 in self.statuses else {}
        return full | ({"connect_rate": 0.01, "connect_burst": 1} if 429 in self.statuses else {})


IN_ORDER = (400, 505, 405, 404, 426, 503, 429, 403, 401)
PAIRS = [Faults(pair) for pair in itertools.combinations(IN_ORDER, 2)]


@pytest.mark.parametrize("faults", PAIRS, ids=lambda faults: "{} {}".format(*faults.statuses))
async def test_of_two_broken_rules_the_first_is_told(make: Make, faults: Faults) -> None:
    """Each pair of them, on a connection of its own and on one that has served a request."""
    server = make(**faults.options)
    await server.start()
    async with json_client(server, token()):
        assert (await refusal(server, faults.head)).status == faults.statuses[0]
        async with raw_peer(server) as peer:
            peer.send(get("/health"))
            assert (await peer.answer()).status == 200
            peer.send(faults.head)
            answer = await peer.answer()
            assert await peer.eof() == b""
        assert (answer.status, set(answer.json)) == (faults.statuses[0], {"code", "message"})
        assert answer.headers["connection"] == "close"


async def test_a_draining_server_judges_in_the_same_order(make: Make) -> None:
    server = make(drain_delay=60)
    await server.start()
    async with json_client(server, token()):
        draining = asyncio.create_task(server.drain())
        await asyncio.sleep(0)
        for status in (400, 505, 405, 404, 426):
            assert (await refusal(server, Faults((status,)).head)).status == status
        for status in (403, 401, 200):
            answer = await refusal(server, Faults((status,)).head)
            assert (answer.status, answer.json["code"]) == (503, "draining")
        await server.stop()
        await draining


async def test_a_head_that_is_too_large_comes_before_a_full_server(make: Make) -> None:
    server = make(max_connections=1)
    await server.start()
    async with json_client(server, token()):
        assert (await refusal(server, handshake("/ws", "X-Long: " + "x" * 20_000))).status == 431


async def test_the_largest_head(server: Server) -> None:
    """16 KiB, the empty line at its end included, are taken."""
    bearer = token()
    room = 16_384 - len(handshake("/ws", "X-Long: ", bearer=bearer))
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", "X-Long: " + "x" * room, bearer=bearer))
        assert (await peer.answer()).status == 101
    answer = await refusal(server, handshake("/ws", "X-Long: " + "x" * (room + 1), bearer=bearer))
    assert (answer.status, answer.json["code"]) == (431, "head_too_large")


async def test_a_head_that_is_too_large(server: Server) -> None:
    answer = await refusal(server, handshake("/ws", "X-Long: " + "x" * 20_000))
    assert answer.status == 431


async def test_a_head_that_grows_too_large(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(get("/ws")[:-2] + b"X-Long: ")
        peer.send(b"x" * 20_000)
        assert (await peer.answer()).status == 431


async def test_a_head_that_does_not_come(make: Make) -> None:
    server = make(handshake_timeout=0.1)
    await server.start()
    answer = await refusal(server, handshake()[:40])
    assert answer.status == 408


async def test_a_peer_that_says_nothing(make: Make) -> None:
    server = make(handshake_timeout=0.1)
    await server.start()
    assert (await refusal(server, b"")).status == 408


async def test_an_answer_is_not_lost_to_what_still_comes(server: Server) -> None:
    """The peer goes on sending after it was refused: it reads the answer all the same."""
    async with raw_peer(server) as peer:
        peer.send(handshake())
        peer.send(b"x" * 30_000)
        await peer.writer.drain()
        assert (await peer.answer()).status == 401
        peer.send(b"x" * 30_000)
        assert await peer.eof() == b""


async def test_a_refused_peer_that_sends_for_ever(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(handshake())
        assert (await peer.answer()).status == 401
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(ConnectionError):
                await peer.send_for_ever()


async def test_full(make: Make) -> None:
    server = make(max_connections=2)
    await server.start()
    async with json_client(server, token()), json_client(server, token()):
        answer = await refusal(server, handshake(bearer=token()))
        assert (answer.status, answer.json["code"]) == (503, "full")
        assert int(answer.headers["retry-after"]) > 0
