"""What this build of the package has, as tests see it. `HEARTWIRE_NO_REACTOR` and `HEARTWIRE_NO_DEFLATE` in
setup.py make builds that have less; HEARTWIRE_SLOWER says how slow one is (`make asan`, `make valgrind`).
"""

from __future__ import annotations

import os
from typing import Final

import pytest

from heartwire import features

LINKS: Final = ("epoll" if features.REACTOR else "auto", "asyncio")
"""Values of the option `link`: what runs over a socket is tested over each."""

SLOWER: Final = float(os.environ.get("HEARTWIRE_SLOWER") or 1)
"""What time limits are multiplied by. Where it is above 1, freed memory is kept back, so that uses of it are
found: how much a process takes says nothing there."""

needs_reactor = pytest.mark.skipif(not features.REACTOR, reason="a build without the epoll link")
needs_deflate = pytest.mark.skipif(not features.DEFLATE, reason="a build without zlib")
