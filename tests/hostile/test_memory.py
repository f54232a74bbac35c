"""Memory is bounded by configuration: clients do their worst, and docs/memory.md says how much that is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile.peer import PATIENCE_S, text
from hostile.watched import Attack
from links import LINKS, SLOWER

pytestmark = pytest.mark.skipif(SLOWER > 1, reason="freed memory is kept back here, to find uses of it")

PAGE = Path(__file__).parents[2] / "docs" / "memory.md"
KIB = 1024
MESSAGE = 256 * KIB
LIMIT = 256 * KIB
SENT = 128 * KIB
COUNT = 40


def formulas() -> dict[str, Callable[..., int]]:
    """The functions of the page."""
    code = re.search(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names


@pytest.mark.parametrize("link", LINKS)
def test_clients_that_do_their_worst(link: str) -> None:
    """None reads; each has a message handled, and more sent behind it, and its queue is full."""
    sizes = {"link": link, "count": COUNT, "message": MESSAGE, "limit": LIMIT, "sent": SENT}
    program = Path(__file__).with_name("worst_clients.py")
    done = subprocess.run(
        [sys.executable, str(program), json.dumps(sizes)], capture_output=True, text=True, timeout=50
    )
    assert done.returncode == 0, done.stderr
    grown = int(done.stdout)
    known = formulas()
    each_most = known["connection_bytes"](MESSAGE, LIMIT, SENT, asyncio_link=link == "asyncio")
    each_most += MESSAGE  # the handler's own
    print(f"{grown / KIB / COUNT:.0f} KiB of {each_most / KIB:.0f}")
    assert grown > COUNT * (MESSAGE + LIMIT), "that was not their worst"
    assert grown < known["server_bytes"](COUNT, MESSAGE, each_most)


def test_requests_that_never_end(attack: Attack, link: str) -> None:
    """Heads of nearly 16 KiB."""
    known = formulas()
    most = known["connection_bytes"](0, 0, 0, asyncio_link=link == "asyncio")
    with attack(handshake_timeout=30) as server:
        before = server.memory
        peers = [server.connect() for _ in range(200)]
        for each in peers:
            each.send(b"GET /ws HTTP/1.1\r\nX: " + b"x" * (15 * KIB))
        end = time.monotonic() + PATIENCE_S
        while server.memory - before < 200 * 12 * KIB:  # until it has been read
            assert time.monotonic() < end, "that was not their worst"
            time.sleep(0.01)
        with server.open() as witness:
            witness.send(text("1"))
            assert witness.message() == 1
        assert server.memory - before < known["server_bytes"](200, 0, most)
        for each in peers:
            each.reset()
