"""Masking (csrc/mask.c) beside copying the same bytes, which is the limit, and beside websockets."""

from __future__ import annotations

import ctypes
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from websockets.speedups import apply_mask as websockets_apply_mask

from heartwire._core.frames import apply_mask, mask_in_place

CSRC = Path(__file__).parents[1] / "csrc"
SIZES = [64, 1024, 16384, 262144]
KEY = b"\x37\xfa\x21\x3d"

# The work as a server does it, without a Python call for each payload: a receive buffer of 64 KiB full of
# frames is passed over. (One payload masked again and again would wait for its own stores.)
BUFFER = 65536
HEADER = 6
LOOPS = """
#include <string.h>
#include "mask.h"
static void *(*volatile copy)(void *, const void *, size_t) = memcpy;
static const uint8_t key[4] = {0x37, 0xfa, 0x21, 0x3d};
unsigned in_place(uint8_t *to, uint8_t *p, size_t n, size_t count, size_t passes) {
    unsigned seen = 0;
    while (passes--) for (size_t i = 0; i < count; i++)
        seen |= hw_mask(p + i * (n + 6) + 6, p + i * (n + 6) + 6, n, key, 0);
    return seen;
}
unsigned to_copy(uint8_t *to, uint8_t *p, size_t n, size_t count, size_t passes) {
    unsigned seen = 0;
    while (passes--) for (size_t i = 0; i < count; i++) seen |= hw_mask(to, p + i * (n + 6) + 6, n, key, 0);
    return seen;
}
unsigned in_place_then_copy(uint8_t *to, uint8_t *p, size_t n, size_t count, size_t passes) {
    unsigned seen = 0;
    while (passes--) for (size_t i = 0; i < count; i++) {
        uint8_t *at = p + i * (n + 6) + 6;
        seen |= hw_mask(at, at, n, key, 0);
        copy(to, at, n);
    }
    return seen;
}
unsigned plain_copy(uint8_t *to, uint8_t *p, size_t n, size_t count, size_t passes) {
    while (passes--) for (size_t i = 0; i < count; i++) copy(to, p + i * (n + 6) + 6, n);
    return 0;
}
"""
CALLS = ("in_place", "plain_copy", "to_copy", "in_place_then_copy")
PASSES = 16


@pytest.mark.parametrize("size", SIZES)
def test_apply_mask(beside: Any, size: int) -> None:
    data = os.urandom(size)
    view = memoryview(data)
    assert apply_mask(data, KEY) == websockets_apply_mask(data, KEY)
    beside((apply_mask, data, KEY), limit_memcpy=(bytes, view), websockets=(websockets_apply_mask, data, KEY))


@pytest.mark.parametrize("size", SIZES)
def test_mask_in_place(beside: Any, size: int) -> None:
    data = bytearray(os.urandom(size))
    view = memoryview(bytes(data))
    peer = (websockets_apply_mask, data, KEY)
    beside((mask_in_place, data, KEY), limit_memcpy=(bytes, view), websockets=peer)


@pytest.fixture(scope="module")
def loops(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("mask")
    (folder / "loops.c").write_text(LOOPS)
    compiler = [os.environ.get("CC", "cc"), "-std=gnu11", "-O3", "-DNDEBUG", "-shared", "-fPIC", f"-I{CSRC}"]
    subprocess.run([*compiler, "-o", folder / "loops.so", folder / "loops.c", CSRC / "mask.c"], check=True)
    library = ctypes.CDLL(str(folder / "loops.so"))
    for name in CALLS:
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_size_t] * 3]
    return library


@pytest.mark.parametrize("size", [16, 64, 256, 1024, 16384])
def test_in_place_or_to_a_copy(beside: Any, loops: ctypes.CDLL, size: int) -> None:
    """docs/experiments/mask-in-place.md"""
    source, target = ctypes.create_string_buffer(BUFFER), ctypes.create_string_buffer(size)
    count = BUFFER // (size + HEADER)
    a, b = ctypes.addressof(source), ctypes.addressof(target)
    assert loops.to_copy(b, a, size, count, 1) == 0x80  # the key has bytes with the high bit
    assert target.raw == (KEY * size)[:size]
    ours, limit, to_copy, both = ((getattr(loops, name), b, a, size, count, PASSES) for name in CALLS)
    beside(ours, per=count * PASSES, limit_memcpy=limit, to_a_copy=to_copy, in_place_then_copy=both)
