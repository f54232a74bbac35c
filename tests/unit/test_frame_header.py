"""hw_frame_parse and hw_frame_build against the diagram of RFC 6455 section 5.2 in Python."""

from __future__ import annotations

import random
import struct

import pytest

from heartwire._core.frames import FrameHeader, build_frame_header, parse_frame_header
from heartwire.errors import RemoteProtocolError

LENGTHS = [0, 1, 64, 124, 125, 126, 127, 128, 255, 256, 65534, 65535, 65536, 65537, 1 << 32, (1 << 63) - 1]
INVALID = "invalid"


def slow_parse(data: bytes) -> tuple[object, ...] | str | None:
    if len(data) < 2:
        return None
    bits = f"{data[0]:08b}{data[1]:08b}"
    code = int(bits[9:], 2)
    extended = {126: 2, 127: 8}.get(code, 0)
    rest = data[2:]
    if len(rest) < extended:
        return None
    length = int.from_bytes(rest[:extended], "big") if extended else code
    if extended and length < (126 if extended == 2 else 65536):
        return INVALID
    if length >= 1 << 63:
        return INVALID
    key = None
    size = 2 + extended
    if bits[8] == "1":
        key = rest[extended : extended + 4]
        size += 4
        if len(key) < 4:
            return None
    return (bits[0] == "1", int(bits[1:4], 2), int(bits[4:8], 2), bits[8] == "1", key, length, size)


def parse(data: bytes) -> tuple[object, ...] | str | None:
    try:
        header = parse_frame_header(data)
    except RemoteProtocolError as error:
        return INVALID if error.close_code == 1002 else f"close code {error.close_code}"
    if header is None:
        return None
    return (header.fin, header.rsv, header.opcode, header.masked, header.key, header.length, header.size)


def test_every_first_two_bytes(rng: random.Random) -> None:
    for first in range(256):
        for second in range(256):
            data = bytes([first, second]) + rng.choice((b"", b"\x00" * 6, b"\x00" * 2)) + rng.randbytes(12)
            assert parse(data) == slow_parse(data), data.hex(" ")


@pytest.mark.parametrize("masked", [False, True])
def test_every_truncation(masked: bool, rng: random.Random) -> None:
    forms = [bytes([n]) for n in range(126)]
    forms += [b"\x7e" + struct.pack("!H", n) for n in (0, 1, 125, 126, 127, 128, 255, 256, 65535)]
    forms += [
        b"\x7f" + struct.pack("!Q", n)
        for n in (0, 125, 126, 65535, 65536, 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
    ]
    for form in forms:
        data = bytes([0x82, form[0] | masked << 7]) + form[1:] + rng.randbytes(5)
        for size in range(len(data) + 1):
            assert parse(data[:size]) == slow_parse(data[:size]), data[:size].hex(" ")


def test_random_headers(rng: random.Random) -> None:
    for _ in range(20000):
        data = bytearray(rng.randbytes(rng.randrange(16)))
        if len(data) > 4 and rng.random() < 0.7:
            data[1] = rng.choice((0x7E, 0x7F, 0xFE, 0xFF))
            data[2:4] = rng.choice((b"\x00\x00", b"\x00\x7d", b"\x00\x7e", b"\x7f\xff"))
        assert parse(bytes(data)) == slow_parse(bytes(data)), data.hex(" ")


def test_a_bad_length_is_told_before_the_key_is_there() -> None:
    assert parse(bytes.fromhex("82 fe 00 7d")) == INVALID
    assert parse(bytes.fromhex("82 ff 00 00 00 00 00 00 ff ff")) == INVALID


@pytest.mark.parametrize("length", LENGTHS)
def test_what_is_built_is_read_back(length: int) -> None:
    size = 2 if length < 126 else 4 if length < 65536 else 10
    for opcode in range(16):
        for rsv in range(8):
            for fin in (True, False):
                data = build_frame_header(opcode, length, fin, rsv)
                assert slow_parse(data) == (fin, rsv, opcode, False, None, length, size)
                assert parse(data + b"payload") == slow_parse(data)


def test_examples_of_the_rfc() -> None:
    """RFC 6455 section 5.7."""
    assert build_frame_header(1, 5) == b"\x81\x05"
    assert build_frame_header(1, 3, fin=False) == b"\x01\x03"
    assert build_frame_header(2, 256) == b"\x82\x7e\x01\x00"
    assert build_frame_header(2, 65536) == b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"
    header = parse_frame_header(bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58"))
    assert header is not None
    assert (header.key, header.length, header.size) == (b"\x37\xfa\x21\x3d", 5, 6)


def test_the_masking_key_stays_out_of_the_repr() -> None:
    header = parse_frame_header(bytes.fromhex("81 85 37 fa 21 3d"))
    assert repr(header) == "FrameHeader(fin=True, rsv=0, opcode=0x1, masked=True, length=5, size=6)"


@pytest.mark.parametrize(
    ("opcode", "length", "rsv"),
    [(16, 0, 0), (-1, 0, 0), (1, -1, 0), (1, 1 << 63, 0), (1, 1 << 64, 0), (1, 0, 8)],
)
def test_values_out_of_range_are_refused(opcode: int, length: int, rsv: int) -> None:
    with pytest.raises(ValueError, match=r"not -?\d+"):
        build_frame_header(opcode, length, rsv=rsv)


def test_a_header_is_only_made_by_parsing() -> None:
    with pytest.raises(TypeError, match="parse_frame_header"):
        FrameHeader()
