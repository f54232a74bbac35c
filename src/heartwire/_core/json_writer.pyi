"""Types of json_writer.pyx, where the contracts are."""

from collections.abc import Callable
from typing import Any, Self

from typing_extensions import disjoint_base

__all__ = ["JsonWriter"]

@disjoint_base
class JsonWriter:
    def __new__(
        cls,
        dumps: Callable[[Any, Callable[[Any], Any], int], bytes],
        default: Callable[[Any], Any],
        options: int,
        encode: Callable[[Any], bytes],
    ) -> Self: ...
    def write(self, value: Any) -> bytes: ...
