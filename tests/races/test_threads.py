"""Other threads send, close and broadcast at once: order per caller, nothing after CLOSE, nobody hangs."""

from __future__ import annotations

import concurrent.futures
import threading

import pytest

from heartwire import ConnectionClosed
from heartwire._core.session import Session
from heartwire.testing import CLOSE, TEXT, FramePeer
from links import LINKS
from pair import Pair, texts
from together import run_threads

THREADS = 8
MESSAGES = 300


def in_order_per_caller(received: list[str]) -> dict[int, int]:
    """How many messages of each thread came; they are "thread:number" and came in order without a gap."""
    seen: dict[int, int] = {}
    for text in received:
        thread, number = map(int, text.split(":"))
        assert number == seen.get(thread, 0), text
        seen[thread] = number + 1
    return seen


def test_threads_send_and_every_message_arrives_in_the_order_of_its_thread() -> None:
    pair = Pair(send_buffer_limit=0)
    session = Session(pair.conn)

    def sender(thread: int) -> None:
        for i in range(MESSAGES):
            session.send_text(f"{thread}:{i}")

    run_threads(*(lambda t=t: sender(t) for t in range(THREADS)))
    assert in_order_per_caller(texts(pair.sent())) == dict.fromkeys(range(THREADS), MESSAGES)


def test_a_thread_that_closes_has_the_last_word() -> None:
    """What was posted before is sent before; afterwards sends are refused or, if they raced, dropped."""
    pair = Pair(send_buffer_limit=0)
    before = [0] * THREADS

    def sender(thread: int) -> None:
        for i in range(MESSAGES):
            if thread == 3 and i == 100:
                pair.conn.close(4000 + thread)
            try:
                pair.conn.send(TEXT, f"{thread}:{i}")
                before[thread] += 1
            except ConnectionClosed:
                return

    run_threads(*(lambda t=t: sender(t) for t in range(THREADS)))
    frames = pair.sent()
    assert [frame.opcode for frame in frames[-1:]] == [CLOSE]
    assert in_order_per_caller(texts(frames))[3] == 100
    with pytest.raises(ConnectionClosed):
        pair.conn.send(TEXT, "late")


def test_a_foreign_send_on_a_settled_connection() -> None:
    """Accepted while open, run after the end: nothing happens. At the call, later ones are refused."""
    pair = Pair()
    results: list[object] = []

    def send() -> None:
        try:
            results.append(pair.conn.send(TEXT, "x"))
        except ConnectionClosed as error:
            results.append(error.cause)

    run_threads(send)
    pair.link.reset()  # settled; the post is still to run
    run_threads(send, pair.conn.ping, pair.conn.close)
    pair.clock.run()
    assert results == [None, "peer_gone"]
    assert pair.sink.of("failure") == []
    assert pair.link.late_writes == 0


def test_posted_bytes_count_against_the_limit() -> None:
    pair = Pair(send_buffer_limit=1000)
    sent = []

    def sender() -> None:
        for i in range(100):
            pair.conn.send(TEXT, "x" * 100)
            sent.append(i)

    def expects_end() -> None:
        with pytest.raises(ConnectionClosed) as raised:
            sender()
        assert raised.value.code == 4503

    run_threads(expects_end)
    assert 10 <= len(sent) <= 12
    assert pair.conn.queued_bytes >= 1000
    pair.clock.run()
    assert (pair.conn.cause, pair.conn.queued_bytes) == ("slow_consumer", 0)


def test_what_the_loop_has_not_sent_yet_makes_no_slow_consumer_for_a_thread() -> None:
    """As in the loop's own thread: the kernel is asked first."""
    pair = Pair(send_buffer_limit=1000)
    pair.conn.send(TEXT, "x" * 5000)  # nothing of it is sent before the loop's next turn
    run_threads(lambda: pair.conn.send(TEXT, "y"))
    assert texts(pair.sent()) == ["x" * 5000, "y"]
    pair.link.block()
    pair.conn.send(TEXT, "x" * 5000)
    pair.clock.run()

    def refused() -> None:
        with pytest.raises(ConnectionClosed):
            pair.conn.send(TEXT, "z")

    run_threads(refused)
    pair.clock.run()
    assert pair.conn.cause == "slow_consumer"


@pytest.mark.parametrize("link", LINKS)
def test_threads_hammer_a_server(link: str) -> None:
    """Sends, broadcasts, pings and closes from 8 threads at real clients: per-caller order, CLOSE last."""
    pytest.importorskip("msgspec", reason="only the core is tested where msgspec cannot be had")
    from heartwire import Client, Server
    from heartwire.testing import background_server

    ends: dict[str, list[str]] = {}
    server = Server(port=0, jwt_secret="x" * 32, welcome=False, link=link, send_buffer_limit=1 << 24)

    @server.on_disconnect
    def on_disconnect(client: Client, cause: str) -> None:
        ends.setdefault(client.id, []).append(cause)

    with background_server(server) as background:
        peers = [background.peer() for _ in range(4)]
        clients = list(server.clients.values())
        assert len(clients) == 4
        futures: list[concurrent.futures.Future[int]] = []

        def hammer(thread: int) -> None:
            for i in range(MESSAGES):
                for number, client in enumerate(clients):
                    if thread == 0 and i == 150 and number:
                        client.close(4000)
                    try:
                        client.send_text(f"{thread}:{i}")
                        client.ping()
                    except ConnectionClosed:
                        assert number  # the first is closed by nobody
                if thread == 7 and i % 10 == 0:
                    futures.append(server.broadcast("b", i))

        readers = [Reading(peer) for peer in peers]
        run_threads(*(lambda t=t: hammer(t) for t in range(THREADS)))
        assert [future.result(10) in range(1, 5) for future in futures] == [True] * 30
        background.call(clients[0].close)
        for number, reader in enumerate(readers):
            got = in_order_per_caller(reader.result())
            assert reader.closes == 1
            if number == 0:
                assert got == dict.fromkeys(range(THREADS), MESSAGES)
            else:
                assert got[0] == 150
        background.until(lambda: len(ends) == 4)
        assert all(causes == ["server_closed"] for causes in ends.values())
        with pytest.raises(ConnectionClosed):
            clients[1].send_text("late")
        clients[1].close()
        clients[1].ping()
        clients[1].kick()


class Reading(threading.Thread):
    """Reads one peer to its end; answers CLOSE."""

    def __init__(self, peer: FramePeer) -> None:
        super().__init__()
        self._peer = peer
        self._texts: list[str] = []
        self.closes = 0
        self.after_close = 0
        self.start()

    def run(self) -> None:
        while (frame := self._peer.receive()) is not None:
            self.after_close += self.closes
            if frame.opcode == CLOSE:
                self.closes += 1
                self._peer.send(CLOSE, frame.payload)
            elif frame.opcode == TEXT and not frame.payload.startswith(b"{"):
                self._texts.append(frame.payload.decode())
        self._peer.disconnect()

    def result(self) -> list[str]:
        self.join(20)
        assert not self.is_alive()
        assert self.after_close == 0
        return self._texts
