"""The handshake over real sockets: who gets a 101, and what the others are told (protocol.md 2)."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Server
from integration.peers import (
    CLOSE,
    TEXT,
    frame,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    refusal,
    token,
)

Make = Callable[..., Server]


# ------------------------------------------------------------------ tokens


def places(value: str) -> dict[str, tuple[str, str]]:
    """Each place of a token, first the strongest: (request target, header line)."""
    return {
        "header": ("/ws", f"Authorization: Bearer {value}"),
        "subprotocol": ("/ws", f"Sec-WebSocket-Protocol: heartwire.bearer, {value}"),
        "cookie": ("/ws", f"Cookie: session={value}"),
        "query": (f"/ws?token={value}", "X-Nothing: 1"),
    }


ORIGIN = "Origin: http://127.0.0.1"  # with the cookie it is needed


@pytest.mark.parametrize("place", ["header", "subprotocol", "cookie", "query"])
async def test_a_token_is_taken_from_each_place(make: Make, place: str) -> None:
    server = make(auth_cookie="session")
    await server.start()
    target, line = places(token("bob"))[place]
    async with raw_peer(server) as peer:
        peer.send(handshake(target, line, ORIGIN))
        answer = await peer.answer()
        assert answer.status == 101
        connected = await peer.event("connected")
        assert server.clients[connected["data"]["client_id"]].user_id == "bob"
        expected = "heartwire.bearer" if place == "subprotocol" else None
        assert answer.headers.get("sec-websocket-protocol") == expected


async def test_user_agents(make: Make) -> None:
    """Nothing forbids several, or none: the first is the client's."""
    server = make()
    await server.start()
    line = f"Authorization: Bearer {token('bob')}"
    for lines, expected in (([], None), (["User-Agent: a"], "a"), (["User-Agent: a", "User-Agent: b"], "a")):
        async with raw_peer(server) as peer:
            peer.send(handshake("/ws", line, *lines))
            assert (await peer.answer()).status == 101
            connected = await peer.event("connected")
            assert server.clients[connected["data"]["client_id"]].user_agent == expected


@pytest.mark.parametrize(("strong", "weak"), list(itertools.combinations(places(""), 2)))
async def test_the_first_place_with_a_token_decides(make: Make, strong: str, weak: str) -> None:
    server = make(auth_cookie="session")
    await server.start()
    good, stale = places(token("bob")), places(token("mallory", secret="another secret of at least 32 bytes"))

    def head(first: dict[str, tuple[str, str]], second: dict[str, tuple[str, str]]) -> bytes:
        target = second[weak][0] if weak == "query" else "/ws"
        return handshake(target, first[strong][1], second[weak][1], ORIGIN)

    async with raw_peer(server) as peer:
        peer.send(head(good, stale))
        assert (await peer.answer()).status == 101
    answer = await refusal(server, head(stale, good))
    assert (answer.status, answer.json["code"]) == (401, "token_invalid")


async def test_heartwire_v1_is_selected_where_it_is_offered(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", f"Sec-WebSocket-Protocol: heartwire.v1, heartwire.bearer, {token()}"))
        answer = await peer.answer()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "heartwire.v1")


async def test_no_token(server: Server) -> None:
    answer = await refusal(server, handshake())
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")
    assert answer.headers["www-authenticate"].startswith('Bearer error="')
    assert server.metrics.refusals == {"401 unauthenticated": 1}


async def test_an_expired_token(server: Server) -> None:
    answer = await refusal(server, handshake(bearer=token(expires_in=-1)))
    assert (answer.status, answer.json["code"]) == (401, "token_expired")


async def test_a_token_without_end_needs_the_option(make: Make) -> None:
    strict, lenient = make(), make(allow_no_exp=True)
    await strict.start()
    await lenient.start()
    endless = token(exp=None)
    assert (await refusal(strict, handshake(bearer=endless))).status == 401
    async with json_client(lenient, endless):
        pass


async def test_two_tokens_in_one_place(server: Server) -> None:
    answer = await refusal(server, handshake(f"/ws?token={token()}&token={token()}"))
    assert (answer.status, answer.json["code"]) == (401, "token_invalid")


async def test_the_query_can_be_turned_off(make: Make) -> None:
    server = make(query_token=False)
    await server.start()
    answer = await refusal(server, handshake(f"/ws?token={token()}"))
    assert (answer.status, answer.json["code"]) == (401, "unauthenticated")


@pytest.mark.parametrize("mode", ["handshake", "message", "optional"])
async def test_a_wrong_token_is_refused_in_every_mode(make: Make, mode: str) -> None:
    server = make(auth=mode)
    await server.start()
    answer = await refusal(server, handshake(bearer="no.token.at-all"))
    assert (answer.status, answer.json["code"]) == (401, "token_invalid")


async def test_tokens_are_never_logged(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    good, bad = token(), token(secret="another secret of at least 32 bytes")
    async with json_client(server, path=f"/ws?token={good}"):
        pass
    await refusal(server, handshake(f"/ws?token={bad}"))
    assert caplog.records
    assert not [secret for secret in (good, bad) if secret in caplog.text]


# ------------------------------------------------------------------ reject=close


@pytest.mark.parametrize(
    ("lines", "bearer", "code", "reason"),
    [
        ((), None, 4401, "unauthenticated"),
        ((), "no.token.at-all", 4401, "token_invalid"),
        (("Origin: https://evil.example",), "good", 4403, "origin_not_allowed"),
    ],
)
async def test_reject_close_upgrades_and_closes(
    make: Make, lines: tuple[str, ...], bearer: str | None, code: int, reason: str
) -> None:
    server = make(reject="close")
    heard: list[Any] = []
    server.on_connect(heard.append)
    server.on_disconnect(lambda client, cause: heard.append(cause))
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", *lines, bearer=token() if bearer == "good" else bearer))
        assert (await peer.answer()).status == 101
        assert await peer.close_frame() == (code, reason)
        peer.send_frame(CLOSE, code.to_bytes(2))
        assert await peer.eof() == b""
    # A refused client never was one: nobody hears of it, and the counts are as before.
    assert heard == []
    assert server.stats()["clients"] == 0
    assert server.metrics.disconnects == {}
    assert sum(server.metrics.refusals.values()) == 1


async def test_reject_close_selects_a_subprotocol_that_was_offered(make: Make) -> None:
    """Else browsers give up on the connection, and do not learn the code."""
    server = make(reject="close")
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", "Sec-WebSocket-Protocol: heartwire.bearer, no.token.at-all"))
        answer = await peer.answer()
        assert (answer.status, answer.headers["sec-websocket-protocol"]) == (101, "heartwire.bearer")
        assert await peer.close_frame() == (4401, "token_invalid")


async def test_reject_close_does_not_wear_out_the_capacity(make: Make) -> None:
    server = make(reject="close", max_connections=1)
    await server.start()
    for _ in range(3):
        async with raw_peer(server) as peer:
            peer.send(handshake())
            await peer.answer()
            assert (await peer.close_frame())[0] == 4401
            peer.send_frame(CLOSE, (4401).to_bytes(2))
            assert await peer.eof() == b""
    async with json_client(server, token()):
        assert (await refusal(server, handshake(bearer=token()))).status == 503


async def test_reject_close_keeps_the_status_of_what_no_browser_sends(make: Make) -> None:
    server = make(reject="close")
    await server.start()
    assert (await refusal(server, handshake(without=("Sec-WebSocket-Key",)))).status == 400
    assert (await refusal(server, handshake("/elsewhere"))).status == 404


# ------------------------------------------------------------------ Origin


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("X-None: 1", 101),
        ("Origin: http://127.0.0.1", 101),
        ("Origin: https://app.example", 101),
        ("Origin: https://evil.example", 403),
        ("Origin: null", 403),
    ],
)
async def test_origin(make: Make, line: str, status: int) -> None:
    server = make(origin=["https://app.example"])
    await server.start()
    if status == 403:
        answer = await refusal(server, handshake("/ws", line, bearer=token()))
        assert (answer.status, answer.json["code"]) == (403, "origin_not_allowed")
        return
    async with raw_peer(server) as peer:
        peer.send(handshake("/ws", line, bearer=token()))
        assert (await peer.answer()).status == 101


async def test_a_token_in_a_cookie_needs_an_origin(make: Make) -> None:
    server = make(auth_cookie="session")
    await server.start()
    assert (await refusal(server, handshake("/ws", f"Cookie: session={token()}"))).status == 403


# ------------------------------------------------------------------ the 101


async def test_a_head_byte_by_byte(server: Server) -> None:
    async with raw_peer(server) as peer:
        for byte in handshake(bearer=token()):
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        assert (await peer.answer()).status == 101
        await peer.event("connected")


@pytest.mark.parametrize("style", ["at once", "later"])
async def test_frames_in_the_segment_of_the_handshake(make: Make, style: str) -> None:
    server = make()
    if style == "later":

        @server.on_connect
        async def wait(client: Client) -> None:
            await asyncio.sleep(0)

    await server.start()
    first, second = b'{"action":"ping","id":1}', b'{"action":"ping","id":"two"}'
    async with raw_peer(server) as peer:
        peer.send(handshake(bearer=token()) + frame(TEXT, first) + frame(TEXT, second)[:10])
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        assert (await peer.event("pong"))["reply_to"] == 1
    async with raw_peer(server) as peer:
        peer.send(handshake(bearer=token()) + frame(TEXT, first) + frame(TEXT, second))
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        assert [(await peer.event("pong"))["reply_to"] for _ in range(2)] == [1, "two"]


async def test_the_welcome(make: Make) -> None:
    server = make(ping_interval=12.5)
    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        message = await client.event("connected")
        data = message["data"]
        assert data["client_id"] in server.clients
        assert data["protocol"] == 1
        assert data["ping_interval_ms"] == 12500
        assert data["server"].startswith("heartwire/")
        assert set(message) == {"id", "event", "data", "timestamp"}
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", message["timestamp"])


async def test_no_welcome(make: Make) -> None:
    server = make(welcome=False)
    await server.start()
    async with json_client(server, token(), welcome=False) as client:
        await client.quiet()


async def test_another_path(make: Make) -> None:
    server = make(path="/live/socket")
    await server.start()
    async with json_client(server, token(), path="/live/socket"):
        pass
    assert (await refusal(server, handshake(bearer=token()))).status == 404


async def test_a_firefox_handshake(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(
            handshake("/ws", "Connection: keep-alive, Upgrade", without=("Connection",), bearer=token())
        )
        assert (await peer.answer()).status == 101


async def test_a_message_and_a_close_right_behind_the_handshake(server: Server) -> None:
    async with raw_peer(server) as peer:
        peer.send(
            handshake(bearer=token()) + frame(TEXT, b'{"action":"ping"}') + frame(CLOSE, (1000).to_bytes(2))
        )
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        await peer.event("pong")
        assert await peer.close_frame() == (1000, "")
        assert await peer.eof() == b""


async def test_raw_client_is_open(server: Server) -> None:
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        (client,) = server.clients.values()
        assert client.is_connected
        assert client.remote_address == peer.writer.get_extra_info("sockname")
