"""UTF-8 validation (csrc/utf8.c) beside CPython's decoder and beside copying the same bytes."""

from __future__ import annotations

from typing import Any

import pytest

from heartwire._core.frames import Utf8Validator

TEXTS = {
    "ascii": b"The quick brown fox jumps over the lazy dog. ",
    "latin": "Äpfel, Brötchen und ein süßes Stück Käse für später. ".encode(),
    "chinese": "我能吞下玻璃而不伤身体。".encode(),
}


@pytest.mark.parametrize("size", [64, 1024, 16384])
@pytest.mark.parametrize("kind", TEXTS)
def test_validate(beside: Any, kind: str, size: int) -> None:
    data = (TEXTS[kind].decode() * (size // 20))[:size].encode()[:size].decode("utf-8", "ignore").encode()
    validator = Utf8Validator()
    validator.feed(data)
    assert validator.complete
    beside((validator.feed, data), limit_memcpy=(bytes, memoryview(data)), bytes_decode=(bytes.decode, data))
