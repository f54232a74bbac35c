"""What a server's tokens are verified by: keys, the URL that publishes some, the cache, and the verifier."""

from __future__ import annotations

import logging

from heartwire.auth import TokenVerifier
from heartwire.config import ServerConfig
from heartwire.errors import ConfigError
from heartwire.jwks import JwksUrl
from heartwire.keyring import KeyRing, accepted_algorithms, read_keys
from heartwire.keys import short_secrets
from heartwire.token_cache import TokenCache

__all__ = ["Verification"]

logger: logging.Logger = logging.getLogger("heartwire")


class Verification:
    """The parts, made from the options. Loop thread only.

    Args:
        config: the server's options.

    Attributes:
        verifier: verifies tokens.
        keys: what it verifies them by.
        remote: the keys' URL, or None.
        cache: what it has verified lately, or None.
        warnings: sentences to log at the start.

    Raises:
        ConfigError: a file cannot be read, or keys and algorithms do not go together.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        algorithms = accepted_algorithms(config)
        own = read_keys(config)
        self.cache: TokenCache | None = TokenCache(config.token_cache) if config.token_cache else None
        self.keys: KeyRing = KeyRing(own, algorithms=algorithms)
        self.remote: JwksUrl | None = None
        if config.jwks_url is not None:
            self.remote = JwksUrl(
                config.jwks_url, frozenset(algorithms), self.keys.replace_published,
                timeout_s=config.jwks_timeout, refresh_s=config.jwks_refresh,
            )  # fmt: skip
            self.keys.remote = self.remote
        if self.cache is not None:
            self.keys.on_change(self.cache.clear)
        self.verifier: TokenVerifier = TokenVerifier(
            self.keys, algorithms=algorithms, audience=config.jwt_audience, issuer=config.jwt_issuer,
            required_claims=config.jwt_required_claims, leeway_s=config.jwt_leeway,
            allow_no_exp=config.allow_no_exp, cache=self.cache,
        )  # fmt: skip
        self.warnings: list[str] = [warning] if (warning := short_secrets(own)) else []
        if config.jwks_url is not None and config.jwks_url.startswith("http://"):
            self.warnings.append(
                "jwks_url is not encrypted: whoever is on the way to it can bring keys of their own"
            )

    @classmethod
    def of(cls, config: ServerConfig) -> Verification | None:
        """As the class; None if no keys are configured: such a server accepts no tokens."""
        return cls(config) if config.verifies_tokens() else None

    def __repr__(self) -> str:
        return f"<Verification by {len(self.keys)} keys>"

    def start(self) -> None:
        """Begins to fetch keys, in the running loop."""
        if self.remote is not None:
            self.remote.start()

    async def stop(self) -> None:
        """Ends that."""
        if self.remote is not None:
            await self.remote.stop()

    def reload(self) -> None:
        """Reads the files with secrets and keys again; after a problem, which is logged, nothing changes."""
        try:
            own = read_keys(self._config)
        except ConfigError as error:
            logger.error("the keys stay as they were: %s", error)
            return
        self.keys.replace_own(own)
        logger.info("the files with secrets and keys were read again: %d keys", len(self.keys))

    def problem(self) -> str | None:
        """Why no token can be accepted now, or None."""
        if len(self.keys):
            return None
        why = self.remote.problem if self.remote is not None else None
        return "no keys to verify tokens with" + (f": {why}" if why else "")
