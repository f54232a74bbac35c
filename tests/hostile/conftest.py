"""A server process under attack, watched: others are served meanwhile, and nothing is left behind."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hostile.peer import PATIENCE_S
from hostile.watched import Attack, ServerProcess, Witness
from links import LINKS, SLOWER

# No pings but where they are tested: the first comes at any time.
TIMEOUTS = dict.fromkeys(("handshake_timeout", "message_timeout", "close_timeout"), 0.4 * SLOWER)
OPTIONS = {**TIMEOUTS, "ping_interval": 3600}


@pytest.fixture(scope="module", params=LINKS)
def link(request: pytest.FixtureRequest) -> str:
    """The link under attack."""
    return str(request.param)


@pytest.fixture(scope="module")
def processes(link: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers, one for each set of options."""
    running: dict[str, ServerProcess] = {}

    def start(**options: Any) -> ServerProcess:
        options = {**OPTIONS, "link": link, **options}
        name = json.dumps(options, sort_keys=True)
        if name in running and running[name].process.poll() is not None:
            running.pop(name).process.communicate()  # a test has brought it down
        if name not in running:
            running[name] = ServerProcess(options, tmp_path_factory.mktemp("server") / "errors.log")
        return running[name]

    yield start
    for server in running.values():
        server.stop()


@pytest.fixture
def attack(processes: Callable[..., ServerProcess]) -> Attack:
    """`with attack(**options) as server`: a server that is watched while the test attacks it."""

    @contextmanager
    def watched(**options: Any) -> Iterator[ServerProcess]:
        server = processes(**options)
        before = server.descriptors
        written = server.errors.stat().st_size
        witness = Witness(server.open())
        try:
            yield server
        except BaseException:
            witness.stop()
            raise
        witness.finish()
        assert server.process.poll() is None, server.errors.read_text()
        end = time.monotonic() + PATIENCE_S
        while server.descriptors > before and time.monotonic() < end:
            time.sleep(0.01)  # another process closes them: there is nothing to wait on
        assert server.descriptors <= before, "descriptors were left behind"
        assert server.errors.read_bytes()[written:].decode() == ""

    return watched


@pytest.fixture
def server(attack: Attack) -> Iterator[ServerProcess]:
    """`attack()`, with the options of every server here."""
    with attack() as server:
        yield server
