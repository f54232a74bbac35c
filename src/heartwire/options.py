"""What an option is: its unit, range and reason, and how a value given for it is read.

The options themselves are the annotated fields of `heartwire.config.ServerConfig`. Flags, environment,
TOML and keywords all go through `Field.parse`, so that a value means the same wherever it comes from.
"""

from __future__ import annotations

import math
import os
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

__all__ = ["Custom", "Field", "Option", "Pattern", "fields_of", "nearest", "parse_duration"]

Number = TypeVar("Number", int, float)
Kind = Literal["flag", "integer", "number", "size", "duration", "choice", "text", "path", "custom"]

DURATION_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
SIZE_UNITS: Final = {"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
FLAG_WORDS: Final = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
MASK: Final = "***"


@dataclass(frozen=True, slots=True)
class Pattern:
    """The form of a text value: a regular expression, and what it expects in words."""

    regex: str
    expects: str


@dataclass(frozen=True, slots=True)
class Custom:
    """How a value is read that is more than one word.

    Args:
        read: what was given -> the value; raises ValueError, which says what is wrong and not what was given.
        show: the value as text for people.
        expects: what a value must be, in words that follow "expected".
    """

    read: Callable[[object], Any]
    show: Callable[[Any], str]
    expects: str


@dataclass(frozen=True, slots=True)
class Option:
    """The annotation of one field of a configuration.

    Args:
        group: heading under which help and docs show it.
        about: what it does, in one sentence.
        reason: why the default is what it is.
        unit: `s` for a duration, `bytes` for a size, else empty.
        low, high: inclusive bounds of a number, in that unit.
        pattern: form of each text value.
        secret: its value is never shown, in any message.
        default_text: how to describe a default that is worked out at the start.
        custom: reads the value in its own way.
    """

    group: str
    about: str
    reason: str
    unit: Literal["", "s", "bytes"] = ""
    low: float | None = None
    high: float | None = None
    pattern: Pattern | None = None
    secret: bool = False
    default_text: str = ""
    custom: Custom | None = None


class _UnfitError(ValueError):
    """The value is not of the expected kind; carries no text, since the value may be a secret."""


@dataclass(frozen=True, slots=True)
class Field:
    """One option, bound to its name, type and default."""

    name: str
    kind: Kind
    choices: tuple[str, ...]
    repeatable: bool
    optional: bool
    default: Any
    option: Option

    @property
    def flag(self) -> str:
        """The command-line option, such as `--ping-interval`."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable, such as `HEARTWIRE_PING_INTERVAL`."""
        return "HEARTWIRE_" + self.name.upper()

    @property
    def expects(self) -> str:
        """What a value must be, in words that follow "expected"."""
        option = self.option
        if option.custom is not None:
            return option.custom.expects
        if option.pattern is not None:
            return option.pattern.expects
        match self.kind:
            case "flag":
                return "true or false"
            case "choice":
                return ("one or more of " if self.repeatable else "one of ") + ", ".join(self.choices)
            case "integer":
                return "a whole number" + self._range()
            case "number":
                return "a number such as 10 or 0.5" + self._range()
            case "size":
                return "a size such as 65536, 512KiB or 1MiB" + self._range()
            case "duration":
                return "a duration such as 500ms, 30s or 5m (a bare number is seconds)" + self._range()
            case "path":
                return "the path of a file"
            case _:
                return "text that is not empty"

    def parse(self, value: object) -> Any:
        """Reads a value: what the field holds already, or text that stands for it.

        Raises:
            ValueError: it does not fit; the message says what was expected and never what was given.
        """
        if self.option.custom is not None:
            return self.option.custom.read(value)
        try:
            if value is None and self.optional:
                return None
            if not self.repeatable:
                return self._one(value)
            if isinstance(value, str | os.PathLike):
                return (self._one(value),)
            if isinstance(value, list | tuple):
                return tuple(self._one(item) for item in value)
        except (_UnfitError, OverflowError):
            pass
        raise ValueError(f"expected {self.expects}")

    def show(self, value: Any) -> str:
        """The value as text for people; a secret as `***`."""
        if value is None or value == ():
            return "none"
        if self.option.secret:
            return MASK
        if self.option.custom is not None:
            return self.option.custom.show(value)
        if self.repeatable:
            return ",".join(map(str, value))
        match self.kind:
            case "flag":
                return "true" if value else "false"
            case "size":
                for unit in ("GiB", "MiB", "KiB"):
                    if value and value % SIZE_UNITS[unit] == 0:
                        return f"{value // SIZE_UNITS[unit]}{unit}"
                return str(value)
            case "duration":
                return f"{value:g}s"
            case "number":
                return f"{value:g}"
            case _:
                return str(value)

    def default_text(self) -> str:
        """The default, for help and docs."""
        return self.option.default_text or self.show(self.default)

    def _one(self, value: object) -> Any:
        match self.kind:
            case "flag":
                return _flag(value)
            case "integer":
                return self._bounded(_integer(value))
            case "number":
                return self._bounded(_number(value))
            case "size":
                return self._bounded(_size(value))
            case "duration":
                return self._bounded(_duration(value))
            case "path":
                return Path(self._text(os.fspath(value) if isinstance(value, os.PathLike) else value))
            case "choice":
                text = self._text(value)
                if text not in self.choices:
                    raise _UnfitError
                return text
            case _:
                return self._text(value)

    def _text(self, value: object) -> str:
        if not isinstance(value, str) or not value or "\0" in value:
            raise _UnfitError
        if self.option.pattern is not None and not re.fullmatch(self.option.pattern.regex, value):
            raise _UnfitError
        return value

    def _bounded(self, value: Number) -> Number:
        if self.option.low is not None and value < self.option.low:
            raise _UnfitError
        if self.option.high is not None and value > self.option.high:
            raise _UnfitError
        return value

    def _range(self) -> str:
        low, high = (None if n is None else self._number(n) for n in (self.option.low, self.option.high))
        if low is None:
            return "" if high is None else f", at most {high}"
        return f", at least {low}" if high is None else f", from {low} to {high}"

    def _number(self, value: float) -> str:
        return self.show(value if self.kind in ("duration", "number") else int(value))


def fields_of(config: type[msgspec.Struct]) -> Mapping[str, Field]:
    """The options of a configuration class, in their order."""
    hints = get_type_hints(config, include_extras=True)
    return {
        info.name: _field(info.name, hints[info.name], info.default)
        for info in msgspec.structs.fields(config)
    }


def nearest(name: str, names: list[str]) -> str:
    """A hint that names the nearest of `names`, or nothing if none is near."""
    close = get_close_matches(name, names, n=1, cutoff=0.5) or get_close_matches(name.lower(), names, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def parse_duration(value: object) -> float:
    """Reads a duration in seconds; raises ValueError, which says what was expected."""
    try:
        return _duration(value)
    except (_UnfitError, OverflowError):
        raise ValueError("expected a duration such as 500ms, 30s or 5m") from None


def _field(name: str, annotation: Any, default: Any) -> Field:
    kind_of, option = get_args(annotation)
    optional = get_origin(kind_of) in (Union, types.UnionType)
    if optional:
        (kind_of,) = (arg for arg in get_args(kind_of) if arg is not types.NoneType)
    repeatable = get_origin(kind_of) is tuple
    if repeatable:
        kind_of = get_args(kind_of)[0]
    choices = get_args(kind_of) if get_origin(kind_of) is Literal else ()
    return Field(name, _kind(kind_of, option), choices, repeatable, optional, default, option)


def _kind(annotation: Any, option: Option) -> Kind:
    if option.custom is not None:
        return "custom"
    if get_origin(annotation) is Literal:
        return "choice"
    kinds: dict[tuple[Any, str], Kind] = {
        (bool, ""): "flag",
        (int, ""): "integer",
        (float, ""): "number",
        (int, "bytes"): "size",
        (float, "s"): "duration",
        (str, ""): "text",
        (Path, ""): "path",
    }
    return kinds[annotation, option.unit]


def _flag(value: object) -> bool:
    if isinstance(value, str):
        value = FLAG_WORDS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise _UnfitError
    return value


def _integer(value: object) -> int:
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,18}", value.strip()):
        return int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise _UnfitError
    return value


def _number(value: object) -> float:
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}(\.[0-9]{1,9})?", value.strip()):
        return float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _UnfitError
    return float(value)


def _size(value: object) -> int:
    if not isinstance(value, str):
        return _integer(value)
    units = {unit.lower(): factor for unit, factor in SIZE_UNITS.items()}
    found = re.fullmatch(r"([0-9]{1,18})\s*([a-z]*)", value.strip().lower())
    if found is None or (found[2] or "b") not in units:
        raise _UnfitError
    return int(found[1]) * units[found[2] or "b"]


def _duration(value: object) -> float:
    if isinstance(value, str):
        found = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)", value.strip().lower())
        if found is None or (found[2] or "s") not in DURATION_UNITS:
            raise _UnfitError
        return float(found[1]) * DURATION_UNITS[found[2] or "s"]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _UnfitError
    return float(value)
