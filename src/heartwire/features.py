"""What this build of the package has, where platforms differ."""

from __future__ import annotations

import socket
from importlib.util import find_spec
from typing import Final

from heartwire._core.engine import DEFLATE

__all__ = ["DEFLATE", "REACTOR", "REUSE_PORT", "UNIX_SOCKETS"]

REACTOR: Final = find_spec("heartwire._core.reactor") is not None
"""The epoll link: Linux only."""

UNIX_SOCKETS: Final = hasattr(socket, "AF_UNIX")
REUSE_PORT: Final = hasattr(socket, "SO_REUSEPORT")
