"""Who a token says its bearer is: JSON Web Tokens, verified with PyJWT.

Signatures, encodings and critical headers are PyJWT's business; which algorithms and keys may be used at
all, and what the claims have to say, is decided here. Contract: any text either is verified or raises
`TokenError`, never another exception, and no error holds the token or a part of it.

Keys come from a `KeySource`, in a server the `KeyRing`. Each key names the algorithms it is for, so that no
key is ever used with an algorithm of another family.
Sources: RFC 7515, RFC 7519, RFC 8725 (best current practices).
"""

from __future__ import annotations

import time
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Final, Protocol

import msgspec
from msgspec import UNSET, UnsetType

from heartwire.credentials import Credentials
from heartwire.errors import ConfigError, TokenError
from heartwire.keys import HMAC_ALGORITHMS, PUBLIC_KEY_ALGORITHMS, VerificationKey
from heartwire.signatures import Malformed, Signatures
from heartwire.token_cache import TokenCache

__all__ = [
    "MAX_TOKEN_BYTES",
    "KeySource",
    "KeyUnknown",
    "TokenVerifier",
]

# A token that came with a message may be as large as the message, and PyJWT looks at each character.
MAX_TOKEN_BYTES: Final = 16 * 1024
_MAX_NESTING: Final = 32
_YEAR_10000: Final = 253_402_300_800.0
_SHORT_HEADER: Final = 256  # characters
_LEARN_S: Final = 5.0  # how long a token whose key is not known waits for new keys
_ROUNDS_MOST: Final = 3  # one may be under way with the old keys, one brings the new ones


class KeyUnknown(TokenError):
    """No key is known for a token, and newer keys can be had: `TokenVerifier.verify_later` waits for them."""


class KeySource(Protocol):
    """Where keys come from. Looked up for each token, so only `learn` may wait."""

    def find(self, algorithm: str, key_id: str | None) -> Sequence[VerificationKey]:
        """The keys to try, in order; empty if none fits.

        Args:
            algorithm: the token's `alg`, one of those configured.
            key_id: the token's `kid`, written by whoever made the token: a hint, not a fact.
        """
        ...

    def may_learn(self, algorithm: str, key_id: str | None) -> bool:
        """Whether waiting could bring a key for such a token."""
        ...

    async def learn(self, timeout_s: float) -> bool:
        """Waits until the keys were asked for again; False if they are not, or the time is over."""
        ...

    def __len__(self) -> int:
        """How many keys there are."""
        ...


class TokenVerifier:
    """Verifies tokens. Loop thread only.

    Args:
        keys: where keys come from.
        algorithms: those accepted. What a token says never adds to them.
        audience: what `aud` has to name, one of several if it is a list. `None`: tokens with `aud` are for
            somebody else and refused (RFC 7519 section 4.1.3).
        issuer: what `iss` has to be, or one of a list; `None`: anything.
        required_claims: names of claims that have to be there, and not null.
        leeway_s: difference of clocks forgiven in `exp`, `nbf` and `iat`, seconds.
        allow_no_exp: whether a token may be without `exp`.
        cache: what was verified before; its owner empties it when the keys change. None: nothing is kept.
        clock: Unix time, seconds.

    Raises:
        ConfigError: an algorithm that cannot be used.
    """

    def __init__(
        self,
        keys: KeySource,
        *,
        algorithms: Sequence[str] = ("HS256",),
        audience: str | Sequence[str] | None = None,
        issuer: str | Sequence[str] | None = None,
        required_claims: Sequence[str] = (),
        leeway_s: float = 0.0,
        allow_no_exp: bool = False,
        cache: TokenCache | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(algorithms, str) or not algorithms:
            raise ConfigError("jwt_algorithms", "a list of at least one algorithm is needed, such as HS256")
        for name in algorithms:
            if name not in (*HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS):
                choices = ", ".join((*HMAC_ALGORITHMS, *PUBLIC_KEY_ALGORITHMS))
                raise ConfigError("jwt_algorithms", f"{name!r} cannot be used: choose from {choices}")
        self._algorithms = frozenset(algorithms)
        self._signatures = Signatures(self._algorithms)
        self._keys = keys
        self._audiences = _as_set(audience)
        self._issuers = _as_set(issuer)
        self._required = frozenset(required_claims)
        self._leeway_s = leeway_s
        self._allow_no_exp = allow_no_exp
        self._cache = cache
        self._clock = clock

    def __repr__(self) -> str:
        return f"<TokenVerifier {', '.join(sorted(self._algorithms))}>"

    def verify(self, token: str) -> Credentials:
        """Verify a token and read its claims.

        Checked claims: `sub` (a string of 1–128 printable characters), `exp`, `nbf`, `iat`, `aud`, `iss`,
        `jti`, `username`, `channels` and `publish` (lists of patterns). Others are kept as they are.

        Raises:
            TokenError: `token_expired` if only `exp` speaks against it; `keys_missing` if there are no keys
                to judge it by; else `token_invalid`.
            KeyUnknown: `token_invalid`, but `verify_later` may say otherwise.
        """
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise _malformed()
        if self._cache is None:
            return self._verify(token)
        digest, known = self._cache.find(token.encode())
        if known is not None:
            # All but the end of a token is as true as it was when it was verified.
            if known.expires_at is not None and known.expires_at <= self._clock() - self._leeway_s:
                raise _expired()
            return known
        credentials = self._verify(token)
        if digest:
            self._cache.keep(digest, credentials)
        return credentials

    async def verify_later(self, token: str) -> Credentials:
        """As `verify`, after waiting for new keys where none that is known fits, for at most 5 s.

        Raises:
            TokenError: as `verify`, without KeyUnknown.
        """
        end = time.monotonic() + _LEARN_S
        for _ in range(_ROUNDS_MOST):
            try:
                return self.verify(token)
            except KeyUnknown:
                pass
            if not await self._keys.learn(end - time.monotonic()):
                break
        try:
            return self.verify(token)
        except KeyUnknown as error:
            unknown = TokenError(error.code, error.detail)
        raise unknown

    def _verify(self, token: str) -> Credentials:
        payload = self._verified_payload(token)
        if payload is None:
            raise _malformed()
        claims = _read_claims(payload, self._required)
        if claims is None:
            raise TokenError(
                "token_invalid",
                "A claim is missing, or not of the type it has to be.",
            )
        self._check_claims(claims)
        return Credentials(
            claims.sub,
            claims.username,
            None if claims.exp is UNSET else claims.exp,
            payload,
            claims.channels or (),
            claims.publish,
        )

    def _verified_payload(self, token: str) -> bytes | None:
        header = _read_header(token)
        if header is None or header.alg not in self._algorithms:
            return None
        keys = self._keys.find(header.alg, header.kid)
        fitting = [key.material for key in keys if header.alg in key.algorithms]
        try:
            payload = self._signatures.verify(token, header.alg, fitting)
        except Malformed:
            return None
        if payload is not None:
            return payload
        if self._keys.may_learn(header.alg, header.kid):
            raise KeyUnknown("token_invalid", "No key is known for this token.")
        if not keys and not len(self._keys):
            detail = "The server has no keys to verify tokens with at the moment: keep the token, try again."
            raise TokenError("keys_missing", detail)
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
            raise _expired()


class _Header(msgspec.Struct, frozen=True, gc=False):
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
    publish: tuple[str, ...] | None = None


_decode_header = msgspec.json.Decoder(_Header).decode


def _read_header(token: str) -> _Header | None:
    """The header as the token claims it, to look up keys by; PyJWT reads it again, strictly."""
    segment = token.partition(".")[0]
    return _known_header(segment) if len(segment) <= _SHORT_HEADER else _decoded_header(segment)


def _decoded_header(segment: str) -> _Header | None:
    segment = segment.replace("-", "+").replace("_", "/")
    try:
        return _decode_header(a2b_base64(segment + "=" * (-len(segment) % 4)))
    except (Base64Error, msgspec.MsgspecError, ValueError, RecursionError):
        return None


# Tokens of one issuer and key all have the same header: 1 µs less each, more than the cache's digest costs.
_known_header = lru_cache(64)(_decoded_header)


def _read_claims(payload: bytes, required: frozenset[str]) -> _Claims | None:
    try:
        # Decoded whole, not only the typed fields: else `Credentials.claims` could fail later, since
        # msgspec does not look at the UTF-8 and the numbers of fields that it skips.
        everything = msgspec.json.decode(payload)
        if payload.count(b"[") + payload.count(b"{") > _MAX_NESTING and _nesting(everything) > _MAX_NESTING:
            return None
        claims = msgspec.convert(everything, _Claims)
        return None if required and any(everything.get(name) is None for name in required) else claims
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _nesting(value: object) -> int:
    level, depth = [value], 0
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [x for item in level for x in (item.values() if isinstance(item, dict) else item)]
    return depth


def _malformed() -> TokenError:
    return TokenError("token_invalid", "The token is malformed or its signature does not fit.")


def _expired() -> TokenError:
    return TokenError("token_expired", "The token has expired.")


def _as_set(value: str | Sequence[str] | None) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset((value,) if isinstance(value, str) else value)
