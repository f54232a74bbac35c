"""JSON from the receive buffer: decoded in place, nothing of it kept, every failure answered."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from heartwire._core.connection import Connection
from heartwire._core.json_reader import JsonReader
from heartwire.messages import Envelope
from heartwire.testing import TEXT, build_frame
from pair import Pair

ECHO = "the receive buffer was here"


class Typed(msgspec.Struct):
    raw: msgspec.Raw
    number: int = 0


class Reader(JsonReader):
    """Notes what it is told; `actions` are claimed."""

    def __init__(self, actions: tuple[str, ...] = ("typed",), hold: bool = False) -> None:
        self.configure(ping_interval=0)
        self.decode = msgspec.json.decode
        self.decode_envelope = msgspec.json.Decoder(Envelope).decode
        self.raw: Any = msgspec.Raw
        self.encode = msgspec.json.encode
        self.invalid = msgspec.ValidationError
        self.actions = actions
        self.hold = hold
        self.messages: list[Any] = []
        self.bad: list[str] = []
        self.unclaimed: list[Any] = []
        self.failures: list[BaseException] = []
        self.handler_failures: list[str] = []
        self.on_action_hook: Any = None
        self.message_handler = self.note

    def note(self, owner: object, value: Any) -> None:
        self.messages.append(value)

    def on_head(self, conn: Connection, head: bytes | None) -> None:
        conn.accept(b"HTTP/1.1 101 Switching Protocols\r\n\r\n", self)
        conn.resume()

    def claims(self, envelope: Envelope) -> bool:
        return envelope.action in self.actions

    def on_action(self, owner: object, envelope: Envelope, view: Any) -> Any:
        if self.on_action_hook is not None:
            return self.on_action_hook(envelope, view)
        self.messages.append(self.read_typed(msgspec.json.Decoder(Typed).decode, view))
        return self.hold

    def on_unclaimed(self, owner: object, value: Any) -> None:
        self.unclaimed.append(value)

    def on_bad_json(self, owner: object, detail: str) -> None:
        self.bad.append(detail)

    def on_result(self, owner: object, result: Any) -> Any:
        return result == "later"

    def on_handler_failure(self, owner: object, error: BaseException) -> None:
        self.handler_failures.append(str(error))

    def on_failure(self, conn: Connection, error: BaseException) -> None:
        self.failures.append(error)


def read(reader: Reader, *texts: bytes | str) -> Pair:
    pair = Pair(sink=reader)
    for text in texts:
        payload = text.encode() if isinstance(text, str) else text
        pair.link.feed(build_frame(TEXT, payload))
        assert reader.failures == []
    return pair


def test_values_of_every_kind() -> None:
    reader = Reader()
    read(reader, '{"a":[1,2.5,null,true,"é"]}', "[]", "7", '"x"', " null ")
    assert reader.messages == [{"a": [1, 2.5, None, True, "é"]}, [], 7, "x", None]


def test_the_payload_is_decoded_where_it_lies() -> None:
    """Not from a copy: the decoder gets the buffer itself, and its own memory does not follow."""
    reader = Reader()
    kinds: list[str] = []

    def decode(data: Any) -> Any:
        kinds.append(type(data).__name__)
        return msgspec.json.decode(data)

    reader.decode = decode
    read(reader, '{"a":1}')
    assert kinds == ["PayloadView"]


def test_a_value_that_views_the_buffer_is_decoded_again_from_a_copy() -> None:
    reader = Reader()
    seen: list[Any] = []

    def decode(data: Any) -> Any:
        seen.append(type(data).__name__)
        return memoryview(data)  # as msgspec.Raw is

    reader.decode = decode
    pair = read(reader, '{"a":"' + ECHO + '"}')
    assert seen == ["PayloadView", "bytes"]
    pair.link.feed(build_frame(TEXT, b'{"a":"' + b"!" * len(ECHO) + b'"}'))
    assert bytes(reader.messages[0]) == b'{"a":"%s"}' % ECHO.encode()


def test_a_raw_field_of_a_typed_message_outlives_the_buffer() -> None:
    reader = Reader()
    pair = read(reader, '{"action":"typed","raw":["' + ECHO + '"],"number":3}')
    pair.link.feed(b"".join(build_frame(TEXT, b'"' + b"!" * 200 + b'"') for _ in range(3)))
    typed = reader.messages[0]
    assert bytes(typed.raw) == b'["%s"]' % ECHO.encode()
    assert typed.number == 3
    view = memoryview(typed.raw)
    assert type(view.obj).__name__ != "PayloadView"


def test_a_raw_field_of_a_message_in_fragments_outlives_it() -> None:
    reader = Reader()
    pair = Pair(sink=reader)
    text = b'{"action":"typed","raw":"%s"}' % ECHO.encode()
    pair.link.feed(build_frame(TEXT, text[:20], fin=False) + build_frame(0, text[20:]))
    pair.link.feed(build_frame(TEXT, b"[" + b" " * 500, fin=False) + build_frame(0, b"]"))
    assert bytes(reader.messages[0].raw) == b'"%s"' % ECHO.encode()


def test_an_action_that_keeps_a_view_is_our_bug_and_is_found() -> None:
    reader = Reader()
    kept: list[Any] = []
    reader.on_action_hook = lambda envelope, view: kept.append(envelope)
    pair = Pair(sink=reader)
    pair.link.feed(build_frame(TEXT, b'{"action":"typed","data":[1]}'))
    (failure,) = reader.failures
    assert "view of the receive buffer" in str(failure)
    reader.on_action_hook = None
    pair.link.feed(build_frame(TEXT, b'{"action":"typed","raw":1}'))
    assert len(reader.messages) == 1


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting(opening: str) -> None:
    closing = "]" if opening == "[" else "}"

    def nested(depth: int) -> str:
        return opening * depth + "1" + closing * depth

    reader = Reader()
    reader.max_depth = 128
    read(reader, nested(128), nested(129), nested(100_000))
    assert len(reader.messages) == 1
    assert reader.bad == ["nested deeper than 128"] * 2


BAD = {
    "empty": b"",
    "cut": b'{"a":',
    "two values": b"1 2",
    "no JSON": b"hello",
    "trailing comma": b"[1,]",
    "single quotes": b"{'a':1}",
    "NaN": b"NaN",
    "with action, cut": b'{"action":"typed"',
    "with action, no JSON": b'{"action":}',
    "lone surrogate with action": b'{"action":"\\ud800"}',
}


@pytest.mark.parametrize("payload", BAD.values(), ids=BAD)
def test_bad_json(payload: bytes) -> None:
    reader = Reader()
    pair = read(reader, payload, b'"fine"')
    assert len(reader.bad) == 1
    assert reader.bad[0]
    assert reader.messages == ["fine"]
    assert pair.conn.is_open


@pytest.mark.parametrize(
    ("error", "detail"),
    [
        (RecursionError("maximum recursion depth exceeded"), "nested too deep"),
        (UnicodeDecodeError("utf-8", b"secret", 0, 1, "invalid"), "decode"),
        (OverflowError(), "OverflowError"),
        (MemoryError(), "MemoryError"),
        (ValueError("odd"), "odd"),
    ],
)
@pytest.mark.parametrize("text", ['{"a":1}', '{"action":"x"}', '{"action":"typed"}'])
def test_whatever_a_decoder_raises_is_bad_json(error: Exception, detail: str, text: str) -> None:
    reader = Reader()

    def fail(data: Any) -> Any:
        raise error

    reader.decode = reader.decode_envelope = fail
    pair = read(reader, text)
    assert len(reader.bad) == 1
    assert detail in reader.bad[0]
    assert pair.conn.is_open


def test_actions_and_others() -> None:
    reader = Reader()
    read(
        reader,
        '{"action":"typed","raw":1}',
        '{"action":"other","raw":1}',
        '{"action":7}',
        '["action"]',
        '{"a":{"action":"typed"}}',
        '{"\\u0061ction":"typed","raw":2}',
    )
    typed = [m for m in reader.messages if isinstance(m, Typed)]
    others = [m for m in reader.messages if not isinstance(m, Typed)]
    assert [bytes(m.raw) for m in typed] == [b"1", b"2"]
    assert others == [{"action": "other", "raw": 1}, {"action": 7}, ["action"], {"a": {"action": "typed"}}]


def test_without_a_message_handler_it_is_unclaimed() -> None:
    reader = Reader()
    reader.message_handler = None
    read(reader, '{"action":"other"}', "[1]")
    assert reader.unclaimed == [{"action": "other"}, [1]]


def test_text_handler_reads_no_json() -> None:
    reader = Reader()
    reader.text_handler = reader.note
    read(reader, '{"action":"typed"', "not JSON é")
    assert reader.messages == ['{"action":"typed"', "not JSON é"]


def test_binary_without_a_handler() -> None:
    reader = Reader()
    pair = Pair(sink=reader)
    pair.peer.send(2, b"x")
    assert (pair.conn.cause, pair.conn.code) == ("unsupported_data", 1003)


def test_binary_with_a_handler() -> None:
    reader = Reader()
    reader.binary_handler = reader.note
    pair = Pair(sink=reader)
    pair.peer.send(2, b"\xff\x00")
    assert reader.messages == [b"\xff\x00"]


def test_a_handler_that_raises() -> None:
    reader = Reader()

    def fail(owner: object, value: Any) -> None:
        raise LookupError(value)

    reader.message_handler = fail
    pair = read(reader, "1", "2")
    assert reader.handler_failures == ["1", "2"]
    assert pair.conn.is_open


def test_holding() -> None:
    reader = Reader()
    reader.message_handler = lambda owner, value: reader.messages.append(value) or "later"
    pair = Pair(sink=reader)
    pair.link.feed(b"".join(build_frame(TEXT, b"%d" % i) for i in range(3)))
    assert (reader.messages, pair.conn.paused) == ([0], True)
    pair.conn.resume()
    assert (reader.messages, pair.conn.paused) == ([0, 1], True)


def test_an_accepted_message_ends_a_row_of_errors() -> None:
    reader = Reader()
    pair = read(reader, "1")
    pair.conn.errors_in_a_row = 5
    pair.link.feed(build_frame(TEXT, b"2"))
    assert pair.conn.errors_in_a_row == 0
