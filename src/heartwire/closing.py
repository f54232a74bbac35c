"""How connections end: one table of causes, and which close codes are legal where.

Exactly one cause belongs to each ended connection. Its word is the one in the log line, in
`heartwire_disconnects_total{cause=…}`, in `on_disconnect` and in the webhook.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

__all__ = [
    "CAUSES",
    "CLOSE_CODES",
    "Advice",
    "Cause",
    "valid_application_close_code",
    "valid_close_code",
]


class Advice(StrEnum):
    """What a client should do after a close."""

    NONE = "nothing: the client ended it, or is gone"
    APPLICATION = "as the application says"
    RECONNECT = "reconnect"
    RECONNECT_WITH_JITTER = "reconnect after the reason's reconnect_in, with jitter"
    RECONNECT_AFTER = "reconnect after the reason's reconnect_in"
    FIX = "fix itself: the same message will fail again"
    NEW_TOKEN = "get a token first"
    STAY_AWAY = "stay away"
    BACK_OFF = "back off"


class Cause(NamedTuple):
    """One row of the table.

    `code` is the close code sent, or `None` where it is another's choice: the peer's
    (`client_closed`) or the application's (`server_closed`). `peer_gone` has 1006, which we see and
    nobody sends.
    """

    word: str
    code: int | None
    advice: Advice


CAUSES: Final[Mapping[str, Cause]] = MappingProxyType(
    {
        word: Cause(word, code, advice)
        for word, code, advice in (
            ("client_closed", None, Advice.NONE),
            ("peer_gone", 1006, Advice.NONE),
            ("server_closed", None, Advice.APPLICATION),
            ("shutdown", 1001, Advice.RECONNECT_WITH_JITTER),
            ("drain", 1012, Advice.RECONNECT_AFTER),
            ("protocol_error", 1002, Advice.FIX),
            ("unsupported_data", 1003, Advice.FIX),
            ("invalid_utf8", 1007, Advice.FIX),
            ("too_big", 1009, Advice.FIX),
            ("too_many_errors", 1008, Advice.FIX),
            ("message_timeout", 1008, Advice.FIX),
            ("handler_error", 1011, Advice.RECONNECT),
            ("handler_timeout", 1011, Advice.RECONNECT),
            ("auth_timeout", 4401, Advice.NEW_TOKEN),
            ("auth_failed", 4401, Advice.NEW_TOKEN),
            ("token_expired", 4410, Advice.NEW_TOKEN),
            ("token_revoked", 4410, Advice.NEW_TOKEN),
            ("kicked", 4403, Advice.STAY_AWAY),
            ("forbidden", 4403, Advice.STAY_AWAY),
            ("ping_timeout", 4408, Advice.RECONNECT),
            ("write_timeout", 4408, Advice.RECONNECT),
            ("read_deadline", 4408, Advice.RECONNECT),
            ("rate_limited", 4429, Advice.BACK_OFF),
            ("slow_consumer", 4503, Advice.RECONNECT),
        )
    }
)

CLOSE_CODES: Final[Mapping[str, int]] = MappingProxyType(
    {cause.word: cause.code for cause in CAUSES.values() if cause.code is not None}
)
"""The close code of each cause that has a fixed one."""


def valid_close_code(code: int) -> bool:
    """Whether a CLOSE frame may carry this code.

    1004 is unassigned, 1005, 1006 and 1015 are for programs to report and never travel; 1012–1014
    are registered with IANA. Source: RFC 6455 sections 7.4.1 and 7.4.2.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def valid_application_close_code(code: int) -> bool:
    """Whether an application may pass this code to `close()`.

    4400–4599 are the server's own, so that a client can tell who closed and why.
    """
    return code == 1000 or 3000 <= code <= 3999 or 4000 <= code <= 4399
