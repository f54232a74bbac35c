"""Log lines of the commands: text for people, or one JSON object a line. A library leaves logging alone."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Literal

import msgspec

__all__ = ["JsonFormatter", "RateLimited", "TextFormatter", "configure_logging"]

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Whatever a peer sent that a message repeats, it cannot begin a line of its own.
_ONE_LINE: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {0x85: "\\x85", 0x2028: "\\u2028"}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO heartwire: message`, control characters escaped; what belongs to it, a
    traceback, is indented."""

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")  # an error's text may repeat what a peer sent too
        return "\n".join("    " + line.translate(_ONE_LINE) for line in lines)

    def formatMessage(self, record: logging.LogRecord) -> str:
        message = record.message.translate(_ONE_LINE)
        return f"{_timestamp(record)} {record.levelname} {record.name}: {message}"


class JsonFormatter(logging.Formatter):
    """One object a line: timestamp, level, logger, message, the record's extras, and any traceback."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "timestamp": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line.update((name, value) for name, value in record.__dict__.items() if name not in _STANDARD)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        try:
            return msgspec.json.encode(line, enc_hook=str).decode()
        except (UnicodeEncodeError, OverflowError):  # text that is no Unicode, numbers beyond 64 bits
            return json.dumps(line, default=str)


KINDS_MOST: Final = 100


class RateLimited(logging.LoggerAdapter[logging.Logger]):
    """A logger for lines that peers can cause at will: some of each kind, and a count of the rest.

    Use it like the logger it wraps. A kind is the text before its arguments are filled in, with the class of
    the exception where one is told; so put what differs into arguments. In each `period_s`, from a kind's
    first line on, `burst` lines of it are written and the others counted. The count is written as a line of
    its own when the period is over (in a running loop, by one timer for all kinds; elsewhere, and at the
    latest, before the kind's next line). It has the extra `suppressed`.

    Lines below the logger's level cost what they always do, and are not counted. Make one for each server, in
    the thread that uses it.

    Args:
        logger: where the lines go.
        burst: lines of a kind in a period.
        period_s: seconds.
        clock: () -> seconds, monotonic.
    """

    def __init__(
        self,
        logger: logging.Logger,
        burst: int = 10,
        period_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(logger, None)
        self._burst = burst
        self._period_s = period_s
        self._clock = clock
        self._kinds: dict[tuple[object, ...], _Kind] = {}
        self._timer: asyncio.TimerHandle | None = None

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        if not self.isEnabledFor(level):
            return
        error = kwargs.get("exc_info")
        if error is True:
            error = sys.exc_info()[1]
        key = (level, msg, type(error))
        now = self._clock()
        kind = self._kinds.get(key)
        if kind is None or now >= kind.until:
            self.tell()
            if len(self._kinds) >= KINDS_MOST:  # texts that were made of what differs
                self._kinds.clear()
            kind = self._kinds[key] = _Kind(level, str(msg), now + self._period_s)
        if kind.lines < self._burst:
            kind.lines += 1
            self.logger.log(level, msg, *args, **kwargs)
            return
        kind.suppressed += 1
        if self._timer is None:
            self._wake_in(kind.until - now)

    def tell(self, at_once: bool = False) -> None:
        """Writes the counts of periods that are over; with `at_once`, as at the end of a server, of all."""
        now = self._clock()
        for key, kind in list(self._kinds.items()):
            if at_once or now >= kind.until:
                del self._kinds[key]
                if kind.suppressed:
                    self.logger.log(
                        kind.level, "%d more such lines were left out in %g s: %s",
                        kind.suppressed, self._period_s, kind.text, extra={"suppressed": kind.suppressed},
                    )  # fmt: skip
        if self._timer is not None and not any(kind.suppressed for kind in self._kinds.values()):
            self._timer.cancel()
            self._timer = None

    def _wake_in(self, seconds: float) -> None:
        try:
            self._timer = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._due)
        except RuntimeError:
            self._timer = None  # no loop: the next line of the kind tells

    def _due(self) -> None:
        self._timer = None
        self.tell()
        waiting = [kind.until for kind in self._kinds.values() if kind.suppressed]
        if waiting:
            self._wake_in(min(waiting) - self._clock())


class _Kind:
    """One kind of line in its period."""

    __slots__ = ("level", "lines", "suppressed", "text", "until")

    def __init__(self, level: int, text: str, until: float) -> None:
        self.level = level
        self.text = text
        self.until = until
        self.lines = 0
        self.suppressed = 0


def configure_logging(level: str, form: Literal["text", "json"], connections: bool = False) -> None:
    """Sends all logging to stderr: heartwire's from `level` up, that of libraries from WARNING up.

    Args:
        connections: the end of each connection is told whatever the level.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("heartwire").setLevel(level.upper())
    logging.getLogger("heartwire.connections").setLevel(logging.DEBUG if connections else logging.NOTSET)


def _timestamp(record: logging.LogRecord) -> str:
    instant = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    return instant.isoformat(timespec="milliseconds") + "Z"
