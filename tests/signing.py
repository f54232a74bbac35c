"""Key pairs of every kind, their published halves, and tokens signed with them."""

from __future__ import annotations

import functools
import json
import time
import warnings
from typing import Any, NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from jwt.algorithms import get_default_algorithms

SECRET = "a-secret-of-the-tests-long-enough-for-HS512-which-wants-sixty-four-bytes"


class KeyPair(NamedTuple):
    """What signs, and what verifies."""

    algorithm: str
    private: Any
    kid: str

    @property
    def pem(self) -> bytes:
        public: bytes = self.private.public_key().public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
        return public

    @property
    def jwk(self) -> dict[str, Any]:
        """As it is published."""
        if isinstance(self.private, str):
            fields = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private))
        else:
            fields = json.loads(get_default_algorithms()[self.algorithm].to_jwk(self.private.public_key()))
        return {**fields, "kid": self.kid, "use": "sig"}

    def token(self, sub: str = "alice", *, kid: str | None = "", **claims: Any) -> str:
        """A token; claims that are None are left out, and so is the `kid` (by default the key's)."""
        claims = {"sub": sub, "iat": int(time.time()), "exp": time.time() + 3600, **claims}
        kid = self.kid if kid == "" else kid
        headers = {} if kid is None else {"kid": kid}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return jwt.encode(
                {name: value for name, value in claims.items() if value is not None},
                self.private, self.algorithm, headers,
            )  # fmt: skip


@functools.cache
def key_pair(algorithm: str, kid: str = "k1") -> KeyPair:
    """The key pair of that algorithm and id: always the same one within a run."""
    private: Any
    if algorithm.startswith("HS"):
        private = SECRET if kid == "k1" else f"{kid} {SECRET}"
    elif algorithm.startswith("ES"):
        curves: dict[str, ec.EllipticCurve] = {
            "ES256": ec.SECP256R1(),
            "ES384": ec.SECP384R1(),
            "ES512": ec.SECP521R1(),
        }
        private = ec.generate_private_key(curves[algorithm])
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = _rsa(kid)
    return KeyPair(algorithm, private, kid)


@functools.cache
def _rsa(kid: str) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def jwk_set(*keys: KeyPair | dict[str, Any]) -> bytes:
    """A JWK Set of these."""
    return json.dumps({"keys": [key if isinstance(key, dict) else key.jwk for key in keys]}).encode()
