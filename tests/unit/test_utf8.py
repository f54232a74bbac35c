"""hw_utf8 against Python's own decoder: every prefix, every cut, and which byte it fails at."""

from __future__ import annotations

import random

import pytest

from heartwire._core.frames import Utf8Validator
from heartwire.errors import RemoteProtocolError

INCOMPLETE, COMPLETE, INVALID = "incomplete", "complete", "invalid"

VALID = [c.encode() for c in "\x00\x7f\x80\u07ff\u0800\u0fff\u1000\ucfff\ud000\ud7ff\ue000\uffff"]
VALID += [c.encode() for c in "\U00010000\U0003ffff\U00040000\U000fffff\U00100000\U0010ffff"]
INVALID_HEX = """80 bf c0 c080 c1bf c220 c2c2 dfff e080 e09fbf e0a041 e18041 ec80c3 eda0 edbfbf ee41 efbfc0
f080 f08fbfbf f0908041 f18041 f3bfbff4 f490 f4bfbfbf f5 f8 fc fe ff"""
INVALID_SEQUENCES = [bytes.fromhex(text) for text in INVALID_HEX.split()]


def slow_verdict(data: bytes) -> str:
    # Not the incremental decoder: it holds the first two bytes of a surrogate back as if more could come.
    try:
        data.decode()
    except UnicodeDecodeError as error:
        return INCOMPLETE if error.reason == "unexpected end of data" else INVALID
    return COMPLETE


def verdict(*pieces: bytes) -> str:
    validator = Utf8Validator()
    try:
        for piece in pieces:
            validator.feed(piece)
    except RemoteProtocolError as error:
        return INVALID if error.close_code == 1007 else f"close code {error.close_code}"
    return COMPLETE if validator.complete else INCOMPLETE


def first_bad(data: bytes) -> int:
    """How many bytes can be read before no valid text has this prefix."""
    return next((i for i in range(len(data)) if slow_verdict(data[: i + 1]) == INVALID), len(data))


def test_every_prefix_of_three_bytes() -> None:
    """What has failed stays failed (tested below), so that only living prefixes are grown. Of the 128
    ASCII bytes, one stands for all as a first byte."""
    living = [b""]
    for length in (1, 2, 3):
        grown = []
        for prefix in living:
            for byte in range(256):
                data = prefix + bytes([byte])
                expected = slow_verdict(data)
                assert verdict(data) == expected, data.hex(" ")
                assert verdict(prefix, data[length - 1 :]) == expected, data.hex(" ")
                if expected == INCOMPLETE or (length == 1 and byte == 0x41):
                    grown.append(data)
        living = grown
    of_four = [data for data in living if data[0] >= 0xF0]
    assert len(of_four) == (0x30 + 3 * 0x40 + 0x10) * 0x40  # after F0, after F1..F3, after F4


def test_the_fourth_byte(rng: random.Random) -> None:
    for lead in range(0xF0, 0xF5):
        for second in range(0x80, 0xC0):
            prefix = bytes([lead, second, rng.randrange(0x80, 0xC0)])
            for byte in range(256):
                data = prefix + bytes([byte])
                assert verdict(data) == slow_verdict(data), data.hex(" ")


@pytest.mark.parametrize("sequence", VALID + INVALID_SEQUENCES, ids=lambda s: s.hex())
def test_every_offset_and_cut(sequence: bytes) -> None:
    """At every place relative to the vectors, cut in two at every byte."""
    for offset in range(36):
        data = b"a" * offset + sequence + b"b" * (70 - offset)
        bad = first_bad(data)
        assert (bad == len(data)) == (sequence in VALID)
        for cut in range(len(data) + 1):
            assert verdict(data[:cut]) == slow_verdict(data[:cut]), (offset, cut)
            expected = COMPLETE if sequence in VALID else INVALID
            assert verdict(data[:cut], data[cut:]) == expected, (offset, cut)


def test_it_fails_at_the_first_impossible_byte(rng: random.Random) -> None:
    for sequence in INVALID_SEQUENCES:
        text = "".join(rng.choice("aé€𝄞") for _ in range(40)).encode()
        data = text + sequence + text
        bad = first_bad(data)
        validator = Utf8Validator()
        for i in range(bad):
            validator.feed(data[i : i + 1])
        with pytest.raises(RemoteProtocolError):
            validator.feed(data[bad : bad + 1])
        assert verdict(data[:bad]) != INVALID
        assert verdict(data[: bad + 1]) == INVALID


def test_random_text_in_random_pieces(rng: random.Random) -> None:
    alphabets = ["abc", "aé", "€한字", "a𝄞😀", "".join(map(chr, range(32, 0x3000)))]
    for _ in range(3000):
        text = "".join(rng.choices(rng.choice(alphabets), k=rng.randrange(200)))
        data = bytearray(text.encode())
        if data and rng.random() < 0.6:
            data[rng.randrange(len(data))] = rng.randrange(256)
        whole = bytes(data)[: rng.randrange(len(data) + 1)]
        cuts = sorted(rng.randrange(len(whole) + 1) for _ in range(rng.randrange(4)))
        pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
        assert verdict(*pieces) == slow_verdict(whole), whole.hex(" ")


def test_a_failed_validator_stays_failed() -> None:
    validator = Utf8Validator()
    with pytest.raises(RemoteProtocolError):
        validator.feed(b"\xff")
    for data in (b"", b"a", b"a" * 100, b"\x80", "é".encode()):
        with pytest.raises(RemoteProtocolError):
            validator.feed(data)
    assert not validator.complete


def test_only_bytes_like_data_is_taken() -> None:
    with pytest.raises(TypeError):
        Utf8Validator().feed("text")  # type: ignore[arg-type]
