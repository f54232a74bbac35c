"""A real server on a port of the kernel's choice, over each link."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from heartwire import Server
from integration.peers import SECRET
from links import LINKS

OURS = ("internal error", "the handshake failed")  # log lines that tell of a bug of the server itself


@pytest.fixture(params=LINKS)
def link(request: pytest.FixtureRequest) -> str:
    """What carries the bytes: every test runs over both."""
    name: str = request.param
    return name


@pytest.fixture
async def make(link: str) -> AsyncIterator[Callable[..., Server]]:
    """Makes servers, not started yet, and stops them in the end."""
    made: list[Server] = []

    def make(**options: Any) -> Server:
        usual = {"port": 0, "link": link, "jwt_secret": [SECRET]}
        # No pings but where they are tested: the first comes at any time. The rest is for tests that fail.
        usual |= {"ping_interval": 3600, "close_timeout": 2, "handler_timeout": 5}
        server = Server(**{**usual, **options})
        made.append(server)
        return server

    yield make
    for server in made:
        await server.stop()


@pytest.fixture
async def server(make: Callable[..., Server]) -> Server:
    """A running server with default options and no handlers."""
    server = make()
    await server.start()
    return server


@pytest.fixture(autouse=True)
def no_internal_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A failure that the server survived is a failure all the same."""
    caplog.set_level(logging.DEBUG, "heartwire")
    yield
    errors = [record for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    ours = [r for r in errors if r.name == "asyncio" or r.getMessage().startswith(OURS)]
    assert not ours, [logging.Formatter().format(record) for record in ours]
