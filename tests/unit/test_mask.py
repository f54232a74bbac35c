"""hw_mask against one line of Python, over all sizes, alignments, offsets and positions of the high bit."""

from __future__ import annotations

import random

import pytest

from heartwire._core.frames import apply_mask, mask_in_place

SIZES = range(301)
KEYS = [b"\x01\x02\x03\x04", b"\x9c\x00\xff\x61"]


def slow_mask(data: bytes, key: bytes, pos: int) -> bytes:
    return bytes(byte ^ key[(pos + i) % 4] for i, byte in enumerate(data))


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("pos", range(4))
def test_every_size_and_alignment(key: bytes, pos: int, rng: random.Random) -> None:
    buffer = bytearray(rng.randbytes(512))
    for size in SIZES:
        for align in range(33):
            data = bytes(buffer[align : align + size])
            expected = slow_mask(data, key, pos) if align % 11 == 0 else None
            view = memoryview(buffer)[align : align + size]
            masked = apply_mask(view, key, pos)
            assert expected is None or masked == expected, (size, align)
            before, after = buffer[:align], buffer[align + size :]
            ascii_only = mask_in_place(view, key, pos)
            view.release()
            assert buffer == before + masked + after, (size, align)
            assert ascii_only == masked.isascii(), (size, align)


def test_sizes_beyond_the_vector_loop(rng: random.Random) -> None:
    for _ in range(100):
        data = rng.randbytes(rng.randrange(300, 6000))
        key = rng.randbytes(4)
        pos = rng.randrange(1 << 40)
        masked = slow_mask(data, key, pos)
        assert apply_mask(data, key, pos) == masked
        start = rng.randrange(40)
        buffer = bytearray(start) + data
        mask_in_place(memoryview(buffer)[start:], key, pos)
        assert buffer[start:] == masked


@pytest.mark.parametrize("key", KEYS)
def test_the_high_bit_is_seen_wherever_it_is(key: bytes) -> None:
    for size in SIZES:
        plain = bytearray(b"x" * size)
        for at in range(size):
            plain[at] = 0xE9
            assert not mask_in_place(bytearray(apply_mask(plain, key)), key), (size, at)
            plain[at] = ord("x")
        assert mask_in_place(bytearray(apply_mask(plain, key)), key), size


def test_a_payload_may_be_cut_anywhere(rng: random.Random) -> None:
    data, key = rng.randbytes(100), rng.randbytes(4)
    whole = apply_mask(data, key)
    for cut in range(101):
        assert apply_mask(data[:cut], key) + apply_mask(data[cut:], key, cut) == whole


def test_masking_twice_gives_the_payload_back(rng: random.Random) -> None:
    data, key = rng.randbytes(777), rng.randbytes(4)
    assert apply_mask(apply_mask(data, key, 3), key, 3) == data


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="4 bytes, not 3"):
        apply_mask(b"x", b"abc")
    with pytest.raises(ValueError, match="not -1"):
        apply_mask(b"x", b"abcd", -1)
    with pytest.raises(TypeError):
        apply_mask("text", b"abcd")  # type: ignore[arg-type]
    with pytest.raises(BufferError):
        mask_in_place(b"read-only", b"abcd")
