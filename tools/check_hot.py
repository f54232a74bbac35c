"""Holds the hot functions of the core to a budget of lines that touch Python.

    python tools/check_hot.py [--update]

Cython's annotation marks each line of a .pyx file by how much of Python's C API its C code calls. A function
is hot if it stands in tools/hot_budget.toml; its number there is how many of its lines may touch Python. More
is a failure; fewer should be recorded (`--update` writes what there is, to be looked at as a diff).
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
CORE: Final = Path("src/heartwire/_core")
BUDGET: Final = ROOT / "tools" / "hot_budget.toml"
LINE: Final = re.compile(
    r'<pre class="cython line score-(\d+)"[^>]*>.*?<span class="">(\d+)</span>', re.DOTALL
)
DEFINITION: Final = re.compile(r"^( *)(?:cdef|cpdef|def)\b[^=\n]*?(\w+)\(", re.MULTILINE)


def scores(module: str, directory: Path) -> dict[int, int]:
    """How much Python each line of a module calls, by line number."""
    page = directory / f"{module}.html"
    command = [
        sys.executable, "-m", "cython", "-3", "--annotate", "-I", "src", "-o", str(directory / f"{module}.c"),
        "-X", "boundscheck=False", "-X", "wraparound=False", "-X", "cdivision=True",
        "-X", "initializedcheck=False", str(CORE / f"{module}.pyx"),
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return {int(number): int(score) for score, number in LINE.findall(page.read_text(encoding="utf-8"))}


def functions(module: str) -> dict[str, range]:
    """The lines of each function by its name; the line of its definition is not among them."""
    text = (ROOT / CORE / f"{module}.pyx").read_text(encoding="utf-8")
    lines = text.split("\n")
    found = {}
    for match in DEFINITION.finditer(text):
        first = text.count("\n", 0, match.start()) + 1
        indent = len(match[1])
        body = next(i for i in range(first - 1, len(lines)) if lines[i].rstrip().endswith(":")) + 1
        end = body
        while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
            end += 1
        found[match[2]] = range(body + 1, end + 1)
    return found


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def count(wanted: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Lines that touch Python, by module and function.

    Raises:
        SystemExit: there is no such function.
    """
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as directory:
        for module, names in wanted.items():
            score, where = scores(module, Path(directory)), functions(module)
            if missing := [name for name in names if name not in where]:
                sys.exit(f"{BUDGET.name}: {module} has no function {', '.join(missing)}")
            counts[module] = {name: sum(score.get(line, 0) > 0 for line in where[name]) for name in names}
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--update", action="store_true")
    update = parser.parse_args().update
    text = BUDGET.read_text(encoding="utf-8")
    budget = tomllib.loads(text)
    found = count({module: list(names) for module, names in budget.items()})
    worse = 0
    for module, names in found.items():
        for name, number in names.items():
            allowed = budget[module][name]
            if number != allowed:
                worse += number > allowed
                print(f"{module}.{name}: {number} lines touch Python, {allowed} are allowed")
    if update:
        lines = [text[: text.index("\n[")]]
        for module, names in found.items():
            lines += [f"[{module}]", *(f"{name} = {number}" for name, number in names.items()), ""]
        BUDGET.write_text("\n".join(lines), encoding="utf-8")
        return 0
    return 1 if worse else 0


if __name__ == "__main__":
    sys.exit(main())
