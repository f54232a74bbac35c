"""Log lines of the commands: text for people, or one JSON object a line. A library leaves logging alone."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Final, Literal

import msgspec

__all__ = ["JsonFormatter", "TextFormatter", "configure_logging"]

_STANDARD: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
# Whatever a peer sent that a message repeats, it cannot begin a line of its own.
_ONE_LINE: Final = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {0x85: "\\x85", 0x2028: "\\u2028"}


class TextFormatter(logging.Formatter):
    """`2026-01-31T12:00:00.123Z INFO heartwire: message`, control characters escaped."""

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
        return msgspec.json.encode(line, enc_hook=str).decode()


def configure_logging(level: str, form: Literal["text", "json"]) -> None:
    """Sends all logging to stderr: heartwire's from `level` up, that of libraries from WARNING up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logging.getLogger("heartwire").setLevel(level.upper())


def _timestamp(record: logging.LogRecord) -> str:
    instant = datetime.fromtimestamp(record.created, UTC).replace(tzinfo=None)
    return instant.isoformat(timespec="milliseconds") + "Z"
