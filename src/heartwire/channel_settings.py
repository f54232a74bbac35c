"""Settings of channels by the beginning of their names (docs/channels.md).

Each setting is an option like those of the server (`options`), so that a value means the same in a flag, the
environment, a TOML table and a keyword.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

import msgspec

from heartwire.messages import CHANNEL_EXPECTED, CHANNEL_NAME
from heartwire.options import Custom, Field, Option, fields_of, nearest

__all__ = ["CHANNEL_SETTINGS", "DEFAULT", "SETTINGS", "ChannelRule", "ChannelRules", "ChannelSettings"]

_CHANNELS = "Channels"
EVERY_CHANNEL: Final = "*"
_PREFIX_EXPECTED: Final = (
    f"expected how names of channels begin, {CHANNEL_EXPECTED}, or {EVERY_CHANNEL} for every channel"
)

EXPECTED: Final = (
    "settings after the first characters of channel names, such as `chat- publish=false max_members=50`; "
    'in TOML a table `[channel_settings."chat-"]`, in Python a dict of dicts'
)


class ChannelSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What holds in a channel."""

    # fmt: off
    publish: Annotated[bool, Option(
        _CHANNELS, "Clients may send to it; the backend and the application always may.",
        "Talking is what most channels are for.")] = True
    anonymous_publish: Annotated[bool, Option(
        _CHANNELS, "With `auth` = `optional`, anonymous clients may send too.",
        "Nobody can be held to what a stranger says.")] = False
    presence: Annotated[bool | None, Option(
        _CHANNELS, "Keep members, and tell them who comes and goes.",
        "The name says it; off for a crowd in which that would be most of the traffic.",
        default_text="true for `presence-`")] = None
    max_members: Annotated[int | None, Option(
        _CHANNELS, "Most members: different users with presence, else clients.",
        "A room has no size until somebody gives it one.", low=1, high=1 << 24,
        default_text="no limit")] = None
    max_message_size: Annotated[int | None, Option(
        _CHANNELS, "Largest `data` a client may send to it.",
        "`max_message_size` of the server holds for every message.", unit="bytes", low=1, high=1 << 30,
        default_text="the server's")] = None
    require_auth: Annotated[bool, Option(
        _CHANNELS, "Only authenticated clients may join or send.",
        "With `auth` = `optional` anonymous clients may listen to public channels.")] = False
    require_claim: Annotated[bool, Option(
        _CHANNELS, "Also a public channel needs the claim `channels` to join, and membership to send.",
        "The names `private-` and `presence-` ask for it by themselves.")] = False
    # fmt: on

    def __post_init__(self) -> None:
        if self.anonymous_publish and not self.publish:
            raise ValueError("anonymous_publish: nobody may send with publish = false: take one of them away")
        if self.anonymous_publish and (self.require_auth or self.require_claim):
            other = "require_auth" if self.require_auth else "require_claim"
            raise ValueError(f"anonymous_publish: excluded by {other}: take one of them away")


SETTINGS: Final[Mapping[str, Field]] = fields_of(ChannelSettings)
"""The settings by name."""

DEFAULT: Final = ChannelSettings()
"""What holds where nothing was set."""


class ChannelRule(NamedTuple):
    """Settings of the channels whose names begin so; with `*`, of every channel."""

    prefix: str
    settings: ChannelSettings


class ChannelRules:
    """Finds the settings of a channel: those of the longest prefix that fits, and of no other.

    Args:
        rules: prefixes that differ, in any order.
    """

    def __init__(self, rules: Iterable[ChannelRule] = ()) -> None:
        plain = [("" if prefix == EVERY_CHANNEL else prefix, settings) for prefix, settings in rules]
        self._longest_first = sorted(plain, key=lambda rule: -len(rule[0]))

    def of(self, name: str) -> ChannelSettings:
        """What holds in the channel of that name."""
        for prefix, settings in self._longest_first:
            if name.startswith(prefix):
                return settings
        return DEFAULT


# -------------------------------------------------------------- reading


def read_rules(value: object) -> tuple[ChannelRule, ...]:
    """Reads the option: tables by prefix, or texts such as `chat- publish=false max_members=50`.

    Raises:
        ValueError: says everything that is wrong, each after its prefix and setting; never what was given.
    """
    rules: dict[str, ChannelSettings] = {}
    wrong = []
    for number, (prefix, settings) in enumerate(_entries(value), 1):
        if isinstance(settings, ChannelSettings):
            rules[prefix] = settings
        elif not isinstance(settings, Mapping):
            wrong.append(f"entry {number}: expected a table of settings: " + ", ".join(SETTINGS))
        elif prefix != EVERY_CHANNEL and not CHANNEL_NAME.match(prefix):
            wrong.append(f"entry {number}: {_PREFIX_EXPECTED}")
        elif prefix in rules:
            wrong.append(f'"{prefix}": given more than once, expected once')
        else:
            rules[prefix] = DEFAULT
            try:
                rules[prefix] = _settings(settings)
            except ValueError as error:
                wrong.extend(f'"{prefix}": {line}' for line in error.args)
    if wrong:
        raise ValueError("; ".join(wrong))
    return tuple(ChannelRule(prefix, settings) for prefix, settings in rules.items())


def _entries(value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for prefix, settings in value.items():
            if not isinstance(prefix, str):
                raise ValueError(f"expected {EXPECTED}")
            yield prefix, settings
    elif isinstance(value, str):
        yield _of_text(value)
    elif isinstance(value, Sequence):
        for item in value:
            if isinstance(item, ChannelRule):
                yield item
            elif isinstance(item, str):
                yield _of_text(item)
            else:
                raise ValueError(f"expected {EXPECTED}")
    else:
        raise ValueError(f"expected {EXPECTED}")


def _of_text(text: str) -> tuple[str, object]:
    """`chat- publish=false max_members=50`: no name of a channel has a space."""
    prefix, *words = text.split() or [""]
    settings: dict[str, Any] = {}
    for word in words:
        name, _, value = word.partition("=")
        settings[name] = value
    return prefix, settings


def _settings(given: Mapping[str, object]) -> ChannelSettings:
    """A table of settings.

    Raises:
        ValueError: each of its arguments is one thing that is wrong.
    """
    wrong = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        field = SETTINGS.get(name)
        if field is None:
            wrong.append(f"{str(name)[:64]!r}: no such setting{nearest(str(name), list(SETTINGS))}")
            continue
        try:
            values[name] = field.parse(value)
        except ValueError as error:
            wrong.append(f"{name}: {error}")
    if wrong:
        raise ValueError(*wrong)
    return ChannelSettings(**values)


CHANNEL_SETTINGS: Final = Custom(
    read=read_rules,
    show=lambda rules: ",".join(rule.prefix for rule in rules),
    expects=EXPECTED,
)
"""How the server's option `channel_settings` is read and shown."""
