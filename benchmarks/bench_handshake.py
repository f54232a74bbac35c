"""From a request head to an open, authenticated client, and each part by itself.

Beside PyJWT and websockets (Sans-I/O), and beside the HMAC that a signature costs at least.
"""

from __future__ import annotations

import hmac
import itertools
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.server import ServerProtocol

from heartwire import handshake
from heartwire._core.head import read_ordinary_head
from heartwire.auth import TokenVerifier
from heartwire.http_head import Request, classify
from heartwire.keyring import KeyRing
from heartwire.keys import pem_keys, secret_keys
from heartwire.token_cache import TokenCache


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

    class Forgetful(set[Any]):
        def add(self, element: object) -> None:
            """No header is remembered: PyJWT judges each token whole."""

    whole = TokenVerifier(KeyRing(secret_keys([tools.SECRET])))
    whole._signatures._accepted = Forgetful()

    def pyjwt() -> Any:
        return jwt.decode(bearer, tools.SECRET, algorithms=["HS256"])

    assert pyjwt()["sub"] == "anna"
    beside(
        (verifier.verify, bearer),
        limit_hmac=(hmac.digest, tools.SECRET.encode(), signed, "sha256"),
        PyJWT=(pyjwt,),
        whole=(whole.verify, bearer),
    )


def test_verify_token_again(beside: Any, tools: Any, bearer: str) -> None:
    """A client that comes back with the token it had, beside verifying it once more."""
    keys = KeyRing(secret_keys([tools.SECRET]))
    plain, caching = TokenVerifier(keys), TokenVerifier(keys, cache=TokenCache(8192))
    assert caching.verify(bearer) is caching.verify(bearer)
    beside((caching.verify, bearer), verifying=(plain.verify, bearer))


def test_verify_tokens_once_each(beside: Any, tools: Any) -> None:
    """What the cache costs where it never helps: more tokens than it holds, in turn, beside no cache."""
    keys = KeyRing(secret_keys([tools.SECRET]))
    cache = TokenCache(8192)
    plain, caching = TokenVerifier(keys), TokenVerifier(keys, cache=cache)
    tokens = [tools.token(f"user-{i}") for i in range(20_000)]
    here, there = itertools.cycle(tokens), itertools.cycle(tokens)
    for _ in range(10_000):
        caching.verify(next(here))
    beside(
        (lambda: caching.verify(next(here)),),
        without_cache=(lambda: plain.verify(next(there)),),
    )
    assert cache.hits == 0


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
def test_verify_by_public_key(beside: Any, tools: Any, algorithm: str) -> None:
    """A signature by a private key, beside HMAC."""
    private: Any = {
        "RS256": lambda: rsa.generate_private_key(65537, 2048),
        "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate,
    }[algorithm]()
    token = jwt.encode({"sub": "anna", "username": "Anna", "exp": 4102444800}, private, algorithm)
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    by = TokenVerifier(KeyRing(pem_keys(pem)), algorithms=[algorithm])
    hmac_by = TokenVerifier(KeyRing(secret_keys([tools.SECRET])))
    assert by.verify(token).user_id == "anna"
    beside((by.verify, token), HS256=(hmac_by.verify, tools.token("anna")))


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
