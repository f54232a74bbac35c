"""Where a server's time goes in a scenario of the load benchmark: shares of its samples by `perf`.

    python -m benchmarks.profile echo-64 pipelined-64 --loop uvloop
    python -m benchmarks.profile echo-16k --server picows
    python -m benchmarks.profile ping-cost --after 8       leaves out the handshakes of the crowd

Needs Linux's `perf` (Debian: linux-perf) and the right to use it. For each scenario it prints the shares of
the kernel and of each library, then the functions that took most. Shares say what holds a figure; they are no
figure themselves, since sampling costs time too.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .load.load_generator import LoadGenerator, connection_limit, write_tokens
from .load.programs import Missing, build
from .load.scenarios import SCENARIOS, Bench
from .load.servers import Contestant, RunningServer

_TOKENS = 18_000
_SECONDS = 6.0
_LINES = 12


@dataclass(frozen=True)
class _ProfilingBench(Bench):
    """Samples every server that it starts, until that ends."""

    data: Path = Path()
    after_s: float = 0.0

    def start(self, contestant: Contestant, mode: str, ping_interval_s: float = 0.0) -> RunningServer:
        return _ProfiledServer(
            contestant,
            mode,
            programs=self.programs,
            core=self.core,
            secret=self.secret,
            ping_interval_s=ping_interval_s,
            data=self.data,
            after_s=self.after_s,
        )


class _ProfiledServer(RunningServer):
    def __init__(self, *args: object, data: Path, after_s: float, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._data = data
        self._after_ms = round(after_s * 1000)

    def __enter__(self) -> RunningServer:
        server = super().__enter__()
        command = ["perf", "record", "-q", "-F", "499", "-o", str(self._data)]
        if self._after_ms:  # perf refuses a delay of 0
            command += ["-D", str(self._after_ms)]
        command += ["-p", str(server.pid)]
        self._perf = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return server

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)  # type: ignore[arg-type]
        self._perf.wait(timeout=30)  # it ends with what it watches


def _report(data: Path, *sort: str) -> list[str]:
    command = ["perf", "report", "-i", str(data), "--stdio", "-g", "none", "--percent-limit", "1", *sort]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.strip(" -") for line in said.splitlines() if line.strip() and not line.startswith("#")]
    return lines[:_LINES]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenarios", nargs="+", choices=[scenario.name for scenario in SCENARIOS])
    parser.add_argument("--server", default="heartwire")
    parser.add_argument("--loop", default="uvloop", choices=("asyncio", "uvloop"))
    parser.add_argument("--after", type=float, default=0.0, metavar="S", help="sample from then on")
    options = parser.parse_args()
    if shutil.which("perf") is None:
        print("benchmarks.profile: perf is not installed (Debian: linux-perf)", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="heartwire-profile-") as scratch:
        directory, secret = Path(scratch), secrets.token_hex(32)
        try:
            programs = build(directory, (options.server,), (options.loop,))
        except Missing as missing:
            print(f"benchmarks.profile: {missing}", file=sys.stderr)
            return 2
        write_tokens(directory / "tokens", secret, _TOKENS)
        data = directory / "perf.data"
        bench = _ProfilingBench(
            programs=programs,
            load=LoadGenerator(programs.wsload, 1, directory / "tokens"),
            secret=secret,
            core=0,
            seconds=_SECONDS,
            max_connections=connection_limit(),
            quick=False,
            data=data,
            after_s=options.after,
        )
        for scenario in SCENARIOS:
            if scenario.name in options.scenarios:
                sample = scenario.measure(bench, Contestant(options.server, options.loop))
                print(f"{scenario.title}: {sample.value:,.0f} {scenario.unit}")
                for line in (*_report(data, "--sort", "dso"), "", *_report(data, "--sort", "dso,symbol")):
                    print(f"  {line}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
