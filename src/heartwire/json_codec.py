"""Writing values as JSON: msgspec, helped by orjson where that is installed (`heartwire[fast]`).

Both write the same text for the same value (but for the sign in `1e+300`), so installing orjson changes
speed only: 1.6 times as fast for 1 KB and more (benchmarks/README.md). What orjson does not know, or writes
another way, such as datetimes and dataclasses, is left to msgspec.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

__all__ = ["encode", "encode_value"]

encode: Final = msgspec.json.Encoder(decimal_format="number").encode
"""Any value msgspec knows -> compact JSON. For the server's own events, which are Structs."""


def _encoder() -> Callable[[Any], bytes]:
    try:
        import orjson
    except ImportError:
        return encode
    dumps = orjson.dumps
    fragment = orjson.Fragment
    options = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_SUBCLASS

    def by_msgspec(value: Any) -> orjson.Fragment:
        return fragment(encode(value))

    def encode_quickly(value: Any) -> bytes:
        try:
            return dumps(value, by_msgspec, options)
        except TypeError:  # big integers, keys that are no strings, lone surrogates: msgspec's word is final
            return encode(value)

    return encode_quickly


encode_value: Final = _encoder()
"""An application's value -> compact JSON, key order kept. Raises TypeError for what JSON cannot hold."""
