"""Writing values as JSON: msgspec, helped by orjson where that is installed (`heartwire[fast]`).

Both write the same text for the same value, so installing orjson changes speed only (docs/experiments/).
Two exceptions are known: the sign in `1e+300`, and an Enum that overrides `value`, of which msgspec writes
the original. What orjson does not know, or writes another way, such as datetimes and dataclasses, is left
to msgspec.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

import msgspec

from heartwire._core.json_writer import JsonWriter

__all__ = ["encode", "encode_value"]

encode: Final = msgspec.json.Encoder(decimal_format="number").encode
"""Any value msgspec knows -> compact JSON. For the server's own events, which are Structs."""


def _installed() -> ModuleType | None:
    try:
        import orjson
    except ImportError:
        return None
    return orjson


def _encoder(orjson: Any) -> Callable[[Any], bytes]:
    """The writer of values with that module orjson, or None for msgspec alone."""
    if orjson is None:
        return encode
    fragment = orjson.Fragment
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
    options |= orjson.OPT_PASSTHROUGH_SUBCLASS

    def by_msgspec(value: Any) -> Any:
        return fragment(encode(value))

    # What orjson refuses: big integers, keys that are no strings, lone surrogates. msgspec's word is final.
    return JsonWriter(orjson.dumps, by_msgspec, options, encode).write


encode_value: Final = _encoder(_installed())
"""An application's value -> compact JSON, key order kept.

Raises:
    TypeError: JSON has no form for a value in it.
    ValueError: a str has a lone surrogate (UnicodeEncodeError), an int more digits than Python writes.
    RecursionError: nested too deep, or in itself.
"""
