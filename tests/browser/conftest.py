"""A real Chromium, and servers that are killed and started again.

These tests run where playwright is installed (`make browser` does that), and with CI=true; the browser is
Debian's, or what the environment variable CHROMIUM names.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import jwt
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

wanted = importlib.util.find_spec("playwright") or os.environ.get("CI") == "true"
collect_ignore_glob = [] if wanted else ["test_*.py"]

SECRET = "for tests of the browser: 32 bytes"
API_KEY = "test-key-of-the-monitor"
ARGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-quic"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for a module; each page has a context, and so a storage, of its own.

    Not for the session: playwright's running loop would be in the way of the asynchronous tests of others.
    """
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("no Chromium: apt-get install chromium, or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in which an uncaught error, and anything that its policy blocks, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(15_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda m: errors.append(m.text) if "Content Security Policy" in m.text else None)
    yield page
    context.close()
    assert not errors, errors


class ServerProcess:
    """A server in a process of its own, which can be killed and comes back on the same port."""

    def __init__(self, *flags: str) -> None:
        self._flags = flags
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Starts it, and waits until it listens."""
        command = "from heartwire.cli import socket_server; socket_server()"
        flags = ["--port", str(self.port), "--jwt-secret", SECRET, "--api-key", API_KEY, *self._flags]
        self.process = subprocess.Popen(
            [sys.executable, "-c", command, *flags],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        )
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"listening on [\w.]+:(\d+)", line):
                self.port = int(found[1])
                return
        raise RuntimeError(f"the server ended with {self.process.wait()}")

    def kill(self) -> None:
        """Ends it without a word to anybody."""
        process = self.process
        if process is not None:
            assert process.stderr is not None
            process.kill()
            process.stderr.close()
            process.wait()
            self.process = None

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """It does nothing meanwhile, not even close."""
        process = self.process
        assert process is not None
        process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            process.send_signal(signal.SIGCONT)  # nothing happens if it was killed

    def restart(self) -> None:
        """Kills it and starts another on the same port."""
        self.kill()
        self.start()

    def terminate(self) -> None:
        """Sends SIGTERM, and waits for its end."""
        process = self.process
        assert process is not None
        assert process.stderr is not None
        process.terminate()
        process.communicate(timeout=10)  # a closed pipe would make its exit status 120
        assert process.returncode == 0
        self.process = None

    @property
    def url(self) -> str:
        """Of its HTTP side."""
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def serve() -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers, and ends them after the test."""
    started: list[ServerProcess] = []

    def serve(*flags: str) -> ServerProcess:
        server = ServerProcess(*flags)
        started.append(server)
        server.start()
        return server

    yield serve
    for server in started:
        server.kill()


def mint(sub: str = "alice", ttl: float = 3600, **claims: Any) -> str:
    """A token that the servers accept; one that has expired, if `ttl` is negative."""
    return jwt.encode({"sub": sub, "exp": time.time() + ttl, **claims}, SECRET, "HS256")
