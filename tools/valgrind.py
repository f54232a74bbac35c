"""Runs the churn test with its server under valgrind, and judges what valgrind found (`make valgrind`).

Counted is what a compiled module of heartwire did, itself or by a function it called: memory that is
definitely lost at the end, reads and writes outside of what was allocated, decisions on bytes that were never
set. What Python code did that it called or imported, the interpreter and other packages is told and not
counted, so no list of suppressions is needed. An object of Python code that heartwire does not let go of is
not seen here; it is by the churn test's own books, on an ordinary build.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from pathlib import Path

OURS = "/heartwire/_core/"
INTERPRETING = "_PyEval_EvalFrameDefault"
SLOWER = 10  # fewer clients, more time: a program runs 20 to 50 times slower


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--package", type=Path, required=True, help="directory of a build of the package")
    parser.add_argument("--reports", type=Path, default=Path("build/reports"))
    arguments = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind.py: there is no valgrind; on Debian: apt-get install valgrind", file=sys.stderr)
        return 2
    arguments.reports.mkdir(parents=True, exist_ok=True)
    for old in arguments.reports.glob("valgrind.*.xml"):
        old.unlink()
    under = [
        valgrind, "--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40",
        "--child-silent-after-fork=yes", "--xml=yes",
        f"--xml-file={arguments.reports.resolve()}/valgrind.%p.xml",
    ]  # fmt: skip
    environment = os.environ | {
        "HEARTWIRE_CHURN_UNDER": " ".join(under),
        "HEARTWIRE_CHURN_SLOWER": str(SLOWER),
        "PYTHONMALLOC": "malloc",  # each object an allocation of its own
        "PYTHONPATH": str(arguments.package),
    }
    command = [sys.executable, "-m", "pytest", "-s", "tests/churn", "-k", "nothing_is_left"]
    tested = subprocess.run(command, env=environment, check=False)
    reports = sorted(arguments.reports.glob("valgrind.*.xml"))
    if tested.returncode or not reports:
        print(f"valgrind.py: pytest ended with {tested.returncode}, {len(reports)} reports", file=sys.stderr)
        return 1
    bad = sum(judge(report) for report in reports)
    return 1 if bad else 0


def judge(report: Path) -> int:
    """Prints what a report holds. Returns how much of it is ours."""
    others: Counter[str] = Counter()
    ours = 0
    for error in ET.parse(report).getroot().iter("error"):
        kind = error.findtext("kind") or ""
        frames = list(error.iter("frame"))
        if not is_ours(frames):
            others[kind] += 1
            continue
        ours += 1
        print(f"{report}: {error.findtext('what') or error.findtext('xwhat/text')}")
        for frame in frames:
            where = frame.findtext("file") or Path(frame.findtext("obj") or "").name
            print(f"    {frame.findtext('fn')} ({where}:{frame.findtext('line') or '?'})")
    print(f"{report}: {ours} of heartwire; of others: {dict(others)}")
    return ours


def is_ours(frames: list[ET.Element]) -> bool:
    """Is heartwire nearer to the fault than Python code is? Frames are innermost first."""
    for frame in frames:
        if OURS in (frame.findtext("obj") or ""):
            return True
        if frame.findtext("fn") == INTERPRETING:
            return False
    return False


if __name__ == "__main__":
    sys.exit(main())
