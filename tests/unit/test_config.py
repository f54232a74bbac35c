"""Options: how values are read and refused, and what never shows."""

from __future__ import annotations

import runpy
import typing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartwire.config import FIELDS, ApiKey, ServerConfig
from heartwire.errors import ConfigError
from heartwire.options import Option, nearest, parse_duration

ROOT = Path(__file__).parents[2]
SECRET = "very-secret-value-4711"


def test_defaults_are_those_of_the_protocol() -> None:
    config = ServerConfig()
    assert (config.host, config.port, config.path) == ("127.0.0.1", 8080, "/ws")
    assert (config.max_message_size, config.send_buffer_limit) == (1_048_576, 1_048_576)
    assert (config.max_fragments, config.max_json_depth, config.max_channels_per_client) == (16384, 128, 128)
    assert (config.ping_interval, config.ping_timeout, config.close_timeout) == (30, 60, 5)
    assert (config.handshake_timeout, config.auth_timeout, config.message_timeout) == (10, 10, 60)
    assert (config.drain_delay, config.drain_window, config.drain_timeout) == (5, 30, 60)
    assert (config.auth, config.reject) == ("handshake", "status")
    assert (config.query_token, config.welcome, config.allow_no_exp, config.keep_request) == (1, 1, 0, 0)
    assert (config.backlog, config.handler_timeout, config.token_grace) == (4096, 30, 0)
    assert (config.log_level, config.log_format, config.compression) == ("info", "text", "off")
    assert (config.max_connections, config.max_connections_per_address, config.max_connections_per_user,
            config.connect_rate, config.message_rate, config.byte_rate) == (None, 0, 0, 0, 0, 0)  # fmt: skip
    assert (config.unix, config.reuse_port, config.auth_cookie, config.origin) == (None, False, None, ())
    assert (config.ping_always, config.metrics_public, config.api_key) == (False, False, ())


def test_every_default_fits_its_own_option() -> None:
    for field in FIELDS.values():
        assert field.parse(field.default) == field.default, field.name


def test_every_option_says_what_it_is() -> None:
    for field in FIELDS.values():
        assert isinstance(field.option, Option)
        assert field.option.about.endswith("."), field.name
        assert field.option.reason.endswith("."), field.name
        assert (field.kind == "duration") == (field.option.unit == "s"), field.name
        assert (field.kind == "size") == (field.option.unit == "bytes"), field.name
        if field.kind in ("duration", "size", "integer", "number"):
            assert field.option.low is not None, field.name


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("500ms", 0.5), ("30s", 30), ("5m", 300), ("2h", 7200), ("1d", 86400), ("7", 7),
     ("0.25", 0.25), ("1.5 m", 90),
     (12, 12.0), (0.5, 0.5)],
)  # fmt: skip
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)
    assert isinstance(parse_duration(text), float)
    assert ServerConfig.from_kwargs(ping_timeout=text).ping_timeout == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"),
    [("1048576", 1 << 20), ("512KiB", 524288), ("1MiB", 1 << 20), ("1 mib", 1 << 20), ("9B", 9), (77, 77)],
)
def test_sizes(text: object, size: int) -> None:
    assert ServerConfig.from_kwargs(max_message_size=text).max_message_size == size


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("port", "abc", "a whole number, from 0 to 65535"),
        ("port", 65536, "a whole number, from 0 to 65535"),
        ("port", -1, "a whole number, from 0 to 65535"),
        ("port", True, "a whole number"),
        ("port", 80.0, "a whole number"),
        ("port", None, "a whole number"),
        ("host", "", "a host name or an IP address"),
        ("host", "http://x", "a host name or an IP address"),
        ("path", "ws", "a path such as /ws"),
        ("path", "/ws?x=1", "a path such as /ws"),
        ("path", "/w s", "a path such as /ws"),
        ("unix", "", "the path of a file"),
        ("welcome", "maybe", "true or false"),
        ("welcome", 1, "true or false"),
        ("auth", "none", "one of handshake, message, optional"),
        ("jwt_algorithms", ["none"], "one or more of HS256, HS384, HS512, RS256"),
        ("jwt_algorithms", ["HS256", "RS257"], "one or more of HS256, HS384, HS512"),
        ("jwks_url", "ftp://id.example.com/keys", "an address such as https://"),
        ("jwks_url", "https://user:word@id.example.com/keys", "an address such as https://"),
        ("jwt_secret", "", "text that is not empty"),
        ("jwt_secret", ["good", 5], "text that is not empty"),
        ("jwt_secret", b"bytes", "text that is not empty"),
        ("auth_cookie", "a b", "the name of a cookie"),
        ("origin", "example.com", "an origin such as https://example.com"),
        ("origin", "https://example.com/", "an origin such as https://example.com"),
        ("max_message_size", "1MB", "a size such as 65536, 512KiB or 1MiB, from 1 to 1GiB"),
        ("max_message_size", "-1", "a size such as"),
        ("max_message_size", 0, "a size such as"),
        ("ping_interval", "5x", "a duration such as 500ms, 30s or 5m"),
        ("ping_interval", "-5s", "a duration such as"),
        ("ping_interval", float("nan"), "a duration such as"),
        ("ping_interval", float("inf"), "a duration such as"),
        ("ping_interval", 10**400, "a duration such as"),
        (
            "ping_interval",
            0,
            "a duration such as 500ms, 30s or 5m (a bare number is seconds), from 0.05s to 86400s",
        ),
        ("ping_interval", [1], "a duration such as"),
        ("api_key", "name:key", "a key, or name:scopes:key with scopes"),
        ("api_key", "name:write:key", "a key, or name:scopes:key with scopes"),
        ("max_connections", 0, "a whole number, from 1"),
        ("loop", "trio", "one of auto, asyncio, uvloop"),
    ],
)
def test_a_bad_value_names_the_option_and_what_is_expected(option: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_kwargs(**{option: value})
    assert caught.value.option == option
    assert caught.value.message.startswith(f"expected {expected}")
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("name", "near"), [("prot", "port"), ("jwt_secrets", "jwt_secret"), ("pingInterval", "ping_interval")]
)
def test_an_unknown_option_names_the_nearest(name: str, near: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}: no such option; did you mean {near}\\?"):
        ServerConfig.from_kwargs(**{name: 1})


def test_nothing_near_is_no_hint() -> None:
    assert nearest("zzzzzzzz", list(FIELDS)) == ""


def test_one_text_is_a_list_of_one_and_is_not_split() -> None:
    assert ServerConfig.from_kwargs(jwt_secret="a,b").jwt_secret == ("a,b",)
    assert ServerConfig.from_kwargs(jwt_secret=["a", "b"]).jwt_secret == ("a", "b")


def test_paths_may_be_path_objects(tmp_path: Path) -> None:
    assert ServerConfig.from_kwargs(unix=tmp_path / "socket").unix == tmp_path / "socket"
    assert ServerConfig.from_kwargs(unix=str(tmp_path)).unix == tmp_path


def test_a_configuration_cannot_be_made_invalid() -> None:
    with pytest.raises(ConfigError, match="port"):
        ServerConfig(port="nonsense")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="port"):
        msgspec.structs.replace(ServerConfig(), port=-1)
    with pytest.raises(AttributeError):
        ServerConfig().port = 1  # type: ignore[misc]


def test_every_keyword_goes_in_and_out_unchanged() -> None:
    config = ServerConfig.from_kwargs(jwt_secret=SECRET, ping_interval="5s", unix="/tmp/x")
    assert ServerConfig.from_kwargs(**{name: getattr(config, name) for name in FIELDS}) == config


def test_secrets_never_show(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"ops:read:{SECRET}\n")
    config = ServerConfig.from_kwargs(
        jwt_secret=[SECRET, "x"], api_key=f"ci:publish:{SECRET}", api_key_file=tmp_path / "keys", port=1
    )
    rich = "".join(map(repr, (*config.__rich_repr__(), *config.api_keys()[0].__rich_repr__())))
    shown = repr(config) + str(config) + config.summary() + repr(config.api_keys()) + rich
    assert SECRET not in shown
    assert "port=1" in config.summary()
    assert "jwt_secret=***" in config.summary()


@pytest.mark.parametrize("option", list(FIELDS))
def test_a_bad_value_is_never_repeated(option: str) -> None:
    for value in (f"\0{SECRET}", [f"\0{SECRET}"], {SECRET: SECRET}):
        with pytest.raises(ConfigError) as caught:
            ServerConfig.from_kwargs(**{option: value})
        assert SECRET not in repr(caught.value) + str(caught.value)


def test_secrets_from_a_file_come_after_the_others(tmp_path: Path) -> None:
    file = tmp_path / "secrets"
    file.write_bytes(b"one, with comma\r\n\n#two\n")
    config = ServerConfig.from_kwargs(jwt_secret="first", jwt_secret_file=file)
    assert config.jwt_secrets() == ("first", "one, with comma", "#two")
    file.write_text("rotated")
    assert config.jwt_secrets() == ("first", "rotated")


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the file: No such file"), (b"", "the file is empty"), (b"\xff", "not UTF-8"),
     (b"good\nna:me\n", "line 2: expected a key")],
)  # fmt: skip
def test_a_bad_file_is_told_without_its_content(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match=message) as caught:
        ServerConfig.from_kwargs(api_key_file=tmp_path / "file")
    assert caught.value.option == "api_key_file"


def test_api_keys() -> None:
    bare, scoped = ServerConfig.from_kwargs(api_key=["k1", "ci:read+publish:k:2"]).api_keys()
    assert bare == ApiKey(name="default", scopes=frozenset(("read", "publish", "admin")), key="k1")
    assert scoped == ApiKey(name="ci", scopes=frozenset(("read", "publish")), key="k:2")


def test_the_connection_limit_leaves_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    limits = {"soft": 1024}
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limits["soft"], 4096))
    assert ServerConfig().connection_limit() == 768
    assert ServerConfig(max_connections=5).connection_limit() == 5
    limits["soft"] = 100
    assert ServerConfig().connection_limit() == 1
    limits["soft"] = resource.RLIM_INFINITY
    assert ServerConfig().connection_limit() == 1 << 24


def test_the_summary_of_the_defaults_is_short() -> None:
    assert ServerConfig().summary() == "defaults"
    assert ServerConfig(ping_interval=0.5, max_message_size=65536, welcome=False).summary() == (
        "welcome=false max_message_size=64KiB ping_interval=0.5s"
    )


def test_the_options_page_is_current() -> None:
    document = runpy.run_path(str(ROOT / "tools" / "gen_options.py"))["document"]
    page = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert page == document(), "docs/options.md is stale: make docs/options.md"
    assert all(f"| `{name}` |" in page for name in FIELDS)


def test_choices_come_from_the_annotation() -> None:
    hints = typing.get_type_hints(ServerConfig)
    assert FIELDS["link"].choices == typing.get_args(hints["link"]) == ("auto", "epoll", "asyncio")


@given(
    st.sampled_from([f for f in FIELDS.values() if f.kind in ("duration", "size")]),
    st.floats(0, 1),
    st.data(),
)
def test_what_is_shown_is_read_back(field: Any, share: float, data: st.DataObject) -> None:
    low, high = field.option.low, min(field.option.high, 100_000)
    value = (
        round(low + share * (high - low), 2) if field.kind == "duration" else int(low + share * (high - low))
    )
    value = max(value, low)
    assert field.parse(field.show(value)) == pytest.approx(value, rel=1e-5)
