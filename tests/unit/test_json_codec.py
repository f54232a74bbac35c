"""Values are written the same with and without orjson: both encoders, over generated values."""

from __future__ import annotations

import collections
import dataclasses
import datetime as dt
import decimal
import enum
import importlib.util
import math
import re
import sys
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from heartwire import json_codec
from heartwire.json_codec import _encoder, encode, encode_value

orjson = pytest.importorskip("orjson", reason="what it is compared with")
with_orjson = _encoder(orjson)
without = _encoder(None)

Outcome = bytes | type[BaseException]
STRING_OR_SIGN = re.compile(rb'"(?:[^"\\]|\\.)*"|e\+')


def outcome(encoder: Callable[[Any], bytes], value: Any) -> Outcome:
    """The text, or the class of what was raised."""
    try:
        return encoder(value)
    except Exception as error:
        return type(error)


def unsigned(text: Outcome) -> Outcome:
    """The text with `1e+300` written as `1e300`, strings left alone."""
    if not isinstance(text, bytes):
        return text
    return STRING_OR_SIGN.sub(lambda found: found[0] if found[0][:1] == b'"' else b"e", text)


class Colour(enum.Enum):
    RED = "red"
    SEVEN = 7
    HUGE = 2**70
    HALF = 0.5
    DAY = dt.date(2026, 1, 2)
    NOTHING = None
    PAIR = (1, "é")


class Level(enum.IntEnum):
    LOW = 1


class Mode(enum.StrEnum):
    ON = "on"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Text(str):
    __slots__ = ()


class Number(int):
    pass


class Real(float):
    pass


class Items(list[Any]):
    pass


class Fields(dict[Any, Any]):
    pass


class Pair(NamedTuple):
    first: Any
    second: Any


@dataclasses.dataclass
class Data:
    first: Any
    second: Any = None


@dataclasses.dataclass(slots=True, frozen=True)
class Slotted:
    only: Any


class Record(msgspec.Struct):
    first: Any
    second: Any = None


class Tagged(msgspec.Struct, tag="t", omit_defaults=True, rename="camel"):
    long_name: Any = None


class Unknown:
    def __init__(self) -> None:
        self.x = 1


# Lone surrogates too: a text with one is refused, by both with the same exception.
utf8 = st.text(st.characters(codec="utf-8"))
texts = utf8 | st.text(st.characters(max_codepoint=0x7F)) | st.text(st.characters(categories=["Cs", "Cc"]))
numbers = (
    st.integers()
    | st.integers(-(2**130), 2**130)
    | st.sampled_from([2**53, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**63), -(2**63) - 1, 10**400])
    | st.floats()
    | st.decimals(allow_nan=False)
)
zones = st.none() | st.just(dt.UTC) | st.builds(
    lambda minutes: dt.timezone(dt.timedelta(minutes=minutes)), st.integers(-1439, 1439)
)  # fmt: skip
times = (
    st.datetimes(timezones=zones)
    | st.dates()
    | st.times(timezones=st.none() | st.just(dt.UTC))
    | st.timedeltas()
)
subclasses = st.builds(Text, texts) | st.builds(Number, st.integers()) | st.builds(Real, st.floats())
enums = st.sampled_from([*Colour, *Level, *Mode, *Right, Right.READ | Right.WRITE])
hashable = st.none() | st.booleans() | numbers | texts | times | st.uuids() | enums | st.binary() | subclasses
others = (
    st.decimals()  # a signalling NaN has no hash
    | st.binary().map(bytearray)
    | st.binary().map(lambda data: memoryview(data))
    | st.builds(lambda value: msgspec.Raw(encode(value)), st.integers() | utf8)
    | st.sampled_from([msgspec.UNSET, Unknown(), object, Ellipsis, 1j, range(3)])
)
leaves = hashable | others
keys = texts | numbers | st.uuids() | st.dates() | enums | subclasses | st.booleans() | st.none()


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    lists = st.lists(inner, max_size=5)
    fields = st.dictionaries(texts, inner, max_size=5)
    return (
        lists
        | lists.map(tuple)
        | lists.map(Items)
        | lists.map(collections.deque)
        | fields
        | fields.map(Fields)
        | fields.map(collections.OrderedDict)
        | st.dictionaries(st.integers(), inner, max_size=5)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(hashable, max_size=5)
        | st.frozensets(st.integers(), max_size=5)
        | st.builds(Pair, inner, inner)
        | st.builds(Data, inner, inner)
        | st.builds(Slotted, inner)
        | st.builds(Record, inner, inner)
        | st.builds(Tagged, inner)
    )


@given(leaves)
@example(math.nan)
@example(-math.inf)
@example("".join(map(chr, range(0x180))) + "\u2028\u2029\ufeff\U0001f600")
@example("\ud800")
@example({"\udfff": 1})
@example([1, {"a": [Data(1, "\ud800")]}])
@example({1: "e+1", "x": 1e300})
@example(Fields({1: Fields({2.5: dt.date(1, 1, 1)})}))
@example({"a": msgspec.Raw(b'{"kept" : "as it is"}'), "b": msgspec.Raw(b"")})
@example(10**5000)
def test_leaves_are_written_the_same(value: Any) -> None:
    assert unsigned(outcome(with_orjson, value)) == outcome(without, value)


@given(st.recursive(leaves, containers, max_leaves=12))
def test_trees_are_written_the_same(value: Any) -> None:
    assert unsigned(outcome(with_orjson, value)) == outcome(without, value)


# What JSON itself can say must not end in an exception, or the comparison above would mean little.
finite = st.floats(allow_nan=False, allow_infinity=False)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | finite | utf8,
    lambda inner: st.lists(inner) | st.dictionaries(utf8, inner),
    max_leaves=30,
)  # fmt: skip


@given(plain)
def test_what_is_written_is_read_back(value: Any) -> None:
    for encoder in (with_orjson, without):
        text = encoder(value)
        assert orjson.loads(text) == value
        assert msgspec.json.decode(text) == value


@given(finite)
def test_floats_come_back_exactly(value: float) -> None:
    for encoder in (with_orjson, without):
        back = msgspec.json.decode(encoder(value), type=float)
        assert (back, math.copysign(1, back)) == (value, math.copysign(1, value))


class Overridden(enum.Enum):
    A = "original"

    @property
    def value(self) -> str:
        return "overridden"


def test_the_known_differences() -> None:
    assert (with_orjson(1e300), without(1e300)) == (b"1e+300", b"1e300")
    assert (with_orjson(Overridden.A), without(Overridden.A)) == (b'"overridden"', b'"original"')


@pytest.mark.parametrize("depth", [100, 253, 254, 255, 256, 300])
@pytest.mark.parametrize("leaf", [1, dt.date(2026, 1, 2), 2**70], ids=["plain", "date", "big"])
def test_nesting_beyond_what_orjson_follows(depth: int, leaf: Any) -> None:
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"k": value}
    text = without(value)
    assert text.count(b"[") == depth // 2
    assert with_orjson(value) == text


def test_a_value_in_itself() -> None:
    loop: list[Any] = []
    loop.append(loop)
    inside = Data(loop)
    for value in (loop, {"x": loop}, inside, [inside]):
        assert {outcome(with_orjson, value), outcome(without, value)} == {RecursionError}


def test_uncommon_dicts_keep_their_order() -> None:
    counts = collections.defaultdict(int, {"q": 0})
    value = collections.OrderedDict([("z", 1), ("a", {10: 1, 9: 2}), ("m", counts)])
    text = b'{"z":1,"a":{"10":1,"9":2},"m":{"q":0}}'
    assert (with_orjson(value), without(value)) == (text, text)


def test_raw_is_passed_on_as_it_came() -> None:
    value = {"data": msgspec.Raw(b' { "a" : 1 } '), "id": uuid.UUID(int=1), "n": decimal.Decimal("1.50")}
    text = b'{"data": { "a" : 1 } ,"id":"00000000-0000-0000-0000-000000000001","n":1.50}'
    assert (with_orjson(value), without(value)) == (text, text)


def test_orjson_is_used_where_it_is_installed() -> None:
    assert encode_value.__code__ is with_orjson.__code__
    assert encode_value(1e300) == b"1e+300"


def test_without_orjson_the_module_writes_by_msgspec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "orjson", None)
    spec = importlib.util.spec_from_file_location("json_codec_without_orjson", json_codec.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.encode_value is module.encode
    assert module.encode_value({"a": 1e300}) == b'{"a":1e300}'
