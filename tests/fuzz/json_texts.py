"""Fuzzes the JSON read path: a text message through a whole server without sockets, beside Python's json.

An input is one byte of settings and the text. It must be served, or answered by an `error` event, or end the
connection where it is not UTF-8; never cause anything else. What `on_message` gets must be what json makes
of it, and `data` that is sent on must mean what it meant. Where heartwire refuses what json takes, it does so
on purpose:

- nesting deeper than `max_json_depth`, - lone surrogates in an escape,
- numbers beyond a float, and integers beyond 64 bits become floats or are refused: clients read them so.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any, Final

from fuzz import harness
from heartwire import Client, Message, Server
from heartwire.testing import CLOSE, TEXT, FakeLink, Frame, FramePeer, build_frame
from serverless import SECRET, Serverless

DEPTH: Final = 16
ROOM: Final = "lobby"
"""The client is in it, and may send to it."""
ACTIONS: Final = ("authenticate", "join_channel", "leave_channel", "send_message", "ping", "move")
ERRORS: Final = {
    "bad_json", "bad_message", "unauthenticated", "forbidden", "token_invalid", "token_expired",
    "user_mismatch",
    "not_a_member", "internal",
}  # fmt: skip
_number = re.compile(r"-?\d+(?:\.\d*)?(?:[eE][+-]?\d+)?")


class Move(Message):
    """A typed action."""

    x: float
    tags: tuple[str, ...] = ()


class World(Serverless):
    """The server of all inputs, and what it was told."""

    def __init__(self) -> None:
        server = Server(
            port=0, jwt_secret=[SECRET], auth="message", auth_timeout=3600, welcome=False,
            max_json_depth=DEPTH,
            log_level="warning", handshake_timeout=3600,
            channel_settings={ROOM: {"anonymous_publish": True}},
        )  # fmt: skip
        self.told: list[Any] = []

        @server.on_message
        def on_message(client: Client, value: Any) -> None:
            self.told.append(value)

        @server.action("move")
        def move(client: Client, message: Move) -> dict[str, Any]:
            return {"x": message.x, "tags": message.tags}

        super().__init__(server)
        server._dispatcher.long_text = 0  # each may be read in the way of long ones


def one_input(data: bytes) -> None:
    """Judges one input.

    Raises:
        AssertionError: the contract is broken.
    """
    if not data:
        return
    world = harness.server(World)
    gated, text = bool(data[0] & 1), data[1:]
    with world.link() as link:
        peer = FramePeer(link)
        peer.open()
        if not gated:
            link.connection.special = 0
            link.connection.owner.join(ROOM)
        world.told.clear()
        link.feed(build_frame(TEXT, text))
        world.turn()
        _judge(world, link, peer.frames(), gated, text)


def _judge(world: World, link: FakeLink, frames: list[Frame], gated: bool, text: bytes) -> None:
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        assert [(frame.opcode, frame.close_code) for frame in frames] == [(CLOSE, 1007)]
        return
    assert link.connection.is_open
    assert all((frame.opcode, frame.fin, frame.rsv) == (TEXT, True, 0) for frame in frames)
    events = [json.loads(frame.payload) for frame in frames]
    valid, value = _loads(decoded)
    assert len(events) + len(world.told) <= 2
    codes = [event["data"]["code"] for event in events if event["event"] == "error"]
    assert set(codes) <= ERRORS
    assert "internal" not in codes
    if world.told:
        assert not gated
        assert valid
        assert events == []
        (told,) = world.told
        assert not (isinstance(told, dict) and told.get("action") in ACTIONS)
        assert _same(told, value), (told, value)
    elif "bad_json" in codes:
        assert not valid or _refusable(decoded), decoded
    elif not gated:
        assert valid, f"no error for {decoded!r}: {events}"
        assert value["action"] in ACTIONS, (events, value)
        for event in events:
            if value["action"] == "send_message" and "client_id" in event:
                assert json.dumps(event["data"]) == json.dumps(value.get("data")), (event, value)


def _loads(text: str) -> tuple[bool, Any]:
    def refuse(name: str) -> Any:
        raise ValueError(name)

    try:
        return True, json.loads(text, parse_constant=refuse)
    except (ValueError, RecursionError):
        return False, None


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, float) and isinstance(theirs, (int, float)):
        return math.isfinite(ours) and ours == _float(theirs)
    if type(ours) is not type(theirs):
        return False
    if isinstance(ours, dict):
        return list(ours) == list(theirs) and all(_same(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    return bool(ours == theirs)


def _float(number: float) -> float:
    try:
        return float(number)
    except OverflowError:
        return math.inf


def _refusable(text: str) -> bool:
    """Whether there is one of the reasons above to refuse JSON. Strings do not matter: may be wrong, then."""
    if re.search(r"\\u[dD][89a-fA-F]", text):
        return True
    depth = deepest = 0
    for c in re.sub(r'"(?:\\.|[^"\\])*"', "", text):
        depth += (c in "[{") - (c in "]}")
        deepest = max(deepest, depth)
    return deepest > DEPTH or any(_extreme(n) for n in _number.findall(text))


def _extreme(number: str) -> bool:
    value = float(number)
    return math.isinf(value) or ("." not in number and "e" not in number.lower() and abs(value) >= 1 << 63)


# ---------------------------------------------------------------- seeds


def seeds() -> Iterator[bytes]:
    """Inputs to begin with."""
    texts = [
        "1", "-0.0", "1e3", "1e400", "9" * 30, str((1 << 64) - 1), "true", "null", '""', '"é€😀"',
        '"\\ud83d\\ude00"',
        '"\\ud800"', '"\\u0000"', "[]", "[1,[2,[3]]]", "[" * DEPTH + "]" * DEPTH,
        "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
        "{}", '{"a":1,"a":2}', ' {"a" : [ 1 , 2 ] } ', '{"action":"ping"}', '{"action":"ping","id":7}',
        '{"\\u0061ction":"p\\u0069ng","id":"x"}', '{"action":"join_channel","channel":"lobby"}',
        '{"action":"join_channel","channel":"presence-a","data":{"x":1}}',
        '{"action":"leave_channel","channel":"x"}',
        '{"action":"send_message","channel":"lobby","event":"e","data":[1],"id":1}',
        '{"action":"send_message","channel":"lobby","data":{"a":[true,-1.5,"\\n"],"b":{}},"id":"x"}',
        '{"action":"send_message","channel":"lobby","data":[],"data":[null]}',
        '{"action":"move","x":1.5}',
        '{"action":"move","x":1,"tags":["a","b"]}', '{"action":"move","x":"a"}', '{"action":"other"}',
        '{"action":1}',
        '{"action":"authenticate","token":"a.b.c"}', '{"action":null,"data":{"action":"ping"}}', "NaN",
        "[1,]", "01",
        '{"action":"ping"', '"a\nb"', "\ufeff1", "[1] x", '{"x":"' + "\\\\" * 20 + '"}', '["[[[[{{{{"]',
    ]  # fmt: skip
    for text in texts:
        yield b"\0" + text.encode()
        yield b"\1" + text.encode()
    yield b'\0"\xff"'
    yield b'\0{"action":"ping","x":"\xc3"}'
