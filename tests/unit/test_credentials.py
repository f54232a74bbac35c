"""credentials: who a client is, and which channels patterns let it into."""

from __future__ import annotations

import fnmatch
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartwire.credentials import Credentials, credentials_of, matches_pattern
from heartwire.errors import Refusal


@pytest.mark.parametrize(
    ("pattern", "name", "fits"),
    [
        ("private-a", "private-a", True),
        ("private-a", "private-ab", False),
        ("private-a", "private-", False),
        ("*", "", True),
        ("*", "anything", True),
        ("private-*", "private-", True),
        ("private-*", "presence-x", False),
        ("*-a", "private-a", True),
        ("a*a", "a", False),
        ("a*a", "aa", True),
        ("a*b*c", "a-b-c", True),
        ("a*b*c", "a-c-b", False),
        ("a*bc*c", "abc", False),
        ("**", "x", True),
        ("private-?", "private-a", False),
        ("private-[a]", "private-a", False),
        ("private-.", "private-a", False),
        ("", "", True),
        ("", "a", False),
        ("Private-a", "private-a", False),
    ],
)
def test_patterns(pattern: str, name: str, fits: bool) -> None:
    assert matches_pattern(pattern, name) is fits
    assert Credentials("u", None, None, b"{}", ("x", pattern)).allows_channel(name) is (fits or name == "x")


@given(st.text(alphabet="ab*", max_size=10), st.text(alphabet="ab", max_size=12))
def test_patterns_like_fnmatch(pattern: str, name: str) -> None:
    assert matches_pattern(pattern, name) == fnmatch.fnmatchcase(name, pattern)


# What an application's authenticator returns


def test_identities() -> None:
    assert credentials_of("alice").user_id == "alice"
    assert credentials_of("alice").claims == {"sub": "alice"}
    claims = {"sub": 7, "username": "A", "exp": 9.5, "channels": ["a"], "publish": ["b"], "x": 1}
    payload = json.dumps(claims, separators=(",", ":")).encode()
    made = credentials_of(claims)
    assert made == Credentials("7", "A", 9.5, payload, ("a",), ("b",))
    assert credentials_of(made) is made
    assert credentials_of({"sub": "a", "publish": []}).publish == ()


@pytest.mark.parametrize("identity", [None, False, True, 7, [], b"alice"])
def test_what_is_no_identity(identity: Any) -> None:
    with pytest.raises(Refusal) as caught:
        credentials_of(identity)
    assert caught.value.status == 401
