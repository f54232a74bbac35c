"""Handshakes that are refused: the answer, and the order of what is judged (protocol.md 2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from heartwire import Server
from integration.peers import (
    PATIENCE_S,
    Ends,
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


async def test_what_is_judged_first(make: Make) -> None:
    """One request after the other loses the first of its faults, and is told the next."""
    server = make(max_connections=1)
    ends = Ends(server)
    await server.start()
    bad_origin = "Origin: https://evil.example"
    lines = (bad_origin, "Sec-WebSocket-Version: 8")
    old, elsewhere = "HTTP/1.0", "/elsewhere"
    async with json_client(server, token()):
        heads = [
            (handshake(elsewhere, *lines, "Host: b", without=VERSION, method="POST", version=old), 400),
            (handshake(elsewhere, *lines, without=VERSION, method="POST", version=old), 505),
            (handshake(elsewhere, *lines, without=VERSION, method="POST"), 405),
            (handshake(elsewhere, *lines, without=VERSION), 404),
            (handshake("/ws", *lines, without=VERSION), 426),
            (handshake("/ws", bad_origin), 503),
        ]
        for head, status in heads:
            assert (await refusal(server, head)).status == status
    assert await ends.cause() == "client_closed"
    assert (await refusal(server, handshake("/ws", bad_origin))).status == 403
    assert (await refusal(server, handshake("/ws"))).status == 401


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
