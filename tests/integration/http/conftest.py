"""A running server with API keys, and its backend."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from heartwire import Server
from integration.http.api import KEYS, Api, api_of


@pytest.fixture
def options() -> dict[str, Any]:
    """Options of the server; tests replace them by `@pytest.mark.parametrize`."""
    return {}


@pytest.fixture
async def server(make: Callable[..., Server], options: dict[str, Any]) -> Server:
    """A running server whose API is open to KEYS."""
    server = make(api_key=KEYS, **options)
    await server.start()
    return server


@pytest.fixture
async def api(server: Server) -> AsyncIterator[Api]:
    async with api_of(server) as api:
        yield api
