"""Everything heartwire raises.

::

    HeartwireError
    ├── ProtocolError
    │   ├── LocalProtocolError      this program broke a rule of WebSocket: a bug in the caller
    │   └── RemoteProtocolError     the peer did: carries the close code it is answered with
    ├── ConnectionClosed            the connection was used after its end
    ├── ActionError                 raised by a handler: becomes an `error` event for the client
    ├── ConfigError                 an option that cannot be used, by name
    ├── Refusal                     a handshake refused: carries the HTTP answer
    └── TokenError                  a token refused: `token_invalid`, `token_expired` or `keys_missing`

No message holds a token, a key or a secret. All of them can be copied and pickled.
"""

from __future__ import annotations

import re
from typing import Final, Literal

__all__ = [
    "ActionError",
    "ConfigError",
    "ConnectionClosed",
    "HeartwireError",
    "LocalProtocolError",
    "ProtocolError",
    "Refusal",
    "RemoteProtocolError",
    "TokenError",
    "TokenErrorCode",
]

TokenErrorCode = Literal["token_invalid", "token_expired", "keys_missing"]

_field_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*").fullmatch
_OWN_FIELDS: Final = frozenset({"connection", "content-length", "content-type", "date", "transfer-encoding"})


class HeartwireError(Exception):
    """The base of every exception of this package."""


class ProtocolError(HeartwireError):
    """A rule of RFC 6455 was broken; see the two subclasses for by whom."""


class LocalProtocolError(ProtocolError):
    """This program asked for something the protocol forbids: nothing was sent.

    Args:
        message: what was asked for, why it cannot be, and what to do instead.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class RemoteProtocolError(ProtocolError):
    """The peer broke the protocol; the connection ends with `close_code` (RFC 6455 section 7.4.1).

    Args:
        close_code: the code of the CLOSE frame to answer with.
        reason: text of that CLOSE frame; at most 123 bytes of it travel.
    """

    def __init__(self, close_code: int, reason: str) -> None:
        super().__init__(close_code, reason)
        self.close_code = close_code
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason} (close code {self.close_code})"


class ConnectionClosed(HeartwireError):
    """The connection is no longer open; what was to be sent was not sent.

    Args:
        code: the close code, as received or as sent; 1006 when there was no CLOSE frame.
        reason: the reason that came with it, often empty.
        cause: one word of the table in `heartwire.closing`.
    """

    def __init__(self, code: int = 1006, reason: str = "", cause: str = "peer_gone") -> None:
        super().__init__(code, reason, cause)
        self.code = code
        self.reason = reason
        self.cause = cause

    def __str__(self) -> str:
        # The reason is the peer's text: shown as a literal, so that it cannot forge log lines.
        reason = f", reason {self.reason!r}" if self.reason else ""
        return f"connection closed: {self.cause} (code {self.code}{reason})"


class ActionError(HeartwireError):
    """Raised by a handler to answer its action with an `error` event; the connection stays open.

    Args:
        code: a word for programs, such as `not_a_member`.
        message: a sentence for people; the client sees it.
    """

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


class ConfigError(HeartwireError):
    """An option cannot be used as it was given.

    Args:
        option: its keyword name, such as `ping_interval`.
        message: what is wrong with it and what to do; never the value of a secret.
    """

    def __init__(self, option: str, message: str) -> None:
        super().__init__(option, message)
        self.option = option
        self.message = message

    def __str__(self) -> str:
        return f"{self.option}: {self.message}"


class Refusal(HeartwireError):
    """A handshake is refused; `heartwire.handshake.refusal_bytes` writes the HTTP answer.

    Args:
        status: HTTP status code, 400–599.
        code: a word for programs, such as `bad_request`.
        message: a sentence for people; the peer sees it, so it repeats nothing the peer sent in secret.
        headers: further header fields of the answer, in order.

    Raises:
        ValueError: the status or a header could not be sent; found here, where its author sees it.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: tuple[tuple[str, str], ...] = ()
    ) -> None:
        if not 400 <= status <= 599:
            raise ValueError(f"a refusal has a status from 400 to 599, not {status}")
        for name, value in headers:
            if not _field_name(name) or name.lower() in _OWN_FIELDS or not _field_value(value):
                raise ValueError(
                    f"the header {name!r} cannot be part of a refusal: its name must be a token other than "
                    f"{', '.join(sorted(_OWN_FIELDS))}, its value one line of Latin-1"
                )
        super().__init__(status, code, message, headers)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers

    def __str__(self) -> str:
        return f"{self.status} {self.code}: {self.message}"


class TokenError(HeartwireError):
    """A token is not accepted.

    Args:
        code: `token_expired` if it was good once; `keys_missing` if nobody can say; else `token_invalid`.
        detail: why, in words for the client; never the token nor any part of it.
    """

    def __init__(self, code: TokenErrorCode, detail: str) -> None:
        super().__init__(code, detail)
        self.code: TokenErrorCode = code
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"
