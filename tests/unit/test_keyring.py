"""keyring: which keys are tried for a token, and which algorithms go with which keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heartwire.config import ServerConfig
from heartwire.errors import ConfigError
from heartwire.keyring import WITHOUT_ID_MOST, KeyRing, accepted_algorithms, read_keys
from heartwire.keys import VerificationKey, jwk_keys, pem_keys, secret_keys
from signing import SECRET, jwk_set, key_pair

DEFAULT = ("RS256", "ES256", "EdDSA")


class Remote:
    """Keys that may come."""

    def __init__(self, *, may: bool = True) -> None:
        self.may = may
        self.asked: list[float] = []

    def may_learn(self) -> bool:
        return self.may

    async def learn(self, timeout_s: float) -> bool:
        self.asked.append(timeout_s)
        return self.may


def named(algorithm: str, kid: str | None) -> VerificationKey:
    return VerificationKey(f"{algorithm} {kid}", frozenset((algorithm,)), kid)


def materials(ring: KeyRing, algorithm: str, kid: str | None) -> list[Any]:
    return [key.material for key in ring.find(algorithm, kid)]


def test_keys_are_found_by_algorithm_and_id() -> None:
    ring = KeyRing([named("RS256", "a"), named("RS256", "b"), named("ES256", "a"), named("RS256", None)])
    assert materials(ring, "RS256", "a") == ["RS256 a", "RS256 None"]
    assert materials(ring, "ES256", "a") == ["ES256 a"]
    assert materials(ring, "RS256", "other") == ["RS256 None"]
    assert materials(ring, "RS256", None) == ["RS256 a", "RS256 b", "RS256 None"]
    assert materials(ring, "HS256", "a") == []
    assert len(ring) == 4
    assert "RS256 a" not in repr(ring)


def test_two_keys_may_have_one_id() -> None:
    ring = KeyRing([VerificationKey(i, frozenset(("RS256",)), "a") for i in range(2)])
    assert materials(ring, "RS256", "a") == [0, 1]


def test_a_token_without_an_id_is_not_tried_for_ever() -> None:
    ring = KeyRing([named("RS256", str(i)) for i in range(1000)])
    assert len(ring.find("RS256", None)) == WITHOUT_ID_MOST
    assert materials(ring, "RS256", "999") == ["RS256 999"]


def test_keys_for_other_algorithms_do_not_count() -> None:
    ring = KeyRing(pem_keys(key_pair("RS256").pem), algorithms=("ES256",))
    assert len(ring) == 0
    assert ring.find("RS256", None) == ()


def test_replacing_keys() -> None:
    changes: list[int] = []
    ring = KeyRing([named("HS256", None)])
    ring.on_change(lambda: changes.append(len(ring)))
    ring.replace_published([named("RS256", "a"), named("RS256", "b")])
    ring.replace_own([])
    assert changes == [3, 2]
    assert materials(ring, "HS256", None) == []
    assert materials(ring, "RS256", "b") == ["RS256 b"]


def test_what_may_be_learned() -> None:
    ring = KeyRing([named("RS256", "a"), named("HS256", None)])
    assert not ring.may_learn("RS256", "b")
    ring.remote = Remote()
    assert ring.may_learn("RS256", "b")
    assert ring.may_learn("ES256", None)
    assert not ring.may_learn("RS256", "a")
    assert not ring.may_learn("RS256", None)
    assert not ring.may_learn("HS256", "b")  # a secret is never published
    ring.remote.may = False
    assert not ring.may_learn("RS256", "b")


async def test_learning() -> None:
    assert not await KeyRing().learn(1)
    remote = Remote()
    assert await KeyRing(remote=remote).learn(2.5)
    assert remote.asked == [2.5]


# From the options


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "pem").write_bytes(key_pair("ES256").pem)
    (tmp_path / "jwks").write_bytes(jwk_set(key_pair("RS256"), key_pair("HS256", "h")))
    (tmp_path / "secrets").write_text(SECRET)
    return {
        "pem": {"jwt_public_key_file": tmp_path / "pem"},
        "jwks": {"jwks_file": tmp_path / "jwks"},
        "url": {"jwks_url": "https://id.example.com/jwks.json"},
        "secret": {"jwt_secret": SECRET},
        "secret file": {"jwt_secret_file": tmp_path / "secrets"},
    }


@pytest.mark.parametrize(
    ("sources", "algorithms"),
    [
        ([], ()),
        (["secret"], ("HS256",)),
        (["secret file"], ("HS256",)),
        (["pem"], DEFAULT),
        (["jwks"], DEFAULT),
        (["url"], DEFAULT),
        (["secret", "url"], ("HS256", *DEFAULT)),
    ],
)
def test_algorithms_that_go_with_the_keys(files: Any, sources: list[str], algorithms: Any) -> None:
    options = {name: value for source in sources for name, value in files[source].items()}
    assert accepted_algorithms(ServerConfig.from_kwargs(**options)) == algorithms


@pytest.mark.parametrize(
    ("sources", "algorithms"),
    [
        (["secret"], ["RS256"]), (["secret"], ["HS256", "RS256"]), (["pem"], ["HS256"]),
        (["pem"], ["RS256"]), (["pem"], ["ES384"]), (["url"], ["HS256"]), (["url"], ["HS256", "RS256"]),
        (["secret", "url"], ["RS256"]), (["secret", "url"], ["HS256"]), (["secret", "jwks"], ["ES256"]),
        (["jwks"], ["ES256"]),
    ],
)  # fmt: skip
def test_algorithms_that_do_not(files: Any, sources: list[str], algorithms: list[str]) -> None:
    options = {name: value for source in sources for name, value in files[source].items()}
    with pytest.raises(ConfigError) as caught:
        read_keys(ServerConfig.from_kwargs(jwt_algorithms=algorithms, **options))
    assert caught.value.option == ("jwks_file" if sources == ["jwks"] else "jwt_algorithms")


def test_reading_all_of_them(files: Any) -> None:
    options = {name: value for source in ("secret", "secret file", "pem", "jwks") for name, value in
               files[source].items()}  # fmt: skip
    keys = read_keys(ServerConfig.from_kwargs(**options))
    assert [key.key_id for key in keys] == [None, None, None, "k1", "h"]


@pytest.mark.parametrize(
    ("option", "content", "message"),
    [
        ("jwt_public_key_file", None, "cannot read"),
        ("jwt_public_key_file", b"nothing", "it holds no PEM"),
        ("jwks_file", None, "cannot read"),
        ("jwks_file", b"nothing", "it is no JWK Set"),
        ("jwks_file", b'{"keys":[]}', "it holds no key that is of use"),
        ("jwks_file", b'{"keys":[{"kty":"RSA"}]}', "key 1: its numbers cannot be read"),
    ],
)
def test_bad_files(tmp_path: Path, option: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        read_keys(ServerConfig.from_kwargs(**{option: tmp_path / "file"}))
    assert caught.value.option == option


def test_a_public_key_as_secret_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        read_keys(ServerConfig.from_kwargs(jwt_secret=key_pair("RS256").pem.decode()))
    assert caught.value.option == "jwt_secret"


def test_families_do_not_mix() -> None:
    """Whatever a token says: a secret is looked up for HMAC only, a public key for its own kind only."""
    published, _ = jwk_keys(jwk_set(key_pair("RS256"), key_pair("ES256", "k2")), with_secrets=False)
    ring = KeyRing([*secret_keys([SECRET]), *published])
    for algorithm in ("RS256", "ES256", "HS256"):
        for kid in (None, "k1", "k2"):
            assert all(algorithm in key.algorithms for key in ring.find(algorithm, kid))
