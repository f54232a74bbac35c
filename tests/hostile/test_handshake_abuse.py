"""Opening handshakes that are malformed, ambiguous, for somebody else, or endless."""

from __future__ import annotations

import socket
import threading

import pytest

from hostile.peer import KEY, PING, PONG, TEXT, Peer, frame, text
from hostile.watched import ServerProcess


def edited(peer: Peer, old: str, new: str) -> bytes:
    """A good handshake with one piece replaced."""
    head = peer.opening()
    assert old.encode() in head
    return head.replace(old.encode(), new.encode("latin-1"), 1)


EDITS = {
    "no key": (f"Sec-WebSocket-Key: {KEY}\r\n", "", 400),
    "empty key": (KEY, "", 400),
    "key not base64": (KEY, "?" * 24, 400),
    "key of 15 bytes": (KEY, "dGhlIHNhbXBsZSBub25j", 400),
    "two keys": ("\r\n\r\n", f"\r\nSec-WebSocket-Key: {KEY}\r\n\r\n", 400),
    "no version": ("Sec-WebSocket-Version: 13\r\n", "", 426),
    "version 8": ("Version: 13", "Version: 8", 426),
    "version 013": ("Version: 13", "Version: 013", 426),
    "two versions": ("\r\n\r\n", "\r\nSec-WebSocket-Version: 8\r\n\r\n", 400),
    "HTTP/1.0": ("HTTP/1.1", "HTTP/1.0", 505),
    "HTTP/2.0": ("HTTP/1.1", "HTTP/2.0", 505),
    "HTTP/1.10": ("HTTP/1.1", "HTTP/1.10", 400),
    "no HTTP version": (" HTTP/1.1", "", 400),
    "http/1.1": ("HTTP/1.1", "http/1.1", 400),
    "POST": ("GET", "POST", 405),
    "get": ("GET", "get", 405),
    "CONNECT": ("GET /ws", "CONNECT 127.0.0.1:80", 400),
    "unknown path": ("/ws", "/nothing", 404),
    "absolute URL": ("/ws", "http://127.0.0.1/ws", 400),
    "path with ..": ("/ws", "/x/../ws", 400),
    "path with encoded NUL": ("/ws", "/ws%00", 400),
    "path with a raw high byte": ("/ws", "/w\xff", 400),
    "two spaces": ("GET /ws", "GET  /ws", 400),
    "tab for a space": ("GET /ws", "GET\t/ws", 400),
    "no host": ("Host", "X-Host", 400),
    "two hosts": ("Host", "Host: evil.example\r\nHost", 400),
    "two hosts in one": ("Host: ", "Host: evil.example, ", 400),
    "host with a path": ("Host: ", "Host: a/", 400),
    "folded line": ("Upgrade: websocket", "Upgrade:\r\n websocket", 400),
    "space before the colon": ("Host:", "Host :", 400),
    "no colon": ("\r\n\r\n", "\r\nnonsense\r\n\r\n", 400),
    "empty name": ("\r\n\r\n", "\r\n: x\r\n\r\n", 400),
    "NUL in a value": ("Connection: ", "X: a\0b\r\nConnection: ", 400),
    "NUL in a name": ("Connection: ", "X\0: a\r\nConnection: ", 400),
    "escape in a value": ("Connection: ", "X: \x1b[2J\r\nConnection: ", 400),
    "bare LF": ("\r\nConnection", "\nConnection", 400),
    "bare CR": ("\r\nConnection", "\rConnection", 400),
    "bare LF at the end": ("\r\n\r\n", "\n\n", 400),
    "empty line first": ("GET", "\r\nGET", 400),
    "no Connection": ("Connection: Upgrade\r\n", "", 400),
    "Connection: close": ("Connection: Upgrade", "Connection: close", 400),
    "no Upgrade": ("Upgrade: websocket\r\n", "", 426),
    "Upgrade: h2c": ("Upgrade: websocket", "Upgrade: h2c", 426),
    "Upgrade: h2c, websocket": ("Upgrade: websocket", "Upgrade: h2c, websocket", 400),
    "a body announced": ("\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a negative body": ("\r\n\r\n", "\r\nContent-Length: -1\r\n\r\n", 400),
    "two lengths": ("\r\n\r\n", "\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello", 400),
    "chunked": ("\r\n\r\n", "\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "length and chunked": (
        "\r\n\r\n", "\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400,
    ),
    "chunked, obfuscated": ("\r\n\r\n", "\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
    "a second request behind": (
        "\r\n\r\n", "\r\nContent-Length: 44\r\n\r\nGET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400,
    ),
    "129 fields": ("\r\n\r\n", "\r\n" + "X: y\r\n" * 129 + "\r\n", 400),
    "a head of 17 KiB": ("\r\n\r\n", "\r\nX: " + "y" * 17_000 + "\r\n\r\n", 431),
    "no token": ("Authorization", "X-Authorization", 401),
    "a bad token": ("Bearer ey", "Bearer ye", 401),
    "two tokens": ("Authorization", "Authorization: Bearer x\r\nAuthorization", 401),
    "a foreign origin": ("Connection", "Origin: https://evil.example\r\nConnection", 403),
    "origin null": ("Connection", "Origin: null\r\nConnection", 403),
}  # fmt: skip


@pytest.mark.parametrize("name", EDITS)
def test_refused(server: ServerProcess, name: str) -> None:
    """A bad head gets its status, once, and the connection ends."""
    old, new, expected = EDITS[name]
    with server.connect() as peer:
        peer.send(edited(peer, old, new))
        status, fields, _ = peer.refusal()
        assert status == expected
        assert ("www-authenticate" in fields) == (status == 401)
        assert (fields.get("sec-websocket-version") == "13") == (status == 426)
        assert peer.token not in repr(fields)


GARBAGE = {
    "TLS hello": bytes.fromhex("1603010200010001fc0303") + bytes(505),
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n",
    "NULs": bytes(1000),
    "high bytes": b"\xff" * 1000,
    "a frame": text("{}"),
    "an empty line": b"\r\n\r\n",
    "a proxy line": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n\r\n",
}


@pytest.mark.parametrize("name", GARBAGE)
def test_garbage_is_answered_at_once(server: ServerProcess, name: str) -> None:
    """Other protocols on the port: an HTTP answer, without waiting for a head that never ends."""
    with server.connect() as peer:
        peer.send(GARBAGE[name])
        assert peer.refusal()[0] == 400


def test_head_in_single_bytes(server: ServerProcess) -> None:
    """A good handshake and a message, each byte a segment of its own."""
    with server.connect() as peer:
        for byte in peer.opening() + frame(PING, b"slow") + text("[1]"):
            peer.send(bytes((byte,)))
        assert peer.head()[0] == 101
        assert peer.frame() == (PONG, b"slow")
        assert peer.message() == [1]


def test_frames_behind_the_head(server: ServerProcess) -> None:
    """Frames in the segment of the handshake are served, after the 101."""
    with server.connect() as peer:
        peer.send(peer.opening() + frame(PING, b"early") + text("[1]") + text("[2]"))
        assert peer.head()[0] == 101
        assert peer.frame() == (PONG, b"early")
        assert [peer.message(), peer.message()] == [[1], [2]]


def test_frames_behind_a_refused_head(server: ServerProcess) -> None:
    """What follows a refused request is thrown away, not served, and does not cost the answer."""
    with server.connect() as peer:
        peer.send_what_goes(edited(peer, "Bearer ey", "Bearer ye") + text("[1]") * 5000)
        assert peer.refusal()[0] == 401


def test_refused_peer_that_stays(server: ServerProcess) -> None:
    """A refused peer that neither leaves nor stops sending is cut off after 64 KiB."""
    with server.connect() as peer:
        peer.send(edited(peer, "GET", "POST"))
        assert peer.head()[0] == 405
        with pytest.raises(ConnectionError):
            peer.send(bytes(64 << 20))


def test_head_without_end(server: ServerProcess) -> None:
    """Header lines for ever: 431 once the head is over 16 KiB."""
    with server.connect() as peer:
        peer.send(b"GET /ws HTTP/1.1\r\n")
        for i in range(700):
            peer.send_what_goes(b"X-%d: 0123456789abcdef\r\n" % i)
        assert peer.refusal()[0] == 431


def test_request_line_without_end(server: ServerProcess) -> None:
    """A request line for ever: 431."""
    with server.connect() as peer:
        peer.send_what_goes(b"GET /" + b"a" * 60_000)
        assert peer.refusal()[0] == 431


@pytest.mark.parametrize("start", [b"", b"G", b"GET /ws HTTP/1.1\r\nHost: x\r\n"])
def test_head_that_stops(server: ServerProcess, start: bytes) -> None:
    """A head that is not complete in time: 408."""
    with server.connect() as peer:
        peer.send(start)
        assert peer.refusal()[0] == 408


def test_head_that_drips(server: ServerProcess) -> None:
    """A byte now and then does not lengthen the time."""
    with server.connect() as peer:
        peer.send(b"GET /ws HTTP/1.1\r\nX: ")
        ended = threading.Event()

        def drip() -> None:
            while not ended.wait(0.05):
                peer.send_what_goes(b"x")

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert peer.refusal()[0] == 408
        finally:
            ended.set()
            thread.join()


def test_many_that_stop(server: ServerProcess) -> None:
    """Two hundred at a time (slowloris): each gets its 408."""
    peers = [server.connect() for _ in range(200)]
    for peer in peers:
        peer.send(b"GET /ws HTTP/1.1\r\nHost: x\r\n")
    for peer in peers:
        with peer:
            assert peer.refusal()[0] == 408


def test_many_that_vanish(server: ServerProcess) -> None:
    """Reset at every point of the handshake: nothing is left behind."""
    with server.connect() as peer:
        head = peer.opening()
    for n in range(0, len(head) + 1, 7):
        peer = server.connect()
        peer.send(head[:n])
        peer.reset()


@pytest.mark.parametrize("name", ["inside the head", "after the head"])
def test_half_closed(server: ServerProcess, name: str) -> None:
    """A peer that shuts its sending side: the connection just ends, at the latest after the answer."""
    with server.connect() as peer:
        head = peer.opening()
        peer.send(head if name == "after the head" else head[:-2])
        peer.socket.shutdown(socket.SHUT_WR)
        assert peer.read_to_end()[:13] in (b"", b"HTTP/1.1 101 ")


PLAIN_HTTP = {
    "length and chunked": b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "obfuscated chunked": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "folded chunked": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", PLAIN_HTTP)
def test_smuggling_by_plain_http(server: ServerProcess, name: str) -> None:
    """A request whose end is ambiguous is refused, and what follows it is no second request."""
    hidden = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
    with server.connect() as peer:
        peer.send(b"POST /health HTTP/1.1\r\nHost: x\r\n" + PLAIN_HTTP[name] + hidden)
        status, _ = peer.head()
        assert status == 400
        assert b"HTTP/1.1" not in peer.read_to_end()


def test_answer_is_well_formed_frames_only_after_101(server: ServerProcess) -> None:
    """The accept key is right, and nothing precedes the 101."""
    with server.connect() as peer:
        peer.send(peer.opening() + text('"x"'))
        status, fields = peer.head()
        assert (status, fields["sec-websocket-accept"]) == (101, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        assert peer.frame() == (TEXT, b'"x"')
