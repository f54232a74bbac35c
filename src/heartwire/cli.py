"""The commands: `socket-server`, and `heartwire serve|check|token`.

Flags win over the environment (`HEARTWIRE_A_B`), which wins over the file of `--config`. Whatever is
wrong with what the user gave is told in one line on stderr, exit status 2, without repeating any
value: it might be a secret in the wrong place.
"""

from __future__ import annotations

import errno
import inspect
import os
import sys
import time
import tomllib
import uuid
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, NamedTuple

from cyclopts import App, Group, Parameter
from cyclopts.exceptions import (
    CoercionError,
    CycloptsError,
    MissingArgumentError,
    RepeatArgumentError,
    UnknownCommandError,
    UnknownOptionError,
)

from heartwire._version import __version__
from heartwire.config import FIELDS, ServerConfig
from heartwire.errors import ConfigError
from heartwire.logs import configure_logging
from heartwire.options import Field, nearest, parse_duration

__all__ = ["main", "socket_server"]

_CONFIG_VARIABLE: Final = "HEARTWIRE_CONFIG"
_KEY_OPTIONS: Final = frozenset(
    ("jwt_secret", "jwt_secret_file", "jwt_public_key_file", "jwks_url", "jwks_file")
)
_HMAC_BYTES: Final = {"HS256": 32, "HS384": 48, "HS512": 64}
# What the system says when a server may not have the address it asked for.
_BIND_ERRORS: Final = frozenset(
    (
        errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES, errno.EPERM,
        errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG,
    )
)  # fmt: skip


class Setting(NamedTuple):
    """A value as it was given, and where: a flag, a variable, or a key of a file."""

    value: object
    source: str


def gather(flags: Mapping[str, object], environ: Mapping[str, str], file: str | None) -> dict[str, Setting]:
    """Brings together what was given, by precedence; an empty variable counts as not set.

    Raises:
        ConfigError: the file cannot be read, or has an unknown key.
    """
    settings = _from_file(file or environ.get(_CONFIG_VARIABLE) or None)
    for name, field in FIELDS.items():
        if text := environ.get(field.variable):
            parts = [part.strip() for part in text.split(",")]
            settings[name] = Setting(parts if field.repeatable else text, field.variable)
    for name, given in flags.items():
        if given is not None:
            settings[name] = Setting(given, FIELDS[name].flag)
    return settings


def build(settings: Mapping[str, Setting]) -> ServerConfig:
    """Makes the configuration of a command.

    Raises:
        ConfigError: the first problem; `option` is the place where the value was given.
    """
    for error in problems(settings):
        raise error
    return ServerConfig.from_kwargs(**{name: setting.value for name, setting in settings.items()})


def problems(settings: Mapping[str, Setting]) -> list[ConfigError]:
    """All that is wrong with the settings, each named by the place where it was given."""
    found = []
    for name, setting in settings.items():
        try:
            ServerConfig.from_kwargs(**{name: setting.value})
        except ConfigError as error:
            found.append(ConfigError(setting.source, error.message))
    if not found:
        try:
            ServerConfig.from_kwargs(**{name: s.value for name, s in settings.items()}).check_together()
        except ConfigError as error:
            where = settings[error.option].source if error.option in settings else error.option
            found.append(ConfigError(where, error.message))
    mode = settings["auth"].value if "auth" in settings else "handshake"
    if mode != "optional" and not _KEY_OPTIONS & settings.keys():
        found.append(
            ConfigError(
                "--jwt-secret",
                "a secret is needed to verify tokens: --jwt-secret, HEARTWIRE_JWT_SECRET, --jwt-secret-file; "
                "or public keys: --jwt-public-key-file, --jwks-url, --jwks-file (--auth optional serves "
                "without)",
            )
        )
    return found


def serve(config: ServerConfig, prog: str) -> int:
    """Runs a server until it is told to stop; returns the exit status."""
    configure_logging(config.log_level, config.log_format, config.log_connections)
    _raise_descriptor_limit()
    from heartwire.server import Server  # late: `--help` and `check` should not load all of it

    try:
        status: int = Server(**{name: getattr(config, name) for name in FIELDS}).run()
        return status
    except OSError as error:
        if error.errno not in _BIND_ERRORS and type(error).__name__ != "gaierror":
            raise
        place = config.unix or f"{config.host} port {config.port}"
        # Not error.strerror: asyncio puts a sentence of its own there, with the address once more.
        reason = os.strerror(error.errno) if error.errno in _BIND_ERRORS else "the host name is not known"
        print(f"{prog}: cannot listen on {place}: {reason}", file=sys.stderr)
        return 1


def mint(config: ServerConfig, claims: Mapping[str, object], expires_in: float, secret: str | None) -> str:
    """Signs a token that a server with this configuration accepts.

    Raises:
        ConfigError: there is no secret to sign with.
    """
    import jwt

    secrets = (secret,) if secret else config.jwt_secrets()
    if not secrets:
        raise ConfigError(
            "--jwt-secret", "a secret is needed: --jwt-secret, HEARTWIRE_JWT_SECRET or --config with one"
        )
    algorithm = config.signing_algorithm()
    if algorithm is None:
        raise ConfigError("jwt_algorithms", "none of them uses a secret: such tokens are made elsewhere")
    now = int(time.time())
    payload = {"iat": now, "exp": now + int(expires_in), "jti": uuid.uuid4().hex, **claims}
    payload.update({"aud": config.jwt_audience} if config.jwt_audience else {})
    payload.update({"iss": config.jwt_issuer} if config.jwt_issuer else {})
    with warnings.catch_warnings():  # test secrets are short; `check` says so where it matters
        warnings.simplefilter("ignore")
        return jwt.encode(payload, secrets[0], algorithm=algorithm)


def socket_server(argv: list[str] | None = None) -> int:
    """Entry point of `socket-server`: runs the server; returns the exit status."""
    app = _app("socket-server", "A WebSocket server for authenticated JSON messaging.")
    app.default(_with_options(lambda settings: serve(build(settings), "socket-server")))
    return _run(app, "socket-server", argv)


def main(argv: list[str] | None = None) -> int:
    """Entry point of `heartwire`: serve, check or token; returns the exit status."""
    app = _app("heartwire", "A WebSocket server for authenticated JSON messaging, and what goes with it.")
    app.command(
        _with_options(lambda settings: serve(build(settings), "heartwire serve")),
        name="serve",
        help="Run the server; the same as socket-server.",
    )
    app.command(_with_options(_check), name="check", help="Say what is wrong with a configuration.")
    app.command(_token, name="token", help="Print a token for tests, signed as the server expects it.")
    return _run(app, "heartwire", argv)


def _check(settings: Mapping[str, Setting]) -> int:
    found = problems(settings)
    for error in found:
        print(f"heartwire check: {error}", file=sys.stderr)
    if found:
        return 2
    config = build(settings)
    from heartwire.verification import Verification  # late, as in `serve`

    Verification.of(config)  # reads the keys, and sees whether the algorithms go with them
    if config.tls_cert is not None:
        from heartwire.tls import ServerTls

        try:
            ServerTls(config)
        except ConfigError as error:
            print(f"heartwire check: {FIELDS[error.option].flag}: {error.message}", file=sys.stderr)
            return 2
    for warning in _warnings(config, os.environ):
        print(f"heartwire check: warning: {warning}", file=sys.stderr)
    print(f"valid: {config.summary()}")
    return 0


def _warnings(config: ServerConfig, environ: Mapping[str, str]) -> list[str]:
    found = []
    shortest = min(_HMAC_BYTES.get(name, 32) for name in config.jwt_algorithms or ("HS256",))
    if any(len(secret.encode()) < shortest for secret in config.jwt_secrets()):
        found.append(f"--jwt-secret: shorter than {shortest} bytes (RFC 7518): fit for tests only")
    variables = [field.variable for field in FIELDS.values()] + [_CONFIG_VARIABLE]
    for name in sorted(environ):
        if name.startswith("HEARTWIRE_") and name not in variables:
            found.append(f"{name}: no such variable{nearest(name, variables)}")
    return found


def _token(
    *,
    sub: str,
    username: str | None = None,
    email: str | None = None,
    roles: list[str] | None = None,
    channels: list[str] | None = None,
    expires_in: str = "1h",
    jwt_secret: str | None = None,
    config: str | None = None,
) -> int:
    """Print a token.

    Args:
        sub: User id.
        username: Name shown to other users.
        email: Address of the user.
        roles: Role of the user. Repeatable.
        channels: Private or presence channel the user may join, `*` for any text. Repeatable.
        expires_in: Life of the token, such as 90s, 5m or 1h.
        jwt_secret: Secret to sign with [environment: HEARTWIRE_JWT_SECRET, of which the first counts].
        config: TOML file of the server that is to accept the token.
    """
    try:
        lifetime = parse_duration(expires_in)
    except ValueError as error:
        raise ConfigError("--expires-in", str(error)) from None
    if not 1 <= len(sub) <= 128 or not sub.isprintable():
        raise ConfigError("--sub", "expected 1 to 128 printable characters")
    settings = gather({}, os.environ, config)
    settings["auth"] = Setting("optional", "--auth")  # whether there is a secret is seen when signing
    server = build(settings)
    claims = {"sub": sub, "username": username, "email": email, "roles": roles, "channels": channels}
    given = {name: value for name, value in claims.items() if value is not None}
    print(mint(server, given, lifetime, jwt_secret))
    return 0


def _app(name: str, about: str) -> App:
    defaults = Parameter(show_default=False, show_env_var=False, negative_iterable=())
    return App(name=name, help=about, version=f"heartwire {__version__}", default_parameter=defaults)


def _with_options(command: Callable[[Mapping[str, Setting]], int]) -> Callable[..., int]:
    # cyclopts reads a signature; this one is made from the table. All values stay text, so that one
    # parser reads flags, environment and files alike, and no library puts a bad value in its message.
    def run(config: str | None = None, **flags: Any) -> int:
        return command(gather(flags, os.environ, config))

    about = f"TOML file whose keys are the options, such as ping_interval. [environment: {_CONFIG_VARIABLE}]"
    group = Group("Configuration", sort_key=0)
    parameters = [_parameter("config", str, Parameter(help=about, group=group))]
    groups: dict[str, Group] = {}
    for field in FIELDS.values():
        group = groups.setdefault(field.option.group, Group(field.option.group, sort_key=len(groups) + 1))
        parameters.append(
            _parameter(field.name, _flag_type(field), Parameter(help=_help(field), group=group))
        )
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _parameter(name: str, kind: Any, details: Parameter) -> inspect.Parameter:
    annotation = Annotated[kind | None, details]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _flag_type(field: Field) -> Any:
    if field.kind == "flag":
        return bool
    return list[str] if field.repeatable else str


def _help(field: Field) -> str:
    choices = f" One of {', '.join(field.choices)}." if field.choices else ""
    repeatable = " Repeatable." if field.repeatable else ""
    return f"{field.option.about}{choices}{repeatable} [default: {field.default_text()}]"


def _run(app: App, prog: str, argv: list[str] | None) -> int:
    tokens = sys.argv[1:] if argv is None else argv
    try:
        status = app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"{prog}: {_usage(error)}", file=sys.stderr)
        return 2
    except ConfigError as error:
        print(f"{prog}: {error}", file=sys.stderr)
        return 2
    return status if isinstance(status, int) else 0


def _usage(error: CycloptsError) -> str:
    """One line about a command line that cannot be read; quotes names only, never values."""
    if isinstance(error, UnknownOptionError):
        given = (error.token.keyword or error.token.value).split("=")[0]
        names = [name for argument in error.argument_collection for name in argument.names]
        # `--jwt-secretABC` is a secret with the space forgotten.
        for field in FIELDS.values():
            if field.option.secret and given.startswith(field.flag) and field.flag in names:
                return f"no such option; did you mean {field.flag}?"
        return f"{given[:64] if given.startswith('--') else given[:2]}: no such option{nearest(given, names)}"
    name = error.argument.name if error.argument is not None else ""
    if isinstance(error, MissingArgumentError):
        option = FIELDS.get(name.removeprefix("--").replace("-", "_"))
        return f"{name}: expected {option.expects if option else 'a value'}"
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword}: given more than once, expected once"
    if isinstance(error, CoercionError):
        return f"{name}: expected true or false"
    if isinstance(error, UnknownCommandError):
        return "no such command; expected serve, check or token"
    return "unexpected argument: values follow the name of their option, as in --port 8085"


def _from_file(path: str | None) -> dict[str, Setting]:
    if path is None:
        return {}
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("--config", f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("--config", f"{path} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("--config", f"{path} is not TOML: {error}") from None
    for name in values:
        if name not in FIELDS:
            raise ConfigError(f"{path}: {name[:64]!r}", "no such option" + nearest(name, list(FIELDS)))
    return {name: Setting(value, f"{path}: {name}") for name, value in values.items()}


def _raise_descriptor_limit() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS says "unlimited" and refuses it; the limit stays as it was
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
