"""All keys of a server, by what they verify: from secrets, files, and a URL that publishes them.

`find` is asked for each token and only looks things up. Where no key fits, newer ones may be on their way:
`learn` waits for them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from heartwire.errors import ConfigError
from heartwire.keys import (
    HMAC_ALGORITHMS,
    PUBLIC_KEY_ALGORITHMS,
    UnfitKey,
    VerificationKey,
    jwk_keys,
    pem_keys,
    secret_keys,
    usable,
)

if TYPE_CHECKING:
    from heartwire.config import ServerConfig

__all__ = ["KeyRing", "NewKeys", "accepted_algorithms", "read_keys"]

DEFAULT_PUBLIC: Final = ("RS256", "ES256", "EdDSA")
WITHOUT_ID_MOST: Final = 16  # keys tried for a token that does not say which one: a signature takes 30-200 µs


class NewKeys(Protocol):
    """Where keys may come from later."""

    def may_learn(self) -> bool:
        """Whether waiting could bring keys that are not here yet."""
        ...

    async def learn(self, timeout_s: float) -> bool:
        """Waits until the keys were asked for again, or the time is over; False if they are not asked for."""
        ...


class KeyRing:
    """The keys, by algorithm and id. Used by every thread; changed by the loop's.

    Args:
        keys: those that are known from the start.
        remote: where further ones come from; None: from nowhere.
        algorithms: those that count; None: all that the keys are for.
    """

    def __init__(
        self,
        keys: Sequence[VerificationKey] = (),
        *,
        remote: NewKeys | None = None,
        algorithms: Iterable[str] | None = None,
    ) -> None:
        self.remote = remote
        self._wanted = None if algorithms is None else frozenset(algorithms)
        self._own = tuple(keys)
        self._published: tuple[VerificationKey, ...] = ()
        self._on_change: list[Callable[[], None]] = []
        self._index()

    def __len__(self) -> int:
        return self._size

    def __repr__(self) -> str:
        return f"<KeyRing of {self._size} keys>"

    def on_change(self, callback: Callable[[], None]) -> None:
        """Registers what is called after the keys have changed."""
        self._on_change.append(callback)

    def replace_own(self, keys: Sequence[VerificationKey]) -> None:
        """Takes these instead of those known from the start."""
        self._own = tuple(keys)
        self._changed()

    def replace_published(self, keys: Sequence[VerificationKey]) -> None:
        """Takes these instead of those that came from `remote`."""
        self._published = tuple(keys)
        self._changed()

    def _changed(self) -> None:
        self._index()
        for callback in self._on_change:
            callback()

    def _index(self) -> None:
        anonymous: dict[str, list[VerificationKey]] = {}
        named: dict[tuple[str, str], list[VerificationKey]] = {}
        every: dict[str, list[VerificationKey]] = {}
        size = 0
        for key in (*self._own, *self._published):
            algorithms = key.algorithms if self._wanted is None else key.algorithms & self._wanted
            size += bool(algorithms)
            for name in algorithms:
                every.setdefault(name, []).append(key)
                if key.key_id is None:
                    anonymous.setdefault(name, []).append(key)
                else:
                    named.setdefault((name, key.key_id), []).append(key)
        # Replaced whole, so that a thread that looks something up sees the old ones or the new ones.
        self._size = size
        self._maps = (
            {name: tuple(keys) for name, keys in anonymous.items()},
            {name: tuple(keys) for name, keys in named.items()},
            {name: tuple(keys[:WITHOUT_ID_MOST]) for name, keys in every.items()},
        )

    def find(self, algorithm: str, key_id: str | None) -> Sequence[VerificationKey]:
        """The keys to try, in order; empty if none fits.

        Args:
            algorithm: the token's `alg`, one of those configured.
            key_id: the token's `kid`, written by whoever made the token: a hint, not a fact. Keys without an
                id, such as secrets, are tried whatever it says.
        """
        anonymous, named, every = self._maps
        if key_id is None:
            return every.get(algorithm, ())
        fitting = anonymous.get(algorithm, ())
        return named.get((algorithm, key_id), ()) + fitting if named else fitting

    def may_learn(self, algorithm: str, key_id: str | None) -> bool:
        """Whether a key for such a token may be on its way, because none of this id is here."""
        if self.remote is None or algorithm in HMAC_ALGORITHMS:
            return False
        _, named, every = self._maps
        known = algorithm in every if key_id is None else (algorithm, key_id) in named
        return not known and self.remote.may_learn()

    async def learn(self, timeout_s: float) -> bool:
        """As `NewKeys.learn`."""
        return self.remote is not None and await self.remote.learn(timeout_s)


# ------------------------------------------------------------------ from the options


def accepted_algorithms(config: ServerConfig) -> tuple[str, ...]:
    """`jwt_algorithms`, or without it what goes with the keys that are configured.

    Raises:
        ConfigError: keys and algorithms do not go together.
    """
    secrets = bool(config.jwt_secret or config.jwt_secret_file)
    public = bool(config.jwt_public_key_file or config.jwks_url)
    if not config.jwt_algorithms:
        default = ("HS256",) if secrets else ()
        return default + (DEFAULT_PUBLIC if public or config.jwks_file else ())
    wanted = set(config.jwt_algorithms)
    if secrets and wanted.isdisjoint(HMAC_ALGORITHMS):
        raise ConfigError(
            "jwt_algorithms", "there is a secret, and no algorithm uses one: add HS256, or take it out"
        )
    if public and wanted.isdisjoint(PUBLIC_KEY_ALGORITHMS):
        raise ConfigError(
            "jwt_algorithms", "there are public keys, and no algorithm uses one: add theirs, such as RS256"
        )
    if not config.jwks_file:
        if not public and not wanted <= set(HMAC_ALGORITHMS):
            raise ConfigError(
                "jwt_algorithms",
                "only HS256, HS384 and HS512 go with a secret: others need jwt_public_key_file, jwks_url or "
                "jwks_file",
            )
        if not secrets and not wanted <= set(PUBLIC_KEY_ALGORITHMS):
            raise ConfigError("jwt_algorithms", "HS256, HS384 and HS512 need jwt_secret or jwt_secret_file")
    return tuple(dict.fromkeys(config.jwt_algorithms))


def read_keys(config: ServerConfig) -> tuple[VerificationKey, ...]:
    """The keys of the secrets and the files, read now.

    Raises:
        ConfigError: a file cannot be read, or holds nothing that verifies an accepted algorithm.
    """
    algorithms = frozenset(accepted_algorithms(config))
    try:
        keys = list(secret_keys(config.jwt_secrets()))
    except UnfitKey as error:
        raise ConfigError("jwt_secret", str(error)) from None
    for path in config.jwt_public_key_file:
        try:
            found = pem_keys(_content("jwt_public_key_file", path))
        except UnfitKey as error:
            raise ConfigError("jwt_public_key_file", f"{path}: {error}") from None
        for key in found:
            if algorithms.isdisjoint(key.algorithms):
                raise ConfigError(
                    "jwt_algorithms",
                    f"the key of {path} is for {' or '.join(sorted(key.algorithms))}, which is not accepted: "
                    "add the one that signs the tokens",
                )
        keys += found
    if config.jwks_file is not None:
        try:
            found, problems = jwk_keys(_content("jwks_file", config.jwks_file), with_secrets=True)
        except UnfitKey as error:
            raise ConfigError("jwks_file", f"{config.jwks_file}: {error}") from None
        if not usable(found, algorithms):
            why = "; ".join(problems) or f"none is for {', '.join(sorted(algorithms))}"
            raise ConfigError("jwks_file", f"{config.jwks_file}: it holds no key that is of use: {why}")
        keys += found
    return tuple(keys)


def _content(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(option, f"cannot read {path}: {error.strerror}") from None
