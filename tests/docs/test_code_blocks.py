"""The documentation's code does what the documentation says.

Of every page (README.md and docs/), blocks by their language:

- `python` whose first line is `# name.py` is a program. Programs before the first server are run first. The
  servers of a page (those with `server.run()`) are started one after the other, each with the programs that
  follow it; `print(…)  # text` must print that text,
  in which `…` stands for anything. Other `python` blocks are run, in order, where `server`, `Any` and the
  public names are known.
- `toml` is a configuration that the server accepts, `json` can be read (`…` in it aside).
- `sh`, and commands that are indented: who starts a server passes `heartwire check` (files that it names may
  be missing), `heartwire token` is run, `make` has to know its target.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import heartwire
from examples.processes import free_port, running
from heartwire.config import ServerConfig

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"# (\w+\.py)\n")
PRINTS = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
PORT = re.compile(r"\b8085\b")
SERVER_COMMANDS = (["socket-server"], ["heartwire", "serve"], ["heartwire", "check"])
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
LINES = [
    (block.page, line.split("  #")[0].strip())
    for block in BLOCKS
    if block.language == "sh"
    for line in block.text.splitlines()
    if line.split("#")[0].strip()
]
# Commands in the text, indented: with names of the reader's files, and `…` for what is a secret.
INDENTED = re.compile(r"^    ((?:socket-server|heartwire|make) (?:.*\\\n)*.*)$", re.MULTILINE)
LINES += [
    (str(page.relative_to(ROOT)), re.sub(r"\\\n\s*", "", found).split("  #")[0].strip())
    for page in PAGES
    for found in INDENTED.findall(page.read_text(encoding="utf-8"))
]


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


@pytest.mark.parametrize(("page", "line"), LINES)
def test_shell_lines(page: str, line: str) -> None:
    words = shlex.split(line.replace("…", "a-secret-of-at-least-thirty-two-bytes"))
    commands = [command for command in SERVER_COMMANDS if words[: len(command)] == command]
    if commands:
        arguments = words[len(commands[0]) :]
        if "--config" in arguments:  # its file is the reader's
            at = arguments.index("--config")
            del arguments[at : at + 2]
        if "--jwt-secret" not in arguments:
            arguments += ["--jwt-secret", "a-secret-of-at-least-thirty-two-bytes"]
        checked = [sys.executable, "-m", "heartwire", "check", *arguments]
    elif words[:2] == ["heartwire", "token"]:
        checked = [sys.executable, "-m", "heartwire", *words[1:]]
    elif words[0] == "make":
        checked = ["make", "--dry-run", "--always-make", *words[1:]]
    else:
        pytest.fail(f"{page}: nothing runs `{line}`: add it here, or mark the block `text`")
    done = subprocess.run(checked, capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=ROOT)
    of_the_reader = "No such file or directory" in done.stderr
    assert done.returncode == 0 or of_the_reader, done.stderr


def test_a_wrong_program_is_noticed(tmp_path: Path) -> None:
    program = tmp_path / "a.py"
    program.write_text('print("b")  # c\n')
    with pytest.raises(AssertionError):
        run_and_compare(program)
    program.write_text('print("b d")  # b…\n')
    run_and_compare(program)
