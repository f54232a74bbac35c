"""The comparison of two benchmark runs that a pull request is judged by."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "bench_ratios.py"


def report(path: Path, **medians: float) -> Path:
    rows = [{"fullname": name, "stats": {"median": median}} for name, median in medians.items()]
    path.write_text(json.dumps({"benchmarks": rows}))
    return path


@pytest.mark.parametrize(
    ("after", "status", "said"),
    [
        ([{"a": 1.2, "b": 1.0}], 0, "  1.20  a\n  0.50  b\n"),
        ([{"a": 1.3, "b": 2.0}], 1, "  1.30  a  slower\n  1.00  b\n"),
        ([{"a": 1.3}, {"a": 1.1}], 0, "  1.10  a\n"),
        ([{"c": 1.0}], 1, "no benchmark is in both\n"),
    ],
    ids=["within", "slower", "the better round", "nothing to compare"],
)
def test_ratios(tmp_path: Path, after: list[dict[str, float]], status: int, said: str) -> None:
    before = report(tmp_path / "before", a=1.0, b=2.0)
    rounds = [report(tmp_path / f"after{i}", **medians) for i, medians in enumerate(after)]
    command = [sys.executable, TOOL, "--before", before, "--after", *rounds]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.removeprefix("after / before\n")) == (status, said)
