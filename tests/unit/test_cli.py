"""The commands, with a fake server in place of the real one."""

from __future__ import annotations

import errno
import json
import logging
import os
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from heartwire import cli, features
from heartwire._version import __version__
from heartwire.config import FIELDS
from heartwire.logs import JsonFormatter, TextFormatter
from signing import key_pair

SECRET = "a-secret-of-at-least-thirty-two-bytes"


class FakeServer:
    """Keeps its keywords, and ends as the test says."""

    made: list[dict[str, Any]]
    outcome: int | BaseException

    def __init__(self, **options: Any) -> None:
        self.made.append(options)

    def run(self) -> int:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No option from the environment; logging and limits as before."""
    for name in list(os.environ):
        if name.startswith("HEARTWIRE_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "100")
    if sys.platform != "win32":
        monkeypatch.setattr("resource.setrlimit", lambda *_: None)
    root, ours = logging.getLogger(), logging.getLogger("heartwire")
    before = root.handlers[:], root.level, ours.level
    root.handlers[:] = []
    yield
    root.handlers[:], level, our_level = before
    root.setLevel(level)
    ours.setLevel(our_level)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> type[FakeServer]:
    class Server(FakeServer):
        pass

    Server.made = []
    Server.outcome = 0
    module = types.ModuleType("heartwire.server")
    module.Server = Server  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "heartwire.server", module)
    return Server


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line; returns its status, stdout and stderr."""

    def run(command: str, *argv: str) -> tuple[int, str, str]:
        entry = {"socket-server": cli.socket_server, "heartwire": cli.main}[command]
        status = entry(list(argv))
        return status, *capsys.readouterr()

    return run


def one_line(stderr: str) -> str:
    """The only line of it, without the name of the program."""
    assert stderr.endswith("\n")
    assert stderr.count("\n") == 1, stderr
    return stderr.partition(": ")[2].rstrip("\n")


def test_flags_become_keywords(run: Run, server: type[FakeServer]) -> None:
    status, out, err = run(
        "socket-server", "--port", "8085", "--jwt-secret", "one", "--jwt-secret=two", "--no-welcome",
        "--ping-interval", "500ms", "--max-message-size", "512KiB", "--ping-always",
    )  # fmt: skip
    assert (status, out, err) == (0, "", "")
    (options,) = server.made
    assert options.keys() == FIELDS.keys()
    assert options["port"] == 8085
    assert options["jwt_secret"] == ("one", "two")
    assert (options["welcome"], options["ping_always"], options["query_token"]) == (False, True, True)
    assert (options["ping_interval"], options["max_message_size"]) == (0.5, 524288)


def test_the_status_of_the_server_is_that_of_the_command(run: Run, server: type[FakeServer]) -> None:
    server.outcome = 7
    assert run("heartwire", "serve", "--jwt-secret", "s")[0] == 7


def test_flag_over_environment_over_file(
    run: Run, server: type[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "heartwire.toml"
    file.write_text('port = 1\npath = "/file"\nhost = "file"\njwt_secret = ["f1", "f2"]\n'
                    'ping_interval = "5m"\n'
                    "drain_delay = 0\nwelcome = false\n")  # fmt: skip
    monkeypatch.setenv("HEARTWIRE_PORT", "2")
    monkeypatch.setenv("HEARTWIRE_PATH", "/environment")
    monkeypatch.setenv("HEARTWIRE_ORIGIN", "https://a.example, https://b.example")
    monkeypatch.setenv("HEARTWIRE_QUERY_TOKEN", "off")
    monkeypatch.setenv("HEARTWIRE_AUTH", "")
    assert run("socket-server", "--config", str(file), "--port", "3")[0] == 0
    monkeypatch.setenv("HEARTWIRE_CONFIG", str(file))
    assert run("socket-server", "--port", "3")[0] == 0
    first, second = server.made
    assert first == second
    assert (first["port"], first["path"], first["host"]) == (3, "/environment", "file")
    assert first["origin"] == ("https://a.example", "https://b.example")
    assert first["jwt_secret"] == ("f1", "f2")
    assert (first["ping_interval"], first["drain_delay"]) == (300.0, 0.0)
    assert (first["welcome"], first["query_token"], first["auth"]) == (False, False, "handshake")


@pytest.mark.parametrize("field", FIELDS.values(), ids=FIELDS)
def test_every_option_is_a_flag_a_variable_and_a_key(
    field: Any, run: Run, server: type[FakeServer], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "DEFLATE", True)
    for name in ("jwt_secret_file", "api_key_file"):
        (tmp_path / name).write_text("from-a-file")
    texts = {"origin": "https://x.example", "path": "/other", "jwks_url": "https://x.example/keys"}
    texts["webhook_secret"] = "at least twenty-four bytes"
    (tmp_path / "webhook_secret_file").write_text(texts["webhook_secret"])
    texts |= dict.fromkeys(("webhook_url", "authorize_url"), "https://x.example/y?z=1")
    texts["trusted_proxy"] = "fd00::/8"
    samples = {
        "flag": not field.default,
        "integer": 17,
        "size": 65536,
        "duration": 20.5,
        "number": 2.5,
        "choice": field.choices[-1:] and field.choices[-1],
        "path": str(tmp_path / field.name),
        "text": texts.get(field.name, "word"),
        "custom": "chat- publish=false",
    }
    value = samples[field.kind]
    text = str(value).lower() if field.kind == "flag" else str(value)
    base = [] if field.name in ("jwt_secret", "auth") else ["--jwt-secret", "s"]
    base += ["--jwt-secret", "s"] if field.name == "auth" else []
    if field.name in ("webhook_url", "authorize_url"):
        base += ["--webhook-secret", "s" * 24]
    base += ["--trusted-proxy", "unix"] if field.name == "proxy_protocol" else []
    base += ["--tls-cert", "file"] if field.name in ("tls_key", "tls_client_ca") else []
    if field.kind == "flag":
        flag = [field.flag if value else field.flag.replace("--", "--no-", 1)]
    else:
        flag = [field.flag, text]
    (tmp_path / "toml").write_text(f"{field.name} = {json.dumps(value)}\n")
    assert run("socket-server", *base, *flag)[0] == 0
    assert run("socket-server", *base, "--config", str(tmp_path / "toml"))[0] == 0
    monkeypatch.setenv(field.variable, text)
    assert run("socket-server", *base)[0] == 0
    by_flag, by_file, by_variable = (options[field.name] for options in server.made)
    assert by_flag == by_file == by_variable != field.default


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--port", "abc"], "--port: expected a whole number, from 0 to 65535"),
        (["--port", ""], "--port: expected a whole number, from 0 to 65535"),
        (["--port"], "--port: expected a whole number, from 0 to 65535"),
        (["--port", "1", "--port", "2"], "--port: given more than once, expected once"),
        (["--welcome=maybe"], "--welcome: expected true or false"),
        (["--auth", "sometimes"], "--auth: expected one of handshake, message, optional"),
        (["--prot", "1"], "--prot: no such option; did you mean --port?"),
        (["--ping_intervall=5"], "--ping_intervall: no such option; did you mean --ping-interval?"),
        (["--no-welcom"], "--no-welcom: no such option; did you mean --no-welcome?"),
        (["--config", "/no/such/file"], "--config: cannot read /no/such/file: No such file or directory"),
        (["hello"], "unexpected argument: values follow the name of their option, as in --port 8085"),
        (["--zzzzzzzzz"], "--zzzzzzzzz: no such option"),
    ],
)
def test_a_wrong_command_line_is_one_line(
    argv: list[str], message: str, run: Run, server: type[FakeServer]
) -> None:
    status, out, err = run("socket-server", "--jwt-secret", "s", *argv)
    assert (status, out, one_line(err)) == (2, "", message)
    assert server.made == []


# Values of an option, and secrets that a slip of the hand puts where no value belongs.
SLIPS = {
    **{
        f"{name} value": [f"--{name}", f"\0{SECRET}"]
        for name in ("jwt-secret", "api-key", "port", "auth", "unix")
    },
    **{
        f"{name} =value": [f"--{name}=\0{SECRET}"]
        for name in ("jwt-secret", "api-key", "port", "auth", "unix")
    },
    **{f"{name} second value": [f"--{name}", "x", SECRET] for name in ("jwt-secret", "api-key", "host")},
    **{f"{name} without space": [f"--{name}{SECRET}"] for name in ("jwt-secret", "api-key")},
    "misspelt": [f"--jwt-secrt={SECRET}"],
    "dash": [f"-{SECRET}"],
    "alone": [SECRET],
    "boolean": [f"--welcome={SECRET}"],
    "twice": ["--host", SECRET, "--host", SECRET],
}


@pytest.mark.parametrize("argv", SLIPS.values(), ids=SLIPS)
def test_no_message_repeats_a_value(argv: list[str], run: Run, server: type[FakeServer]) -> None:
    status, out, err = run("socket-server", *argv)
    assert status == 2
    one_line(err)
    assert SECRET not in out + err
    assert server.made == []


def test_a_bad_variable_is_named(run: Run, server: type[FakeServer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTWIRE_PORT", "tcp://10.0.0.1:80")
    status, _, err = run("socket-server", "--jwt-secret", "s")
    assert (status, one_line(err)) == (2, "HEARTWIRE_PORT: expected a whole number, from 0 to 65535")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "'prot': no such option; did you mean port?"),
        ("ping-interval = 1", "'ping-interval': no such option; did you mean ping_interval?"),
        ("port = [1]", "port: expected a whole number, from 0 to 65535"),
        ("[server]\nport = 1", "'server': no such option"),
        ("port = ", " is not TOML: "),
    ],
)
def test_a_bad_file_is_one_line(
    text: str, message: str, run: Run, server: type[FakeServer], tmp_path: Path
) -> None:
    (tmp_path / "x.toml").write_text(text)
    status, _, err = run("socket-server", "--jwt-secret", "s", "--config", str(tmp_path / "x.toml"))
    assert status == 2
    assert "x.toml" in one_line(err)
    assert message in one_line(err)


def test_a_server_that_could_let_nobody_in_does_not_start(run: Run, server: type[FakeServer]) -> None:
    status, _, err = run("socket-server")
    assert status == 2
    assert one_line(err).startswith("--jwt-secret: a secret is needed")
    assert run("socket-server", "--auth", "optional")[0] == 0


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.EADDRINUSE, "error while attempting to bind on address"), "Address already in use"),
        (PermissionError(errno.EACCES, "x"), "Permission denied"),
    ],
)
def test_a_taken_port_is_one_line(error: OSError, reason: str, run: Run, server: type[FakeServer]) -> None:
    server.outcome = error
    status, _, err = run("socket-server", "--jwt-secret", "s", "--port", "8085")
    assert (status, one_line(err)) == (1, f"cannot listen on 127.0.0.1 port 8085: {reason}")


def test_other_errors_of_the_server_are_not_hidden(run: Run, server: type[FakeServer]) -> None:
    server.outcome = OSError(errno.EIO, "broken")
    with pytest.raises(OSError, match="broken"):
        run("socket-server", "--jwt-secret", "s")


def test_the_descriptor_limit_is_raised(
    run: Run, server: type[FakeServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    raised = []
    monkeypatch.setattr(resource, "setrlimit", lambda *args: raised.append(args))
    run("socket-server", "--jwt-secret", "s")
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert raised == [(resource.RLIMIT_NOFILE, (hard, hard))]


@pytest.mark.parametrize("command", ["socket-server", "heartwire"])
def test_version(command: str, run: Run) -> None:
    assert run(command, "--version") == (0, f"heartwire {__version__}\n", "")


def test_help_is_grouped_and_complete(run: Run) -> None:
    status, out, err = run("socket-server", "--help")
    assert (status, err) == (0, "")
    for field in FIELDS.values():
        assert f"{field.flag} " in out
        assert f" {field.option.group} " in out
    assert "--empty" not in out
    assert "[default: 30s]" in out


def test_check_says_everything_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTWIRE_PING_INTERVAL", "soon")
    status, out, err = run("heartwire", "check", "--port", "x", "--auth", "message")
    assert (status, out) == (2, "")
    assert [line.split(": ")[1] for line in err.splitlines()] == [
        "HEARTWIRE_PING_INTERVAL",
        "--port",
        "--jwt-secret",
    ]


def test_check_of_a_good_configuration(run: Run) -> None:
    assert run("heartwire", "check", "--jwt-secret", SECRET, "--port", "1") == (
        0,
        "valid: port=1 jwt_secret=***\n",
        "",
    )


def test_check_reads_the_keys(run: Run, tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_bytes(key_pair("ES256").pem)
    bad.write_bytes(b"no key")
    assert run("heartwire", "check", "--jwt-public-key-file", str(good))[0] == 0
    for option, path, said in (
        ("--jwt-public-key-file", bad, "it holds no PEM public key"),
        ("--jwks-file", bad, "it is no JWK Set"),
        ("--jwks-file", tmp_path / "none", "No such file"),
    ):
        status, _, err = run("heartwire", "check", option, str(path))
        assert status == 2
        assert said in one_line(err)
    argv = ("--jwt-public-key-file", str(good), "--jwt-algorithms", "RS256")
    status, _, err = run("heartwire", "check", *argv)
    assert status == 2
    assert f"the key of {good} is for ES256, which is not accepted" in one_line(err)


def test_no_token_without_a_secret(run: Run, tmp_path: Path) -> None:
    (tmp_path / "toml").write_text('jwt_algorithms = ["RS256"]')
    argv = ("token", "--sub", "a", "--jwt-secret", SECRET, "--config", str(tmp_path / "toml"))
    status, _, err = run("heartwire", *argv)
    assert status == 2
    assert "none of them uses a secret" in one_line(err)


def test_check_warns(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEARTWIRE_PROT", "1")
    status, _, err = run("heartwire", "check", "--jwt-secret", "short")
    assert status == 0
    assert "warning: --jwt-secret: shorter than 32 bytes" in err
    assert "warning: HEARTWIRE_PROT: no such variable; did you mean HEARTWIRE_PORT?" in err
    assert "short\n" not in err


def test_token(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    status, out, err = run(
        "heartwire", "token", "--sub", "u1", "--username", "Ann", "--jwt-secret", SECRET,
        "--expires-in", "5m", "--channels", "private-*", "--channels", "presence-a", "--roles", "admin",
        "--email", "a@example.com",
    )  # fmt: skip
    assert (status, err) == (0, "")
    claims = jwt.decode(out.strip(), SECRET, ["HS256"])
    assert claims["exp"] - claims["iat"] == 300
    assert len(claims["jti"]) == 32
    known = {name: claims[name] for name in claims.keys() - {"exp", "iat", "jti"}}
    assert known == {
        "sub": "u1", "username": "Ann", "email": "a@example.com", "roles": ["admin"],
        "channels": ["private-*", "presence-a"],
    }  # fmt: skip


def test_a_token_fits_the_server_it_is_for(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "x.toml").write_text(
        'jwt_audience = "app"\njwt_issuer = "me"\njwt_algorithms = ["HS512"]\nauth = "message"'
    )
    monkeypatch.setenv("HEARTWIRE_JWT_SECRET", f"{SECRET},old")
    status, out, err = run("heartwire", "token", "--sub", "u1", "--config", str(tmp_path / "x.toml"))
    assert (status, err) == (0, "")  # a secret too short for the algorithm is no noise here
    options = {"enforce_minimum_key_length": False}
    with pytest.warns(jwt.InsecureKeyLengthWarning):
        claims = jwt.decode(out.strip(), SECRET, ["HS512"], audience="app", issuer="me", options=options)
    assert claims["sub"] == "u1"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--sub", "u"], "--jwt-secret: a secret is needed"),
        (["--jwt-secret", "s"], "--sub: expected a value"),
        (["--sub", "", "--jwt-secret", "s"], "--sub: expected 1 to 128 printable characters"),
        (["--sub", "a\nb", "--jwt-secret", "s"], "--sub: expected 1 to 128 printable characters"),
        (["--sub", "u", "--jwt-secret", "s", "--expires-in", "soon"], "--expires-in: expected a duration"),
        (["--sub", "u", "--jwt-sceret", "s"], "--jwt-sceret: no such option; did you mean --jwt-secret?"),
    ],
)
def test_a_wrong_token_command_is_one_line(argv: list[str], message: str, run: Run) -> None:
    status, out, err = run("heartwire", "token", *argv)
    assert (status, out) == (2, "")
    assert one_line(err).startswith(message)


def test_an_unknown_command_is_one_line(run: Run) -> None:
    status, _, err = run("heartwire", "sevre")
    assert (status, one_line(err)) == (2, "no such command; expected serve, check or token")


def log(formatter: logging.Formatter, message: str, *args: object, **extra: object) -> str:
    try:
        raise ValueError("inner")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("heartwire.x", logging.WARNING, "f", 1, message, args, info if extra else None)
    record.created = 0.25
    record.__dict__.update(extra)
    return formatter.format(record)


def test_a_text_log_line_cannot_be_forged() -> None:
    assert log(TextFormatter(), "from %s", "peer\r\n\x1b[31m\u2028") == (
        "1970-01-01T00:00:00.250Z WARNING heartwire.x: from peer\\x0d\\x0a\\x1b[31m\\u2028"
    )


def test_a_json_log_line_is_one_object() -> None:
    line = log(JsonFormatter(), "hello\n%d", 5, client_id="c1", odd=Path("/x"))
    assert "\n" not in line
    record = json.loads(line)
    assert "ValueError: inner" in record.pop("exception")
    assert record == {
        "timestamp": "1970-01-01T00:00:00.250Z", "level": "warning", "logger": "heartwire.x",
        "message": "hello\n5", "client_id": "c1", "odd": "/x",
    }  # fmt: skip


def test_logging_is_set_up_for_the_command(
    run: Run, server: type[FakeServer], capsys: pytest.CaptureFixture[str]
) -> None:
    run("socket-server", "--jwt-secret", "s", "--log-level", "debug", "--log-format", "json")
    logging.getLogger("heartwire").debug("seen")
    logging.getLogger("other").info("not seen")
    assert json.loads(capsys.readouterr().err)["message"] == "seen"
