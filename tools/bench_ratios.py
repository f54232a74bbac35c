"""Compares pytest-benchmark's reports of two trees, measured on one machine in one run.

    python tools/bench_ratios.py --before a.json … --after b.json … [--limit 1.25]

Of several reports of a side the smallest median counts. The exit status is 1 if a benchmark that both sides
have became slower by more than the limit.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def medians(paths: list[Path]) -> dict[str, float]:
    """Seconds by the benchmark's name."""
    best: dict[str, float] = {}
    for path in paths:
        for benchmark in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
            name, median = benchmark["fullname"], benchmark["stats"]["median"]
            best[name] = min(median, best.get(name, median))
    return best


def compare(before: dict[str, float], after: dict[str, float], limit: float) -> tuple[list[str], bool]:
    """One line for each benchmark, the slowest first, and whether all are within the limit."""
    both = before.keys() & after.keys()
    ratios = sorted(((after[name] / before[name], name) for name in both), reverse=True)
    lines = [f"{ratio:6.2f}  {name}{'  slower' * (ratio > limit)}" for ratio, name in ratios]
    return lines, bool(ratios) and ratios[0][0] <= limit


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--before", type=Path, nargs="+", required=True)
    parser.add_argument("--after", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=float, default=1.25)
    given = parser.parse_args()
    lines, fine = compare(medians(given.before), medians(given.after), given.limit)
    print("after / before\n" + "\n".join(lines) if lines else "no benchmark is in both")
    return 0 if fine else 1


if __name__ == "__main__":
    sys.exit(main())
