"""Limits by address, by user and by rate, each with its answer, its count and its log line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from heartwire import Client, Server
from integration.peers import (
    TEXT,
    Ends,
    handshake,
    json_client,
    raw_client,
    raw_peer,
    refusal,
    token,
    until,
)
from links import needs_deflate
from publisher import publisher
from signing import jwk_set, key_pair

Make = Callable[..., Server]


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "heartwire.refusals"]


# ------------------------------------------------------------------ by address


async def test_connections_of_an_address(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(max_connections_per_address=2)
    await server.start()
    async with json_client(server, token("a")), json_client(server, token("b")) as second:
        for _ in range(3):
            answer = await refusal(server, handshake(bearer=token()))
            assert (answer.status, answer.json["code"]) == (429, "address_full")
            assert int(answer.headers["retry-after"]) > 0
        async with raw_client(server, token(), local_addr=("127.0.0.2", 0)):
            pass
        await second.ws.close()
        await until(lambda: len(server.clients) == 1)
        async with json_client(server, token("b")):
            assert (await refusal(server, handshake())).status == 429  # judged before the token
    assert server.stats()["refusals"] == {"429 address_full": 4}
    assert lines(caplog) == ["refused: 429 address_full, from 127.0.0.1"]


async def test_connect_rate(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(connect_rate=0.01, connect_burst=3)
    await server.start()
    async with json_client(server, token()):
        pass
    assert (await refusal(server, handshake())).status == 401  # refused ones count
    long_way = handshake("/ws", "Sec-WebSocket-Protocol: heartwire.v1", bearer=token())
    async with raw_peer(server) as peer:
        peer.send(long_way)
        assert (await peer.answer()).status == 101
    for head in (long_way, handshake(bearer=token()), handshake()):
        answer = await refusal(server, head)
        assert (answer.status, answer.json["code"]) == (429, "connect_rate")
        assert 90 <= int(answer.headers["retry-after"]) <= 100
    assert (await refusal(server, handshake("/elsewhere"))).status == 404  # judged before
    async with raw_client(server, token(), local_addr=("127.0.0.2", 0)):
        pass
    assert server.stats()["refusals"]["429 connect_rate"] == 3
    assert lines(caplog).count("refused: 429 connect_rate, from 127.0.0.1") == 1


async def test_a_request_counts_once_for_the_connect_rate(make: Make) -> None:
    """Also one that is judged in two steps, since its key has to be asked for."""
    async with publisher(jwk_set(key_pair("ES256"))) as provider:
        server = make(jwt_secret=[], jwks_url=provider.url, connect_rate=0.01, connect_burst=2)
        await server.start()
        for number in range(2):
            new = key_pair("ES256", f"new-{number}")
            answer = await refusal(server, handshake(bearer=new.token()))
            assert (answer.status, answer.json["code"]) == (401, "token_invalid")
        assert (await refusal(server, handshake())).status == 429


async def test_full_comes_before_the_connect_rate(make: Make) -> None:
    server = make(connect_rate=0.01, connect_burst=1, max_connections=1)
    await server.start()
    async with json_client(server, token()):
        assert (await refusal(server, handshake(bearer=token()))).status == 503
        assert (await refusal(server, handshake(bearer=token()))).status == 503


@pytest.mark.parametrize("why", ["connect_rate", "address_full", "user_full"])
async def test_where_the_answer_is_a_close_code(make: Make, why: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "connect_rate": {"connect_rate": 0.01, "connect_burst": 1},
        "address_full": {"max_connections_per_address": 1},
        "user_full": {"max_connections_per_user": 1},
    }
    server = make(reject="close", **options[why])
    await server.start()
    async with json_client(server, token()):
        async with raw_peer(server) as peer:
            peer.send(handshake(bearer=token()))
            assert (await peer.answer()).status == 101
            assert await peer.close_frame() == (4429, why)
        assert server.stats()["refusals"] == {f"429 {why}": 1}
        assert len(server.clients) == 1


# ------------------------------------------------------------------ by user


async def test_connections_of_a_user(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(max_connections_per_user=2)
    await server.start()
    async with json_client(server, token("alice")), json_client(server, token("alice")) as second:
        answer = await refusal(server, handshake(bearer=token("alice")))
        assert (answer.status, answer.json["code"]) == (429, "user_full")
        assert int(answer.headers["retry-after"]) > 0
        async with json_client(server, token("bob")):
            pass
        await second.ask("authenticate", token=token("alice"))  # a new token is no new connection
        await second.ws.close()
        await until(lambda: len(server.clients) == 1)
        async with json_client(server, token("alice")):
            pass
    assert lines(caplog) == ["refused: 429 user_full, from 127.0.0.1"]


async def test_connections_of_a_user_who_authenticates_by_message(make: Make) -> None:
    server = make(max_connections_per_user=1, auth="message")
    ends = Ends(server)
    await server.start()
    async with json_client(server) as first, json_client(server) as second:
        assert (await first.ask("authenticate", token=token("alice")))["event"] == "authenticated"
        await second.send({"action": "authenticate", "token": token("alice")})
        assert await second.closed() == (4429, "user_full")
        assert await ends.cause() == "rate_limited"
        assert (await first.ask("authenticate", token=token("alice")))["event"] == "authenticated"
        assert len(server.users["alice"]) == 1


async def test_connections_of_a_user_known_by_the_application(make: Make) -> None:
    server = make(max_connections_per_user=1)

    @server.authenticate
    async def who(request: Any) -> str:
        return "alice"

    await server.start()
    async with json_client(server):
        assert (await refusal(server, handshake())).status == 429


# ------------------------------------------------------------------ what a client sends


async def test_messages_a_second(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(message_rate=0.01, message_burst=3)
    ends = Ends(server)
    got: list[Any] = []
    server.on_message(lambda client, value: got.append(value))
    await server.start()
    async with json_client(server, token()) as client, json_client(server, token()) as other:
        for i in range(3):
            await client.send({"n": i})
        answer = await client.error("ping")
        assert answer["code"] == "rate_limited"
        assert "messages" in answer["message"]
        for _ in range(9):
            await client.send("no json")  # it is not even looked at
        for _ in range(9):
            assert (await client.event("error"))["data"]["code"] == "rate_limited"
        assert await client.closed() == (4429, "too many messages")
        assert await ends.cause() == "rate_limited"
        await other.quiet()
    assert got == [{"n": 0}, {"n": 1}, {"n": 2}]
    stats = server.stats()
    assert stats["errors"] == {"rate_limited": 10}
    assert stats["rate_limited"] == {"messages": 10, "bytes": 0}
    assert stats["disconnects"]["rate_limited"] == 1
    assert lines(caplog) == ["refused: 4429 rate_limited, from 127.0.0.1"]


async def test_an_accepted_message_begins_the_count_anew(make: Make) -> None:
    server = make(byte_rate=1, byte_burst=1000)
    server.on_message(lambda client, value: client.send_json("accepted"))
    await server.start()
    async with json_client(server, token()) as client:
        await client.send({"x": "a" * 800})
        for _ in range(3):
            assert await client.receive() == "accepted"
            for _ in range(9):
                await client.send({"x": "a" * 500})
                assert (await client.event("error"))["data"]["code"] == "rate_limited"
            await client.send({})
        assert await client.receive() == "accepted"


async def test_other_errors_among_them(make: Make) -> None:
    """Ten errors in a row, of which not all are about the rate: 1008."""
    server = make(message_rate=0.01, message_burst=2)
    ends = Ends(server)
    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(12):
            await client.send({"action": "nothing"})
        assert (await client.closed())[0] == 1008
    assert await ends.cause() == "too_many_errors"


@needs_deflate
async def test_bytes_a_second_of_what_was_compressed(make: Make) -> None:
    server = make(byte_rate=1000, byte_burst=100_000, compression="shared")
    server.on_message(lambda client, value: client.send_json(len(value)))
    await server.start()
    async with json_client(server, token(), compression="deflate") as client:
        await client.send({"x": "a" * 60_000})
        assert await client.receive() == 1
        await client.send({"x": "a" * 60_000})
        answer = (await client.event("error"))["data"]
        assert answer["code"] == "rate_limited"
        assert "bytes" in answer["message"]
        await client.send({"x": "a" * 30_000})
        assert await client.receive() == 1


async def test_a_server_that_speaks_no_json_closes_at_once(make: Make) -> None:
    server = make(message_rate=0.01, message_burst=2, auth="optional")
    got: list[str] = []
    server.on_text(lambda client, text: got.append(text))
    ends = Ends(server)
    await server.start()
    async with raw_client(server) as peer:
        for text in (b"a", b"b", b"c", b"d"):
            peer.send_frame(TEXT, text)
        assert (await peer.close_frame())[0] == 4429
    assert await ends.cause() == "rate_limited"
    assert got == ["a", "b"]


async def test_what_waited_for_a_handler_counts_when_it_is_read(make: Make) -> None:
    server = make(message_rate=0.01, message_burst=3)
    got: list[int] = []

    @server.action("slow")
    async def slow(client: Client) -> None:
        await client.drain()
        got.append(1)

    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(5):
            await client.send({"action": "slow"})
        for _ in range(2):
            assert (await client.event("error"))["data"]["code"] == "rate_limited"
    assert len(got) == 3
