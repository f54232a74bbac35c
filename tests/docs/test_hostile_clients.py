"""docs/hostile-clients.md names the test of each row, and every hostile test stands there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "hostile-clients.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| .*\| (?P<tests>`test_[^|]*) \|$")


def defined() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests" / "hostile").glob("test_*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_row_has_its_test_and_every_test_its_row() -> None:
    rows = [line for line in PAGE.splitlines() if line.startswith("|") and not line.startswith("|---")]
    assert len(rows) > 50
    assert [line for line in rows if not ROW.match(line)] == []
    assert set(re.findall(r"`(test_\w+)`", PAGE)) == defined()
