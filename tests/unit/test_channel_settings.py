"""Settings of channels: read from every place, refused with a reason, found by the longest prefix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from heartwire.channel_settings import DEFAULT, SETTINGS, ChannelRule, ChannelRules, ChannelSettings
from heartwire.cli import main
from heartwire.config import ServerConfig
from heartwire.errors import ConfigError

CHAT = ChannelSettings(publish=False, presence=True, max_members=50, max_message_size=2048)
AS_DICT: dict[str, Any] = {
    "chat-": {"publish": False, "presence": True, "max_members": 50, "max_message_size": "2KiB"}
}
AS_TEXT = "chat- publish=false presence=on max_members=50 max_message_size=2KiB"


@pytest.mark.parametrize("given", [AS_DICT, AS_TEXT, [AS_TEXT], (ChannelRule("chat-", CHAT),)])
def test_the_same_from_everywhere(given: Any) -> None:
    config = ServerConfig.from_kwargs(channel_settings=given)
    assert config.channel_settings == (ChannelRule("chat-", CHAT),)
    assert "channel_settings=chat-" in config.summary()


def test_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "heartwire.toml"
    file.write_text(
        'jwt_secret = ["0123456789abcdef0123456789abcdef"]\n'
        '[channel_settings."chat-"]\nmax_members = 50\n[channel_settings."news-"]\npublish = false\n'
    )
    assert main(["check", "--config", str(file)]) == 0
    assert "channel_settings=chat-,news-" in capsys.readouterr().out


def test_by_flags_and_variables(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--auth", "optional", "--channel-settings", "chat- max_members=5"]
    assert main(["check", *flags, "--channel-settings", "* publish=no"]) == 0
    assert "channel_settings=chat-,*" in capsys.readouterr().out
    monkeypatch.setenv("HEARTWIRE_CHANNEL_SETTINGS", "news- publish=off, chat- max_members=5")
    assert main(["check", "--auth", "optional"]) == 0
    assert "channel_settings=news-,chat-" in capsys.readouterr().out


WRONG = {
    "a setting that is none": (
        {"chat-": {"max_member": 5}}, "'max_member': no such setting; did you mean max_members?"
    ),
    "a value": ({"chat-": {"max_members": "many"}}, '"chat-": max_members: expected a whole number'),
    "a number": ({"chat-": {"max_members": 0}}, '"chat-": max_members: expected a whole number'),
    "a flag": ("chat- publish", '"chat-": publish: expected true or false'),
    "a prefix": ({"chat *": {}}, 'entry 1: expected how names of channels begin, 1 to 200 of A-Z'),
    "none": ({"": {}}, 'entry 1: expected how names of channels begin'),
    "no word": (["a", ""], 'entry 2: expected how names of channels begin'),
    "twice": (["chat- publish=no", "chat- publish=yes"], '"chat-": given more than once, expected once'),
    "no table": ({"chat-": 5}, 'entry 1: expected a table of settings: publish, anonymous_publish,'),
    "nothing of it": (5, "expected settings after the first characters of channel names"),
    "in a list": ([5], "expected settings after the first characters of channel names"),
    "no name": ({5: {}}, "expected settings after the first characters of channel names"),
    "nobody": (
        {"a": {"anonymous_publish": True, "publish": False}}, '"a": anonymous_publish: nobody may send with'
    ),
    "contradiction": (
        {"a": {"anonymous_publish": True, "require_auth": True}},
        '"a": anonymous_publish: excluded by require_auth',
    ),
    "claim": (
        {"a": {"anonymous_publish": True, "require_claim": True}},
        '"a": anonymous_publish: excluded by require_claim',
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong(given: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ServerConfig.from_kwargs(channel_settings=given)
    assert caught.value.option == "channel_settings"
    assert message in caught.value.message


def test_everything_wrong_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "heartwire.toml"
    file.write_text(
        'auth = "optional"\n'
        '[channel_settings."chat-"]\nmax_members = -1\npublsh = true\n'
        '[channel_settings."a b"]\n'
        '[channel_settings."news-"]\nmax_message_size = "secret-4711"\n'
    )
    assert main(["check", "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"heartwire check: {file}: channel_settings: ")
    for words in ("max_members: expected", "'publsh': no", 'entry 2: expected', "max_message_size: expected"):
        assert words in said
    assert "secret-4711" not in said


def test_the_longest_prefix_counts() -> None:
    names = ("*", "chat-", "chat-room-", "a", "private-chat-")
    rules = [ChannelRule(name, ChannelSettings(max_members=i)) for i, name in enumerate(names, 1)]
    for order in (rules, rules[::-1]):
        found = ChannelRules(order)
        assert found.of("chat-room-1").max_members == 3
        assert found.of("chat-room-").max_members == 3
        assert found.of("chat-roo").max_members == 2
        assert found.of("abc").max_members == 4
        assert found.of("private-chat-1").max_members == 5
        assert found.of("private-").max_members == 1
    assert ChannelRules().of("anything") is DEFAULT
    assert ChannelRules(rules[1:]).of("other") is DEFAULT


def test_a_longer_prefix_takes_nothing_over() -> None:
    config = ServerConfig.from_kwargs(channel_settings={"a": {"publish": False}, "ab": {"max_members": 5}})
    assert ChannelRules(config.channel_settings).of("abc").publish


def test_every_setting_is_documented() -> None:
    page = Path(__file__).parents[2].joinpath("docs", "channels.md").read_text(encoding="utf-8")
    for name, field in SETTINGS.items():
        assert f"| `{name}` |" in page
        assert field.option.about.endswith(".")
        assert field.option.reason.endswith(".")
