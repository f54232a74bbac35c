"""TLS at the server: WebSocket, HTTP and the monitor on one port, new certificates, client certificates."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidMessage

from heartwire import Server
from heartwire.errors import ConfigError
from integration.certificates import Authority
from integration.peers import (
    PATIENCE_S,
    TEXT,
    Ends,
    RawPeer,
    get,
    handshake,
    raw_peer,
    token,
    until,
)

KEY = "api-key-of-the-tests"
V1 = b"PROXY TCP4 203.0.113.9 127.0.0.1 50000 443\r\n"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


@pytest.fixture(params=["asyncio", "aiofastnet"], autouse=True)
def transports(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test runs over both."""
    if request.param == "asyncio":
        monkeypatch.setitem(sys.modules, "aiofastnet", None)
    else:
        pytest.importorskip("aiofastnet", reason="aiofastnet is not installed")


@pytest.fixture
async def make(authority: Authority) -> AsyncIterator[Callable[..., Server]]:
    """Makes TLS servers; the link is given by that."""
    made: list[Server] = []
    cert, key = authority.issue("server")

    def make(**options: Any) -> Server:
        usual = {"port": 0, "jwt_secret": ["x" * 32], "tls_cert": cert, "tls_key": key, "ping_interval": 3600}
        server = Server(**{**usual, "close_timeout": 2, **options})
        made.append(server)
        return server

    yield make
    for server in made:
        await server.stop()


Make = Callable[..., Server]


def bearer(sub: str = "alice") -> dict[str, str]:
    return {"Authorization": "Bearer " + token(sub, secret="x" * 32)}


@contextlib.asynccontextmanager
async def client(server: Server, context: ssl.SSLContext, **options: Any) -> AsyncIterator[ClientConnection]:
    usual: dict[str, Any] = {"ping_interval": None, "proxy": None, "additional_headers": bearer()}
    uri = f"wss://127.0.0.1:{server.port}/ws"
    async with connect(uri, ssl=context, **{**usual, **options}) as ws:
        assert json.loads(await ws.recv())["event"] == "connected"
        yield ws


async def ask(ws: ClientConnection, value: Any) -> Any:
    async with asyncio.timeout(PATIENCE_S):
        await ws.send(json.dumps(value))
        return json.loads(await ws.recv())


def serial(ws: ClientConnection) -> int:
    """Tells certificates apart."""
    found: dict[str, Any] = ws.transport.get_extra_info("ssl_object").getpeercert()
    return int(found["serialNumber"], 16)


async def test_messages_small_and_large_and_the_end(make: Make, authority: Authority) -> None:
    server = make(max_message_size=1 << 22)
    server.on_message(lambda client, value: client.send_json(value))
    ends = Ends(server)
    await server.start()
    async with client(server, authority.client_context(), max_size=None) as ws:
        assert (await ends.client()).remote_address == ws.local_address
        assert await ask(ws, {"a": 1}) == {"a": 1}
        large = {"a": "x" * 3_000_000}
        assert await ask(ws, large) == large
        await ws.close(1000)
    assert await ends.cause() == "client_closed"


async def test_closed_by_the_server(make: Make, authority: Authority) -> None:
    server = make()
    server.on_message(lambda client, value: client.close(3000, "enough"))
    ends = Ends(server)
    await server.start()
    async with client(server, authority.client_context()) as ws:
        await ws.send("{}")
        async with asyncio.timeout(PATIENCE_S):
            await ws.wait_closed()
        assert (ws.close_code, ws.close_reason) == (3000, "enough")
    assert await ends.cause() == "server_closed"


async def test_a_peer_that_goes_without_a_word(make: Make, authority: Authority) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    for how in ("eof", "reset"):
        async with raw_peer(server, ssl=authority.client_context()) as peer:
            peer.send(handshake("/ws", *(f"{name}: {value}" for name, value in bearer().items())))
            assert (await peer.answer()).status == 101
            if how == "reset":
                peer.reset()
            else:
                peer.writer.close()
            assert await ends.cause() == "peer_gone"


async def test_http_the_api_and_the_monitor(make: Make, authority: Authority) -> None:
    server = make(api_key=[KEY])
    await server.start()
    base = f"https://127.0.0.1:{server.port}"
    headers = {"Authorization": f"Bearer {KEY}"}
    connector = aiohttp.TCPConnector(ssl=authority.client_context())
    async with client(server, authority.client_context()), aiohttp.ClientSession(connector=connector) as http:
        async with http.get(base + "/health") as answer:
            assert answer.status == 200
        async with http.get(base + "/") as answer:
            assert "text/html" in answer.headers["Content-Type"]
        async with http.get(base + "/monitor.js") as answer:
            assert answer.status == 200
            assert len(await answer.read()) > 1000
        async with http.get(base + "/api/clients", headers=headers) as answer:
            assert (await answer.json())["total"] == 1
        async with http.post(base + "/api/monitor/ticket", headers=headers) as answer:
            ticket = (await answer.json())["ticket"]
        async with http.ws_connect(f"{base}/api/monitor?ticket={ticket}") as feed:
            assert (await feed.receive(timeout=PATIENCE_S)).type == aiohttp.WSMsgType.TEXT


async def test_an_upgrade_on_a_kept_connection_and_a_refusal(make: Make, authority: Authority) -> None:
    server = make()
    await server.start()
    async with raw_peer(server, ssl=authority.client_context()) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
        peer.send(handshake("/ws", *(f"{name}: {value}" for name, value in bearer().items())))
        assert (await peer.answer()).status == 101
        await peer.event("connected")
        peer.send_frame(TEXT, b'{"action": "ping"}')
        await peer.event("pong")
    async with raw_peer(server, ssl=authority.client_context()) as peer:
        peer.send(handshake())
        assert (await peer.answer()).status == 401
        assert await peer.eof() == b""


async def test_the_api_on_a_port_of_its_own_is_tls_too(make: Make, authority: Authority) -> None:
    server = make(api_key=[KEY], http_port=0)
    await server.start()
    async with raw_peer(server.http_port, ssl=authority.client_context()) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
    before = await certificate(server.http_port, authority)
    authority.issue("server")
    server.reload()
    assert await certificate(server.http_port, authority) != before


async def certificate(port: int, authority: Authority) -> bytes:
    async with raw_peer(port, ssl=authority.client_context()) as peer:
        found: bytes = peer.writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return found


# ------------------------------------------------------------------ new certificates


async def test_new_certificates_without_dropping_clients(
    make: Make, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = make()
    server.on_message(lambda client, value: client.send_json(value))
    await server.start()
    async with client(server, authority.client_context()) as old:
        authority.issue("server")
        server.reload()
        async with client(server, authority.client_context()) as new:
            assert serial(old) != serial(new)
            assert await ask(new, 1) == 1
        (tmp_path / "server.key").write_text("no key")
        server.reload()
        assert "the certificates were not loaded again: tls_cert: not a certificate" in caplog.text
        async with client(server, authority.client_context()) as third:
            assert serial(third) == serial(new)
        assert await ask(old, 2) == 2


# ------------------------------------------------------------------ who may come in


async def test_client_certificates_and_an_authority_that_is_replaced(
    make: Make, authority: Authority, tmp_path: Path
) -> None:
    first, second = Authority(tmp_path, "first"), Authority(tmp_path, "second")
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(first.ca.read_bytes())
    server = make(tls_client_ca=trusted)
    await server.start()
    ours = authority.client_context(first.issue("ours"))
    others = authority.client_context(second.issue("others"))
    async with client(server, ours):
        for context in (others, authority.client_context()):
            with pytest.raises((OSError, InvalidMessage)):
                async with client(server, context):
                    raise AssertionError("let in")
        await until(lambda: server.stats()["refusals"].get("closed tls_handshake") == 2)
        trusted.write_bytes(second.ca.read_bytes())
        server.reload()
        async with client(server, others):
            pass
        with pytest.raises((OSError, InvalidMessage)):
            async with client(server, ours):
                raise AssertionError("let in")


async def test_old_versions_and_what_is_no_tls(make: Make, authority: Authority) -> None:
    server = make(handshake_timeout=0.2)
    await server.start()
    context = authority.client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with client(server, context) as ws:
        assert ws.transport.get_extra_info("ssl_object").version() == "TLSv1.2"
    for sent in (get("/health"), b"\x16\x03\x01\x00\xff", b""):
        async with raw_peer(server) as peer:
            peer.send(sent)
            await peer.gone()
    await until(lambda: server.stats()["refusals"] == {"closed tls_handshake": 3})
    async with client(server, context):
        pass


async def test_the_proxy_protocol_before_tls(make: Make, authority: Authority) -> None:
    server = make(trusted_proxy=["127.0.0.1"], proxy_protocol=True)
    ends = Ends(server)
    await server.start()
    for header in (V1, b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0f\xcb\0\x71\x09\x7f\0\0\1\xc3\x50\x01\xbb\x04\0\0"):
        sock = socket.create_connection(("127.0.0.1", server.port))
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, header)
        reader, writer = await asyncio.open_connection(
            sock=sock, ssl=authority.client_context(), server_hostname="127.0.0.1"
        )
        peer = RawPeer(reader, writer)
        peer.send(handshake("/ws", *(f"{name}: {value}" for name, value in bearer().items())))
        assert (await peer.answer()).status == 101
        assert (await ends.client()).remote_address == ("203.0.113.9", 50000)
        writer.close()
        await ends.cause()
    with pytest.raises(OSError):
        async with raw_peer(server, ssl=authority.client_context()):
            raise AssertionError("let in")
    async with raw_peer(server, ssl=authority.client_context(), local_addr=("127.0.0.2", 0)) as peer:
        peer.send(get("/health"))
        assert (await peer.answer()).status == 200
    assert server.stats()["refusals"] == {"closed proxy_header": 1}


async def test_stopping_during_a_handshake(make: Make) -> None:
    server = make()
    await server.start()
    async with raw_peer(server) as peer:
        peer.send(b"\x16\x03\x01")
        await peer.writer.drain()
        await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()
        await peer.gone()


# ------------------------------------------------------------------ files that do not fit


def test_options_that_do_not_fit(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("one")
    other = authority.issue("other")[1]
    encrypted = authority.issue("encrypted", password=b"secret")
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"tls_key": key}, "tls_key", "needs tls_cert"),
        ({"tls_client_ca": cert}, "tls_client_ca", "needs tls_cert"),
        ({"tls_cert": cert, "tls_key": key, "link": "epoll"}, "link", "asyncio"),
        ({"tls_cert": cert, "tls_key": other}, "tls_cert", "not a certificate and its private key"),
        ({"tls_cert": cert}, "tls_cert", "not a certificate and its private key"),
        ({"tls_cert": tmp_path / "none", "tls_key": key}, "tls_cert", "cannot read"),
        ({"tls_cert": cert, "tls_key": key, "tls_client_ca": key}, "tls_client_ca", "not a file of cert"),
        ({"tls_cert": encrypted[0], "tls_key": encrypted[1]}, "tls_key", "encrypted"),
    ]
    for options, option, words in cases:
        with pytest.raises(ConfigError, match=words) as refused:
            asyncio.run(Server(jwt_secret="x" * 32, port=0, **options).start())
        assert refused.value.option == option


def test_certificate_and_key_in_one_file(authority: Authority, tmp_path: Path) -> None:
    cert, key = authority.issue("one")
    both = tmp_path / "both.pem"
    both.write_bytes(cert.read_bytes() + key.read_bytes())

    async def serve() -> None:
        async with Server(jwt_secret="x" * 32, port=0, tls_cert=both) as server:
            await certificate(server.port, authority)

    asyncio.run(serve())


def test_sighup(authority: Authority) -> None:
    """The command: SIGHUP reads the files again, and nobody is dropped."""
    cert, key = authority.issue("server")

    async def run() -> None:
        server = Server(jwt_secret="x" * 32, port=0, tls_cert=cert, tls_key=key, close_timeout=1)
        serving = asyncio.create_task(server._serve())
        await until(lambda: server._lifetime.state == "running")
        async with client(server, authority.client_context()) as old:
            authority.issue("server")
            before = await certificate(server.port, authority)
            os.kill(os.getpid(), signal.SIGHUP)
            async with asyncio.timeout(PATIENCE_S):
                while await certificate(server.port, authority) == before:
                    await asyncio.sleep(0.005)
            assert (await ask(old, {"action": "ping"}))["event"] == "pong"
        await server.stop()
        await serving

    asyncio.run(run())
