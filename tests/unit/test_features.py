"""Builds that have less: no epoll outside Linux, no zlib on Windows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from heartwire import ConfigError, features
from heartwire.config import ServerConfig

ROOT = Path(__file__).parents[2]
CORE = ROOT / "src" / "heartwire" / "_core"
INCLUDE = re.compile(r'^\s*#\s*include\s+<([^>]+)>', re.MULTILINE)
CIMPORT = re.compile(r"^\s*(?:from\s+(\S+)\s+cimport|cimport\s+(\S+))", re.MULTILINE)
C11 = {"assert.h", "errno.h", "stdatomic.h", "stdbool.h", "stddef.h", "stdint.h", "stdlib.h", "string.h"}
BESIDES = {  # what a file includes when the platform or the compiler has it
    "bits.h": {"intrin.h"},
    "mask.c": {"immintrin.h"},
    "utf8.c": {"emmintrin.h"},
    "jsonbits.h": {"immintrin.h"},
    "clock.c": {"windows.h", "time.h"},
    "deflate.c": {"zlib.h"},
    "sockets.h": {"sys/socket.h", "sys/uio.h"},
}


def test_only_the_reactor_knows_linux() -> None:
    for path in (ROOT / "csrc").glob("*.[ch]"):
        found = set(INCLUDE.findall(path.read_text(encoding="utf-8")))
        assert found <= C11 | BESIDES.get(path.name, set()), path.name
    for path in (*CORE.glob("*.pyx"), *CORE.glob("*.pxd")):
        names = {first or second for first, second in CIMPORT.findall(path.read_text(encoding="utf-8"))}
        linux = {name for name in names if name.startswith("posix.") or name == "heartwire._core.linux"}
        assert not linux or path.stem == "reactor", path.name


@pytest.mark.parametrize(
    ("feature", "options", "name"),
    [
        ("REACTOR", {"link": "epoll"}, "link"),
        ("DEFLATE", {"compression": "shared"}, "compression"),
        ("UNIX_SOCKETS", {"unix": "/tmp/a"}, "unix"),
        ("REUSE_PORT", {"reuse_port": True}, "reuse_port"),
    ],
)
def test_what_a_build_lacks_is_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, feature: str, options: dict[str, object], name: str
) -> None:
    monkeypatch.setattr(features, feature, False)
    with pytest.raises(ConfigError, match=r"build|platform") as raised:
        ServerConfig(**options, jwt_secret=["a"])
    assert raised.value.option == name
    ServerConfig(jwt_secret=["a"])  # the defaults need none of them
    monkeypatch.setattr(features, feature, True)
    ServerConfig(**options, jwt_secret=["a"])
