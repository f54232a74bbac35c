"""What this build of the package has, as tests see it: `HEARTWIRE_NO_REACTOR` and `HEARTWIRE_NO_DEFLATE` in
setup.py make builds that have less."""

from __future__ import annotations

from typing import Final

import pytest

from heartwire import features

LINKS: Final = ("epoll" if features.REACTOR else "auto", "asyncio")
"""Values of the option `link`: what runs over a socket is tested over each."""

needs_reactor = pytest.mark.skipif(not features.REACTOR, reason="a build without the epoll link")
needs_deflate = pytest.mark.skipif(not features.DEFLATE, reason="a build without zlib")
