"""A server in a process of its own, and a witness that sees how others are served meanwhile."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jwt

from hostile.peer import PATIENCE_S, Peer, text
from links import SLOWER

SANE_S = 1.0 * SLOWER  # a round trip of the witness, on a machine that does other things too


class ServerProcess:
    """One server in a process of its own."""

    def __init__(self, options: dict[str, Any], errors: Path) -> None:
        secret = secrets.token_hex(32)
        claims = {"sub": "mallory", "exp": time.time() + 3600}
        self.token = jwt.encode(claims, secret, algorithm="HS256")
        self.errors = errors
        program = Path(__file__).with_name("echo_server.py")
        with errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [sys.executable, str(program), json.dumps({"jwt_secret": [secret], **options})],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr,
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, errors.read_text()
        self.port = int(line)

    def connect(self) -> Peer:
        """A TCP connection."""
        return Peer(self.port, self.token)

    def open(self) -> Peer:
        """A connection after its opening handshake."""
        return self.connect().open()

    @property
    def descriptors(self) -> int:
        """How many it has open."""
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def memory(self) -> int:
        """Its resident bytes."""
        fields = Path(f"/proc/{self.process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def assert_grown_less(self, before: int, most: int) -> None:
        """By less than `most` bytes since `before`; where freed memory is kept back, that says nothing."""
        assert SLOWER > 1 or self.memory - before < most

    def stop(self) -> None:
        """Ends it in an orderly way."""
        self.process.communicate(timeout=PATIENCE_S)
        assert self.process.returncode == 0


class Witness:
    """A client that was there before and only wants its echoes."""

    def __init__(self, peer: Peer) -> None:
        self.slowest = 0.0
        self.rounds = 0
        self.failure: BaseException | None = None
        self._peer = peer
        self._stop = threading.Event()
        self._round()  # the first is the server's warm-up, and tells that all is well
        self.slowest = 0.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _round(self) -> None:
        start = time.monotonic()
        self._peer.send(text(f'{{"round":{self.rounds}}}'))
        assert self._peer.message() == {"round": self.rounds}
        self.slowest = max(self.slowest, time.monotonic() - start)
        self.rounds += 1

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.002):
                self._round()
        except BaseException as error:
            self.failure = error

    def stop(self) -> None:
        """Lets it go."""
        self._stop.set()
        self._thread.join()
        self._peer.socket.close()

    def finish(self) -> None:
        """Lets it go, and judges what it saw."""
        self.stop()
        if self.failure is not None:
            raise self.failure
        assert self.slowest < SANE_S


Attack = Callable[..., AbstractContextManager[ServerProcess]]
"""`with attack(**options) as server`: the server is watched while the test attacks it."""
