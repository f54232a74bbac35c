"""The configuration of a server: every option, with its unit, default and reason.

`ServerConfig` is the one table. The command's flags, the environment, TOML files, the keywords of
`Server` and `docs/options.md` are all made from it. Its fields stand in the modules `access`, `messages`,
`limits` and `operation`, each a base of the next, since a msgspec struct takes one. To add an option, add a
field there; then run `make docs/options.md`.
"""

from __future__ import annotations

import base64
import sys
from collections.abc import Mapping
from ipaddress import IPv4Network, IPv6Network, ip_network
from math import ceil
from pathlib import Path
from typing import Any, Final

import msgspec

from heartwire import features
from heartwire.config.bounds import KEPT_DESCRIPTORS
from heartwire.config.operation import OperationOptions
from heartwire.errors import ConfigError
from heartwire.options import Field, fields_of, nearest

if sys.platform != "win32":  # which has no such limit either
    import resource

__all__ = ["FIELDS", "ApiKey", "ServerConfig", "burst"]

_WEBHOOK_KEY_LEAST: Final = 24  # bytes, as Standard Webhooks says


class ApiKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key of the HTTP API, as `[name:scopes:]key` says. Its repr does not show the key."""

    name: str
    scopes: frozenset[str]
    key: str

    @classmethod
    def parse(cls, text: str) -> ApiKey:
        """Reads `key` (all scopes) or `name:scope+scope:key`, already checked for its form."""
        if ":" not in text:
            return cls(name="default", scopes=frozenset(("read", "publish", "admin")), key=text)
        name, scopes, key = text.split(":", 2)
        return cls(name=name, scopes=frozenset(scopes.split("+")), key=key)

    def __repr__(self) -> str:
        return f"ApiKey(name={self.name!r}, scopes={sorted(self.scopes)!r}, key='***')"

    def __rich_repr__(self) -> Any:  # msgspec's own would show the key
        yield "name", self.name


class ServerConfig(OperationOptions, frozen=True, kw_only=True):
    """Everything a server can be told. Immutable, and valid once it exists.

    Each value may also be given as text ("30s", "1MiB", "true"). Use `from_kwargs`, which knows
    misspelt names.

    Raises:
        ConfigError: a value does not fit; names the option and says what was expected.
    """

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            msgspec.structs.force_setattr(self, name, _parsed(field, getattr(self, name)))
        self._check_build()
        self.jwt_secrets()
        self.api_keys()
        self.webhook_key()
        self.trusted_networks()

    def _check_build(self) -> None:
        """Nothing is asked for that this build of the package cannot do."""
        if self.link == "epoll" and not features.REACTOR:
            raise ConfigError("link", "there is no epoll in this build (Linux has it); use auto or asyncio")
        if self.compression != "off" and not features.DEFLATE:
            raise ConfigError("compression", "there is no zlib in this build; use off")
        if self.unix is not None and not features.UNIX_SOCKETS:
            raise ConfigError("unix", "there are no Unix sockets on this platform; use host and port")
        if self.tls_cert is not None and sys.platform == "win32":
            raise ConfigError("tls_cert", "not on this platform: put a proxy in front of it")
        if self.reuse_port and not features.REUSE_PORT:
            raise ConfigError("reuse_port", "this platform has no SO_REUSEPORT; leave it off")

    @classmethod
    def from_kwargs(cls, **kwargs: Any) -> ServerConfig:
        """Makes a configuration from keywords: those of `Server`, which are the options' names.

        Raises:
            ConfigError: no such option (says which is near), or a value does not fit.
        """
        for name in kwargs:
            if name not in FIELDS:
                raise ConfigError(name, "no such option" + nearest(name, list(FIELDS)))
        return cls(**kwargs)

    def jwt_secrets(self) -> tuple[str, ...]:
        """All secrets, those of `jwt_secret_file` last; read again at each call.

        Raises:
            ConfigError: the file cannot be read.
        """
        return self.jwt_secret + _lines("jwt_secret_file", FIELDS["jwt_secret"], self.jwt_secret_file)

    def verifies_tokens(self) -> bool:
        """Whether there is anything to verify tokens with."""
        files = self.jwt_secret_file or self.jwt_public_key_file or self.jwks_file
        return bool(self.jwt_secret or files or self.jwks_url)

    def signing_algorithm(self) -> str | None:
        """What tokens are signed with by a secret of this server; None if it accepts no such algorithm."""
        wanted = self.jwt_algorithms or ("HS256",)
        return next((name for name in wanted if name.startswith("HS")), None)

    def api_keys(self) -> tuple[ApiKey, ...]:
        """All keys of the HTTP API, those of `api_key_file` last; read again at each call.

        Raises:
            ConfigError: the file cannot be read, or holds a line that is no key.
        """
        texts = self.api_key + _lines("api_key_file", FIELDS["api_key"], self.api_key_file)
        return tuple(map(ApiKey.parse, texts))

    def webhook_key(self) -> bytes:
        """The key that signs what hooks send, read again at each call; b"" if none is given.

        Raises:
            ConfigError: there are two, or it is no key, or too short.
        """
        field = FIELDS["webhook_secret"]
        given = () if self.webhook_secret is None else (self.webhook_secret,)
        secrets = [*given, *_lines("webhook_secret_file", field, self.webhook_secret_file)]
        if not secrets:
            return b""
        if len(secrets) > 1:
            wrong = "one secret signs: in webhook_secret, or as the one line of webhook_secret_file"
            raise ConfigError("webhook_secret", wrong)
        text = secrets[0]
        if text.startswith("whsec_"):
            try:
                key = base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except ValueError:
                raise ConfigError("webhook_secret", "what follows `whsec_` must be base64") from None
        else:
            key = text.encode("utf-8", "surrogateescape")
        if len(key) < _WEBHOOK_KEY_LEAST:
            wrong = f"it must be at least {_WEBHOOK_KEY_LEAST} bytes: take 32 random ones"
            raise ConfigError("webhook_secret", wrong)
        return key

    def trusted_networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        """`trusted_proxy` without `unix`.

        Raises:
            ConfigError: one is no network.
        """
        try:
            return tuple(ip_network(text) for text in self.trusted_proxy if text != "unix")
        except ValueError:
            expected = FIELDS["trusted_proxy"].expects
            message = f"expected {expected}, without bits behind the prefix"
            raise ConfigError("trusted_proxy", message) from None

    def check_together(self) -> None:
        """Judges options that only fit with others; the rest is judged when it is made.

        Raises:
            ConfigError: two do not fit together.
        """
        for name in ("tls_key", "tls_client_ca"):
            if getattr(self, name) is not None and self.tls_cert is None:
                raise ConfigError(name, "it needs tls_cert")
        if self.tls_cert is not None and self.link == "epoll":
            raise ConfigError("link", "TLS goes over asyncio transports: leave it out, or say asyncio")
        if self.proxy_protocol and not self.trusted_proxy:
            raise ConfigError("proxy_protocol", "say whose headers count: it needs trusted_proxy")
        if not self.webhook_key():
            for name in ("webhook_url", "authorize_url"):
                if getattr(self, name) is not None:
                    wrong = "its requests are signed: webhook_secret or webhook_secret_file is needed"
                    raise ConfigError(name, wrong)

    def connection_limit(self) -> int:
        """`max_connections`, or what the soft limit on descriptors leaves as it is now."""
        if self.max_connections is not None:
            return self.max_connections
        if sys.platform == "win32":
            return 1 << 24
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 1 << 24 if soft == resource.RLIM_INFINITY else max(soft - KEPT_DESCRIPTORS, 1)

    def summary(self) -> str:
        """What differs from the defaults, as `name=value` words, for the log; no secrets."""
        words = (
            f"{name}={field.show(value)}"
            for name, field in FIELDS.items()
            if (value := getattr(self, name)) != field.default
        )
        return " ".join(words) or "defaults"

    def __repr__(self) -> str:
        values = (
            f"{name}={'***' if field.option.secret and value else repr(value)}"
            for name, field in FIELDS.items()
            if (value := getattr(self, name)) != field.default
        )
        return f"ServerConfig({', '.join(values)})"

    def __rich_repr__(self) -> Any:  # msgspec's own would show the secrets
        yield self.summary()


FIELDS: Final[Mapping[str, Field]] = fields_of(ServerConfig)
"""The options by name, in the order of the table."""


def burst(rate: float, given: int | None) -> int:
    """What a limit of `rate` a second lets through at once: what was given, or what is due in two seconds."""
    return given if given is not None else max(ceil(2 * rate), 1)


def _parsed(field: Field, value: object) -> Any:
    try:
        return field.parse(value)
    except ValueError as error:
        raise ConfigError(field.name, str(error)) from None


def _lines(name: str, field: Field, path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise ConfigError(name, f"cannot read the file: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(name, "the file is not UTF-8 text") from None
    values: list[str] = []
    for number, line in enumerate(lines, 1):
        if text := line.rstrip("\r"):
            try:
                value = field.parse(text)
                values.extend(value if field.repeatable else (value,))
            except ValueError as error:
                raise ConfigError(name, f"line {number}: {error}") from None
    if not values:
        raise ConfigError(name, "the file is empty: one value a line is expected")
    return tuple(values)
