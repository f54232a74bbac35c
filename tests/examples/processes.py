"""The examples' servers as processes, started as their users do."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PATIENCE_S = 20.0
LOUD = re.compile(r"\b(?:ERROR|CRITICAL|Traceback|Exception ignored|Failed to send ping)\b")


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Returns once the process listens there."""
    for _ in range(int(PATIENCE_S / 0.05)):
        assert process.poll() is None, "the server has ended"
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError(f"nobody listens on {port}")


@contextmanager
def running(arguments: list[str], port: int, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server as its user starts it; ended by SIGTERM, with status 0 and no error in its log."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with log.open("ab") as file:
        process = subprocess.Popen([sys.executable, *arguments], stderr=file, stdout=file, env=environment)
    try:
        wait_for_port(port, process)
        yield process
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    said = log.read_text()
    assert not LOUD.search(said), said
