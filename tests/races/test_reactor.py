"""Races of one batch of the real reactor: ends in callbacks, descriptors that come back at once (I6)."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from heartwire._core.connection import Connection
from heartwire.testing import CLOSE, TEXT, FramePeer, ManualClock, RecordingSink, build_frame

Reactor = pytest.importorskip("heartwire._core.reactor", reason="a build without the epoll link").Reactor

HEAD = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"


class Sockets(RecordingSink):
    """A reactor over socket pairs; each connection is numbered in the order it was adopted."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"ping_interval": 0, **settings})
        self.clock = ManualClock()
        self.engine = self.clock.engine()
        self.reactor = Reactor(self.engine, self)
        self.conns: list[Connection] = []
        self.peers: list[FramePeer] = []
        self.sockets: list[socket.socket] = []
        self.inside = False

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        self.conns.append(conn)
        super().on_head(conn, head)

    def adopt(self, family: int = socket.AF_UNIX) -> Connection:
        """A new connection. Inside a handler its answer has not left yet: `skip_answer` is for afterwards."""
        outside = not self.inside
        ours, theirs = socket.socketpair(family) if family == socket.AF_UNIX else tcp_pair()
        ours.setblocking(False)
        self.reactor.adopt(ours.detach(), HEAD)
        self.sockets.append(theirs)
        self.peers.append(FramePeer(theirs))
        if outside:
            self.clock.run()
            self.skip_answer(theirs)
        return self.conns[-1]

    def skip_answer(self, sock: socket.socket) -> None:
        assert sock.recv(len(ANSWER)) == ANSWER

    def turn(self) -> None:
        """One wake-up of the loop, and what it asked for."""
        self.inside = True
        self.reactor.on_ready()
        self.inside = False
        self.clock.run()

    def number(self, conn: Connection) -> int:
        return self.conns.index(conn)


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        theirs = socket.create_connection(listener.getsockname())
        return listener.accept()[0], theirs


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    made = Sockets(send_buffer_limit=0)
    yield made
    made.reactor.abort_all()
    made.clock.run()
    made.reactor.close()
    for sock in made.sockets:
        sock.close()


def test_a_handler_ends_others_of_the_same_batch(sockets: Sockets) -> None:
    conns = [sockets.adopt() for _ in range(10)]
    heard: list[int] = []

    def handler(conn: Connection, text: str) -> None:
        heard.append(sockets.number(conn))
        for other in conns:
            if other is not conn:
                other.abort()

    sockets.on_message = handler
    for peer in sockets.peers:
        peer.send_text("x")
    sockets.turn()
    assert len(heard) == 1
    assert len(sockets.of("closed")) == 9
    assert conns[heard[0]].is_open
    assert sockets.of("failure") == []


def test_a_descriptor_that_comes_back_in_the_same_batch(sockets: Sockets) -> None:
    """The new tenant of a descriptor and a slot gets nothing of its predecessor's: no event, no message."""
    conns = [sockets.adopt() for _ in range(6)]
    tenants: list[Connection] = []
    heard: list[int] = []

    def handler(conn: Connection, text: str) -> None:
        heard.append(sockets.number(conn))
        if tenants:
            return
        for other in conns:
            if other is not conn:
                other.abort()
                tenants.append(sockets.adopt())
        descriptors.update(tenant.fileno for tenant in tenants)

    descriptors: set[int] = set()
    before = {conn.fileno for conn in conns}
    sockets.on_message = handler
    for peer in sockets.peers:
        peer.send_text("to the first tenant")
    sockets.turn()
    assert descriptors & before  # a number did come back
    assert len(heard) == 1
    sockets.turn()
    assert len(heard) == 1
    assert all(tenant.is_open for tenant in tenants)
    for tenant in tenants:
        assert tenant.statistics()["messages_in"] == 0
    sockets.peers[-1].send_text("to the second")
    sockets.turn()
    assert heard[1:] == [len(sockets.conns) - 1]


def test_an_end_of_one_is_no_end_of_the_next_tenant(sockets: Sockets) -> None:
    conn = sockets.adopt()
    other = sockets.adopt()
    fd = other.fileno

    def handler(conn: Connection, text: str) -> None:
        other.abort()
        while sockets.adopt().fileno != fd:
            pass

    sockets.on_message = handler
    sockets.peers[0].send_text("x")
    sockets.peers[1].disconnect()  # its HUP is in the same batch
    sockets.turn()
    assert conn.is_open
    assert sockets.conns[-1].fileno == fd
    assert sockets.conns[-1].is_open
    assert sockets.of("left") == ["server_closed"]


def test_the_descriptor_is_closed_once(sockets: Sockets) -> None:
    conn = sockets.adopt()
    fd = conn.fileno
    conn.close()
    sockets.turn()
    conn.abort()
    keeper = os.open("/dev/null", os.O_RDONLY)  # takes the number, if it is free
    try:
        assert keeper == fd
        conn.abort()
        conn.close()
        conn.feed_loss(5)
        sockets.turn()
        assert os.fstat(keeper)
    finally:
        os.close(keeper)


def test_a_fast_reader_gets_more_than_one_flush_sends(sockets: Sockets) -> None:
    """A flush ends after so many bytes though the socket would take more; the rest must not be forgotten."""
    conn = sockets.adopt(socket.AF_INET)
    theirs = sockets.sockets[0]
    for fd in (conn.fileno, theirs.fileno()):
        with socket.socket(fileno=os.dup(fd)) as sock:
            for option in (32, 33):  # SO_SNDBUFFORCE, SO_RCVBUFFORCE, where we may
                with contextlib.suppress(PermissionError):
                    sock.setsockopt(socket.SOL_SOCKET, option, 16 << 20)
    for i in range(400):
        conn.send(TEXT, f"{i}:" + "x" * 20_000)
    received = 0
    theirs.settimeout(0.2)
    for _ in range(400):
        sockets.turn()
        with contextlib.suppress(TimeoutError):
            frame = sockets.peers[0].receive()
            assert frame is not None
            assert frame.payload.startswith(f"{received}:".encode())
            received += 1
    assert received == 400
    assert conn.queued_bytes == 0


def test_many_ends_in_one_batch_in_any_order(rng: random.Random) -> None:
    """Frames, closes, resets and half-closes of many peers at once, while handlers end whom they like."""
    for _ in range(15):
        sockets = Sockets()
        conns = [sockets.adopt() for _ in range(rng.randint(2, 30))]
        heard: dict[Connection, int] = {}

        def handler(
            conn: Connection, text: str, conns: list[Connection] = conns, heard: dict[Connection, int] = heard
        ) -> bool:
            assert conn.is_open
            heard[conn] = heard.get(conn, 0) + 1
            victim = rng.choice(conns)
            rng.choice((victim.abort, victim.close, victim.ping, lambda: None))()
            return rng.random() < 0.1

        sockets.on_message = handler
        for _ in range(4):
            for sock in sockets.sockets:
                what = rng.random()
                try:
                    if what < 0.6:
                        sock.sendall(build_frame(TEXT, b"x") * rng.randint(1, 3))
                    elif what < 0.7:
                        sock.sendall(build_frame(CLOSE))
                    elif what < 0.75:
                        sock.shutdown(socket.SHUT_WR)
                    elif what < 0.8:
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                        sock.close()
                except OSError:
                    pass  # it was ended already
            sockets.turn()
            for conn in conns:
                conn.resume()
        sockets.reactor.abort_all()
        sockets.clock.run()
        assert len(sockets.of("left")) == len(sockets.of("closed")) == len(conns)
        assert sockets.of("failure") == []
        sockets.reactor.close()
        for sock in sockets.sockets:
            sock.close()


def test_a_paused_peer_that_resets_ends_and_does_not_spin(sockets: Sockets) -> None:
    conn = sockets.adopt(socket.AF_INET)
    sockets.on_message = lambda conn, text: True
    sockets.peers[0].send_text("held")
    sockets.turn()
    assert conn.paused
    sockets.peers[0].send_text("waits in the kernel")
    sockets.turn()
    conn.ping()
    sockets.turn()
    for _ in range(3):
        sockets.turn()
    assert conn.is_open
    sock = sockets.sockets[0]
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    sockets.turn()
    assert (conn.phase, conn.cause) == ("CLOSED", "peer_gone")


def test_a_hang_up_of_one_is_none_of_the_next_tenant_of_its_slot(sockets: Sockets) -> None:
    """A paused connection hears of the HUP alone, which ends whom it is taken for, unread."""
    sockets.adopt()
    paused = sockets.adopt()
    tenants: list[Connection] = []

    def handler(conn: Connection, text: str) -> bool:
        if conn is paused:
            return True
        paused.abort()
        tenants.append(sockets.adopt())
        return False

    sockets.on_message = handler
    sockets.peers[1].send_text("held")
    sockets.turn()
    sockets.peers[1].send_text("nobody listens")
    sockets.turn()
    sockets.turn()  # epoll forgets that it was ready
    sockets.peers[0].send_text("go")  # first in the batch, the HUP second
    sockets.peers[1].disconnect()
    sockets.turn()
    (tenant,) = tenants
    assert tenant.is_open
    assert sockets.of("left") == ["server_closed"]


def test_out_of_descriptors_the_listeners_pause_for_a_tenth_of_a_second(sockets: Sockets) -> None:
    """Who comes meanwhile waits in the kernel, and is taken when the pause is over."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        reactor = sockets.reactor
        reactor.listen(listener.fileno())
        reactor.starve()
        with socket.create_connection(listener.getsockname()) as theirs:
            theirs.sendall(HEAD)
            sockets.clock.advance(0.09)
            sockets.turn()
            assert reactor.starved
            assert sockets.conns == []
            sockets.clock.advance(0.02)
            assert not reactor.starved
            sockets.turn()
            assert len(sockets.conns) == 1
        reactor.unlisten(listener.fileno())
