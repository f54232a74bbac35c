"""From a request head to an open, authenticated client, and each part by itself.

Beside PyJWT and websockets (Sans-I/O), and beside the HMAC that a signature costs at least.
"""

from __future__ import annotations

import hmac
from typing import Any

import jwt
import pytest
from websockets.server import ServerProtocol

from heartwire import handshake
from heartwire._core.head import read_ordinary_head
from heartwire.auth import TokenVerifier
from heartwire.http_head import Request, classify
from heartwire.keyring import KeyRing
from heartwire.keys import secret_keys


@pytest.fixture
def bearer(tools: Any) -> str:
    return str(tools.token("anna"))


@pytest.fixture
def head(tools: Any, bearer: str) -> bytes:
    return bytes(tools.request_head(bearer))


def websockets_handshake(head: bytes) -> bytes:
    protocol = ServerProtocol()
    protocol.receive_data(head)
    protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
    return b"".join(protocol.data_to_send())


def websockets_with_token(head: bytes, secret: str) -> bytes:
    protocol = ServerProtocol()
    protocol.receive_data(head)
    request: Any = protocol.events_received()[0]
    assert jwt.decode(request.headers["Authorization"][7:], secret, algorithms=["HS256"])["sub"] == "anna"
    protocol.send_response(protocol.accept(request))
    return b"".join(protocol.data_to_send())


def test_read_ordinary_head(beside: Any, head: bytes) -> None:
    assert read_ordinary_head(head).path == "/ws"
    beside(
        (read_ordinary_head, head),
        limit_memcpy=(bytes, memoryview(head)),
        classify=(classify, head, "/ws"),
    )


def test_classify(beside: Any, head: bytes) -> None:
    assert isinstance(classify(head, "/ws"), Request)
    beside((classify, head, "/ws"), websockets_whole_handshake=(websockets_handshake, head))


def test_accept(beside: Any, head: bytes) -> None:
    request = classify(head, "/ws")
    assert isinstance(request, Request)
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in handshake.accept(request).response
    beside((handshake.accept, request), websockets_whole_handshake=(websockets_handshake, head))


def test_verify_token(beside: Any, tools: Any, bearer: str) -> None:
    verifier = TokenVerifier(KeyRing(secret_keys([tools.SECRET])))
    assert verifier.verify(bearer).user_id == "anna"
    signed = bearer.rpartition(".")[0].encode()

    def pyjwt() -> Any:
        return jwt.decode(bearer, tools.SECRET, algorithms=["HS256"])

    assert pyjwt()["sub"] == "anna"
    beside(
        (verifier.verify, bearer),
        limit_hmac=(hmac.digest, tools.SECRET.encode(), signed, "sha256"),
        PyJWT=(pyjwt,),
    )


@pytest.mark.parametrize("origin", [False, True], ids=["native", "with_origin"])
def test_admission(beside: Any, tools: Any, memory_server: Any, head: bytes, origin: bool) -> None:
    """A connection is made, opened, welcomed, registered, and torn down again."""
    memory = memory_server()
    if origin:
        head = head.replace(b"User-Agent", b"Origin: http://127.0.0.1:8085\r\nUser-Agent")

    def come_and_go() -> bytes:
        conn, link = memory.connection()
        conn.feed(head)
        sent: bytes = link.sent
        conn.abort()
        memory.engine.run_batch()
        return sent

    sent = come_and_go()
    assert sent.startswith(b"HTTP/1.1 101 ")
    assert b'"event":"connected"' in sent
    assert not memory.server.clients
    beside((come_and_go,), websockets_and_PyJWT=(websockets_with_token, head, tools.SECRET))
