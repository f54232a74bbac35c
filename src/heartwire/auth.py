"""Who a token says its bearer is: JSON Web Tokens, verified with PyJWT.

Signatures, encodings and critical headers are PyJWT's business; which algorithms and keys may be used at
all, and what the claims have to say, is decided here. Contract: any text either is verified or raises
`TokenError`, never another exception, and no error holds the token or a part of it.

Keys come from a `KeySource`. Today that is a list of HMAC secrets; public keys and JWKS are further sources.
Each key names the algorithms it is for, so that no key is ever used with an algorithm of another family.
Sources: RFC 7515, RFC 7519, RFC 8725 (best current practices).
"""

from __future__ import annotations

import time
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import jwt
import msgspec
from jwt.algorithms import HMACAlgorithm
from msgspec import UNSET, UnsetType

from heartwire.errors import ConfigError, Refusal, TokenError

__all__ = [
    "MAX_TOKEN_BYTES",
    "Credentials",
    "HmacSecrets",
    "KeySource",
    "TokenVerifier",
    "VerificationKey",
    "credentials_of",
    "matches_pattern",
]

# A token that came with a message may be as large as the message, and PyJWT looks at each character.
MAX_TOKEN_BYTES: Final = 16 * 1024
_MAX_NESTING: Final = 32
_YEAR_10000: Final = 253_402_300_800.0
_HASHES: Final = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_SHORT_SECRET_BYTES: Final = 32


class Credentials(msgspec.Struct, frozen=True, gc=False):
    """Who a client is, as a verified token said. Immutable and small: one is kept for each client.

    Attributes:
        user_id: the claim `sub`.
        username: the claim `username`.
        expires_at: the claim `exp`, Unix seconds; `None` if the token has no end.
        claims_json: all claims, the token's payload as it was signed.
        channels: patterns of the channels the user may join; empty without the claim `channels`.
    """

    user_id: str
    username: str | None
    expires_at: float | None
    claims_json: bytes
    channels: tuple[str, ...] = ()

    @property
    def claims(self) -> dict[str, Any]:
        """All claims, decoded anew at each access: the dict is the caller's."""
        claims: dict[str, Any] = msgspec.json.decode(self.claims_json)
        return claims

    def allows_channel(self, name: str) -> bool:
        """Whether a pattern of `channels` fits the name; `*` stands for any run of characters."""
        return any(matches_pattern(pattern, name) for pattern in self.channels)

    def __repr__(self) -> str:
        return f"<Credentials of {self.user_id!r}, expires_at={self.expires_at}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("user_id", self.user_id), ("expires_at", self.expires_at)]


def credentials_of(identity: Any) -> Credentials:
    """What `@server.authenticate` returned: Credentials, a dict of claims, or a user id.

    Raises:
        Refusal: 401 for None, False, or anything else.
    """
    if isinstance(identity, Credentials):
        return identity
    if isinstance(identity, str):
        identity = {"sub": identity}
    if isinstance(identity, dict):
        claims = msgspec.json.encode(identity)
        channels = tuple(identity.get("channels") or ())
        user_id = str(identity["sub"])
        return Credentials(user_id, identity.get("username"), identity.get("exp"), claims, channels)
    raise Refusal(401, "unauthenticated", "not accepted", (("WWW-Authenticate", "Bearer"),))


def matches_pattern(pattern: str, name: str) -> bool:
    """Whether `name` is `pattern`, in which `*` stands for any run of characters, also none.

    Takes time linear in the number of `*`: a user name within a pattern cannot make it slow.
    """
    first, *rest = pattern.split("*")
    if not rest:
        return name == pattern
    *middle, last = rest
    if len(name) < len(first) + len(last) or not (name.startswith(first) and name.endswith(last)):
        return False
    position, end = len(first), len(name) - len(last)
    for part in middle:
        found = name.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


class VerificationKey(msgspec.Struct, frozen=True):
    """A key and what it is for.

    Attributes:
        material: what PyJWT takes as key: prepared bytes of an HMAC secret, or a public key object.
        algorithms: the algorithms it may verify, all of one family.
    """

    material: Any
    algorithms: frozenset[str]

    def __repr__(self) -> str:
        return f"<VerificationKey *** for {', '.join(sorted(self.algorithms))}>"

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("material", "***"), ("algorithms", sorted(self.algorithms))]


class KeySource(Protocol):
    """Where keys come from. Looked up for each token, so it must not wait."""

    def find(self, algorithm: str, key_id: str | None) -> Sequence[VerificationKey]:
        """The keys to try, in order; empty if none fits.

        Args:
            algorithm: the token's `alg`, one of those configured.
            key_id: the token's `kid`, written by whoever made the token: a hint, not a fact.
        """
        ...


class HmacSecrets:
    """Shared secrets, each tried in turn, so that one can be replaced by the next (rotation).

    Args:
        secrets: at least one; text counts as UTF-8.

    Raises:
        ConfigError: there is none, or one is empty or the text of an asymmetric key.
    """

    def __init__(self, secrets: Sequence[str | bytes]) -> None:
        if isinstance(secrets, str | bytes) or not secrets:
            raise ConfigError("jwt_secret", "a list of at least one secret is needed")
        algorithms = frozenset(_HASHES)
        self._keys = tuple(VerificationKey(_prepared_secret(secret), algorithms) for secret in secrets)
        short = sum(len(key.material) < _SHORT_SECRET_BYTES for key in self._keys)
        self.warnings: list[str] = []
        if short:
            subject = "The JWT secret is" if len(self._keys) == 1 else f"{short} of the JWT secrets are"
            self.warnings.append(
                f"{subject} shorter than {_SHORT_SECRET_BYTES} bytes and could be guessed from any one "
                "token: use random bytes (RFC 7518 section 3.2)."
            )

    def find(self, algorithm: str, key_id: str | None) -> Sequence[VerificationKey]:
        """All secrets for an HMAC algorithm, whatever the `kid`; none for another."""
        return self._keys if algorithm in _HASHES else ()


class TokenVerifier:
    """Verifies tokens; built once, used by every thread.

    Args:
        secrets: HMAC secrets, the current one first: each further one costs only tokens that it signed.
        algorithms: those accepted, from HS256, HS384 and HS512. What a token says never adds to them.
        audience: what `aud` has to name, one of several if it is a list. `None`: tokens with `aud` are for
            somebody else and refused (RFC 7519 section 4.1.3).
        issuer: what `iss` has to be, or one of a list; `None`: anything.
        leeway_s: difference of clocks forgiven in `exp`, `nbf` and `iat`, seconds.
        allow_no_exp: whether a token may be without `exp`.
        clock: Unix time, seconds.

    Attributes:
        warnings: sentences to log once, such as about a short secret.

    Raises:
        ConfigError: an algorithm or a secret that cannot be used.
    """

    def __init__(
        self,
        secrets: Sequence[str | bytes],
        *,
        algorithms: Sequence[str] = ("HS256",),
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        leeway_s: float = 0.0,
        allow_no_exp: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(algorithms, str) or not algorithms:
            raise ConfigError("jwt_algorithms", "a list of at least one algorithm is needed, such as HS256")
        # PyJWT's `none` and asymmetric algorithms are not merely unused: this instance does not know them.
        self._jws = jwt.PyJWS(algorithms=[])
        for name in dict.fromkeys(algorithms):
            if name not in _HASHES:
                choices = ", ".join(_HASHES)
                raise ConfigError(
                    "jwt_algorithms", f"{name!r} cannot be used with a secret: choose from {choices}"
                )
            self._jws.register_algorithm(name, _PreparedHmac(_HASHES[name]))
        self._algorithms = frozenset(algorithms)
        source = HmacSecrets(secrets)
        self._keys: KeySource = source
        self.warnings: list[str] = list(source.warnings)
        self._audiences = _as_set(audience)
        self._issuers = _as_set(issuer)
        self._leeway_s = leeway_s
        self._allow_no_exp = allow_no_exp
        self._clock = clock

    def __repr__(self) -> str:
        return f"<TokenVerifier {', '.join(sorted(self._algorithms))}>"

    def verify(self, token: str) -> Credentials:
        """Verify a token and read its claims.

        Checked claims: `sub` (a string of 1–128 printable characters), `exp`, `nbf`, `iat`, `aud`, `iss`,
        `jti`, `username` and `channels` (a list of patterns). Others are kept as they are.

        Raises:
            TokenError: `token_expired` if only `exp` speaks against it, else `token_invalid`.
        """
        payload = self._verified_payload(token)
        if payload is None:
            raise TokenError("token_invalid", "The token is malformed or its signature does not fit.")
        claims = _read_claims(payload)
        if claims is None:
            raise TokenError("token_invalid", "The token's claims are not of the types they have to be.")
        self._check_claims(claims)
        return Credentials(
            claims.sub,
            claims.username,
            None if claims.exp is UNSET else claims.exp,
            payload,
            claims.channels or (),
        )

    def _verified_payload(self, token: str) -> bytes | None:
        # None instead of raising: what PyJWT raises may quote the token, and would ride along as context.
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            return None
        header = _read_header(token)
        if header is None or header.alg not in self._algorithms:
            return None
        for key in self._keys.find(header.alg, header.kid):
            if header.alg not in key.algorithms:
                continue
            try:
                # One algorithm, configured and checked above, so that PyJWT cannot read another from a
                # header with doubled fields.
                verified = self._jws.decode_complete(token, key.material, algorithms=[header.alg])
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                return None
            payload: bytes = verified["payload"]
            return payload
        return None

    def _check_claims(self, claims: _Claims) -> None:
        now = self._clock()
        if not 1 <= len(claims.sub) <= 128 or not claims.sub.isprintable():
            raise TokenError("token_invalid", "The claim `sub` must have 1 to 128 printable characters.")
        if claims.exp is UNSET and not self._allow_no_exp:
            raise TokenError("token_invalid", "The claim `exp` is missing.")
        # Instants are told to clients as RFC 3339, which ends there; most likely these are milliseconds.
        if claims.exp is not UNSET and claims.exp >= _YEAR_10000:
            raise TokenError("token_invalid", "The claim `exp` lies beyond the year 9999: it counts seconds.")
        # Fractions of seconds in `nbf` and `iat` are dropped, as PyJWT does: the issuer's clock may be a
        # few milliseconds ahead of ours when the token is used at once.
        if claims.nbf is not UNSET and claims.nbf // 1 > now + self._leeway_s:
            raise TokenError("token_invalid", "The token is not valid yet (claim `nbf`).")
        if claims.iat is not UNSET and claims.iat // 1 > now + self._leeway_s:
            raise TokenError("token_invalid", "The token was issued in the future (claim `iat`).")
        named = (claims.aud,) if isinstance(claims.aud, str) else claims.aud or ()
        if self._audiences is not None and self._audiences.isdisjoint(named):
            raise TokenError("token_invalid", "The token is not for this audience (claim `aud`).")
        if self._audiences is None and any(named):
            raise TokenError("token_invalid", "The token is for an audience and none is configured.")
        if self._issuers is not None and claims.iss not in self._issuers:
            raise TokenError("token_invalid", "The token is not from this issuer (claim `iss`).")
        # Last, so that `token_expired` says: the same again, but fresh, would be accepted.
        if claims.exp is not UNSET and claims.exp <= now - self._leeway_s:
            raise TokenError("token_expired", "The token has expired.")


class _Header(msgspec.Struct, gc=False):
    alg: str
    kid: str | None = None


class _Claims(msgspec.Struct, gc=False):
    sub: str
    exp: float | UnsetType = UNSET
    nbf: float | UnsetType = UNSET
    iat: float | UnsetType = UNSET
    aud: str | tuple[str, ...] | None = None
    iss: str | None = None
    jti: str | None = None
    username: str | None = None
    channels: tuple[str, ...] | None = None


class _PreparedHmac(HMACAlgorithm):
    """HMAC whose keys `_prepared_secret` has already looked at: PyJWT would do so again for each token."""

    def prepare_key(self, key: str | bytes) -> bytes:
        if not isinstance(key, bytes):
            raise jwt.InvalidKeyError("the key is not a prepared secret")
        return key

    def check_key_length(self, key: bytes) -> str | None:
        # A Python warning for each token and process would be noise: `TokenVerifier.warnings` says it once.
        return None


_decode_header = msgspec.json.Decoder(_Header).decode


def _read_header(token: str) -> _Header | None:
    """The header as the token claims it, to look up keys by; PyJWT reads it again, strictly."""
    segment = token.partition(".")[0].replace("-", "+").replace("_", "/")
    try:
        return _decode_header(a2b_base64(segment + "=" * (-len(segment) % 4)))
    except (Base64Error, msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _read_claims(payload: bytes) -> _Claims | None:
    try:
        # Decoded whole, not only the typed fields: else `Credentials.claims` could fail later, since
        # msgspec does not look at the UTF-8 and the numbers of fields that it skips.
        everything = msgspec.json.decode(payload)
        if payload.count(b"[") + payload.count(b"{") > _MAX_NESTING and _nesting(everything) > _MAX_NESTING:
            return None
        return msgspec.convert(everything, _Claims)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _nesting(value: object) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [x for item in level for x in (item.values() if isinstance(item, dict) else item)]
    return depth


def _prepared_secret(secret: str | bytes) -> bytes:
    try:
        return HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)
    except (jwt.PyJWTError, ValueError, TypeError):
        pass
    # Outside of the handler, so that the secret is in no traceback's context.
    raise ConfigError(
        "jwt_secret", "a secret is empty, or the text of a public key, certificate or JWK: use random bytes"
    )


def _as_set(value: str | Sequence[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset((value,) if isinstance(value, str) else value)
