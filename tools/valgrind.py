"""Runs the churn test with its server under valgrind, and judges what valgrind found (`make valgrind`).

Then the same with a leak that is planted on purpose (HEARTWIRE_LEAK=1, csrc/conn.c): it must be reported, or
the first run has proven nothing.

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
PLANTED = "hw_conn_put_parser"  # allocates what the planted build does not free
SLOWER = 10  # fewer clients, more time: a program runs 20 to 50 times slower


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--package", type=Path, required=True, help="directory of a build of the package")
    parser.add_argument("--planted", type=Path, required=True, help="the same with the planted leak")
    parser.add_argument("--reports", type=Path, default=Path("build/reports"))
    arguments = parser.parse_args()
    valgrind = shutil.which("valgrind")
    if valgrind is None:
        print("valgrind.py: there is no valgrind; on Debian: apt-get install valgrind", file=sys.stderr)
        return 2
    directory = arguments.reports.resolve()
    reports = run(valgrind, arguments.package, directory, "nothing_is_left")
    found = [error for report in reports for error in judge(report)]
    if not reports or found:
        return 1
    reports = run(valgrind, arguments.planted, directory / "planted", "nothing_is_left and epoll")
    found = [error for report in reports for error in judge(report)]
    if not found or not all(kept_by(error) == PLANTED for error in found):
        print(f"valgrind.py: not the leak in {PLANTED}, or not it alone: see above", file=sys.stderr)
        return 1
    print("valgrind: nothing in heartwire, and the planted leak was found")
    return 0


def run(valgrind: str, package: Path, directory: Path, tests: str) -> list[Path]:
    """Runs the churn with the server of a package under valgrind. Returns the reports; none if it failed."""
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob("valgrind.*.xml"):
        old.unlink()
    under = [
        valgrind, "--quiet", "--leak-check=full", "--show-leak-kinds=definite", "--num-callers=40",
        "--child-silent-after-fork=yes", "--xml=yes", f"--xml-file={directory}/valgrind.%p.xml",
    ]  # fmt: skip
    environment = os.environ | {
        "HEARTWIRE_CHURN_UNDER": " ".join(under),
        "HEARTWIRE_SLOWER": str(SLOWER),
        "PYTHONMALLOC": "malloc",  # each object an allocation of its own
        "PYTHONPATH": str(package),
    }
    command = [sys.executable, "-m", "pytest", "-s", "tests/churn", "-k", tests]
    tested = subprocess.run(command, env=environment, check=False)
    reports = sorted(directory.glob("valgrind.*.xml"))
    if tested.returncode or not reports:
        print(f"valgrind.py: pytest ended with {tested.returncode}, {len(reports)} reports", file=sys.stderr)
        return []
    return reports


def judge(report: Path) -> list[ET.Element]:
    """Prints what a report holds. Returns what of it is ours."""
    others: Counter[str] = Counter()
    ours: list[ET.Element] = []
    for error in ET.parse(report).getroot().iter("error"):
        kind = error.findtext("kind") or ""
        frames = list(error.iter("frame"))
        if not is_ours(frames):
            others[kind] += 1
            continue
        ours.append(error)
        print(f"{report}: {error.findtext('what') or error.findtext('xwhat/text')}")
        for frame in frames:
            where = frame.findtext("file") or Path(frame.findtext("obj") or "").name
            print(f"    {frame.findtext('fn')} ({where}:{frame.findtext('line') or '?'})")
    print(f"{report}: {len(ours)} of heartwire; of others: {dict(others)}")
    return ours


def kept_by(error: ET.Element) -> str:
    """The function that allocated what is lost; "" of another kind of error."""
    if error.findtext("kind") != "Leak_DefinitelyLost":
        return ""
    ours = (frame for frame in error.iter("frame") if OURS in (frame.findtext("obj") or ""))
    return next((frame.findtext("fn") or "" for frame in ours), "")


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
