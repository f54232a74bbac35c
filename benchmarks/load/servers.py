"""Starts one server as a process of its own on its own core, and ends it whatever happens."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from .measure import listens
from .peers.options import SECRET_VARIABLE
from .programs import REPOSITORY, Programs

_START_TIMEOUT_S = 20.0


class ServerFailed(Exception):
    """The server did not start, or ended by itself; carries the end of what it wrote."""


@dataclass(frozen=True)
class Contestant:
    """One server on one event loop.

    Attributes:
        server: heartwire, picows, websockets, aiohttp, gorilla or ceiling.
        loop: `asyncio` or `uvloop`; empty for servers that are not Python.
    """

    server: str
    loop: str = ""

    def __str__(self) -> str:
        return f"{self.server} ({self.loop})" if self.loop else self.server


def free_port() -> int:
    """A port nobody listens on, below the range that the kernel takes client ports from."""
    lowest_client_port = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = random.randrange(10_000, max(lowest_client_port, 10_001))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise ServerFailed("no free port found on 127.0.0.1")


class RunningServer:
    """A context manager: the server listens when it is entered and is dead when it is left.

    Args:
        contestant: Which server, on which loop.
        mode: `json`, `raw` or `fanout`.
        programs: Where the compiled ones are.
        core: The CPU it is pinned to.
        secret: HS256 key of the tokens.
        ping_interval_s: Seconds; 0 leaves pings to the server's default.

    Raises:
        ServerFailed: It did not listen in time.
    """

    def __init__(
        self,
        contestant: Contestant,
        mode: str,
        *,
        programs: Programs,
        core: int,
        secret: str,
        ping_interval_s: float = 0.0,
    ) -> None:
        self.contestant = contestant
        self.port = free_port()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed in _end
        death = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        # Each of these replaces itself by the next: one process, whose id is the server's.
        self._command = [
            *("taskset", "-c", str(core), *death),
            *_server_command(contestant, mode, self.port, programs, ping_interval_s),
        ]
        self._environment = {**os.environ, SECRET_VARIABLE: secret}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> RunningServer:
        self._process = subprocess.Popen(
            self._command,
            cwd=REPOSITORY,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            until = time.monotonic() + _START_TIMEOUT_S
            while not listens(self.port):
                self.check()
                if time.monotonic() > until:
                    raise ServerFailed(f"{self.contestant} does not listen after {_START_TIMEOUT_S:.0f} s")
                time.sleep(0.02)
        except BaseException:
            self._end()
            raise
        return self

    def check(self) -> None:
        """Raises:
        ServerFailed: The process has ended.
        """
        if self._process is None or self._process.poll() is None:
            return
        raise ServerFailed(f"{self.contestant} ended with {self._process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        """The last three lines that it wrote."""
        # By position: the server writes at the offset that both share.
        size = os.fstat(self._log.fileno()).st_size
        text = os.pread(self._log.fileno(), 65_536, max(0, size - 65_536)).decode(errors="replace")
        lines = text.strip().splitlines()
        return " | ".join(line.strip() for line in lines[-3:])

    def _end(self) -> None:
        # At once and not politely: a server that drains would be measured draining.
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


def _server_command(
    contestant: Contestant, mode: str, port: int, programs: Programs, ping_interval_s: float
) -> list[str]:
    if contestant.server == "ceiling":
        pings = [f"{ping_interval_s * 1000:.0f}"] if ping_interval_s else []
        return [str(programs.ceiling), str(port), "fanout" if mode == "fanout" else "echo", *pings]
    options = ["--port", str(port), "--mode", mode, "--ping-interval", str(ping_interval_s)]
    if contestant.server == "gorilla":
        assert programs.gorilla is not None
        return [str(programs.gorilla), *options]
    module = f"{__package__}.peers.{contestant.server}_echo"
    return [sys.executable, "-m", module, *options, "--loop", contestant.loop]
