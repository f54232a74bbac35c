"""The read path: from a masked frame to the application, and back. A whole `Server`, without sockets.

Beside the decoding (and encoding) of the same text by itself, which no server in Python can do without, and
beside websockets (Sans-I/O) with orjson doing the same.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import operator
from collections.abc import Callable
from typing import Any

import msgspec
import orjson
import pytest
from websockets.server import ServerProtocol

from heartwire import Client, Message, Server
from heartwire._core.frames import json_container
from heartwire.json_codec import encode, encode_value
from heartwire.messages import encode_event, encode_head, next_id


class Row(msgspec.Struct):
    name: str
    active: bool
    price: float
    qty: int
    tags: list[str]


class Order(Message):
    n: int = 0
    text: str = ""
    items: tuple[Row, ...] = ()


def echo(server: Server) -> None:
    server.on_message(lambda client, value: client.send_json(value))


def keep(server: Server) -> None:
    """Reads without an answer."""
    server.on_message(lambda client, value: None)


def typed(server: Server) -> None:
    @server.action("order")
    def order(client: Client, message: Order) -> None:
        pass


def text_echo(server: Server) -> None:
    server.on_text(lambda client, text: client.send_text(text))


def websockets_echo(frame: bytes) -> Callable[[bytes], bytes]:
    protocol = ServerProtocol()
    protocol.receive_data(
        b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    protocol.send_response(protocol.accept(protocol.events_received()[0]))  # type: ignore[arg-type]
    protocol.data_to_send()

    def answer(data: bytes) -> bytes:
        protocol.receive_data(data)
        for event in protocol.events_received():
            protocol.send_text(orjson.dumps(orjson.loads(event.data)))  # type: ignore[union-attr]
        return b"".join(protocol.data_to_send())

    return answer


def floor(text: bytes) -> bytes:
    return encode_value(msgspec.json.decode(text))


def test_untyped_echo(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    """`on_message` decodes to dicts, `send_json` encodes them."""
    conn, link = memory_server(echo).connect()
    data = tools.frame(text)
    websockets = websockets_echo(data)
    conn.feed(data)
    assert link.sent == websockets(data)
    link.kept = None
    beside((conn.feed, data), limit_decode_and_encode=(floor, text), websockets=(websockets, data))


def test_untyped(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    memory = memory_server(keep)
    conn, link = memory.connect()
    data = tools.frame(text)
    conn.feed(data)
    assert (conn.statistics()["messages_in"], link.sent) == (1, b"")
    beside((conn.feed, data), limit_decode=(msgspec.json.Decoder().decode, text))


def test_typed(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    """An action with a `Message`: the envelope first, then the type."""
    conn, link = memory_server(typed).connect()
    text = b'{"action":"order",' + text[1:]
    data = tools.frame(text)
    conn.feed(data)
    assert link.sent == b""
    beside((conn.feed, data), limit_decode=(msgspec.json.Decoder(Order).decode, text))


def test_pass_through(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    """`send_message` to a channel of one: `data` is passed on as it came. docs/experiments/uncut-data.md"""
    conn, link = memory_server().connect()
    conn.owner.join("room")
    other = memory_server()
    other.dispatcher.raw = None
    decoding, decoding_link = other.connect()
    decoding.owner.join("room")
    text = b'{"action":"send_message","channel":"room","data":%s}' % text
    data = tools.frame(text)
    link.sent  # noqa: B018
    conn.feed(data)
    assert text[len('{"action":"send_message","channel":"room","data":') : -1] in link.sent
    decoding.feed(data)
    link.kept = decoding_link.kept = None
    beside(
        (conn.feed, data),
        limit_decode=(msgspec.json.Decoder().decode, text),
        the_envelope_decoded_whole=(decoding.feed, data),
    )


def test_measure(beside: Any, text: bytes) -> None:
    """docs/experiments/uncut-data.md: where a value ends, and that it is JSON."""
    assert json_container(text) == len(text)
    beside((json_container, text), msgspec=(msgspec.json.Decoder(msgspec.Raw).decode, text))


def test_text_echo(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    """`on_text`: nothing is decoded."""
    conn, link = memory_server(text_echo).connect()
    data = tools.frame(text)
    conn.feed(data)
    assert link.sent.endswith(text)
    link.kept = None
    beside((conn.feed, data), limit_memcpy=(bytes, memoryview(data)))


def test_encode(beside: Any, text: bytes) -> None:
    """docs/experiments/orjson-for-writing.md"""
    value = msgspec.json.decode(text)
    assert encode_value(value) == encode(value) == text
    beside((encode_value, value), msgspec=(encode, value), orjson=(orjson.dumps, value))


def test_envelope(beside: Any) -> None:
    """docs/experiments/native-envelope.md: what goes around a client's `data` that is passed on."""
    fields = ("message", "room-17", "user-4711", "Some Body", next_id())

    def by_msgspec(event: str, channel: str, user_id: str, username: str, client_id: str) -> bytes:
        return encode_event(event, channel=channel, user_id=user_id, username=username, client_id=client_id)

    ours, theirs = msgspec.json.decode(encode_head(*fields)), msgspec.json.decode(by_msgspec(*fields))
    for instance in ("id", "timestamp"):
        del ours[instance], theirs[instance]
    assert ours == theirs
    beside((encode_head, *fields), msgspec=(by_msgspec, *fields))


@dataclasses.dataclass
class Point:
    x: int
    y: int


LEFT_TO_MSGSPEC = {
    "datetimes": [{"name": f"user-{i}", "at": dt.datetime(2026, 1, 1 + i, tzinfo=dt.UTC)} for i in range(20)],
    "dataclasses": [{"name": f"user-{i}", "at": Point(i, i)} for i in range(20)],
    "integer keys": {i: {"name": f"user-{i}", "qty": i} for i in range(20)},
    "an integer key at the end": [*[{"name": f"user-{i}", "qty": i} for i in range(20)], {1: 2}],
}


@pytest.mark.parametrize("value", LEFT_TO_MSGSPEC.values(), ids=LEFT_TO_MSGSPEC)
def test_encode_what_orjson_leaves(beside: Any, value: Any) -> None:
    """docs/experiments/orjson-for-writing.md"""
    assert encode_value(value) == encode(value)
    beside((encode_value, value), msgspec=(encode, value))


def test_decode_where_it_lies(beside: Any, tools: Any, memory_server: Any, text: bytes) -> None:
    """docs/experiments/payload-view.md and orjson-for-reading.md: measured inside a real callback, where the
    payload's view is valid."""
    memory = memory_server(keep)
    conn, _ = memory.connect()
    decode = msgspec.json.Decoder().decode
    raw = msgspec.json.Decoder(msgspec.Raw).decode
    # `source[everything]` copies as PyBytes_FromStringAndSize does; the longer source keeps it a true copy.
    source, everything = text + b" ", slice(0, len(text))

    def decode_copy(source: bytes, everything: slice) -> Any:
        return decode(source[everything])

    def orjson_copy(source: bytes, everything: slice) -> Any:
        return orjson.loads(source[everything])

    def decode_view(view: Any, _: None) -> Any:
        return decode(view)

    def orjson_view(view: Any, _: None) -> Any:
        return orjson.loads(memoryview(view))

    def measure(view: Any) -> Any:
        assert bytes(view) == text
        assert decode(view) == orjson_view(view, None) == decode_copy(source, everything)
        assert bytes(raw(text)) == text
        beside(
            (decode_view, view, None),
            msgspec_from_a_copy=(decode_copy, source, everything),
            the_copy=(operator.getitem, source, everything),
            orjson_from_a_copy=(orjson_copy, source, everything),
            orjson_from_a_memoryview=(orjson_view, view, None),
        )
        return decode(text)

    called = []
    memory.dispatcher.decode = lambda view: called.append(measure(view))
    conn.feed(tools.frame(text))
    assert called == [decode(text)]
