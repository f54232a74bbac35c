"""auth: what is read from the claims of a token, and which claims are refused."""

from __future__ import annotations

from typing import Any

import pytest

from heartwire.auth import (
    TokenVerifier,
)
from unit.test_auth import NOW, SECRET, claims, refused, ring, sign, verifier


@pytest.mark.parametrize("sub", ["u", "x" * 128, "\xe9" * 128, "a b", "user|42", "\U0001f600", "0"])
def test_subjects(sub: str) -> None:
    assert verifier().verify(sign(claims(sub=sub))).user_id == sub


@pytest.mark.parametrize(
    "sub",
    [..., None, "", "x" * 129, 5, 5.5, True, ["u1"], {"a": 1}, "a\nb", "a\0", "\x7f", "\u200b", "\u2028"],
)
def test_subjects_that_are_refused(sub: object) -> None:
    assert refused(sign(claims(sub=sub))).code == "token_invalid"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"exp": NOW}, "token_expired"),
        ({"exp": NOW - 1}, "token_expired"),
        ({"exp": 0}, "token_expired"),
        ({"exp": -1e308}, "token_expired"),
        ({"exp": NOW - 1, "iss": 5}, "token_invalid"),
        ({"exp": NOW - 1, "aud": "x"}, "token_invalid"),
        ({"exp": NOW - 1, "nbf": NOW + 9}, "token_invalid"),
        ({"exp": NOW - 1, "sub": ""}, "token_invalid"),
        ({"exp": ...}, "token_invalid"),
        ({"exp": None}, "token_invalid"),
        ({"exp": "1900000000"}, "token_invalid"),
        ({"exp": True}, "token_invalid"),
        ({"exp": [NOW + 60]}, "token_invalid"),
        ({"exp": 10**400}, "token_invalid"),
        ({"exp": 1e308}, "token_invalid"),
        ({"exp": (NOW + 60) * 1000}, "token_invalid"),
        ({"exp": 253_402_300_800}, "token_invalid"),
        ({"nbf": NOW + 1}, "token_invalid"),
        ({"nbf": "0"}, "token_invalid"),
        ({"nbf": None}, "token_invalid"),
        ({"iat": NOW + 1}, "token_invalid"),
        ({"iat": "now"}, "token_invalid"),
        ({"iat": False}, "token_invalid"),
        ({"iss": ["a"]}, "token_invalid"),
        ({"jti": 5}, "token_invalid"),
        ({"username": 5}, "token_invalid"),
        ({"channels": "private-a"}, "token_invalid"),
        ({"channels": [5]}, "token_invalid"),
        ({"channels": {"private-a": True}}, "token_invalid"),
        ({"aud": "service"}, "token_invalid"),
        ({"aud": ["service"]}, "token_invalid"),
        ({"aud": 5}, "token_invalid"),
        ({"aud": [5]}, "token_invalid"),
    ],
)
def test_claims_that_are_refused(changes: dict[str, Any], code: str) -> None:
    assert refused(sign(claims(**changes))).code == code


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": NOW + 0.001},
        {"exp": 253_402_300_799},
        {"nbf": NOW},
        {"iat": NOW},
        {"iat": NOW + 0.9, "nbf": NOW + 0.9},
        {"iss": "anybody"},
        {"aud": ""},
        {"aud": []},
        {"aud": None},
        {"username": None},
        {"channels": None},
        {"channels": []},
        {"email": 5, "roles": "admin", "x": {"y": [1, None, "\u00fc"]}},
    ],
)
def test_claims_that_are_accepted(changes: dict[str, Any]) -> None:
    assert verifier().verify(sign(claims(**changes))).claims == claims(**changes)


def test_leeway() -> None:
    lenient = verifier(leeway_s=10)
    assert lenient.verify(sign(claims(exp=NOW - 9, nbf=NOW + 10, iat=NOW + 10))).expires_at == NOW - 9
    assert refused(sign(claims(exp=NOW - 10)), lenient).code == "token_expired"
    assert refused(sign(claims(nbf=NOW + 11)), lenient).code == "token_invalid"
    assert refused(sign(claims(iat=NOW + 11)), lenient).code == "token_invalid"


def test_the_clock_is_asked_each_time() -> None:
    time = [NOW]
    moving = TokenVerifier(ring(SECRET), clock=lambda: time[0])
    token = sign(claims())
    assert moving.verify(token).expires_at == NOW + 60
    time[0] = NOW + 60
    assert refused(token, moving).code == "token_expired"


def test_no_exp() -> None:
    endless = verifier(allow_no_exp=True)
    assert endless.verify(sign(claims(exp=...))).expires_at is None
    assert refused(sign(claims(exp=NOW - 1)), endless).code == "token_expired"
    assert refused(sign(claims(exp=None)), endless).code == "token_invalid"


@pytest.mark.parametrize(
    ("audience", "aud", "good"),
    [
        ("me", "me", True),
        ("me", ["you", "me"], True),
        (["me", "us"], "us", True),
        (["me", "us"], ["you", "us"], True),
        ("me", "you", False),
        ("me", "m", False),
        ("me", ["you"], False),
        ("me", [], False),
        ("me", ..., False),
        ("me", None, False),
        (["me", "us"], "you", False),
    ],
)
def test_audience(audience: str | list[str], aud: object, good: bool) -> None:
    token = sign(claims(aud=aud))
    if good:
        assert verifier(audience=audience).verify(token).user_id == "u1"
    else:
        assert "`aud`" in refused(token, verifier(audience=audience)).detail


@pytest.mark.parametrize(
    ("issuer", "iss", "good"),
    [
        ("me", "me", True),
        (["me", "us"], "us", True),
        ("me", "you", False),
        ("mee", "me", False),
        ("me", ..., False),
        ("me", None, False),
        (["me", "us"], "you", False),
    ],
)
def test_issuer(issuer: str | list[str], iss: object, good: bool) -> None:
    token = sign(claims(iss=iss))
    if good:
        assert verifier(issuer=issuer).verify(token).user_id == "u1"
    else:
        assert "`iss`" in refused(token, verifier(issuer=issuer)).detail


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"null",
        b"[]",
        b'"u1"',
        b"{",
        b'{"sub":"\xff","exp":1900000000}',
        b'{"sub":"\\ud800","exp":1900000000}',
        b'{"sub":"u1","exp":1900000000,"x":"\xff"}',
        b'{"sub":"u1","exp":1900000000,"\xff":1}',
        b'{"sub":"u1","exp":1900000000,"x":1e999}',
        b'{"sub":"u1","exp":1900000000,"x":NaN}',
        b'{"sub":"u1","exp":NaN}',
        b'{"sub":"u1","exp":1e999}',
        b'{"sub":"u1","exp":' + b"9" * 5000 + b"}",
        b'{"sub":"u1","exp":1900000000,"x":' + b"[" * 40 + b"]" * 40 + b"}",
        b'{"sub":"u1","exp":1900000000,"x":' + b"[" * 5000,
        b'{"sub":"u1","exp":1900000000,"x":' + b'{"a":' * 2000 + b"1" + b"}" * 2001,
    ],
)
def test_odd_payloads(payload: bytes) -> None:
    """Also in fields that nobody reads: `Credentials.claims` must not fail later."""
    assert refused(sign(payload)).code == "token_invalid"


def test_many_brackets_are_not_depth() -> None:
    wide = {"x": [[] for _ in range(200)], "y": "[" * 200}
    assert verifier().verify(sign(claims(**wide))).claims == claims(**wide)
