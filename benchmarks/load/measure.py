"""What the kernel knows about a server and about this machine (proc(5))."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def process_tree(pid: int) -> list[int]:
    """The process and all its living descendants."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                parents[int(entry.name)] = int(fields[1])
    tree = [pid]
    for member in tree:  # grows while it is walked
        tree.extend(child for child, parent in parents.items() if parent == member)
    return tree


def _stat_fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from `state` on; empty if the process is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return text.rpartition(")")[2].split()  # the command name may hold spaces and parentheses


def cpu_seconds(pid: int) -> float:
    """User and system time of the process and its descendants, in seconds."""
    total = 0
    for member in process_tree(pid):
        fields = _stat_fields(member)
        if fields:
            total += int(fields[11]) + int(fields[12])
    return total / _TICKS_PER_S


@dataclass(frozen=True)
class Memory:
    """User memory of a process tree, in bytes.

    Attributes:
        rss: Resident pages, shared ones counted in each process.
        pss: Resident pages, shared ones divided among those that share them.
    """

    rss: int
    pss: int


def memory(pid: int) -> Memory:
    rss = pss = 0
    for member in process_tree(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for line in lines:
            if line.startswith("Rss:"):
                rss += int(line.split()[1]) * 1024
            elif line.startswith("Pss:"):
                pss += int(line.split()[1]) * 1024
    return Memory(rss, pss)


def open_descriptors(pid: int) -> int:
    """How many files the process holds open (its descendants' not counted)."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def kernel_slab_bytes() -> int:
    """Kernel objects of the whole machine, sockets among them; they are in no process's RSS."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1]) * 1024
    return 0


def stolen_seconds() -> float:
    """CPU time that the hypervisor gave to others since boot, over all CPUs."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return int(fields[8]) / _TICKS_PER_S


def listens(port: int) -> bool:
    """Whether a socket of this machine listens on that IPv4 port; asks nobody by connecting."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
            return True
    return False


def machine() -> dict[str, str | int | float]:
    """What a reader must know of the machine to judge a figure."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor() or "unknown",
    )
    return {
        "cpu": cpu,
        "cpus_usable": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def versions(distributions: Iterable[str], repository: Path) -> dict[str, str]:
    """Versions of the interpreter, the compiler, the checkout and the named distributions."""
    found = {"python": f"{platform.python_implementation()} {platform.python_version()}"}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    compiler = _first_line(["gcc", "--version"])
    if compiler:
        found["gcc"] = compiler.rpartition(" ")[2]
    commit = _first_line(["git", "-C", str(repository), "rev-parse", "--short=12", "HEAD"])
    if commit:
        changed = _first_line(["git", "-C", str(repository), "status", "--porcelain", "-uno"])
        found["commit"] = commit + (" with uncommitted changes" if changed else "")
    return found


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.partition("\n")[0]
