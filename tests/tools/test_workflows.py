"""What the workflows call is there, and what they take from others is pinned.

actionlint and zizmor (`make lint`) judge the files themselves, not whether the targets and paths exist.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.name: path.read_text(encoding="utf-8") for path in sorted(FOLDER.glob("*.yml"))}
USES = re.compile(r"uses: (\S+)(.*)$", re.MULTILINE)
PINNED = re.compile(r"([\w.-]+/[\w.-]+)@([0-9a-f]{40}) # (v\d+\.\d+\.\d+)")
MAKE = re.compile(r"\bmake ((?:(?!&&|\\$).)*)", re.MULTILINE)
PATHS = re.compile(r"\b(?:tests|tools)/[\w./]*\w")
BUILDS = re.compile(r"build: \[(.*)\]")


def commands() -> Iterator[tuple[str, str]]:
    """Each workflow with the arguments of each `make` in it; of a matrix, each row."""
    for name, text in TEXTS.items():
        builds = [build for row in BUILDS.findall(text) for build in row.split(", ")]
        for words in MAKE.findall(text):
            for build in builds if "$BUILD" in words else [""]:
                yield name, words.strip().replace('"$BUILD"', build)


COMMANDS = [*commands()]


def test_the_workflows_are_those_of_a_release() -> None:
    assert TEXTS.keys() == {"bench.yml", "ci.yml", "fuzz.yml", "release.yml", "wheels.yml"}


def test_actions_are_pinned_by_commit_and_one_version_of_each_is_in_use() -> None:
    versions: dict[str, set[tuple[str, str]]] = {}
    for name, text in TEXTS.items():
        for what, rest in USES.findall(text):
            if what.startswith("$/"):  # of this repository, at this commit
                assert (ROOT / what[2:]).is_file(), f"{name}: {what}"
                continue
            pin = PINNED.fullmatch(what + rest)
            assert pin, f"{name}: {what}{rest}"
            versions.setdefault(pin[1], set()).add((pin[2], pin[3]))
    assert "actions/checkout" in versions
    assert {action: pins for action, pins in versions.items() if len(pins) > 1} == {}


@pytest.mark.parametrize(("workflow", "words"), COMMANDS)
def test_make_has_the_targets(workflow: str, words: str) -> None:
    arguments = re.sub(r"PYTHON=python\b|-C \S+", "", words)
    command = f"make --dry-run --always-make {arguments}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert done.returncode == 0, f"{workflow}: {command}\n{done.stderr}"


def test_files_and_folders_exist() -> None:
    named = {path for text in TEXTS.values() for path in PATHS.findall(text)}
    assert named >= {"tests/unit", "tools/bench_ratios.py"}
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []
