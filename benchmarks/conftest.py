"""What the micro-benchmarks share: measuring side by side, masked frames, and a server without sockets.

`make bench-micro` runs them. Every one checks its results once before it is timed, so that
`make bench-micro ARGS=--benchmark-disable` is a test that they still run.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import timeit
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest

from heartwire import Server
from heartwire._core.connection import Connection
from heartwire._core.frames import apply_mask, build_frame_header
from heartwire._core.link import Link

Call = tuple[Any, ...]
"""A function and its arguments."""

ROUNDS = 25
ROUND_S = 0.002
SECRET = "benchmarks-only-" * 3
KEY = b"\x37\xfa\x21\x3d"

_lines = pytest.StashKey[list[str]]()


# ------------------------------------------------------------------ measuring side by side


def timer(call: Call) -> timeit.Timer:
    """Times the call itself: arguments are globals, so that no wrapper is measured with it."""
    function, *arguments = call
    names = {f"a{i}": argument for i, argument in enumerate(arguments)}
    return timeit.Timer(f"f({', '.join(names)})", globals={"f": function, **names})


def side_by_side(calls: dict[str, Call]) -> dict[str, float]:
    """Seconds of each call relative to the first.

    All are timed in turn, many times; a ratio is the median of those of the single rounds, so that what
    else the machine does meanwhile meets all alike.
    """
    timers = {name: timer(call) for name, call in calls.items()}
    counts = {}
    for name, each in timers.items():
        each.timeit(1)
        count = 1
        while (elapsed := each.timeit(count)) < ROUND_S / 4:
            count *= 2
        counts[name] = max(1, round(count * ROUND_S / elapsed))
    rounds = [
        {name: each.timeit(counts[name]) / counts[name] for name, each in timers.items()}
        for _ in range(ROUNDS)
    ]
    first = next(iter(calls))
    return {name: statistics.median(one[name] / one[first] for one in rounds) for name in calls}


class Beside:
    """Benchmarks one call, and prints how many times as long as others it takes."""

    def __init__(self, benchmark: Any, lines: list[str], title: str) -> None:
        self._benchmark = benchmark
        self._lines = lines
        self._title = title

    def __call__(self, ours: Call, /, *, per: int = 1, **others: Call) -> Any:
        """Times `ours` with pytest-benchmark, then beside each of `others`.

        Args:
            ours: the call of heartwire.
            per: messages (or frames, members) in one call, for the figure that is printed.
            others: what the same costs elsewhere; `limit_x` is what no program can do without.
        Returns:
            What `ours` returned.
        """
        function, *arguments = ours
        result = self._benchmark(function, *arguments)
        if self._benchmark.disabled:
            for other, *rest in others.values():
                other(*rest)
            return result
        ratios = side_by_side({"ours": ours, **others})
        figures = {name: 1 / ratios[name] for name in others}
        self._benchmark.extra_info["times"] = {name: round(figure, 3) for name, figure in figures.items()}
        each = self._benchmark.stats.stats.median / per * 1e9
        told = "   ".join(f"{figure:.2f} x {name.replace('_', ' ')}" for name, figure in figures.items())
        self._lines.append(f"{self._title:<58} {each:10,.0f} ns   {told}")
        return result


@pytest.fixture
def beside(benchmark: Any, request: pytest.FixtureRequest) -> Beside:
    """See `Beside`."""
    lines = request.config.stash.setdefault(_lines, [])
    module = request.path.stem.removeprefix("bench_")
    return Beside(benchmark, lines, f"{module}: {request.node.name.removeprefix('test_')}")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(_lines, [])
    if lines:
        terminalreporter.section("heartwire beside others: median for each message, and times as long as")
        for line in lines:
            terminalreporter.line(line)


# ------------------------------------------------------------------ bytes


def frame(payload: bytes, opcode: int = 1) -> bytes:
    """One whole frame as a client sends it: masked."""
    header = bytearray(build_frame_header(opcode, len(payload)))
    header[1] |= 0x80
    return bytes(header) + KEY + apply_mask(payload, KEY)


def document(size: int) -> bytes:
    """A JSON object of about so many bytes, as applications send them: strings, numbers, lists of objects."""
    row = b'{"name":"user-%05d","active":true,"price":%d.25,"qty":%d,"tags":["red","blue"]}'
    if size < 128:
        return b'{"text":"%s"}' % (b"x" * (size - 11))
    rows, length = [], 24
    while length < size:
        i = len(rows)
        rows.append(row % (i, i + 100, i * 7))
        length += len(rows[-1]) + 1
    return b'{"n":1234567,"items":[%s]}' % b",".join(rows)


@pytest.fixture(params=[64, 1024, 16384], ids=["64", "1k", "16k"])
def text(request: pytest.FixtureRequest) -> bytes:
    """A JSON object in three sizes."""
    return document(request.param)


# ------------------------------------------------------------------ a server without sockets


class MemoryLink(Link):  # type: ignore[misc]
    """Takes everything at once, and keeps it while `kept` is a list."""

    def __init__(self) -> None:
        self.kept: list[bytes] | None = []

    def write(self, conn: Connection, data: bytes) -> int:
        if self.kept is not None:
            self.kept.append(data)
        return len(data)

    @property
    def sent(self) -> bytes:
        """What was sent since the last look."""
        assert self.kept is not None
        sent = b"".join(self.kept)
        self.kept.clear()
        return sent


def token(user: str) -> str:
    return jwt.encode({"sub": user, "username": user.title(), "exp": 4102444800}, SECRET)


def request_head(bearer: str) -> bytes:
    """What a client that is no browser sends."""
    return (
        "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:8085\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        f"Authorization: Bearer {bearer}\r\nUser-Agent: Python/3.11 websockets/17\r\n\r\n"
    ).encode()


class MemoryServer:
    """A `Server` as it is, whose connections are fed by hand. Its loop does not run meanwhile."""

    def __init__(self, prepare: Callable[[Server], object], options: dict[str, Any]) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = Server(port=0, jwt_secret=[SECRET], loop="asyncio", link="asyncio", **options)
        prepare(self.server)
        self.loop.run_until_complete(self.server.start())
        self.engine = self.server._engine
        self.dispatcher = self.server._dispatcher
        self.registry = self.server._registry

    def connection(self) -> tuple[Connection, MemoryLink]:
        """A connection before its request head."""
        link = MemoryLink()
        conn = Connection(self.engine, self.dispatcher, link)
        conn.set_peer("127.0.0.1", 50000)
        return conn, link

    def connect(self, user: str = "anna") -> tuple[Connection, MemoryLink]:
        """An open, authenticated, registered client."""
        conn, link = self.connection()
        conn.feed(request_head(token(user)))
        assert conn.is_open, link.sent
        link.sent  # noqa: B018
        return conn, link

    def close(self) -> None:
        for client in list(self.server.clients.values()):
            client.connection.abort()
        self.engine.run_batch()
        self.loop.run_until_complete(self.server.stop())
        self.loop.close()


@pytest.fixture
def memory_server() -> Iterator[Callable[..., MemoryServer]]:
    """`memory_server(prepare, **options)`: `prepare(server)` registers handlers."""
    servers: list[MemoryServer] = []

    def make(prepare: Callable[[Server], object] = lambda server: None, **options: Any) -> MemoryServer:
        servers.append(MemoryServer(prepare, options))
        return servers[-1]

    yield make
    for server in servers:
        server.close()


@pytest.fixture
def tools() -> Any:
    """The functions above, for benchmarks, which cannot import this file."""
    return Tools


class Tools:
    frame = staticmethod(frame)
    token = staticmethod(token)
    request_head = staticmethod(request_head)
    document = staticmethod(document)
    side_by_side = staticmethod(side_by_side)
    MemoryLink = MemoryLink
    KEY = KEY
    SECRET = SECRET
    system_call = staticmethod(os.getppid)  # does nothing but enter the kernel
