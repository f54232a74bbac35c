"""What `make` says when something is missing: one line, with the Debian package to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PREFLIGHT = Path(__file__).parents[2] / "tools" / "preflight.sh"


def preflight(python: str | Path, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [PREFLIGHT, python],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


def interpreter(path: Path, refuse: str) -> Path:
    """A stand-in for this interpreter that fails on code that contains `refuse`."""
    path.write_text(f'#!/bin/sh\ncase "$2" in *{refuse}*) exit 1;; esac\nexec "{sys.executable}" "$@"\n')
    path.chmod(0o755)
    return path


def compiler(path: Path, refuse: str) -> str:
    """A stand-in for a compiler that fails on source that contains `refuse`."""
    path.write_text(f"#!/bin/sh\n! grep -q {refuse}\n")
    path.chmod(0o755)
    return str(path)


def test_nothing_is_missing_where_these_tests_run() -> None:
    assert preflight(sys.executable) == (0, "")


def test_no_interpreter() -> None:
    status, said = preflight("python3-of-nobody")
    assert status == 1
    assert said == (
        "heartwire: there is no python3-of-nobody; on Debian or Ubuntu: apt-get install python3\n"
    )


def test_an_old_interpreter(tmp_path: Path) -> None:
    status, said = preflight(interpreter(tmp_path / "python3", "version_info"))
    assert status == 1
    assert "older than Python 3.11" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(("name", "package"), [("python3", "python3"), ("python3.12", "python3.12")])
def test_no_venv_module(tmp_path: Path, name: str, package: str) -> None:
    status, said = preflight(interpreter(tmp_path / name, "ensurepip"))
    assert status == 1
    assert said.endswith(f"has no venv module; on Debian or Ubuntu: apt-get install {package}-venv\n")
    assert said.count("\n") == 1


def test_no_compiler() -> None:
    status, said = preflight(sys.executable, CC="no-such-compiler -O2")
    assert status == 1
    assert said == (
        "heartwire: there is no C compiler (no-such-compiler -O2); on Debian or Ubuntu: apt-get install gcc\n"
    )


@pytest.mark.parametrize(
    ("header", "package"),
    [("stdlib.h", "libc6-dev"), ("zlib.h", "zlib1g-dev"), ("Python.h", "python3-dev")],
)
def test_no_headers(tmp_path: Path, header: str, package: str) -> None:
    python = interpreter(tmp_path / "python3", "nothing-is-refused")
    status, said = preflight(python, CC=compiler(tmp_path / "cc", header))
    assert status == 1
    assert header in said
    assert said.endswith(f"; on Debian or Ubuntu: apt-get install {package}\n")
    assert said.count("\n") == 1
