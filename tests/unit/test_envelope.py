"""envelope.c against Python's own, and the events it writes against a JSON decoder."""

from __future__ import annotations

import json
import random
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from heartwire._core.envelope import EventWriter, instant_text
from heartwire.messages import encode_head, rfc3339


def slow_instant(unix_ms: int) -> str:
    at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=unix_ms)
    return at.strftime("%Y-%m-%dT%H:%M:%S.") + f"{at.microsecond // 1000:03d}Z"


def test_every_day_of_four_centuries() -> None:
    for day in range(366 * 400):
        assert instant_text(day * 86_400_000) == slow_instant(day * 86_400_000)


def test_instants(rng: random.Random) -> None:
    last = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
    for unix_ms in (0, 1, 999, 1000, 951_782_399_999, 951_782_400_000, last):
        assert instant_text(unix_ms) == slow_instant(unix_ms)
    for _ in range(20_000):
        unix_ms = rng.randrange(last)
        assert instant_text(unix_ms) == slow_instant(unix_ms)


def test_ids_count_in_hexadecimal() -> None:
    writer = EventWriter("node")
    assert [writer.next_id() for _ in range(300)] == [f"node{i:x}" for i in range(1, 301)]


def test_ids_of_many_threads_differ() -> None:
    writer = EventWriter("n")
    found: list[list[str]] = [[] for _ in range(8)]

    def draw(into: list[str]) -> None:
        into.extend(writer.next_id() for _ in range(2_000))

    threads = [threading.Thread(target=draw, args=(into,)) for into in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({each for into in found for each in into}) == 16_000


def test_a_node_is_short_and_ascii() -> None:
    assert EventWriter("x" * 32).next_id() == "x" * 32 + "1"
    with pytest.raises(ValueError, match="at most 32"):
        EventWriter("x" * 33)
    with pytest.raises(UnicodeEncodeError):
        EventWriter("é")


PLAIN = ["", "a", "lobby", "x" * 200, "é", "日本語", "\U0001f600", "/", "\x7f", "\x80", "\u2028"]


@pytest.mark.parametrize("text", PLAIN)
def test_plain_texts_are_written(text: str) -> None:
    before = datetime.now(UTC)
    head = EventWriter("n").head("message", text, text, text, "c1")
    assert head is not None
    event = json.loads(head)
    at = datetime.fromisoformat(event.pop("timestamp"))
    assert before - timedelta(milliseconds=1) <= at <= datetime.now(UTC)
    assert event == {
        "id": "n1", "event": "message", "channel": text, "user_id": text, "username": text, "client_id": "c1",
    }  # fmt: skip


def test_what_is_none_is_left_out() -> None:
    head = EventWriter("n").head("message", None, None, None, None)
    assert head is not None
    assert set(json.loads(head)) == {"id", "event", "timestamp"}


def test_what_has_to_be_escaped_is_left_to_others(rng: random.Random) -> None:
    writer = EventWriter("n")
    for code in (*range(0x20), ord('"'), ord("\\")):
        for size in (1, 7, 8, 9, 16, 23):
            for at in range(size):
                text = "é"[: rng.randrange(2)] + "a" * at + chr(code) + "a" * (size - at - 1)
                assert writer.head("message", "c", text, None, "x") is None, (code, size, at)
                event = json.loads(encode_head("message", "c", "u", text, "x"))
                assert event["username"] == text


def test_a_long_event_is_left_to_others() -> None:
    writer = EventWriter("n")
    sizes = [len(writer.head("message", "c", "u", "x" * n, "i") or b"") for n in range(800, 1100)]
    assert max(sizes) == 1024
    assert sizes.index(0) == sizes.index(1024) + 1
    assert not any(sizes[sizes.index(0) :])
    assert json.loads(encode_head("message", "c", "u", "x" * 5000, "i"))["username"] == "x" * 5000


@pytest.mark.parametrize("field", range(5))
def test_only_texts_are_written(field: int) -> None:
    arguments: list[Any] = ["message", "c", "u", "n", "i"]
    arguments[field] = 7
    with pytest.raises(TypeError):
        EventWriter("n").head(*arguments)


def test_lone_surrogates_are_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        EventWriter("n").head("message", "c", "u", "\ud800", "i")


def test_instants_of_the_api() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(1_800_000_000.0625) == "2027-01-15T08:00:00.062Z"
    assert rfc3339(1.0005) == "1970-01-01T00:00:01.000Z"  # to the nearest
    assert rfc3339(253_402_300_799.9999) == "9999-12-31T23:59:59.999Z"
