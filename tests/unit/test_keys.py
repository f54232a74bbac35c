"""keys: what each key may verify, and what is not taken for a key."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, rsa, x25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from heartwire.keys import (
    HMAC_ALGORITHMS,
    PUBLIC_KEY_ALGORITHMS,
    UnfitKey,
    VerificationKey,
    jwk_keys,
    pem_keys,
    secret_keys,
    short_secrets,
    usable,
)
from signing import SECRET, jwk_set, key_pair

RSA = frozenset(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"))
EVERY = [*HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS]


def pem(private: Any) -> bytes:
    public: bytes = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def unfit(text: bytes) -> str:
    with pytest.raises(UnfitKey) as caught:
        pem_keys(text)
    assert caught.value.__cause__ is None
    return str(caught.value)


@pytest.mark.parametrize("algorithm", EVERY)
def test_a_key_is_for_the_algorithms_of_its_kind(algorithm: str) -> None:
    pair = key_pair(algorithm)
    kind = (
        frozenset(HMAC_ALGORITHMS) if algorithm in HMAC_ALGORITHMS
        else RSA if algorithm in RSA
        else frozenset((algorithm,))
    )  # fmt: skip
    published, problems = jwk_keys(jwk_set(pair), with_secrets=True)
    own = secret_keys([pair.private]) if algorithm in HMAC_ALGORITHMS else pem_keys(pair.pem)
    for (key,) in (published, own):
        assert key.algorithms == kind
        assert usable([key], frozenset((algorithm,)))
        assert not usable([key], frozenset(EVERY) - kind)
    assert problems == []
    assert published[0].key_id == "k1"
    assert own[0].key_id is None


def test_no_key_shows_itself() -> None:
    (key,) = secret_keys([SECRET])
    assert SECRET not in repr(key) + repr(key.__rich_repr__())


# PEM


def test_several_keys_of_one_file_count() -> None:
    text = b"first\n" + key_pair("RS256").pem + b"\nsecond\n" + key_pair("ES256").pem
    assert [sorted(key.algorithms)[0] for key in pem_keys(text)] == ["PS256", "ES256"]


def test_a_certificate_is_its_key() -> None:
    private = key_pair("ES256").private
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    start = datetime.datetime(2020, 1, 1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name).issuer_name(name).public_key(private.public_key()).serial_number(1)
        .not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
        .sign(private, hashes.SHA256())
    )  # fmt: skip
    (key,) = pem_keys(certificate.public_bytes(Encoding.PEM))
    assert key.material == private.public_key()


def test_pem_that_is_no_public_key() -> None:
    private = key_pair("RS256").private.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    assert unfit(private).startswith("it holds a private key")
    assert unfit(key_pair("ES256").pem + private).startswith("it holds a private key")
    assert unfit(b"") == unfit(SECRET.encode()) == "it holds no PEM public key or certificate"
    assert unfit(key_pair("RS256").pem.replace(b"MII", b"AAA")).startswith("it holds PEM that cannot be read")


def test_keys_of_other_kinds() -> None:
    assert "of 1024 bits: 2048 are needed" in unfit(pem(rsa.generate_private_key(65537, 1024)))
    for private in (
        ec.generate_private_key(ec.SECP256K1()),
        x25519.X25519PrivateKey.generate(),
        dsa.generate_private_key(1024),
    ):
        assert unfit(pem(private)).startswith("a key of a kind that no algorithm here uses")
    assert pem_keys(pem(ed448.Ed448PrivateKey.generate()))[0].algorithms == {"EdDSA"}


# JWK sets


def changed(algorithm: str = "RS256", **fields: Any) -> dict[str, Any]:
    """A JWK with other fields; `...` removes one."""
    merged = {**key_pair(algorithm).jwk, **fields}
    return {name: value for name, value in merged.items() if value is not ...}


def read(*keys: Any, with_secrets: bool = False) -> tuple[list[VerificationKey], list[str]]:
    found, problems = jwk_keys(jwk_set(*keys), with_secrets=with_secrets)
    return list(found), problems


@pytest.mark.parametrize(
    ("fields", "algorithms"),
    [
        ({}, RSA),
        ({"use": ...}, RSA),
        ({"kid": ...}, RSA),
        ({"key_ops": ["verify"]}, RSA),
        ({"key_ops": ["sign", "verify"]}, RSA),
        ({"alg": "RS384"}, {"RS384"}),
        ({"alg": "PS256", "x5c": ["anything"], "x": 1}, {"PS256"}),
    ],
)
def test_what_a_jwk_says_it_is_for(fields: dict[str, Any], algorithms: set[str]) -> None:
    (key,), problems = read(changed(**fields))
    assert key.algorithms == algorithms
    assert problems == []


@pytest.mark.parametrize(
    "fields", [{"use": "enc"}, {"key_ops": []}, {"key_ops": ["encrypt"]}, {"use": "enc", "alg": "RSA-OAEP"}]
)
def test_keys_for_something_else_are_passed_over(fields: dict[str, Any]) -> None:
    assert read(changed(**fields)) == ([], [])


@pytest.mark.parametrize(
    ("jwk", "problem"),
    [
        (changed(alg="HS256"), "its `alg` is not one"),
        (changed(alg="ES256"), "its `alg` is not one"),
        (changed(alg="none"), "its `alg` is not one"),
        (changed("ES256", alg="ES384"), "its `alg` is not one"),
        (changed("ES256", crv="P-384"), "its numbers cannot be read"),
        (changed("ES256", crv="secp256k1"), "its numbers cannot be read"),
        (changed("EdDSA", crv="X25519"), "its numbers cannot be read"),
        (changed("ES256", x="AAAA"), "its numbers cannot be read"),
        (changed(n=...), "its numbers cannot be read"),
        (changed(n=5), "its numbers cannot be read"),
        (changed(n="AQAB"), "its numbers cannot be read"),
        (changed(kty="oct"), "it is a secret"),
        (changed(kty="RSAx"), "`kty` is none of"),
        (changed(kty=5), "`kty`, `kid`"),
        (changed(kid=5), "`kty`, `kid`"),
        (changed(key_ops="verify"), "`kty`, `kid`"),
        (changed(d="AQAB"), "it is a private key"),
        (key_pair("HS256").jwk, "it is a secret"),
    ],
)
def test_keys_that_cannot_be_used_leave_the_others(jwk: dict[str, Any], problem: str) -> None:
    keys, problems = read(jwk, key_pair("ES256"))
    assert [key.algorithms for key in keys] == [{"ES256"}]
    (said,) = problems
    assert said.startswith(f"key 1: {problem}")
    for value in jwk.values():
        assert not isinstance(value, str) or len(value) < 6 or value not in said


def test_secrets_from_a_file() -> None:
    (key,), problems = read(key_pair("HS256"), with_secrets=True)
    assert (key.material, key.key_id) == (SECRET.encode(), "k1")
    (bound,), _ = read({**key_pair("HS256").jwk, "alg": "HS512"}, with_secrets=True)
    assert bound.algorithms == {"HS512"}
    assert problems == []
    for wrong in ({"kty": "oct"}, {"kty": "oct", "k": ""}, {"kty": "oct", "k": 5}):
        assert read(wrong, with_secrets=True)[0] == []
    pem_as_secret = {"kty": "oct", "k": jwk_k(key_pair("RS256").pem)}
    assert "public key" in read(pem_as_secret, with_secrets=True)[1][0]


def jwk_k(secret: bytes) -> str:
    import base64

    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


@pytest.mark.parametrize(
    "document",
    [
        b"", b"null", b"[]", b"{}", b'"keys"', b'{"keys":{}}', b'{"keys":[1]}', b'{"keys":', b"\xff",
        b'{"keys":[{"kty":"\xff"}]}', b'{"keys":[' + b"[" * 5000, b"<html>", b"\x1f\x8b\x08",
        json.dumps(key_pair("RS256").jwk).encode(),
    ],
)  # fmt: skip
def test_what_is_no_set(document: bytes) -> None:
    with pytest.raises(UnfitKey, match="it is no JWK Set"):
        jwk_keys(document, with_secrets=True)


def test_an_empty_set_is_one() -> None:
    assert jwk_keys(b'{"keys":[],"more":1}', with_secrets=False) == ((), [])


# Secrets


@pytest.mark.parametrize("secret", ["", b"", key_pair("RS256").pem, key_pair("RS256").pem.decode(), 5,
                                    json.dumps(key_pair("HS256").jwk)])  # fmt: skip
def test_secrets_that_are_refused(secret: Any) -> None:
    with pytest.raises(UnfitKey, match="a secret is empty, or the text of a public key") as caught:
        secret_keys([SECRET, secret])
    assert caught.value.__context__ is None


def test_short_secrets() -> None:
    assert short_secrets(secret_keys(["x" * 32])) is None
    assert short_secrets(pem_keys(key_pair("ES256").pem)) is None
    one = short_secrets(secret_keys(["short"]))
    assert one is not None
    assert one.startswith("The JWT secret is shorter than 32 bytes")
    two = short_secrets(secret_keys(["short", SECRET, "x" * 31]))
    assert two is not None
    assert two.startswith("2 of the JWT secrets are shorter")
