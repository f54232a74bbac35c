"""Keys that verify tokens: what each may be used for, and how it is read from a secret, PEM or a JWK.

Each key names the algorithms it is for, all of its own kind: no secret verifies what was signed with a
private key, no public key passes for a secret, and a curve has the one algorithm that is defined for it.
Sans-I/O. Sources: RFC 7517 (JWK), RFC 7518 (algorithms), RFC 8037 (EdDSA), RFC 8725 (best current practices).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import jwt
import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate
from jwt.algorithms import (
    Algorithm,
    ECAlgorithm,
    HMACAlgorithm,
    OKPAlgorithm,
    RSAAlgorithm,
    get_default_algorithms,
)

__all__ = [
    "HMAC_ALGORITHMS",
    "PUBLIC_KEY_ALGORITHMS",
    "UnfitKey",
    "VerificationKey",
    "algorithm_of",
    "jwk_keys",
    "pem_keys",
    "secret_keys",
    "short_secrets",
    "usable",
]

HMAC_ALGORITHMS: Final = ("HS256", "HS384", "HS512")
_RSA_ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
PUBLIC_KEY_ALGORITHMS: Final = (*_RSA_ALGORITHMS, *_CURVES.values(), "EdDSA")

_HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_SHORTEST_RSA_BITS: Final = 2048
_SHORT_SECRET_BYTES: Final = 32
_PEM_BLOCK: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", re.DOTALL)


class UnfitKey(ValueError):
    """Something is not a key that can be used. Says why, and nothing of what it holds."""


class VerificationKey(msgspec.Struct, frozen=True):
    """A key and what it is for.

    Attributes:
        material: what PyJWT takes as key: prepared bytes of an HMAC secret, or a public key object.
        algorithms: the algorithms it may verify, all of one kind.
        key_id: the `kid` it is published under; a key without one is tried for every token.
    """

    material: Any
    algorithms: frozenset[str]
    key_id: str | None = None

    def __repr__(self) -> str:
        return f"<VerificationKey *** for {', '.join(sorted(self.algorithms))}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("material", "***"), ("algorithms", sorted(self.algorithms)), ("key_id", self.key_id)]


def algorithm_of(name: str) -> Algorithm:
    """PyJWT's implementation of an algorithm, one of the two lists above."""
    if name in _HASHES:
        return _PreparedHmac(_HASHES[name])
    return get_default_algorithms()[name]


class _PreparedHmac(HMACAlgorithm):
    """HMAC whose keys `secret_keys` has already looked at: PyJWT would do so again for each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        if not isinstance(key, bytes):
            raise jwt.InvalidKeyError("the key is not a prepared secret")
        return key

    def check_key_length(self, key: bytes) -> str | None:
        # A Python warning for each token and process would be noise: it is said once, at the start.
        return None


# ------------------------------------------------------------------ secrets


def secret_keys(secrets: Iterable[str | bytes]) -> tuple[VerificationKey, ...]:
    """Keys of shared secrets, in their order; text counts as UTF-8.

    Raises:
        UnfitKey: one is empty, or the text of an asymmetric key.
    """
    algorithms = frozenset(HMAC_ALGORITHMS)
    return tuple(VerificationKey(_prepared(secret), algorithms) for secret in secrets)


def short_secrets(keys: Iterable[VerificationKey]) -> str | None:
    """A sentence about secrets that are too short; None if there are none."""
    lengths = [len(key.material) for key in keys if isinstance(key.material, bytes)]
    short = sum(length < _SHORT_SECRET_BYTES for length in lengths)
    if not short:
        return None
    subject = "The JWT secret is" if len(lengths) == 1 else f"{short} of the JWT secrets are"
    return (
        f"{subject} shorter than {_SHORT_SECRET_BYTES} bytes and could be guessed from any one "
        "token: use random bytes (RFC 7518 section 3.2)."
    )


def _prepared(secret: str | bytes) -> bytes:
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except (jwt.PyJWTError, ValueError, TypeError):
        pass
    # Outside of the handler, so that the secret is in no traceback's context.
    raise UnfitKey(
        "a secret is empty, or the text of a public key, certificate or JWK: use random bytes"
    )


# ------------------------------------------------------------------ public keys


def pem_keys(text: bytes) -> tuple[VerificationKey, ...]:
    """The public keys of PEM text, one or more. Of a certificate only the key counts.

    Raises:
        UnfitKey: there is none, one cannot be used, or there is a private key among them.
    """
    keys = []
    for block in _PEM_BLOCK.finditer(text):
        if b"PRIVATE KEY" in block[1]:
            raise UnfitKey("it holds a private key: keep that one where tokens are signed")
        try:
            if block[1] == b"CERTIFICATE":
                material: Any = load_pem_x509_certificate(block[0]).public_key()
            else:
                material = load_pem_public_key(block[0])
        except (ValueError, UnsupportedAlgorithm):
            raise UnfitKey("it holds PEM that cannot be read as a public key or certificate") from None
        keys.append(VerificationKey(material, _algorithms_of(material)))
    if not keys:
        raise UnfitKey("it holds no PEM public key or certificate")
    return tuple(keys)


def _algorithms_of(material: Any) -> frozenset[str]:
    if isinstance(material, RSAPublicKey):
        if material.key_size < _SHORTEST_RSA_BITS:
            size, least = material.key_size, _SHORTEST_RSA_BITS
            raise UnfitKey(f"an RSA key of {size} bits: {least} are needed (RFC 7518 section 3.3)")
        return frozenset(_RSA_ALGORITHMS)
    if isinstance(material, EllipticCurvePublicKey) and material.curve.name in _CURVES:
        return frozenset((_CURVES[material.curve.name],))
    if isinstance(material, Ed25519PublicKey | Ed448PublicKey):
        return frozenset(("EdDSA",))
    raise UnfitKey("a key of a kind that no algorithm here uses: RSA, P-256, P-384, P-521 and Ed25519 do")


# ------------------------------------------------------------------ JWK sets

_READERS: Final[Mapping[str, type[Algorithm]]] = {
    "RSA": RSAAlgorithm,
    "EC": ECAlgorithm,
    "OKP": OKPAlgorithm,
    "oct": HMACAlgorithm,
}


class _JwkSet(msgspec.Struct):
    keys: list[dict[str, Any]]


class _Jwk(msgspec.Struct):
    kty: str
    kid: str | None = None
    use: str | None = None
    alg: str | None = None
    key_ops: list[str] | None = None


def jwk_keys(document: bytes, *, with_secrets: bool) -> tuple[tuple[VerificationKey, ...], list[str]]:
    """The keys of a JWK Set (RFC 7517 section 5) that verify signatures.

    Args:
        document: JSON.
        with_secrets: take `oct` keys too. From a place that others can read they would be no secrets.
    Returns:
        The keys, and a sentence about each that cannot be used. Those for encryption are passed over.
    Raises:
        UnfitKey: it is no JWK Set.
    """
    try:
        found = msgspec.json.decode(document, type=_JwkSet).keys
    except (msgspec.MsgspecError, ValueError, RecursionError):
        found = None
    if found is None:
        raise UnfitKey('it is no JWK Set: expected {"keys": [...]} (RFC 7517 section 5)')
    keys, problems = [], []
    for number, fields in enumerate(found, 1):
        try:
            key = _jwk_key(fields, with_secrets)
        except UnfitKey as error:
            problems.append(f"key {number}: {error}")
        else:
            keys += [key] if key is not None else []
    return tuple(keys), problems


def _jwk_key(fields: dict[str, Any], with_secrets: bool) -> VerificationKey | None:
    try:
        jwk = msgspec.convert(fields, _Jwk)
    except msgspec.ValidationError:
        raise UnfitKey("`kty`, `kid`, `use`, `alg` or `key_ops` is not of the type it has to be") from None
    if jwk.use not in (None, "sig") or (jwk.key_ops is not None and "verify" not in jwk.key_ops):
        return None
    reader = _READERS.get(jwk.kty)
    if reader is None:
        raise UnfitKey(f"`kty` is none of {', '.join(_READERS)}")
    if jwk.kty == "oct" and not with_secrets:
        raise UnfitKey("it is a secret (`oct`), and whoever can read it can sign with it")
    if jwk.kty != "oct" and "d" in fields:
        raise UnfitKey("it is a private key: whoever can read it can sign with it")
    material = _read_jwk(reader, fields)
    if jwk.kty == "oct":
        material, fitting = _prepared(material), frozenset(HMAC_ALGORITHMS)
    else:
        fitting = _algorithms_of(material)
    if jwk.alg is not None:
        fitting &= {jwk.alg}
        if not fitting:
            raise UnfitKey("its `alg` is not one that a key of its kind is used with here")
    return VerificationKey(material, fitting, jwk.kid)


def _read_jwk(reader: type[Algorithm], fields: dict[str, Any]) -> Any:
    try:
        return reader.from_jwk(fields)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, UnsupportedAlgorithm):
        pass
    # Outside of the handler: what was raised may quote the key.
    raise UnfitKey("its numbers cannot be read as a key")


def usable(keys: Sequence[VerificationKey], algorithms: frozenset[str]) -> bool:
    """Whether any of the keys verifies one of the algorithms."""
    return any(not algorithms.isdisjoint(key.algorithms) for key in keys)
