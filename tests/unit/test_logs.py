"""Log lines: their two forms, and those that are counted instead of written."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Iterator

import pytest

from heartwire.logs import KINDS_MOST, JsonFormatter, RateLimited, TextFormatter


class Lines(logging.Handler):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def texts(self) -> list[str]:
        return [record.getMessage() for record in self.records]


class Clock:
    """Seconds that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def lines() -> Iterator[Lines]:
    """What the logger "noisy" writes, from INFO up."""
    logger = logging.getLogger("noisy")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    kept = Lines()
    logger.addHandler(kept)
    yield kept
    logger.removeHandler(kept)


def limited(clock: Clock, burst: int = 3, period_s: float = 10.0) -> RateLimited:
    return RateLimited(logging.getLogger("noisy"), burst, period_s, clock)


# -------------------------------------------------------------- some, and a count


def test_a_burst_is_written_and_the_rest_counted(lines: Lines) -> None:
    clock = Clock()
    log = limited(clock)
    for i in range(20):
        log.warning("no luck for %s", i)
    assert lines.texts == [f"no luck for {i}" for i in range(3)]
    clock.now += 9.9
    log.warning("no luck for %s", "late")
    assert len(lines.texts) == 3
    clock.now += 0.1
    log.warning("no luck for %s", "next")
    assert lines.texts[3:] == ["18 more such lines were left out in 10 s: no luck for %s", "no luck for next"]
    assert lines.records[3].__dict__["suppressed"] == 18
    assert lines.records[3].levelno == logging.WARNING


def test_kinds_do_not_hide_each_other(lines: Lines) -> None:
    log = limited(Clock(), burst=1)
    for i in range(3):
        log.warning("one %s", i)
        log.error("one %s", i)
        log.warning("other %s", i)
        for error in (ValueError("v"), KeyError("k")):
            log.error("failed", exc_info=error)
        try:
            raise TypeError
        except TypeError:
            log.exception("failed")
    assert lines.texts == ["one 0", "one 0", "other 0", "failed", "failed", "failed"]
    kinds = [type(r.exc_info[1]) for r in lines.records if r.exc_info and r.exc_info[1]]
    assert kinds == [ValueError, KeyError, TypeError]


def test_what_is_off_is_neither_written_nor_counted(lines: Lines) -> None:
    clock = Clock()
    log = limited(clock, burst=1)
    for _ in range(5):
        log.debug("quiet")
    log.tell(at_once=True)
    assert lines.texts == []


def test_the_end_tells_what_is_left(lines: Lines) -> None:
    log = limited(Clock(), burst=1)
    for _ in range(4):
        log.info("x")
    log.tell(at_once=True)
    log.tell(at_once=True)
    assert lines.texts == ["x", "3 more such lines were left out in 10 s: x"]


async def test_in_a_loop_a_timer_tells(lines: Lines) -> None:
    log = RateLimited(logging.getLogger("noisy"), burst=1, period_s=0.02)
    for _ in range(5):
        log.info("a")
        log.info("b")
    async with asyncio.timeout(5):
        while len(lines.texts) < 4:
            await asyncio.sleep(0.005)
    assert sorted(lines.texts[2:]) == [f"4 more such lines were left out in 0.02 s: {kind}" for kind in "ab"]
    assert log._timer is None


def test_kinds_are_bounded(lines: Lines) -> None:
    log = limited(Clock(), burst=1)
    for i in range(1000):
        log.info(f"made of what differs: {i}")
    assert len(log._kinds) <= KINDS_MOST


def test_nothing_is_lost(lines: Lines, rng: random.Random) -> None:
    """Whatever comes when: what was written and what was counted is what came."""
    clock = Clock()
    log = limited(clock, burst=2, period_s=1.0)
    came = dict.fromkeys("abc", 0)
    for _ in range(2000):
        kind = rng.choice("abc")
        came[kind] += 1
        log.info(kind)
        clock.now += rng.choice([0, 0, 0.01, 0.3])
    log.tell(at_once=True)
    told = dict.fromkeys("abc", 0)
    for record in lines.records:
        text = record.getMessage()
        told[text[-1]] += record.__dict__.get("suppressed", 1)
    assert told == came
    assert len(lines.records) < 2000


# -------------------------------------------------------------- the two forms

FORGED = "bob\n2026-01-01T00:00:00.000Z INFO heartwire: all is well\r\x1b[2K\x85\u2028\x7f"


def record(message: str, *args: object, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("heartwire", logging.INFO, __file__, 1, message, args, None)
    made.__dict__.update(extra)
    return made


def test_what_a_peer_sent_cannot_begin_a_line() -> None:
    text = TextFormatter().format(record("hello %s", FORGED))
    assert len(text.splitlines()) == 1
    assert text.endswith(r"INFO heartwire: hello bob\x0a2026-01-01T00:00:00.000Z INFO heartwire: all is well"
                         r"\x0d\x1b[2K\x85\u2028\x7f")  # fmt: skip
    line = JsonFormatter().format(record("hello %s", FORGED, user_id=FORGED))
    assert "\n" not in line
    assert "\r" not in line
    assert json.loads(line)["message"] == f"hello {FORGED}"
    assert json.loads(line)["user_id"] == FORGED


def test_json_holds_the_extras() -> None:
    line = json.loads(JsonFormatter().format(record("bye", cause="kicked", code=4403, rtt_ms=None)))
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info", "logger": "heartwire", "message": "bye", "cause": "kicked", "code": 4403,
        "rtt_ms": None,
    }  # fmt: skip


@pytest.mark.parametrize("lone", ["\ud800", "a\udfffb"])
def test_text_that_is_no_unicode_does_not_stop_a_line(lone: str) -> None:
    line = JsonFormatter().format(record("hello %s", lone, number=1 << 70)).encode()
    assert json.loads(line)["message"] == f"hello {lone}"


def test_a_traceback_stays_with_its_line() -> None:
    try:
        raise ValueError(FORGED)
    except ValueError as error:
        failed = record("failed")
        failed.exc_info = (type(error), error, error.__traceback__)
    told = json.loads(JsonFormatter().format(failed))
    assert told["exception"].startswith("Traceback")
    failed.exc_text = None  # where the first formatter left its own form
    text = TextFormatter().format(failed).splitlines()
    assert len(text) == 6
    assert all(line.startswith("    ") for line in text[1:])
