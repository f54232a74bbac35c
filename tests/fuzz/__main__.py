"""Runs the fuzzers, guided by coverage, and says what they did.

    make fuzz SECONDS=60                        each target for so long (seconds of CPU time)
    make fuzz SECONDS=1800 ARGS='frames heads'  some of them
    make fuzz SECONDS=60 ARGS=--keep            and keeps the inputs that reach something new (corpus/)

Targets are functions from bytes to nothing, which raise AssertionError where the contract is broken; atheris
drives them over an instrumented build of the core. `csrc` is C alone, under AddressSanitizer and
UndefinedBehaviorSanitizer. An input that breaks something is left in build/fuzz/TARGET-*; run it again by
`HEARTWIRE_FUZZ_INPUT=build/fuzz/frames-crash-… python -m fuzz frames`.

Exit status: 0 if nothing was found, and with --keep the corpora were written.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import atheris

from fuzz.corpus import TARGETS, load, save

HERE: Final = Path(__file__).resolve().parent
BUILD: Final = Path("build/fuzz").absolute()
CSRC: Final = "csrc"
HANG_S: Final = 1200
"""Of one input, in wall time: a run may be stopped (SIGSTOP) for a while, and that is no hang."""
POLL_S: Final = 0.5
LONGEST: Final = {CSRC: 1500, **{name: target.longest for name, target in TARGETS.items()}}


def main() -> int:
    """Runs what the command line names. Returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", choices=[[], *LONGEST], help="all, if none is named")
    parser.add_argument("--seconds", type=int, default=60, help="of CPU time, for each target")
    parser.add_argument("--keep", action="store_true", help="keep inputs that reach something new")
    options = parser.parse_args()
    if again := os.environ.get("HEARTWIRE_FUZZ_INPUT"):
        for name in options.targets:
            TARGETS[name].one_input(Path(again).read_bytes())
        return 0
    BUILD.mkdir(parents=True, exist_ok=True)
    failed = [name for name in options.targets or LONGEST if not run(name, options.seconds, options.keep)]
    if failed:
        print(f"fuzz: failed: {', '.join(failed)}; see {BUILD}")
    return 1 if failed else 0


def run(name: str, seconds: int, keep: bool) -> bool:
    """Runs one target. Returns whether it found nothing, and the corpus was kept if it should be."""
    folder = BUILD / name
    folder.mkdir(exist_ok=True)
    write(folder, seeds_of(name))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    log = BUILD / f"{name}.log"
    status = fuzz(
        name, [folder], log, f"-timeout={HANG_S}", "-rss_limit_mb=2048", f"-artifact_prefix={BUILD}/{name}-",
        "-print_final_stats=1", cpu_seconds=seconds,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    text = log.read_text(errors="replace")
    executed = re.search(r"stat::number_of_executed_units: *(\d+)", text)
    # The engine's last line about its progress: edges, and edges with how often they were taken.
    reached = re.findall(r"cov: (\d+) ft: (\d+) corp: (\d+)/(\w+)", text)
    edges, features, inputs, size = reached[-1] if reached else "????"
    print(
        f"fuzz: {name}: {executed[1] if executed else '?'} inputs in {cpu:.0f} s of CPU time, {edges} edges, "
        f"{features} features, corpus of {inputs} ({size}): {'FOUND' if status else 'nothing'}",
        flush=True,
    )
    if status:
        print(text[-3000:], flush=True)
    return status == 0 and (not keep or minimise(name, folder))


def fuzz(name: str, folders: list[Path], log: Path, *flags: str, cpu_seconds: float = math.inf) -> int:
    """Starts the engine on corpus folders, and ends it after so much CPU time. Returns its exit status."""
    flags = (*flags, f"-max_len={LONGEST[name]}")
    environment = dict(os.environ)
    if name == CSRC:
        command = [str(BUILD / "csrc-fuzzer"), *flags]
    else:
        command = [sys.executable, str(HERE / "engine.py"), name, *flags]
        environment["PYTHONPATH"] = os.environ["HEARTWIRE_FUZZ_BUILD"]
        environment["ASAN_OPTIONS"] = "detect_leaks=0:allocator_may_return_null=1"
        # The runtime of both: the interpreter, which is not instrumented itself, has to load it first.
        environment["LD_PRELOAD"] = str(Path(atheris.path()) / "asan_with_fuzzer.so")
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *map(str, folders)], stdout=output, stderr=output, env=environment
        )
        while process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_S)
            if process.returncode is None and cpu_of(process.pid) > cpu_seconds:
                process.send_signal(signal.SIGUSR1)  # libFuzzer ends, with its figures, before the next input
        return process.returncode


def cpu_of(pid: int) -> float:
    """The seconds that a process has used: fewer than have passed, beside others or while it is stopped."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def minimise(name: str, folder: Path) -> bool:
    """Keeps the fewest inputs that reach as much as all of the folder does. False: nothing was changed."""
    fewest = BUILD / f"{name}-fewest"
    fewest.mkdir(exist_ok=True)
    for path in fewest.iterdir():
        path.unlink()
    log = BUILD / f"{name}-merge.log"
    status = fuzz(name, [fewest, folder], log, "-merge=1")
    inputs = [path.read_bytes() for path in fewest.iterdir()]
    # libFuzzer ends with 0 too where it could not run what it merges by.
    if status or not inputs:
        print(f"fuzz: {name}: the corpus could not be made smaller and stays as it was; see {log}")
        return False
    save(name, inputs)
    return True


def seeds_of(name: str) -> list[bytes]:
    """What a run begins with."""
    if name == CSRC:
        kept = [bytes([what]) + data[1:] for what in (2, 3) for data in seeds_of("frames")]
        kept += [b"\0" + data[1:] for data in seeds_of("heads")]
        kept += [b"\1" + data[1:] for data in seeds_of("json_texts")]
        return kept + load(name)
    return [*TARGETS[name].seeds(), *load(name)]


def write(folder: Path, inputs: list[bytes]) -> None:
    """Puts each input into a file of its own."""
    for i, data in enumerate(inputs):
        (folder / f"seed-{i:04}").write_bytes(data)


if __name__ == "__main__":
    sys.exit(main())
