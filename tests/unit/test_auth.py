"""auth: which tokens are accepted, what they say, and what is never told about them."""

from __future__ import annotations

import base64
import gc
import hashlib
import hmac
import json
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import jwt
import msgspec
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from heartwire.auth import (
    MAX_TOKEN_BYTES,
    TokenVerifier,
)
from heartwire.errors import ConfigError, TokenError
from heartwire.keyring import KeyRing
from heartwire.keys import UnfitKey, VerificationKey, secret_keys
from heartwire.token_cache import TokenCache

SECRET = "a secret of thirty-two bytes ...!"
OTHER = "another secret, 32 bytes long...!"
NOW = 1_800_000_000.0


def segment(data: bytes | dict[str, Any]) -> str:
    raw = data if isinstance(data, bytes) else json.dumps(data).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def sign(
    payload: bytes | dict[str, Any],
    secret: str | bytes = SECRET,
    header: bytes | dict[str, Any] | None = None,
    digest: Callable[..., Any] = hashlib.sha256,
) -> str:
    """A token made by hand, so that it may be wrong in any way."""
    text = f"{segment(header if header is not None else {'alg': 'HS256', 'typ': 'JWT'})}.{segment(payload)}"
    key = secret if isinstance(secret, bytes) else secret.encode()
    return f"{text}.{segment(hmac.new(key, text.encode(), digest).digest())}"


def claims(**changes: Any) -> dict[str, Any]:
    """Good claims; `changes` replace them, `...` removes."""
    merged = {"sub": "u1", "exp": NOW + 60, **changes}
    return {name: value for name, value in merged.items() if value is not ...}


def ring(*secrets: str | bytes) -> KeyRing:
    return KeyRing(secret_keys(secrets))


def verifier(*secrets: str | bytes, **options: Any) -> TokenVerifier:
    return TokenVerifier(ring(*secrets or (SECRET,)), clock=lambda: NOW, **options)


def refused(token: str, by: TokenVerifier | None = None) -> TokenError:
    with pytest.raises(TokenError) as caught:
        (by or verifier()).verify(token)
    error = caught.value
    shown = "".join(traceback.format_exception(error, chain=True)).partition("heartwire.errors.TokenError")[2]
    for part in token.split("."):
        assert len(part) < 8 or part not in shown
    assert error.__context__ is None
    assert error.__cause__ is None
    return error


def test_credentials() -> None:
    channels = ["private-a", "presence-*"]
    given_claims = claims(username="Ann", email="ann@example.com", roles=["x"], channels=channels, jti="1")
    payload = json.dumps(given_claims).encode()
    credentials = verifier().verify(sign(payload))
    assert credentials.user_id == "u1"
    assert credentials.username == "Ann"
    assert credentials.expires_at == NOW + 60
    assert credentials.claims_json == payload
    assert credentials.claims == given_claims
    assert credentials.claims is not credentials.claims
    assert credentials.channels == ("private-a", "presence-*")
    assert credentials.allows_channel("private-a")
    assert credentials.allows_channel("presence-lobby")
    assert not credentials.allows_channel("private-b")


def test_smallest_token() -> None:
    credentials = verifier().verify(sign(claims()))
    assert (credentials.username, credentials.channels) == (None, ())
    assert not credentials.allows_channel("private-a")


def test_token_made_by_pyjwt() -> None:
    token = jwt.encode({"sub": "ünï", "exp": int(NOW) + 60}, SECRET, algorithm="HS256")
    assert verifier().verify(token).user_id == "ünï"


def test_credentials_are_compact_and_frozen() -> None:
    credentials = verifier().verify(sign(claims()))
    assert not gc.is_tracked(credentials)
    assert not hasattr(credentials, "__dict__")
    with pytest.raises(AttributeError):
        credentials.user_id = "root"  # type: ignore[misc]


def test_text_forms_hide_claims() -> None:
    credentials = verifier().verify(sign(claims(email="ann@example.com", channels=["private-x"])))
    rich = repr(credentials.__rich_repr__())
    for shown in (repr(credentials), str(credentials), repr([credentials]), rich):
        assert "u1" in shown
        assert "ann@" not in shown
        assert "private-x" not in shown
    for holder in (verifier(), *ring(SECRET).find("HS256", None), ring(SECRET)):
        assert SECRET not in repr(holder)
    assert SECRET not in repr(ring(SECRET).find("HS256", None)[0].__rich_repr__())


# Signatures


def test_wrong_key() -> None:
    assert refused(sign(claims(), OTHER)).code == "token_invalid"


def test_expired_with_wrong_key_is_invalid() -> None:
    assert refused(sign(claims(exp=NOW - 1), OTHER)).code == "token_invalid"


def test_rotation() -> None:
    both = verifier(OTHER, SECRET.encode())
    assert both.verify(sign(claims(), SECRET)).user_id == "u1"
    assert both.verify(sign(claims(), OTHER)).user_id == "u1"
    assert refused(sign(claims(), "a third secret of 32 bytes ....!"), both).code == "token_invalid"
    assert refused(sign(claims(exp=1), SECRET), both).code == "token_expired"


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, ["HS256"], {"a": 1}, 5])
@pytest.mark.parametrize("signed", [True, False])
def test_none_and_nonsense_algorithms(alg: object, signed: bool) -> None:
    token = sign(claims(), header={"alg": alg})
    if not signed:
        token = token.rpartition(".")[0] + "."
    assert refused(token).code == "token_invalid"


def test_none_with_pyjwt() -> None:
    assert refused(jwt.encode(claims(exp=int(NOW) + 60), "", algorithm="none")).code == "token_invalid"


@pytest.mark.parametrize("alg", ["HS384", "HS512", "RS256", "ES256", "EdDSA", "hs256"])
def test_algorithms_that_are_not_configured(alg: str) -> None:
    digest = getattr(hashlib, f"sha{alg[2:]}", hashlib.sha256) if alg.startswith("HS") else hashlib.sha256
    assert refused(sign(claims(), header={"alg": alg}, digest=digest)).code == "token_invalid"


@pytest.mark.parametrize(
    ("alg", "digest"), [("HS256", hashlib.sha256), ("HS384", hashlib.sha384), ("HS512", hashlib.sha512)]
)
def test_algorithms_that_are(alg: str, digest: Callable[..., Any]) -> None:
    every = verifier(algorithms=["HS256", "HS384", "HS512", "HS256"])
    only = verifier(algorithms=[alg])
    token = sign(claims(), header={"alg": alg}, digest=digest)
    assert every.verify(token).user_id == only.verify(token).user_id == "u1"
    other = hashlib.sha512 if digest is hashlib.sha256 else hashlib.sha256
    assert refused(sign(claims(), header={"alg": alg}, digest=other), every).code == "token_invalid"


@pytest.fixture(scope="module")
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def test_algorithm_confusion(rsa_key: rsa.RSAPrivateKey) -> None:
    """A public key is public: it must not verify as HMAC secret; nor a secret anything asymmetric."""
    public = rsa_key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    der = rsa_key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    for secret in (public, public.decode(), der, json.dumps({"kty": "oct", "k": "AAAA"})):
        with pytest.raises(UnfitKey) as caught:
            verifier(secret)
        assert caught.value.__context__ is None
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert refused(sign(claims(), public)).code == "token_invalid"
        token = jwt.encode({"sub": "u1", "exp": int(NOW) + 60}, rsa_key, algorithm="RS256")
        assert refused(token).code == "token_invalid"
        assert ring(SECRET).find("RS256", None) == ()


class RecordingSource:
    """A key source that says what it was asked, with a key for one algorithm."""

    def __init__(self, algorithm: str) -> None:
        self.key = VerificationKey(SECRET.encode(), frozenset({algorithm}))
        self.asked: list[tuple[str, str | None]] = []

    def find(self, algorithm: str, key_id: str | None) -> list[VerificationKey]:
        self.asked.append((algorithm, key_id))
        return [self.key]

    def may_learn(self, algorithm: str, key_id: str | None) -> bool:
        return False

    async def learn(self, timeout_s: float) -> bool:
        raise AssertionError("nothing can be learned here")

    def __len__(self) -> int:
        return 1


def test_key_source_is_asked_for_configured_algorithms_only() -> None:
    by = verifier(algorithms=["HS256"])
    by._keys = source = RecordingSource("HS256")
    assert by.verify(sign(claims(), header={"alg": "HS256", "kid": "k1"})).user_id == "u1"
    assert source.asked == [("HS256", "k1")]
    for alg in ("HS512", "RS256", "none"):
        refused(sign(claims(), header={"alg": alg}), by)
    assert source.asked == [("HS256", "k1")]


def test_key_is_used_for_its_own_algorithms_only() -> None:
    by = verifier(algorithms=["HS256", "HS512"])
    by._keys = RecordingSource("HS512")
    assert refused(sign(claims()), by).code == "token_invalid"
    by._keys = RecordingSource("HS256")
    assert by.verify(sign(claims())).user_id == "u1"


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "HS256", "crit": ["exp"], "exp": 1},
        {"alg": "HS256", "crit": []},
        {"alg": "HS256", "crit": "b64"},
        {"alg": "HS256", "b64": False, "crit": ["b64"]},
        {"alg": "HS256", "kid": 5},
        {"typ": "JWT"},
        {},
        b"[]",
        b"null",
        b'{"alg":"HS256"',
        b'{"alg":"HS256","x":"\xff"}',
        b'{"alg":"HS256","x":' + b"[" * 5000,
        b'{"alg":"none","alg":"HS512"}',
        b"",
    ],
)
def test_odd_headers(header: bytes | dict[str, Any]) -> None:
    assert refused(sign(claims(), header=header)).code == "token_invalid"


def test_key_id_is_only_a_hint() -> None:
    token = sign(claims(), header={"alg": "HS256", "kid": "../../dev/null", "jku": "https://evil.example"})
    assert verifier().verify(token).user_id == "u1"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda token: "",
        lambda token: ".",
        lambda token: "..",
        lambda token: token + ".",
        lambda token: "." + token,
        lambda token: token + ".x",
        lambda token: token[:-1],
        lambda token: token.rpartition(".")[0],
        lambda token: token.rpartition(".")[0] + ".",
        lambda token: token.replace(".", ".A", 1),
        lambda token: token + "\n",
        lambda token: " " + token,
        lambda token: token + "\0",
        lambda token: "Bearer " + token,
        lambda token: token + "\ud800",
        lambda token: "\xe9" + token,
        lambda token: token[0:5] + "!" + token[5:],
    ],
)
def test_spoilt_tokens(spoil: Callable[[str], str]) -> None:
    assert refused(spoil(sign(claims()))).code == "token_invalid"


def test_every_character_counts() -> None:
    token = sign(claims())
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    for place, character in enumerate(token):
        other = alphabet[(alphabet.find(character) + 7) % 64]
        assert refused(token[:place] + other + token[place + 1 :]).code == "token_invalid"


def test_longest_token() -> None:
    room = (MAX_TOKEN_BYTES - len(sign(claims(x="")))) * 3 // 4
    assert len(token := sign(claims(x="y" * (room - 4)))) > MAX_TOKEN_BYTES - 16
    assert verifier().verify(token).user_id == "u1"
    assert refused(sign(claims(x="y" * (room + 4)))).code == "token_invalid"


# Configuration


@pytest.mark.parametrize(
    ("secrets", "options", "option"),
    [
        ([SECRET], {"algorithms": []}, "jwt_algorithms"),
        ([SECRET], {"algorithms": "HS256"}, "jwt_algorithms"),
        ([SECRET], {"algorithms": ["none"]}, "jwt_algorithms"),
        ([SECRET], {"algorithms": ["HS256", "ES256K"]}, "jwt_algorithms"),
    ],
)
def test_configuration(secrets: Any, options: dict[str, Any], option: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TokenVerifier(ring(*secrets), **options)
    assert caught.value.option == option
    assert SECRET not in str(caught.value)


def test_short_secrets_raise_no_warning_for_each_token() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert verifier("short").verify(sign(claims(), "short")).user_id == "u1"


def test_required_claims() -> None:
    by = verifier(required_claims=["jti", "email"])
    assert by.verify(sign(claims(jti="", email=0))).user_id == "u1"
    for missing in (claims(jti="1"), claims(jti="1", email=None), claims(email="a")):
        assert refused(sign(missing), by).code == "token_invalid"


def test_publish_patterns() -> None:
    free = verifier().verify(sign(claims()))
    assert free.publish is None
    assert free.allows_publish("anything")
    bound = verifier().verify(sign(claims(publish=["lobby", "private-*"])))
    assert [bound.allows_publish(name) for name in ("lobby", "private-a", "news")] == [True, True, False]
    assert not verifier().verify(sign(claims(publish=[]))).allows_publish("lobby")
    for wrong in ("lobby", [1], {}, True):
        assert refused(sign(claims(publish=wrong))).code == "token_invalid"


# Tokens verified before


def cached(limit: int = 100, **options: Any) -> tuple[TokenVerifier, TokenCache]:
    cache = TokenCache(limit)
    return TokenVerifier(ring(SECRET), cache=cache, **{"clock": lambda: NOW, **options}), cache


def test_a_token_is_verified_once() -> None:
    by, cache = cached()
    token = sign(claims())
    first = by.verify(token)
    by._jws = None  # type: ignore[assignment]  # nothing is verified with it any more
    assert by.verify(token) is first
    assert (cache.hits, cache.misses, len(cache)) == (1, 1, 1)
    assert token.encode() not in b"".join(cache._young)


def test_failures_are_not_kept() -> None:
    by, cache = cached()
    for token in (sign(claims(), OTHER), sign(claims(exp=NOW - 1)), "x", "", "\ud800", "x" * 20_000):
        refused(token, by)
    assert len(cache) == 0


def test_what_is_kept_ends_with_the_token() -> None:
    time = [NOW]
    by, _ = cached(clock=lambda: time[0], leeway_s=5)
    token = sign(claims(exp=NOW + 60))
    by.verify(token)
    time[0] = NOW + 64.9
    by.verify(token)
    time[0] = NOW + 65
    assert refused(token, by).code == "token_expired"


def test_new_keys_empty_the_cache() -> None:
    keys = ring(SECRET)
    cache = TokenCache(100)
    keys.on_change(cache.clear)
    by = TokenVerifier(keys, cache=cache, clock=lambda: NOW)
    token = sign(claims())
    by.verify(token)
    keys.replace_own(secret_keys([OTHER]))
    assert len(cache) == 0
    assert refused(token, by).code == "token_invalid"


def test_payload_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    by = verifier(SECRET, OTHER)
    token = sign(claims())
    decoded: list[bytes] = []

    def recording(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
        def record(data: bytes) -> Any:
            decoded.append(data)
            return decode(data)

        return record

    monkeypatch.setattr(msgspec.json, "decode", recording(msgspec.json.decode))
    monkeypatch.setattr(json, "loads", recording(json.loads))
    by.verify(token)
    assert [data for data in decoded if b"sub" in data] == [json.dumps(claims()).encode()]


# Anything at all


def verified_or_refused(token: str) -> None:
    try:
        credentials = verifier(OTHER, SECRET, algorithms=["HS256", "HS512"]).verify(token)
    except TokenError as error:
        assert error.code in ("token_invalid", "token_expired")  # noqa: PT017
        return
    assert isinstance(credentials.claims, dict)
    assert 1 <= len(credentials.user_id) <= 128


@given(st.text())
def test_any_text(text: str) -> None:
    verified_or_refused(text)
    verified_or_refused(f"{segment({'alg': 'HS256'})}.{text}")
    verified_or_refused(f"{text}.{segment(claims())}.x")


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_signed_bytes(header: bytes, payload: bytes) -> None:
    verified_or_refused(sign(payload))
    verified_or_refused(sign(claims(), header=header))
    verified_or_refused(sign(b'{"sub":"u1","exp":1900000000,"x":' + payload + b"}"))
    verified_or_refused(sign(b'{"sub":"u1","exp":1900000000,"x":"' + payload + b'"}'))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["sub", "exp", "nbf", "iat", "aud", "iss", "jti", "username", "channels", "publish", "x"]
        ),
        JSON,
    ),
    st.dictionaries(st.sampled_from(["alg", "kid", "crit", "b64", "typ", "x"]), JSON),
)
def test_any_claims(changes: dict[str, Any], header: dict[str, Any]) -> None:
    verified_or_refused(sign({**claims(), **changes}))
    verified_or_refused(sign(changes))
    verified_or_refused(sign(claims(), header={"alg": "HS256", **header}))
