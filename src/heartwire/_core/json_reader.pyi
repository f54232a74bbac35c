"""Types of json_reader.pyx, where the contracts are."""

import sys
from collections.abc import Callable
from typing import Any, Self

from typing_extensions import Buffer, disjoint_base

from heartwire._core.link import Sink

__all__ = ["JsonReader", "PayloadView"]

@disjoint_base
class PayloadView:
    def __new__(cls) -> Self: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...

@disjoint_base
class JsonReader(Sink):
    decode: Callable[[Buffer], Any]
    decode_envelope: Callable[[Buffer], Any]
    raw: Callable[[Any], Any] | None
    encode: Callable[[Any], bytes]
    message_handler: Callable[[Any, Any], object] | None
    text_handler: Callable[[Any, str], object] | None
    binary_handler: Callable[[Any, bytes], object] | None
    invalid: type[Exception]
    max_depth: int
    long_text: int
    def __new__(cls, *args: Any, **kwargs: Any) -> Self: ...
    def read_typed(self, decoder: Callable[[Buffer], Any], view: PayloadView) -> Any: ...
    def handle_text(self, owner: Any, data: bytes) -> bool: ...
    def claims(self, envelope: Any) -> bool: ...
    def on_action(self, client: Any, envelope: Any, view: PayloadView) -> bool | None: ...
    def on_special(self, client: Any, data: bytes, is_text: bool) -> bool | None: ...
    def on_unclaimed(self, client: Any, value: Any) -> bool | None: ...
    def on_result(self, client: Any, result: Any) -> bool | None: ...
    def on_bad_json(self, client: Any, detail: str) -> None: ...
    def on_handler_failure(self, client: Any, error: Exception) -> None: ...
