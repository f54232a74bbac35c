"""Many threads against connections that a loop serves in a thread of its own: the core without a server.

Meant for builds where threads run at the same time (`make free-threaded`); runs everywhere. It
needs the core, pytest and nothing else. HEARTWIRE_ROUNDS makes it longer.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import pkgutil
import random
import socket
import sys
import sysconfig
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import heartwire._core
from heartwire import ConnectionClosed
from heartwire._core.connection import Connection
from heartwire._core.engine import Engine
from heartwire._core.fanout import Frame, fan_out
from heartwire._core.json_reader import JsonReader
from heartwire._core.session import Session
from heartwire.testing import BINARY, CLOSE, PING, PONG, TEXT, FramePeer
from together import run_threads

Reactor = pytest.importorskip("heartwire._core.reactor", reason="a build without the epoll link").Reactor

THREADS = 6
ROUNDS = int(os.environ.get("HEARTWIRE_ROUNDS") or 200)
PATIENCE_S = 120.0
HEAD = b"GET / HTTP/1.1\r\n\r\n"
ANSWER = b"HTTP/1.1 101 Switching Protocols\r\n\r\n"
FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))

pytestmark = pytest.mark.timeout(600)  # of many threads under ThreadSanitizer, on a busy machine


def test_the_core_leaves_the_gil_off() -> None:
    """Every extension says that it needs none: else importing one would have switched it on."""
    if not FREE_THREADED:
        pytest.skip("this interpreter has its GIL")
    names = [info.name for info in pkgutil.iter_modules(heartwire._core.__path__)]
    assert len(names) > 10
    for name in names:
        importlib.import_module(f"heartwire._core.{name}")
    assert not sys._is_gil_enabled()  # type: ignore[attr-defined]


class Owner(JsonReader):
    """Makes a session for each connection, and notes what it is told. Loop thread only."""

    def __init__(self, **settings: Any) -> None:
        self.configure(**{"ping_interval": 0.05, "ping_timeout": PATIENCE_S, "ping_always": True, **settings})
        self.encode = lambda value: json.dumps(value).encode()
        self.decode = json.loads
        self.message_handler = self.on_message
        self.sessions: dict[Session, None] = {}
        self.received = 0
        self.left: Counter[str] = Counter()
        self.closed = 0
        self.failures: list[BaseException] = []

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        session = Session(conn)
        if conn.accept(ANSWER, session):
            self.sessions[session] = None
            conn.resume()

    def on_message(self, session: Session, value: object) -> None:
        self.received += 1
        session.send_json(value)

    def on_left(self, conn: Connection) -> None:
        self.left[conn.cause] += 1
        del self.sessions[conn.owner]

    def on_closed(self, conn: Connection) -> None:
        self.closed += 1

    def on_failure(self, conn: Connection, error: BaseException) -> None:
        self.failures.append(error)

    def on_handler_failure(self, owner: Session, error: BaseException) -> None:
        if not isinstance(error, ConnectionClosed):
            self.failures.append(error)


class Served:
    """A loop in a thread of its own, with a reactor. `call` runs something there."""

    engine: Engine
    reactor: Any

    def __init__(self, **settings: Any) -> None:
        self.owner = Owner(**settings)
        self.loop = asyncio.new_event_loop()
        self._stopped = False
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self.call(self._start)

    def _start(self) -> None:
        loop = self.loop
        self.engine = Engine(loop.call_soon, loop.call_later, loop.call_soon_threadsafe)
        self.engine.error_handler = self.owner.failures.append
        self.reactor = Reactor(self.engine, self.owner)
        loop.add_reader(self.reactor.fileno(), self.reactor.on_ready)

    def call(self, function: Callable[..., Any], *args: Any) -> Any:
        async def run() -> Any:
            return function(*args)

        return asyncio.run_coroutine_threadsafe(run(), self.loop).result(PATIENCE_S)

    def connect(self) -> tuple[Session, Reading]:
        """A connection that is open, and its peer."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)

        def adopt() -> Session:
            self.reactor.adopt(ours.detach(), HEAD)
            return next(reversed(self.owner.sessions))

        return self.call(adopt), Reading(theirs)

    def stop_engine(self) -> None:
        def stop() -> None:
            self.loop.remove_reader(self.reactor.fileno())
            self.reactor.abort_all()
            self.engine.stop()
            self.reactor.close()

        if not self._stopped:
            self._stopped = True
            self.call(stop)

    def stop(self) -> None:
        try:
            self.stop_engine()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(PATIENCE_S)
            assert not self._thread.is_alive()
            self.loop.close()


class Reading(threading.Thread):
    """A peer that reads to the end, answers pings and CLOSE, and notes what came."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__()
        self.peer = FramePeer(sock, timeout=PATIENCE_S)
        self.texts: list[str] = []
        self.binaries = 0
        self.closes: list[int] = []
        self.after_close = 0
        self.error: BaseException | None = None
        self._socket = sock
        head = b""
        while len(head) < len(ANSWER):
            head += sock.recv(len(ANSWER) - len(head))
        assert head == ANSWER
        self.start()

    def run(self) -> None:
        try:
            while (frame := self.peer.receive()) is not None:
                self.after_close += bool(self.closes)
                if frame.opcode == TEXT:
                    self.texts.append(frame.payload.decode())
                elif frame.opcode == BINARY:
                    self.binaries += 1
                elif frame.opcode in (PING, CLOSE):
                    if frame.opcode == CLOSE:
                        self.closes.append(frame.close_code)
                    with contextlib.suppress(ConnectionError):
                        self.peer.send(PONG if frame.opcode == PING else CLOSE, frame.payload)
        except BaseException as error:
            self.error = error
        finally:
            self.peer.disconnect()

    def leave(self) -> None:
        """Goes without a word, as far as the server can see."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self.join(PATIENCE_S)
        assert not self.is_alive()
        assert self.error is None
        assert self.after_close == 0


@pytest.fixture(autouse=True)
def short_turns() -> Iterator[None]:
    """With a GIL, threads take turns so short that the loop gets its own, and steps meet more often."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(0.0002)
    yield
    sys.setswitchinterval(interval)


@pytest.fixture
def served() -> Iterator[Served]:
    made = Served(send_buffer_limit=0)
    yield made
    made.stop()
    assert made.owner.failures == []


def in_order(texts: list[str]) -> dict[int, int]:
    """How many messages of each thread came: ["thread", number], in order and without a gap."""
    seen: dict[int, int] = {}
    for text in texts:
        if text.startswith("["):
            thread, number = json.loads(text)
            assert number == seen.get(thread, 0), text
            seen[thread] = number + 1
    return seen


def test_every_call_from_every_thread(served: Served) -> None:
    """Sends, pings, broadcasts, reads of figures; half-way one thread closes all but the first."""
    opened = [served.connect() for _ in range(4)]
    sessions = [session for session, _ in opened]
    counts: list[int] = []
    ends: set[tuple[int, str, str]] = set()

    def broadcast() -> None:
        counts.append(fan_out(Frame(b"all"), served.owner.sessions))

    def hammer(thread: int) -> None:
        for i in range(ROUNDS):
            for number, session in enumerate(sessions):
                if thread == 0 and number and i == ROUNDS // 2:
                    session.connection.close(4001, "enough")
                try:
                    session.send_json([thread, i])
                    if i % 3 == 0:
                        session.send_bytes(b"\0" * (i % 50))
                except ConnectionClosed as error:
                    ends.add((error.code, error.reason, error.cause if number else "closed by nobody"))
                session.ping()
                assert session.is_connected or number
                assert 0 <= session.connection.queued_bytes < 1 << 30
                assert session.rtt_ms is None or session.rtt_ms > 0
            if i % 5 == 0:
                assert served.engine.post(broadcast)

    run_threads(*(lambda t=t: hammer(t) for t in range(THREADS)))
    assert ends <= {(4001, "enough", "server_closed")}  # none, if the others were done by then
    sessions[0].connection.close(4001, "enough")
    for number, (session, reading) in enumerate(opened):
        reading.end()
        got = in_order(reading.texts)
        assert reading.closes == [4001]
        assert got == dict.fromkeys(range(THREADS), ROUNDS) if number == 0 else got[0] == ROUNDS // 2
        assert number or reading.binaries == THREADS * len(range(0, ROUNDS, 3))
        with pytest.raises(ConnectionClosed, match="server_closed"):
            session.send_text("late")
    assert served.call(lambda: [s.connection.queued_bytes for s in sessions]) == [0] * 4
    assert len(counts) == THREADS * len(range(0, ROUNDS, 5))
    assert served.owner.left == {"server_closed": 4}


def test_peers_leave_while_threads_use_them(served: Served, rng: random.Random) -> None:
    """Connections end and are freed on the loop's side while others send to them, and are let go there."""
    current: list[Session] = []
    done = threading.Event()
    causes: Counter[str] = Counter()

    def use() -> None:
        held: list[Session] = []
        while not done.is_set():
            held[:] = current  # the last reference to a session often goes here
            for session in held:
                try:
                    waiting = session.connection.queued_bytes
                    assert 0 <= waiting < 1 << 30
                    if waiting < 100:  # more would only keep the loop busy
                        session.send_text("x")
                        session.ping()
                except ConnectionClosed as error:
                    causes[error.cause] += 1
                    session.connection.close()
                session.rtt_ms  # noqa: B018

    def come_and_go() -> None:
        try:
            readings = []
            for _ in range(max(ROUNDS // 8, 10)):
                session, reading = served.connect()
                readings.append(reading)
                current.append(session)
                if len(current) > 3:
                    leaving = readings[len(readings) - len(current)]
                    if rng.random() < 0.5:
                        leaving.leave()
                    else:
                        current[0].connection.close(4002)
                    del current[0]
            for reading in readings:
                reading.leave()
            for reading in readings:
                reading.join(PATIENCE_S)
        finally:
            done.set()

    run_threads(come_and_go, *[use] * THREADS)
    assert set(causes) <= {"peer_gone", "server_closed"}
    current.clear()
    served.stop_engine()
    assert served.owner.sessions == {}
    assert served.owner.closed == max(ROUNDS // 8, 10)


def test_what_was_taken_is_run_when_the_engine_stops(served: Served) -> None:
    """`post` that returns True has its call run, at the latest in stop(); after False it never is."""
    taken = [0] * THREADS
    ran = [0] * THREADS
    going = threading.Event()

    def note(thread: int) -> None:
        ran[thread] += 1

    def post(thread: int) -> None:
        while served.engine.post(note, thread):
            taken[thread] += 1
            going.set()

    def stop() -> None:
        assert going.wait(PATIENCE_S)
        served.stop_engine()

    run_threads(stop, *(lambda t=t: post(t) for t in range(THREADS)))
    assert ran == taken
    assert all(not served.engine.post(note, thread) for thread in range(THREADS))


def test_a_reader_that_keeps_up_is_never_taken_for_a_slow_one() -> None:
    """Each thread waits until little is queued: what others see of the queue must not jump."""
    limit = 200_000
    served = Served(send_buffer_limit=limit)
    try:
        session, reading = served.connect()

        def send() -> None:
            for _ in range(ROUNDS):
                while session.connection.queued_bytes > limit // 4:
                    time.sleep(0)  # another's turn
                session.send_text("x" * 1000)

        run_threads(*[send] * THREADS)
        session.connection.close(4003)
        reading.end()
        assert len(reading.texts) == THREADS * ROUNDS
        assert reading.closes == [4003]
    finally:
        served.stop()
    assert served.owner.failures == []


def test_a_slow_reader_ends_once_for_all_threads() -> None:
    """What threads have handed over counts: memory is bounded, whoever comes then is told."""
    limit = 100_000
    served = Served(send_buffer_limit=limit, close_timeout=0.2)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    try:
        served.call(served.reactor.adopt, ours.detach(), HEAD)
        session = served.call(lambda: next(iter(served.owner.sessions)))
        most: list[int] = []
        codes: list[int] = []

        def send() -> None:
            try:
                while True:
                    session.send_bytes(bytes(5000))
                    most.append(session.connection.queued_bytes)
            except ConnectionClosed as error:
                codes.append(error.code)

        run_threads(*[send] * THREADS)
        assert codes == [4503] * THREADS
        assert max(most) <= limit + (THREADS + 1) * 6000
        assert served.call(lambda: served.owner.left) == {"slow_consumer": 1}
    finally:
        served.stop()
        theirs.close()
    assert served.owner.failures == []
