"""How connections end: one cause each, its code on the wire, told once (protocol.md 4)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, ConnectionClosed, LocalProtocolError, Server
from integration.peers import (
    BINARY,
    CLOSE,
    CONT,
    PATIENCE_S,
    PING,
    PONG,
    TEXT,
    Ends,
    frame,
    json_client,
    raw_client,
    token,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ the peer ends it


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (3210, "é" * 20), (4321, "mine")])
async def test_the_client_closes(make: Make, code: int, reason: str) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token("bob")) as client:
        there = await ends.client()
        await client.join("lobby")
        await client.ws.close(code, reason)
        assert client.ws.close_code == code  # the answer repeats it
    assert await ends.cause() == "client_closed"
    assert (there.connection.code, there.connection.reason) == (code, reason)
    assert not server.channels
    with pytest.raises(ConnectionClosed) as caught:
        there.send_json(1)
    assert (caught.value.code, caught.value.reason, caught.value.cause) == (code, reason, "client_closed")
    await server.stop()
    assert len(ends.told) == 1


async def test_a_close_without_a_code(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(CLOSE)
        assert await peer.frame() == (CLOSE, b"")
        assert await peer.eof() == b""
    await ends.only("client_closed")


@pytest.mark.parametrize("how", ["fin", "reset", "fin inside a message", "fin inside a header"])
async def test_the_peer_is_gone(make: Make, how: str) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        there = await ends.client()
        if how == "reset":
            peer.reset()
        else:
            peer.send({"fin": b"", "fin inside a message": frame(TEXT, b"x" * 100)[:50]}.get(how, b"\x81"))
            peer.writer.write_eof()
            await peer.gone()
        assert await ends.cause() == "peer_gone"
    assert there.connection.code == 1006
    await server.stop()
    assert len(ends.told) == 1


async def test_messages_before_a_fin_are_served(make: Make) -> None:
    server = make()
    ends = Ends(server)
    heard: list[Any] = []
    server.on_message(lambda client, value: heard.append(value))
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send(frame(TEXT, b"1") + frame(TEXT, b"2"))
        peer.writer.write_eof()
        await peer.gone()
    await ends.only("peer_gone")
    assert heard == [1, 2]


# ------------------------------------------------------------------ the application ends it


@pytest.mark.parametrize("code", [1000, 3000, 3999, 4000, 4399])
async def test_the_application_closes(make: Make, code: int) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        there = await ends.client()
        there.send_json("last words")
        there.close(code, "bye")
        there.close(3001, "again")  # idempotent
        assert not there.is_connected
        assert there.id not in server.clients
        assert await client.receive() == "last words"
        assert await client.closed() == (code, "bye")
    await ends.only("server_closed")


async def test_the_application_s_code_is_1000_unless_it_says_another(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        (await ends.client()).close()
        assert await client.closed() == (1000, "")
    await ends.only("server_closed")


async def test_codes_that_are_not_the_application_s(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        there = await ends.client()
        for code in (999, 1001, 1005, 1006, 1011, 2999, 4400, 4401, 4599, 4999, 5000):
            with pytest.raises(LocalProtocolError, match=str(code)):
                there.close(code)
        await client.quiet()


async def test_a_long_reason_is_cut_between_characters(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        (await ends.client()).close(1000, "é" * 100)
        assert await client.closed() == (1000, "é" * 61)  # 123 bytes at most


async def test_kick(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        (await ends.client()).kick("spam")
        assert (await client.event("kicked"))["data"] == {"reason": "spam"}
        assert await client.closed() == (4403, "spam")
    await ends.only("kicked")


async def test_kick_says_no_json_to_clients_of_on_text(make: Make) -> None:
    server = make()
    server.on_text(lambda client, text: None)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        (await ends.client()).kick()
        opcode, payload = await peer.frame()
        assert (opcode, payload[:2]) == (CLOSE, (4403).to_bytes(2))
    await ends.only("kicked")


async def test_a_peer_that_does_not_answer_our_close(make: Make) -> None:
    server = make(close_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        (await ends.client()).close(3000)
        assert await peer.close_frame() == (3000, "")
        for _ in range(3):
            peer.send_frame(TEXT, b'{"action":"ping"}')  # read and thrown away
        await peer.gone()
    await ends.only("server_closed")


async def test_close_inside_a_handler_throws_the_rest_away(make: Make) -> None:
    server = make()
    ends = Ends(server)
    heard: list[Any] = []

    @server.on_message
    def handle(client: Client, value: Any) -> None:
        heard.append(value)
        client.close(3000)

    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send(frame(TEXT, b"1") + frame(TEXT, b"2") + frame(PING, b"x"))
        assert await peer.frame() == (CLOSE, (3000).to_bytes(2))
        peer.send_frame(CLOSE, (3000).to_bytes(2))
        assert await peer.eof() == b""
    await ends.only("server_closed")
    assert heard == [1]


# ------------------------------------------------------------------ protocol violations

VIOLATIONS: list[tuple[str, bytes, int, str]] = [
    ("not masked", b"\x81\x01x", 1002, "protocol_error"),
    ("reserved bit", b"\xc1" + frame(TEXT, b"x")[1:], 1002, "protocol_error"),
    ("reserved opcode", frame(3), 1002, "protocol_error"),
    ("fragmented ping", frame(PING, fin=False), 1002, "protocol_error"),
    ("long ping", frame(PING, b"x" * 126), 1002, "protocol_error"),
    ("no beginning", frame(CONT, b"x"), 1002, "protocol_error"),
    ("two beginnings", frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002, "protocol_error"),
    ("close code 1005", frame(CLOSE, (1005).to_bytes(2)), 1002, "protocol_error"),
    ("close of one byte", frame(CLOSE, b"\x03"), 1002, "protocol_error"),
    ("close reason", frame(CLOSE, (1000).to_bytes(2) + b"\xff"), 1007, "invalid_utf8"),
    ("utf-8", frame(TEXT, b"\xff"), 1007, "invalid_utf8"),
    ("utf-8 in the middle", frame(TEXT, b"\xff", fin=False), 1007, "invalid_utf8"),
    ("utf-8 cut short", frame(TEXT, "é".encode()[:1]), 1007, "invalid_utf8"),
    (
        "utf-8 in data",
        frame(TEXT, b'{"action":"send_message","channel":"c","data":"\xff"}'),
        1007,
        "invalid_utf8",
    ),
    ("binary", frame(BINARY, b"x"), 1003, "unsupported_data"),
    ("too big", frame(TEXT, b"1" * 1001), 1009, "too_big"),
    ("too big in pieces", frame(TEXT, b"1" * 600, fin=False) + frame(CONT, b"1" * 401), 1009, "too_big"),
    ("too big and announced", frame(TEXT, b"1" * 70_000)[:14], 1009, "too_big"),
    ("too many fragments", frame(TEXT, b"1", fin=False) + frame(CONT, fin=False) * 5, 1009, "too_big"),
]


@pytest.mark.parametrize(
    ("sent", "code", "cause"), [v[1:] for v in VIOLATIONS], ids=[v[0] for v in VIOLATIONS]
)
async def test_violations(make: Make, sent: bytes, code: int, cause: str) -> None:
    server = make(max_message_size=1000, max_fragments=4)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        ping = frame(TEXT, b'{"action":"ping"}')
        peer.send(ping + sent + ping)  # what is before is served, nothing after
        await peer.event("pong")
        opcode, payload = await peer.frame()
        assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, code)
        if cause == "unsupported_data":
            peer.send_frame(CLOSE, payload)  # the stream is intact: an ordinary closing handshake
        assert await peer.eof() == b""
    await ends.only(cause)


async def test_limits_are_inclusive(make: Make) -> None:
    server = make(max_message_size=1000, max_fragments=4)
    server.on_message(lambda client, value: client.send_json(len(value)))
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, json.dumps("x" * 998).encode())
        assert await peer.frame() == (TEXT, b"998")
        peer.send(frame(TEXT, b'"', fin=False) + frame(CONT, fin=False) * 2 + frame(CONT, b'"'))
        assert await peer.frame() == (TEXT, b"0")


async def test_a_message_that_is_never_complete(make: Make) -> None:
    server = make(message_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        peer.send_frame(TEXT, b'"begun', fin=False)
        peer.send_frame(PING, b"alive")
        assert await peer.frame() == (PONG, b"alive")
        assert (await peer.close_frame())[0] == 1008
    await ends.only("message_timeout")


async def test_too_many_errors(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(10):
            await client.send("nope")
        assert (await client.closed())[0] == 1008
    await ends.only("too_many_errors")


# ------------------------------------------------------------------ all at once


async def test_a_crowd_ends_and_each_end_is_told_once(make: Make) -> None:
    server = make()
    ends = Ends(server)
    await server.start()

    async def one(i: int) -> None:
        async with raw_client(server, token(f"user-{i % 7}")) as peer:
            await peer.event("connected")
            peer.send_frame(TEXT, b'{"action":"join_channel","channel":"lobby"}')
            await peer.event("joined_channel")
            match i % 4:
                case 0:
                    peer.reset()
                case 1:
                    peer.send_frame(CLOSE, (1000).to_bytes(2))
                    await peer.eof()
                case 2:
                    peer.send(b"\xff\xff")
                    await peer.close_frame()
                case 3:
                    peer.send_frame(TEXT, b'{"action":"send_message","channel":"lobby"}')

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(one(i) for i in range(100)))
        causes = [await ends.cause() for _ in range(100)]
    await server.stop()
    assert len({client for client, _ in ends.told}) == len(ends.told) == 100
    assert server.metrics.disconnects.total() == 100
    assert causes.count("client_closed") == causes.count("protocol_error") == 25
    assert causes.count("peer_gone") == 50
    assert (server.clients, server.channels, dict(server.users)) == ({}, {}, {})
