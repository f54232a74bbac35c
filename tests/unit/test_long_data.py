"""A long `data` that no decoder reads: what comes of a text is what comes of decoding all of it."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest

from heartwire._core.frames import find_json_data, json_container
from heartwire.messages import Envelope
from heartwire.testing import TEXT, build_frame
from pair import Pair
from unit.test_json_reader import Reader

SURE = json_container(b"[]") == 2  # see test_jsonvalue.py
ROWS = json.dumps(
    [{"name": f"user-{i}", "price": i + 0.25, "on": i % 2 == 0, "tags": ["é", None]} for i in range(120)],
    separators=(",", ":"),
    ensure_ascii=False,
)


class Noting(Reader):
    """Notes of each text how it was read, and what the decoder of envelopes saw."""

    def __init__(self, *, short: bool) -> None:
        super().__init__(actions=("typed", "routed"))
        self.raw = msgspec.Raw if short else None
        self.told: list[Any] = []
        self.decoded: list[int] = []
        decode = self.decode_envelope

        def decode_and_note(text: Any) -> Any:
            self.decoded.append(memoryview(text).nbytes)
            return decode(text)

        self.decode_envelope = decode_and_note

    def on_action(self, owner: object, envelope: Envelope, view: Any) -> Any:
        fields = msgspec.structs.asdict(envelope)
        fields["data"] = fields["data"] if fields["data"] is msgspec.UNSET else bytes(fields["data"])
        self.told.append(fields)
        if envelope.action == "typed":
            self.told.append(self.read_typed(msgspec.json.Decoder(dict[str, Any]).decode, view))


def outcome(text: bytes, *, short: bool) -> tuple[Any, list[int]]:
    reader = Noting(short=short)
    pair = Pair(sink=reader)
    pair.link.feed(build_frame(TEXT, text))
    assert pair.conn.is_open
    failures = [str(failure) for failure in reader.failures]
    return (reader.told, reader.messages, reader.bad, reader.unclaimed, failures), reader.decoded


def compare(text: str) -> bool:
    """Reads a text both ways. Returns whether `data` went undecoded."""
    theirs, _ = outcome(text.encode(), short=False)
    ours, decoded = outcome(text.encode(), short=True)
    assert ours == theirs
    return bool(decoded) and decoded[-1] < 4096


@pytest.mark.parametrize("action", ["routed", "typed"])
@pytest.mark.parametrize("rest", ["}", ',"id":"é"}', ',"event":"e","x":[{}]}', ' , "id" : 1 }'])
def test_the_ordinary_message(action: str, rest: str) -> None:
    head = f'{{"action":"{action}","channel":"c",'
    assert compare(head + '"data":' + ROWS + rest) == SURE
    assert compare(head + '"data":{"rows":' + ROWS + "}" + rest) == SURE
    assert compare('{"id":17,' + head[1:] + '"data":["' + "x" * 9000 + '"]' + rest) == SURE


@pytest.mark.parametrize("text", [
    '{"action":"routed","data":%s,"data":1}', '{"action":"routed","data":%s,"d\\u0061ta":[2]}',
    '{"action":"routed","data":%s,"action":"typed"}', '{"action":"routed","data":%s,"action":"other"}',
    '{"action":"routed","data":%s,"action":7}', '{"action":"other","data":%s}', '{"action":7,"data":%s}',
    '{"action":"routed","data":%s5}', '{"action":"routed","data":%s.5}', '{"action":"routed","data":%s',
    '{"action":"routed","data":%s}}', '{"action":"routed","data":%s}x', '{"action":"routed","data":%s,}',
    '{"action":"routed","data":%s]', '{"action":"routed","data":%s"a"}',
    '{"action":"routed","data":%s,"x":"\\ud800"}',
    '{"action":"routed","data":%s[]}', '{"action":"routed" ,"data":%s}',
    '{"action":"routed","x":null,"data":%s}',
    '{"action":"routed",,"data":%s}', '{"action":"routed","id":,"data":%s}',
    '{"action":"routed","id":01,"data":%s}',
    '{"action":"routed","id":"\x1f","data":%s}', '{"action":"ro\\u0075ted","data":%s}',
    '{"data":%s,"action":"routed"}',
    '{"action":"routed","x":{"data":%s}}', '[{"action":"routed","data":%s}]', '{"a":"action","data":%s}',
    '{"action":"routed","data":%s,"x":' + "[" * 140 + "]" * 140 + "}",
    '{"action":"routed","data":%s,"x":"' + "x" * 600 + '"}',
    '{"action":"routed","id":' + "9" * 400 + ',"data":%s}', '{"action":"routed","data":1,"data":%s}',
])  # fmt: skip
def test_what_surrounds_data_is_judged_as_ever(text: str) -> None:
    compare(text % ROWS)


@pytest.mark.parametrize("data", [
    "[1,]", "[01]", '{"a":1,}', '["\x1f"]', '["\\x"]', "[nul]", "[1e400]", '["\\ud800"]', "[NaN]", "[1 2]",
    "{1:2}", "[" * 140,
])  # fmt: skip
@pytest.mark.parametrize("at_the_end", [True, False])
def test_what_is_wrong_with_data_is_told_as_ever(data: str, at_the_end: bool) -> None:
    data = f"[{ROWS},{data}]" if at_the_end else f"[{data},{ROWS}]"
    assert not compare('{"action":"routed","data":' + data + "}")


def test_depth_counts_as_ever() -> None:
    for depth in (1, 60, 62, 63, 64, 65, 126, 127, 128, 129):
        data = "[" * depth + '"' + "x" * 5000 + '"' + "]" * depth
        assert compare('{"action":"routed","data":' + data + "}") == (SURE and depth <= 64)


def test_one_wrong_byte_anywhere(rng: random.Random) -> None:
    undecoded = 0
    text = '{"action":"routed","channel":"c","data":' + ROWS + ',"id":7}'
    for _ in range(400):
        at = rng.choice([rng.randrange(60), rng.randrange(len(text)), len(text) - 1 - rng.randrange(12)])
        new = rng.choice(['"', "{", "}", "[", "]", ",", ":", "0", ".", "-", "\\", "a", " ", "\x00", ""])
        undecoded += compare(text[:at] + new + text[at + rng.randrange(2) :])
    assert undecoded > 20 or not SURE


def test_a_message_in_fragments_and_a_short_one() -> None:
    reader = Noting(short=True)
    pair = Pair(sink=reader)
    text = b'{"action":"routed","data":%s}' % ROWS.encode()
    pair.link.feed(build_frame(TEXT, text[:3000], fin=False) + build_frame(0, text[3000:]))
    pair.link.feed(build_frame(TEXT, b'{"action":"routed","data":[1]}'))
    assert [told["data"] for told in reader.told] == [ROWS.encode(), b"[1]"]


def test_an_action_that_keeps_the_data_is_our_bug_and_is_found() -> None:
    reader = Reader(actions=("routed",))
    kept: list[Any] = []
    reader.on_action_hook = lambda envelope, view: kept.append(envelope.data)
    pair = Pair(sink=reader)
    text = b'{"action":"routed","data":%s}' % ROWS.encode()
    assert find_json_data(text) is not None or not SURE
    pair.link.feed(build_frame(TEXT, text))
    assert ["view of the receive buffer" in str(failure) for failure in reader.failures] == [True]
    reader.failures.clear()
    reader.on_action_hook = lambda envelope, view: kept.append(bytes(envelope.data))
    pair.link.feed(build_frame(TEXT, text))
    assert reader.failures == []
    assert kept[1] == ROWS.encode()


@pytest.mark.parametrize("data", [ROWS, "[1]"], ids=["long", "short"])
def test_it_is_found_where_the_message_was_decoded_again(data: str) -> None:
    """A typed message is read while the envelope looks at the buffer: then another view takes its place."""
    reader = Reader(actions=("routed",))
    kept: list[Any] = []

    def keep(envelope: Envelope, view: Any) -> None:
        reader.read_typed(msgspec.json.Decoder(dict[str, Any]).decode, view)
        kept.append(envelope.data)

    reader.on_action_hook = keep
    pair = Pair(sink=reader)
    pair.link.feed(build_frame(TEXT, b'{"action":"routed","data":%s}' % data.encode()))
    assert ["view of the receive buffer" in str(failure) for failure in reader.failures] == [True]


@pytest.mark.parametrize("data", [ROWS, "[1]"], ids=["long", "short"])
def test_what_was_raised_may_keep_the_data(data: str) -> None:
    reader = Reader(actions=("routed",))
    errors: list[Exception] = []

    def fail(envelope: Envelope, view: Any) -> None:
        errors.append(RuntimeError(envelope.data))  # whoever logs it may keep it
        raise errors[-1]

    reader.on_action_hook = fail
    pair = Pair(sink=reader)
    text = b'{"action":"routed","data":%s}' % data.encode()
    pair.link.feed(build_frame(TEXT, text))
    reader.on_action_hook = lambda envelope, view: reader.messages.append(bytes(envelope.data))
    pair.link.feed(build_frame(TEXT, text))
    assert reader.messages == [data.encode()]
    assert reader.failures == errors
