"""errors and closing: what is raised can be read, copied and logged; the table of causes is complete."""

from __future__ import annotations

import copy
import pickle

import pytest

from heartwire import errors
from heartwire.closing import (
    CAUSES,
    CLOSE_CODES,
    Advice,
    valid_application_close_code,
    valid_close_code,
)
from heartwire.errors import (
    ActionError,
    ConfigError,
    ConnectionClosed,
    HeartwireError,
    LocalProtocolError,
    ProtocolError,
    Refusal,
    RemoteProtocolError,
    TokenError,
)

EXAMPLES = [
    (LocalProtocolError("a pong of 126 bytes"), "a pong of 126 bytes"),
    (RemoteProtocolError(1002, "reserved bit"), "reserved bit (close code 1002)"),
    (ConnectionClosed(), "connection closed: peer_gone (code 1006)"),
    (
        ConnectionClosed(1000, "bye\nERROR forged", "client_closed"),
        "connection closed: client_closed (code 1000, reason 'bye\\nERROR forged')",
    ),
    (ActionError("not_a_member"), "not_a_member"),
    (ActionError("not_a_member", "join first"), "not_a_member: join first"),
    (ConfigError("port", "must be below 65536"), "port: must be below 65536"),
    (Refusal(429, "rate_limited", "Too many.", (("Retry-After", "3"),)), "429 rate_limited: Too many."),
    (TokenError("token_expired", "The token has expired."), "token_expired: The token has expired."),
]


@pytest.mark.parametrize(("error", "text"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_text_copy_and_pickle(error: HeartwireError, text: str) -> None:
    for same in (error, copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert type(same) is type(error)
        assert str(same) == text
        assert vars(same) == vars(error)


def test_hierarchy() -> None:
    for name in errors.__all__:
        kind = getattr(errors, name)
        if isinstance(kind, type):
            assert issubclass(kind, HeartwireError)
    assert issubclass(LocalProtocolError, ProtocolError)
    assert issubclass(RemoteProtocolError, ProtocolError)
    assert not issubclass(ConnectionClosed, ProtocolError)


@pytest.mark.parametrize("status", [0, 101, 200, 302, 399, 600, 1000])
def test_refusal_has_an_error_status(status: int) -> None:
    with pytest.raises(ValueError, match="from 400 to 599"):
        Refusal(status, "x", "y")


@pytest.mark.parametrize(
    "header",
    [
        ("X", "a\r\nSet-Cookie: b"),
        ("X", "a\n"),
        ("X", "a\0"),
        ("X", "\u20ac"),
        ("X\r\nY", "a"),
        ("X Y", "a"),
        ("", "a"),
        ("Content-Length", "0"),
        ("connection", "keep-alive"),
        ("Transfer-Encoding", "chunked"),
    ],
)
def test_refusal_takes_no_header_that_splits_the_answer(header: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="cannot be part of a refusal"):
        Refusal(403, "x", "y", (header,))


# protocol.md 4: cause, code, what the client should do
CAUSE_ROWS = {
    "client_closed": (None, Advice.NONE),
    "peer_gone": (1006, Advice.NONE),
    "server_closed": (None, Advice.APPLICATION),
    "shutdown": (1001, Advice.RECONNECT_WITH_JITTER),
    "drain": (1012, Advice.RECONNECT_AFTER),
    "protocol_error": (1002, Advice.FIX),
    "unsupported_data": (1003, Advice.FIX),
    "invalid_utf8": (1007, Advice.FIX),
    "too_big": (1009, Advice.FIX),
    "too_many_errors": (1008, Advice.FIX),
    "message_timeout": (1008, Advice.FIX),
    "handler_error": (1011, Advice.RECONNECT),
    "handler_timeout": (1011, Advice.RECONNECT),
    "auth_timeout": (4401, Advice.NEW_TOKEN),
    "auth_failed": (4401, Advice.NEW_TOKEN),
    "token_expired": (4410, Advice.NEW_TOKEN),
    "token_revoked": (4410, Advice.NEW_TOKEN),
    "kicked": (4403, Advice.STAY_AWAY),
    "forbidden": (4403, Advice.STAY_AWAY),
    "ping_timeout": (4408, Advice.RECONNECT),
    "write_timeout": (4408, Advice.RECONNECT),
    "read_deadline": (4408, Advice.RECONNECT),
    "rate_limited": (4429, Advice.BACK_OFF),
    "slow_consumer": (4503, Advice.RECONNECT),
}


def test_table_of_causes() -> None:
    assert {word: (cause.code, cause.advice) for word, cause in CAUSES.items()} == CAUSE_ROWS
    assert all(word == cause.word for word, cause in CAUSES.items())
    assert dict(CLOSE_CODES) == {word: code for word, (code, _) in CAUSE_ROWS.items() if code is not None}


def test_what_we_send_may_travel() -> None:
    for word, code in CLOSE_CODES.items():
        assert valid_close_code(code) == (word != "peer_gone")
        assert not valid_application_close_code(code), "an application must not pass for the server"


def test_close_codes_on_the_wire() -> None:
    legal = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
    assert {code for code in range(-1, 70000) if valid_close_code(code)} == legal


def test_close_codes_of_applications() -> None:
    legal = {1000, *range(3000, 4400)}
    assert {code for code in range(-1, 70000) if valid_application_close_code(code)} == legal
