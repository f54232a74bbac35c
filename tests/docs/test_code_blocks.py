"""The documentation's code does what the documentation says.

Of every page (README.md and docs/), blocks by their language:

- `python` whose first line is `# name.py` is a program. Programs before the first server are run first. The
  servers of a page (those with `server.run()`) are started one after the other, each with the programs that
  follow it; `print(…)  # text` must print that text,
  in which `…` stands for anything. Other `python` blocks are run, in order, where `server`, `Any` and the
  public names are known.
- `toml` is a configuration that the server accepts, `json` can be read (`…` in it aside).
- `sh`: who starts a server passes `heartwire check`, `heartwire token` is run, `make` has to know its target,
  a module of `python -m` its options, and `curl` gets an answer from a server.
- `yaml` is a configuration of Prometheus that promtool accepts, `ini` are settings that this kernel has.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import heartwire
from examples.processes import free_port, running
from heartwire.config import FIELDS, ServerConfig
from heartwire.testing import background_server
from integration.certificates import Authority

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"# (\w+\.py)\n")
PRINTS = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
PORT = re.compile(r"\b8085\b")
SERVER_COMMANDS = (["socket-server"], ["heartwire", "serve"], ["heartwire", "check"])
API_KEY = "an-api-key-of-the-documentation"
PATIENCE_S = 30


class Block(NamedTuple):
    page: str
    language: str
    text: str

    @property
    def program(self) -> str | None:
        """The file name of a program."""
        found = PROGRAM.match(self.text)
        return found[1] if found and self.language == "python" else None


def blocks(path: Path) -> Iterator[Block]:
    for language, text in FENCE.findall(path.read_text(encoding="utf-8")):
        yield Block(str(path.relative_to(ROOT)), language, text)


BLOCKS = [block for page in PAGES for block in blocks(page)]


def by_page(wanted: list[Block]) -> dict[str, list[Block]]:
    pages: dict[str, list[Block]] = {}
    for block in wanted:
        pages.setdefault(block.page, []).append(block)
    return pages


PROGRAMS = by_page([block for block in BLOCKS if block.program])
FRAGMENTS = by_page([block for block in BLOCKS if block.language == "python" and not block.program])
VALUES = [block for block in BLOCKS if block.language in ("json", "toml")]
YAML = [block for block in BLOCKS if block.language == "yaml"]
INI = [block for block in BLOCKS if block.language == "ini"]
LINES = [
    (block.page, line.split("  #")[0].strip())
    for block in BLOCKS
    if block.language == "sh"
    for line in re.sub(r"\\\n\s*", "", block.text).splitlines()
    if line.split("#")[0].strip()
]
FILE_OPTIONS = {f"--{name.replace('_', '-')}" for name in FIELDS if name.endswith("_file")}


def test_there_is_something_to_run() -> None:
    assert {"README.md", "docs/tutorial/chat.md", "docs/howto/from-websockets.md"} <= PROGRAMS.keys()
    assert FRAGMENTS
    assert len(LINES) > 5


@pytest.mark.parametrize("page", PROGRAMS)
def test_programs(page: str, tmp_path: Path) -> None:
    """Each server with the programs that follow it; what they print is what the page says."""
    names = [block.program or "" for block in PROGRAMS[page]]
    port = str(free_port())
    for block in PROGRAMS[page]:
        (tmp_path / (block.program or "")).write_text(PORT.sub(port, block.text), encoding="utf-8")
    servers = [i for i, block in enumerate(PROGRAMS[page]) if "server.run()\n" in block.text]
    for name in names[: servers[0]] if servers else names:
        run_and_compare(tmp_path / name)
    for start, end in zip(servers, [*servers[1:], len(names)], strict=True):
        with running([str(tmp_path / names[start])], int(port), tmp_path / "log"):
            for name in names[start + 1 : end]:
                run_and_compare(tmp_path / name)


def run_and_compare(program: Path) -> None:
    done = subprocess.run(
        [sys.executable, program],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=program.parent,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    expected = PRINTS.findall(program.read_text(encoding="utf-8"))
    said = done.stdout.splitlines()
    assert len(said) == len(expected), done.stdout
    for line, pattern in zip(said, expected, strict=True):
        assert re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line), (line, pattern)


@pytest.mark.parametrize("page", FRAGMENTS)
def test_fragments(page: str) -> None:
    """The pieces of a page run, one after the other, with what a reader has by then."""
    names = {name: getattr(heartwire, name) for name in heartwire.__all__} | {"Any": Any}
    options = {"port": 0, "jwt_secret": "a-secret-of-at-least-thirty-two-bytes"}
    for block in FRAGMENTS[page]:
        names["server"] = heartwire.Server(**options)
        exec(compile(block.text, block.page, "exec", dont_inherit=True), names)


@pytest.mark.parametrize("block", VALUES, ids=lambda block: f"{block.page}-{block.language}")
def test_values_can_be_read(block: Block) -> None:
    if block.language == "toml":
        values = tomllib.loads(block.text)
        assert ServerConfig.from_kwargs(**({"jwt_secret": ["a"]} | values))
        return
    for document in re.split(r"\n(?=\{)", block.text.strip()):
        json.loads(re.sub(r",?\s*…\s*(?=[]}])", "", document))


def test_no_code_hides_from_the_tests() -> None:
    """Indented blocks have no language, so nothing above reads them."""
    for page in PAGES:
        outside = FENCE.sub("", page.read_text(encoding="utf-8"))
        assert re.findall(r"\n\n( {4,}\S.*)", outside) == [], page


@pytest.mark.parametrize("block", YAML, ids=lambda block: block.page)
def test_prometheus_takes_its_configuration(block: Block, tmp_path: Path) -> None:
    tool = shutil.which("promtool")
    if tool is None:
        missing = "promtool is not installed (Debian: prometheus)"
        if os.environ.get("CI") == "true":  # .ci/run installs it: there this test is not passed over
            pytest.fail(missing)
        pytest.skip(missing)
    (tmp_path / "prometheus.yml").write_text(block.text)
    subprocess.run([tool, "check", "config", tmp_path / "prometheus.yml"], check=True, timeout=PATIENCE_S)


@pytest.mark.skipif(sys.platform != "linux", reason="the settings are those of Linux's kernel")
@pytest.mark.parametrize("block", INI, ids=lambda block: block.page)
def test_the_kernel_has_the_settings(block: Block) -> None:
    names = re.findall(r"^([\w.]+) = ", block.text, re.MULTILINE)
    assert names
    missing = [name for name in names if not Path("/proc/sys", *name.split(".")).exists()]
    assert {*missing} <= {"net.netfilter.nf_conntrack_max"}, missing  # that one comes with its module


@pytest.mark.parametrize(("page", "line"), LINES)
def test_shell_lines(page: str, line: str, tmp_path: Path) -> None:
    words = shlex.split(line.replace("…", "0" * 32))
    variables = {}
    while "=" in words[0]:
        name, _, value = words.pop(0).partition("=")
        variables[name] = value
    commands = [command for command in SERVER_COMMANDS if words[: len(command)] == command]
    if commands:
        arguments = with_files(words[len(commands[0]) :], tmp_path)
        checked = [sys.executable, "-m", "heartwire", "check", *arguments]
    elif words[:2] == ["heartwire", "token"]:
        checked = [sys.executable, "-m", "heartwire", *words[1:]]
    elif words[0] == "make":
        checked = ["make", "--dry-run", "--always-make", *words[1:]]
    elif words[:2] == ["python", "-m"]:
        checked = [sys.executable, "-m", words[2], *words[3:], "--help"]
    elif words[0] == "curl":
        with background_server(api_key=[API_KEY]) as server:
            return call(words[1:], server.port)
    else:
        pytest.fail(f"{page}: nothing runs `{line}`: add it here, or mark the block `text`")
    done = subprocess.run(
        checked, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT,
        env={**os.environ, **variables},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def with_files(arguments: list[str], folder: Path) -> list[str]:
    """A server's arguments with files that exist, and a secret; no `--config`, whose file is the reader's."""
    given = dict(pairwise(arguments))
    files = dict.fromkeys(FILE_OPTIONS & given.keys(), folder / "secret")
    (folder / "secret").write_text("a-secret-of-at-least-thirty-two-bytes\n")
    if "--tls-cert" in given:
        files["--tls-cert"], files["--tls-key"] = Authority(folder, "ca").issue("chat")
    changed = [str(files.get(option, word)) for option, word in pairwise(["", *arguments])]
    if "--config" in changed:
        at = changed.index("--config")
        del changed[at : at + 2]
    if "--jwt-secret" not in changed:
        changed += ["--jwt-secret", "a-secret-of-at-least-thirty-two-bytes"]
    return changed


def call(arguments: list[str], port: int) -> None:
    """What `curl` would do: a header, a body, an address of port 8080."""
    (address,) = [word for word in arguments if word.startswith("localhost:8080/")]
    (header,) = [value for option, value in pairwise(arguments) if option == "-H"]
    assert header.startswith("Authorization: Bearer 4f1c")
    body = [value.encode() for option, value in pairwise(arguments) if option == "-d"]
    request = urllib.request.Request(
        address.replace("localhost:8080", f"http://127.0.0.1:{port}"), data=body[0] if body else None,
        headers={"Authorization": f"Bearer {API_KEY}", "Content-Type": "application/json"},
    )  # fmt: skip
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        assert isinstance(json.load(response), dict)


def test_a_wrong_program_is_noticed(tmp_path: Path) -> None:
    program = tmp_path / "a.py"
    program.write_text('print("b")  # c\n')
    with pytest.raises(AssertionError):
        run_and_compare(program)
    program.write_text('print("b d")  # b…\n')
    run_and_compare(program)
