"""The inputs that are kept, one a line in corpus/TARGET.txt, and a mutator that needs no engine."""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

from fuzz import deflated, frames, heads, json_texts

FOLDER: Final = Path(__file__).with_name("corpus")


class Target(NamedTuple):
    """One fuzzer."""

    one_input: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]
    longest: int
    """Bytes of an input that is worth while."""
    words: tuple[bytes, ...]
    """What mutations insert."""


TARGETS: Final = {
    "frames": Target(frames.one_input, frames.seeds, 1500, (
        b"\x81\x80\0\0\0\0", b"\x01\x81\0\0\0\0x", b"\x80\x80\0\0\0\0", b"\x89\x80\0\0\0\0",
        b"\x88\x82\0\0\0\0\x03\xe8",
        b"\x00\x80\0\0\0\0", b"\xfe", b"\xff", b"\x7e\x00\x7e", b"\xe2\x82\xac", b"\xed\xa0\x80",
    )),
    "heads": Target(heads.one_input, heads.seeds, 2000, (
        b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b",", b"%2f", b"token=", b"&", b"Host: b\r\n",
        b"\r\nOrigin: null",
        b"Sec-WebSocket-Protocol: ", b"Cookie: session=", b"HTTP/1.1", b"\0", b"\xff", b"websocket",
    )),
    "json_texts": Target(json_texts.one_input, json_texts.seeds, 1000, (
        b'"', b"\\", b"\\u0061", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b'"action":', b'"ping"',
        b'"id":',
        b'"channel":', b'"data":', b"1e999", b"-0", b"null", b"\xef\xbb\xbf", b"\xc3",
    )),
    "deflated": Target(deflated.one_input, deflated.seeds, 1500, (
        b"\0\0\xff\xff", b"\x03\0", b"\0\x01", b"\x01\0\0\xff\xff", b"\x4a\x04\0", b"\xff", b"\0\0",
    )),
}  # fmt: skip


def load(name: str) -> list[bytes]:
    """The kept inputs of a target."""
    path = FOLDER / f"{name}.txt"
    return [base64.b64decode(line) for line in path.read_text().split()] if path.exists() else []


def save(name: str, inputs: Iterable[bytes]) -> None:
    """Keeps these inputs, each once, instead of those that were kept.

    Raises:
        ValueError: there is none. Nothing was changed.
    """
    lines = {base64.b64encode(one).decode() for one in inputs}
    if not lines:
        raise ValueError(f"no inputs: the corpus of {name} would be lost")
    (FOLDER / f"{name}.txt").write_text("".join(f"{line}\n" for line in sorted(lines, key=lambda x: (len(x),
    x))))


def mutated(base: bytes, others: list[bytes], words: tuple[bytes, ...], rng: random.Random) -> bytes:
    """The base with up to four changes."""
    data = bytearray(base)
    for _ in range(rng.randint(1, 4)):
        at = rng.randint(0, len(data))
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
        elif kind == 1 and data:
            data[min(at, len(data) - 1)] = rng.choice((0, 1, 0x7D, 0x7E, 0x7F, 0x80, 0xFF,
            rng.randrange(256)))
        elif kind == 2:
            del data[at : at + rng.choice((1, 1, 2, 4, 20))]
        elif kind == 3:
            data[at:at] = rng.choice(words)
        elif kind == 4:
            data[at:at] = data[at : at + rng.randint(1, 30)]
        elif kind == 5:
            other = rng.choice(others)
            start = rng.randint(0, len(other))
            data[at:] = other[start:]
        else:
            data[at : at + 1] = rng.randbytes(rng.randint(1, 3))
    return bytes(data)
