"""What CONTRIBUTING.md tells a contributor to run and to edit is there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TARGETS = {*re.findall(r"(?:`|^    )make ([a-z][\w/.-]*)", TEXT, re.MULTILINE)}
FILES = {*re.findall(r"`([\w/.-]+\.(?:py|pyx|pxd|h|c|md|toml|yml|sh))`", TEXT)}
EXAMPLES = {"docs/NAME.md", "tests/unit/test_x.py"}
MADE = {"docs/reference/close-codes.md"}  # by `make docs`
# Where a bare name may stand.
NAMES = ("", "src/heartwire", "src/heartwire/_core", "csrc", "docs", ".github/workflows")
PLACES = [ROOT / name for name in NAMES]


def test_targets_exist() -> None:
    assert {"test", "serve", "lint", "wheel", "coverage", "docs/options.md"} <= TARGETS
    rules = re.findall(r"^([\w./ -]+):(?!=)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert {name for rule in rules for name in rule.split()} >= TARGETS


def test_files_exist() -> None:
    assert {"actions.py", "closing.py", "exposition.py", "docs/metrics.md", "sockets.h"} <= FILES
    named = sorted(FILES - EXAMPLES - MADE)
    assert [name for name in named if not any((place / name).exists() for place in PLACES)] == []
