"""hw_jsonscan against a byte-by-byte walk, and its promises against a real decoder."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from heartwire._core.frames import JSON_ACTION, JSON_DEEP, JSON_OK, scan_json


def slow_scan(text: bytes, max_depth: int) -> int:
    depth = 0
    in_string = escaped = False
    for byte in text:
        char = chr(byte)
        quote = char == '"' and not escaped
        escaped = char == "\\" and not escaped
        if quote:
            in_string = not in_string
        elif not in_string and char in "[{":
            depth += 1
            if depth > max_depth:
                return JSON_DEEP
        elif not in_string and char in "]}":
            depth = max(depth - 1, 0)
    return JSON_ACTION if b'"action"' in text or b"\\" in text else JSON_OK


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(depth_of, value), default=0)
    return 0


def random_value(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.2:
        return rng.choice([1, None, "", "[[{", "}]", 'say "[" \\', "action", "é" * 9, "x" * 70])
    if kind < 0.6:
        return [random_value(rng, depth - 1) for _ in range(rng.randrange(4))]
    return {rng.choice(["a", "action", "}{", '"', "\\"]): random_value(rng, depth - 1) for _ in range(3)}


@pytest.mark.parametrize("filler", [b" ", b"x", b'"'], ids=["space", "letter", "quote"])
def test_an_action_is_found_wherever_it_is(filler: bytes) -> None:
    for size in range(8, 301):
        plain = filler * size
        assert scan_json(plain) == JSON_OK, size
        for at in range(size - 7):
            text = plain[:at] + b'"action"' + plain[at + 8 :]
            assert scan_json(text) == JSON_ACTION, (size, at)


def test_what_is_nearly_an_action_is_none(rng: random.Random) -> None:
    for size in range(8, 200):
        near = bytearray(b'"action"')
        near[rng.randrange(8)] ^= 1
        at = rng.randrange(size - 7)
        text = b" " * at + near + b" " * (size - 8 - at)
        assert scan_json(text) == JSON_OK, text


def test_a_backslash_may_hide_an_action() -> None:
    for size in range(1, 301):
        for at in range(size):
            assert scan_json(b" " * at + b"\\" + b" " * (size - at - 1)) == JSON_ACTION, (size, at)


@pytest.mark.parametrize("opener", [b"[", b"{"])
def test_every_opener_counts(opener: bytes) -> None:
    for size in range(2, 301):
        for at in range(1, size):
            text = opener + b" " * (at - 1) + opener + b" " * (size - at - 1)
            assert scan_json(text, 1) == JSON_DEEP, (size, at)
            assert scan_json(text, 2) == JSON_OK, (size, at)


def test_closers_are_seen_wherever_they_are() -> None:
    for size in range(4, 200):
        for at in range(1, size - 2):
            text = b"[" + b" " * (at - 1) + b"]" + b" " * (size - at - 3) + b"{}"
            assert scan_json(text, 1) == JSON_OK, (size, at)


def test_brackets_within_strings_do_not_count() -> None:
    for size in range(4, 301):
        for start in range(size - 1):
            inside = size - start - 2
            text = b" " * start + b'"' + b"[" * inside + b'"'
            assert scan_json(text, 0) == JSON_OK, (size, start)
            assert scan_json(text + b"[", 0) == JSON_DEEP, (size, start)
            assert scan_json(text[:-1], 0) == JSON_OK, (size, start)


def test_runs_of_backslashes_at_every_place() -> None:
    """Whether a quote ends the string depends on the parity of the run, which may cross a vector."""
    for start in range(140):
        for run in range(1, 140, 3 if start % 8 else 1):
            text = b" " * start + b'"' + b"\\" * run + b'"['
            assert scan_json(text, 0) == (JSON_DEEP if run % 2 == 0 else JSON_ACTION), (start, run)


def test_random_texts_at_every_alignment(rng: random.Random) -> None:
    alphabets = ['"\\[]{}', '"[]{}', "[]{}", ' ,:1"\\[]{}aé', ' a"[]']
    for size in range(301):
        for _ in range(12):
            body = "".join(rng.choices(rng.choice(alphabets), k=size)).encode()
            if rng.random() < 0.3:
                at = rng.randrange(len(body) + 1)
                body = body[:at] + b'"action"' + body[at:]
            align = rng.randrange(33)
            max_depth = rng.choice([0, 1, 2, 3, 5, 8, 20, 60, 128])
            expected = slow_scan(body, max_depth)
            text = memoryview(b"[" * align + body + b'["action"\\')[align : align + len(body)]
            assert scan_json(text, max_depth) == expected, (body, max_depth)


def test_random_bytes(rng: random.Random) -> None:
    for _ in range(400):
        text = rng.randbytes(rng.randrange(2000))
        max_depth = rng.randrange(10)
        assert scan_json(text, max_depth) == slow_scan(text, max_depth)


def test_the_depth_is_that_of_the_decoded_value(rng: random.Random) -> None:
    for _ in range(1500):
        value = random_value(rng, rng.randrange(9))
        text = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()
        depth = depth_of(value)
        assert scan_json(text, depth) != JSON_DEEP, text
        if depth:
            assert scan_json(text, depth - 1) == JSON_DEEP, text


def test_an_action_key_is_never_missed() -> None:
    escaped = "".join(f"\\u{ord(c):04x}" for c in "action")
    for key in ("action", escaped, "\\u0061ction", "actio\\u006e"):
        text = f'{{"{key}": "ping"}}'.encode()
        assert json.loads(text) == {"action": "ping"}
        assert scan_json(text) == JSON_ACTION


def test_closers_that_close_nothing_buy_no_depth() -> None:
    assert scan_json(b"]" * 200 + b"[" * 3, 2) == JSON_DEEP
    assert scan_json(b"]" * 200 + b"[" * 2 + b"]", 2) == JSON_OK


def test_many_openers_side_by_side_are_not_deep() -> None:
    assert scan_json(b"[" + b"{}," * 10_000 + b"1]", 2) == JSON_OK
    assert scan_json(b"[" + b"{}," * 10_000 + b"[[1]]]", 2) == JSON_DEEP


@pytest.mark.parametrize("max_depth", [-1, 1 << 32])
def test_a_depth_out_of_range_is_refused(max_depth: int) -> None:
    with pytest.raises(ValueError, match="max_depth"):
        scan_json(b"[]", max_depth)
