"""What several options are bounded by."""

from __future__ import annotations

from typing import Final

__all__ = ["DAY", "GIB", "KEPT_DESCRIPTORS"]

DAY: Final = 86400.0  # seconds
GIB: Final = 1 << 30  # bytes
KEPT_DESCRIPTORS: Final = 256  # for logs, brokers and the HTTP API
