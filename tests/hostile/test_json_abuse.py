"""Text that is no JSON, or more JSON than anybody needs."""

from __future__ import annotations

import math
from typing import Any

import pytest

from hostile.peer import Peer, text
from hostile.watched import Attack, ServerProcess

MIB = 1 << 20
DEPTH = 128  # `max_json_depth`


def ask(peer: Peer, value: str | bytes) -> Any:
    """Sends one text; what comes back."""
    peer.send(text(value))
    return peer.message()


def error_code(answer: Any) -> str:
    """The code of an `error` event."""
    assert answer["event"] == "error", answer
    assert len(answer["data"]["message"]) < 300
    return str(answer["data"]["code"])


BAD = {
    "nothing": "",
    "white space": " \t\r\n",
    "BOM": "\ufeff[1]",
    "NaN": "NaN",
    "Infinity": "[Infinity]",
    "-Infinity": "[-Infinity]",
    "single quotes": "{'a':1}",
    "comment": "[1] // one",
    "trailing comma": "[1,]",
    "two values": "1 2",
    "not closed": '{"a":1',
    "closed twice": "[1]]",
    "string not closed": '"abc',
    "NUL in a string": '"a\0b"',
    "newline in a string": '"a\nb"',
    "bad escape": '"\\x41"',
    "half an escape": '"\\u00',
    "leading zero": "01",
    "plus": "+1",
    "dot without digits": "1.",
    "hexadecimal": "0x10",
    "lone high surrogate": '"\\ud800"',
    "lone low surrogate": '"\\udc00"',
    "surrogates the wrong way round": '"\\udc00\\ud800"',
    "lone surrogate as a key": '{"\\ud800":1}',
    "lone surrogate in an action": '{"action":"\\ud800"}',
    "one level too many": "[" * (DEPTH + 1) + "]" * (DEPTH + 1),
    "100,000 arrays": "[" * 100_000 + "]" * 100_000,
    "100,000 arrays, not closed": "[" * 100_000,
    "100,000 objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "100,000 levels beside an action": '{"action":"ping","x":' + "[" * 100_000 + "]" * 100_000 + "}",
    "100,000 levels of data": '{"action":"send_message","channel":"c","data":' + "[" * 100_000,
    "100,000 levels before an action": '{"x":' + "[" * 100_000 + "]" * 100_000 + ',"action":"ping"}',
    "brackets, mixed up": "[{" * 50_000,
    "an action, not closed": '{"action":"ping"',
    "an action, then rubbish": '{"action":"ping"} x',
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_no_json(server: ServerProcess, name: str) -> None:
    """One error, `bad_json`; the connection goes on."""
    with server.open() as peer:
        assert error_code(ask(peer, BAD[name])) == "bad_json"
        assert ask(peer, '["after"]') == ["after"]


MANY = [f'"{i}":0' for i in range(100_000)]
GOOD: dict[str, tuple[str, Any]] = {
    "deep": ("[" * DEPTH + "]" * DEPTH, None),
    "brackets in a string": ('["' + "[" * 1000 + '"]', ["[" * 1000]),
    "a string of 1 MiB": ('"' + "x" * (MIB - 2) + '"', "x" * (MIB - 2)),
    "a string of escapes": ('"' + "\\u00e9" * 50_000 + '"', "é" * 50_000),
    "a key of 500 KB": ('{"' + "k" * 500_000 + '":1}', {"k" * 500_000: 1}),
    "100,000 keys": ("{" + ",".join(MANY) + "}", {str(i): 0 for i in range(100_000)}),
    "300,000 numbers": ("[" + ",".join(["1"] * 300_000) + "]", [1] * 300_000),
    "duplicate keys": ('{"a":1,"a":2}', {"a": 2}),
    "surrogate pair": ('"\\ud83d\\ude00"', "😀"),
    "escaped NUL": ('"\\u0000"', "\0"),
    "noncharacters": ('"\ufffe\uffff"', "\ufffe\uffff"),
    "the largest signed integer": (str((1 << 63) - 1), (1 << 63) - 1),
    "the largest unsigned integer": (str((1 << 64) - 1), (1 << 64) - 1),
    "the smallest integer": (str(-(1 << 63)), -(1 << 63)),
    "minus zero": ("-0.0", -0.0),
    "a denormal": ("5e-324", 5e-324),
    "underflow": ("1e-400", 0.0),
    "long fraction": ("0." + "1" * 100_000, 1 / 9),
    "white space around": (" \r\n\t[1]\t ", [1]),
    "names that Python knows": ('{"__class__":"x","__proto__":1}', {"__class__": "x", "__proto__": 1}),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_odd_json(server: ServerProcess, name: str) -> None:
    """Valid, if unusual: it comes back."""
    sent, expected = GOOD[name]
    with server.open() as peer:
        answer = ask(peer, sent)
        if expected is not None:
            assert answer == expected
        assert ask(peer, '["after"]') == ["after"]


HUGE = {
    "an integer of 100,000 digits": "9" * 100_000,
    "an integer of 65 bits": str(1 << 64),
    "an integer of 1 MB": "9" * 1_000_000,
    "1e400": "1e400",
    "an exponent of 100,000 digits": "1e" + "9" * 100_000,
}


@pytest.mark.parametrize("name", HUGE)
def test_huge_number(server: ServerProcess, name: str) -> None:
    """Either it is no number here (`bad_json`), or it is finite; nothing else, and soon."""
    with server.open() as peer:
        answer = ask(peer, HUGE[name])
        if isinstance(answer, dict):
            assert error_code(answer) == "bad_json"
        else:
            assert math.isfinite(answer)
        assert ask(peer, '["after"]') == ["after"]


ACTIONS = {
    "unknown is echoed": ('{"action":"nothing"}', None),
    "null is echoed": ('{"action":null}', None),
    "number is echoed": ('{"action":1}', None),
    "object is echoed": ('{"action":{}}', None),
    "1 MB of action is echoed": ('{"action":"' + "a" * 1_000_000 + '"}', None),
    "escaped name": ('{"\\u0061ction":"ping"}', "pong"),
    "escaped value": ('{"action":"p\\u0069ng"}', "pong"),
    "twice, the last counts": ('{"action":"nothing","action":"ping"}', "pong"),
    "id is an object": ('{"action":"ping","id":{}}', "bad_message"),
    "id is true": ('{"action":"ping","id":true}', "bad_message"),
    "id of 65 characters": ('{"action":"ping","id":"' + "x" * 65 + '"}', "bad_message"),
    "id of 1 MB": ('{"action":"ping","id":"' + "x" * 1_000_000 + '"}', "bad_message"),
    "id of 100 digits": ('{"action":"ping","id":' + "9" * 100 + "}", "bad_message"),
    "id is 1.5": ('{"action":"ping","id":1.5}', "bad_message"),
    "no channel": ('{"action":"join_channel"}', "bad_message"),
    "channel is null": ('{"action":"join_channel","channel":null}', "bad_message"),
    "channel of 1 MB": ('{"action":"join_channel","channel":"' + "c" * 1_000_000 + '"}', "bad_message"),
    "channel with NUL": ('{"action":"join_channel","channel":"a\\u0000"}', "bad_message"),
    "channel with a line end": ('{"action":"join_channel","channel":"a\\n"}', "bad_message"),
    "event is a list": ('{"action":"send_message","channel":"c","event":[]}', "bad_message"),
    "event is the server's": ('{"action":"send_message","channel":"c","event":"connected"}', "bad_message"),
    "token is a number": ('{"action":"authenticate","token":1}', "bad_message"),
    "token of 1 MB": ('{"action":"authenticate","token":"' + "e" * 1_000_000 + '"}', "token_invalid"),
    "metadata of 1 MB": (
        '{"action":"join_channel","channel":"presence-a","data":"' + "x" * 1_000_000 + '"}', "bad_message",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ACTIONS)
def test_action(server: ServerProcess, name: str) -> None:
    """Actions with fields of the wrong kind: an error that names the field, or no action at all."""
    sent, expected = ACTIONS[name]
    with server.open() as peer:
        answer = ask(peer, sent)
        if expected is None:
            assert set(answer) == {"action"}
        elif expected == "pong":
            assert answer["event"] == "pong"
        else:
            assert error_code(answer) == expected
        assert ask(peer, '["after"]') == ["after"]


def test_ten_errors(server: ServerProcess) -> None:
    """Ten errors in a row end the connection: 1008."""
    with server.open() as peer:
        peer.send(text("x") * 50)
        for _ in range(10):
            assert error_code(peer.message()) == "bad_json"
        assert peer.close_code() == 1008


def test_flood_of_depth(server: ServerProcess) -> None:
    """Twenty connections with a megabyte of brackets each."""
    peers = [server.open() for _ in range(20)]
    for peer in peers:
        peer.send(text("[" * MIB))
    for peer in peers:
        with peer:
            assert error_code(peer.message()) == "bad_json"


def test_before_authentication(attack: Attack) -> None:
    """A stranger's messages are judged as strictly, and are 16 KiB at most."""
    with attack(auth="message") as server:
        strangers = {
            '{"x":' + "[" * 16_000: "bad_json",
            '{"action":"\\ud800"}': "bad_json",
            "[" * 16_000: "bad_json",
            "[1]": "unauthenticated",
            '{"action":"send_message","channel":"c"}': "unauthenticated",
        }
        for sent, code in strangers.items():
            with server.connect() as peer:
                peer.send(peer.opening(Authorization=None))
                assert peer.head()[0] == 101
                assert error_code(ask(peer, sent)) == code
        with server.connect() as peer:
            peer.send(peer.opening(Authorization=None) + text('"' + "x" * 16_384 + '"'))
            assert peer.head()[0] == 101
            assert peer.close_code() == 1009
