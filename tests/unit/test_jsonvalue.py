"""hw_json_container and hw_json_data beside json: never wrong, and sure of what is written closely."""

from __future__ import annotations

import json
import random
import re
from itertools import product
from typing import Any

import pytest

from heartwire._core.frames import find_json_data, json_container

SURE = json_container(b"[]") == 2
"""False where the processor, or the build, has no AVX2: the answer is "ask a decoder" then."""

DOUBTFUL = re.compile(r'[ \t\r\n]|\\u|[eE+]')
"""What may make it unsure of JSON: such a byte anywhere (in a string it does not, except `\\u`)."""


def refuse(name: str) -> Any:
    raise ValueError(name)


DECODER = json.JSONDecoder(parse_constant=refuse)


def measured(text: str) -> int:
    """The length in bytes of the container that the text begins with, 0 if there is none."""
    if not text.startswith(("{", "[")):
        return 0
    try:
        _, end = DECODER.raw_decode(text)
    except ValueError:
        return 0
    return len(text[:end].encode())


def judge(text: str) -> bool:
    """Compares the two. Returns whether the text begins with a container of which it was sure."""
    ours, theirs = json_container(text.encode()), measured(text)
    if not SURE or (ours == 0 and DOUBTFUL.search(text)):
        assert ours in (0, theirs), text
        return False
    assert ours == theirs, text
    return ours > 0


@pytest.mark.parametrize("pad", [0, 50, 53, 56, 58, 59, 60, 61, 62, 63], ids="pad{}".format)
def test_every_short_sequence_of_tokens(pad: int) -> None:
    """Each at the beginning of a text, and around the end of a block of 64 bytes."""
    tokens = ["[", "]", "{", "}", ",", ":", '"a"', "1", "0", "-", ".", "true"]
    before = '["' + "x" * (pad - 4) + '",' if pad else ""
    sure = 0
    for length in range(1, 5 if pad else 6):
        for sequence in product(tokens, repeat=length):
            text = "".join(sequence)
            sure += judge(before + text + "]") if before else judge("[" + text)
            if not before:
                sure += judge('{"k":' + text)
    assert not SURE or sure > 100


def random_value(rng: random.Random, depth: int) -> Any:
    kind = rng.random()
    if depth == 0 or kind < 0.35:
        return rng.choice([
    0, -0.0, 7, -12, 105.25, -0.5, 10**17, 0.001, True, False, None, "", "é€😀", 'say "[" \\', "\b\f\n\r\t/",
            "x" * rng.randrange(150), rng.randrange(10**9),
        ])  # fmt: skip
    count = rng.choice([0, 1, 1, 2, 3])
    if kind < 0.65:
        return [random_value(rng, depth - 1) for _ in range(count)]
    keys = ["", "a", "data", 'q"', "\\", "key-é", "x" * 63]
    return {rng.choice(keys) + str(i): random_value(rng, depth - 1) for i in range(count)}


def random_text(rng: random.Random) -> str:
    value = [random_value(rng, rng.randrange(6)) for _ in range(rng.randrange(4))]
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_what_is_written_closely_is_measured(rng: random.Random) -> None:
    for _ in range(1500):
        text = random_text(rng)
        behind = rng.choice(["", "}", "]", ",", '"', "\\", "\\u", " ", "[" * 70, "x" * 64, '"\n'])
        assert judge(text + behind) == SURE, text


def test_one_wrong_byte_is_seen(rng: random.Random) -> None:
    """One byte is replaced, put in or left out: exactly what is still JSON is measured."""
    sure = 0
    for _ in range(6000):
        text = random_text(rng)
        at = rng.randrange(len(text))
        new = rng.choice('[]{},:"\\0123-.truefalsn \x00\x1f\x7feE+/u')
        text = text[:at] + rng.choice(["", new]) + text[at + rng.randrange(2) :]
        sure += judge(text)
    assert sure > 500 or not SURE


@pytest.mark.parametrize("number", [
    "0", "-0", "1", "10", "-1.5", "0.0", "123456789.987654321", "00", "01", "-", "--1", "1-", "-.5", ".5",
    "1.", "1..2",
    "1.2.3", "1.-2", "0.1.", "-01", "1a", "a1", "0x1", "1_0", "+1", "1e5", "1E-5", "1e", "NaN", "Infinity",
    "-Infinity",
    "true", "false", "null", "tru", "truee", "True", "nul", "nulll", "fals", "falsefalse", "true1", "true.",
    "true-",
    "1true", "-true", ".true", "t", "f", "n", "none", "٣",
])  # fmt: skip
def test_numbers_and_literals_wherever_they_stand(number: str) -> None:
    for pad in range(130):
        judge('["' + "x" * pad + '",' + number + "]")
        judge('[["' + "x" * pad + '"],{"a":' + number + ',"b":' + number + "}]")
        judge("[" + "1," * pad + number + "]")


def test_long_numbers_and_strings_cross_blocks() -> None:
    for size in range(1, 300):
        ones, zeros = "1" * size, "0" * size
        for text in (ones, "1." + zeros, ones + ".5", "1." + zeros + ".5", "-" + ones):
            judge("[" + text + "]")
            judge('{"a":' + text + "}")
        letters = "x" * size
        for text in (letters, letters + '":', letters + "\n", "\\\\" * size, "\\" * size, "é" * size):
            judge('["' + text + '"]')
            judge('{"' + text + '":1}')
            judge('{"a":"' + text + '","b":"' + text + '"}')


def test_what_is_escaped_stands_behind_the_end_of_a_block() -> None:
    """The backslash is the last byte of a block; nothing else happens in the next one."""
    for before in range(55, 65):
        for after in range(60, 135):
            for escaped in ("n", "x", '"', "\\", "u0041"):
                judge('["' + "x" * before + "\\" + escaped + "y" * after + '"]')
                judge('["' + "x" * before + "\\" + escaped + "y" * after + 'n"]')


def test_depth_is_exact_and_64_at_most() -> None:
    for opener, closer in (("[", "]"), ('{"a":', "}")):
        for depth in range(1, 70):
            text = (opener * depth + "1" + closer * depth).encode()
            for most in (0, 1, 5, 63, 64, 65, 1000):
                assert json_container(text, most) == (len(text) if SURE and depth <= min(most, 64) else 0)


def test_objects_and_arrays_end_as_they_began() -> None:
    for pad in range(130):
        x = "x" * pad
        for text in ('["%s"}', '{"%s":1]', '{"%s":[1}]', '[{"%s":1]}', '[["%s"]', '{"a":{"%s":1}'):
            assert json_container((text % x).encode()) == 0


# ---------------------------------------------------------------- the member `data`


@pytest.mark.parametrize("data", ["{}", "[]", '{"a":[1,2.5,"}"]}', '["' + "x" * 5000 + '"]'])
@pytest.mark.parametrize("head", [
    '{"action":"send_message",', '{"id":7,"action":"a","channel":"é",', '{"action":"a","":"","id":"x",',
    '{"action":1,',
])  # fmt: skip
@pytest.mark.parametrize("rest", ["}", ',"id":7}', ',"data":1}', "5}", "", ".", ' , "x" : 1 }'])
def test_data_is_found(head: str, data: str, rest: str) -> None:
    text = head + '"data":' + data + rest
    begin = len(head.encode()) + 7
    assert find_json_data(text.encode()) == ((begin, begin + len(data)) if SURE else None)


@pytest.mark.parametrize("text", [
    "", "{", "{}", '{"data"', '{"data":', '{"data":{}}', '{"action":"a"}', '{"action":"a","data"',
    '{"action":"a","data":',
    '{"action":"a","data":1}', '{"action":"a","data":"x"}', '{"action":"a","data":null}',
    '{"action":"a","data":[1,]}',
    '{"action":"a","x":{"data":{}}}', '{"action":"a","x":["data",{}]}', '{"action":"a" ,"data":{}}',
    '["action","data":{}]',
    '{"\\u0061ction":"a","data":{}}', '{"action":"a","d\\u0061ta":{}}', '{"action":"\\"","data":{}}',
    '"action","data":{}',
    '{"x":"action","data":{}}', '{"action":true,"data":{}}', '{"action":"a",,"data":{}}',
    '{"action""data":{}}',
    '{"action":"' + "x" * 500 + '","data":{}}', ' {"action":"a","data":{}}', '{"Action":"a","data":{}}',
    '{"action":"a","data":{}', '{"action":"a","data":{"data":',
])  # fmt: skip
def test_where_there_is_none_none_is_found(text: str) -> None:
    found = find_json_data(text.encode())
    if text == '{"action":"a","data":{}':
        assert found == ((21, 23) if SURE else None)  # what surrounds it is somebody else's to judge
    else:
        assert found is None


def test_the_depth_of_data_is_one_less_than_the_text() -> None:
    text = b'{"action":"a","data":[[1]]}'
    assert [find_json_data(text, most) is not None for most in range(5)] == [False, False, False, SURE, SURE]
