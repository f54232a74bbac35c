"""`python -m benchmarks.load`: heartwire and its peers in turn. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import fnmatch
import importlib.util
import json
import os
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from . import bars, chart, measure, report
from .load_generator import LoadGenerator, connection_limit, write_tokens
from .programs import REPOSITORY, SERVERS, Missing, Programs, build
from .runs import Outcome, Plan, Progress, run
from .scenarios import PYTHON_SERVERS, SCENARIOS, Bench
from .servers import Contestant

_RESULTS = REPOSITORY / "benchmarks" / "results"
_UNPUBLISHED = REPOSITORY / ".benchmarks"  # not under version control
_LARGEST_CROWD = 18_000
_IDLE_LOAD = 0.5
_DISTRIBUTIONS = ("heartwire", "picows", "websockets", "aiohttp", "uvloop", "orjson", "msgspec", "PyJWT")


def main() -> int:
    options = _command_line().parse_args()
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:18}{scenario.title} ({scenario.unit})")
        return 0
    # Ends the servers, too: an exception leaves their context managers.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return _benchmark(options)
    except Missing as missing:
        print(f"benchmarks.load: {missing}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nbenchmarks.load: stopped; no results written", file=sys.stderr)
        return 130


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


@dataclass(frozen=True)
class Settings:
    """What the command line and the machine decide about a run; lengths in seconds."""

    servers: tuple[str, ...]
    loops: tuple[str, ...]
    seconds: float
    rounds: int
    slow_rounds: int
    budget_s: float
    server_core: int
    load_core: int
    quick: bool


def _settings(options: argparse.Namespace) -> Settings:
    usable = os.sched_getaffinity(0)
    if not {options.server_core, options.load_core} <= usable:
        wanted = f"CPUs {options.server_core} and {options.load_core} are wanted"
        raise Missing(f"{wanted}, {sorted(usable)} can be used")
    if options.server_core == options.load_core:
        raise Missing("server and load generator need a CPU each")
    loops = _names(options.loops, ("asyncio", "uvloop"), "loop")
    if not loops:
        have_uvloop = importlib.util.find_spec("uvloop") is not None
        loops = ("asyncio", "uvloop") if have_uvloop else ("asyncio",)
        loops = loops[-1:] if options.quick else loops
    servers = _names(options.peers, SERVERS, "server") or SERVERS
    if options.without_heartwire:
        servers = tuple(server for server in servers if server != "heartwire")
    elif "heartwire" not in servers:
        servers = ("heartwire", *servers)
    rounds = options.rounds or (2 if options.quick else 3)
    return Settings(
        servers=servers,
        loops=loops,
        seconds=options.seconds or (0.8 if options.quick else 2.0),
        rounds=rounds,
        slow_rounds=max(1, rounds - 1),
        budget_s=60 * (options.budget or (1.9 if options.quick else 90.0)),
        server_core=options.server_core,
        load_core=options.load_core,
        quick=options.quick,
    )


def _benchmark(options: argparse.Namespace) -> int:
    settings = _settings(options)
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="heartwire-bench-") as scratch:
        programs = build(Path(scratch), settings.servers, settings.loops)
        for server, reason in programs.absent.items():
            print(f"left out: {server}: {reason}")
        bench = _bench(settings, programs, Path(scratch))
        plans = _plans(options, settings, programs)
        if not plans:
            raise Missing("nothing is left to run: see --list and --peers")
        machine = measure.machine()
        if float(machine["load_average_at_start"]) > _IDLE_LOAD:
            print("the machine is not idle (load average above 0.5), and the figures will show it")
        stolen_before = measure.stolen_seconds()
        progress = Progress(plans, settings.budget_s - (time.monotonic() - started))
        outcomes: dict[str, Outcome] = {}
        scenarios = []
        for plan in plans:
            outcome = run(plan, bench, progress, again=0 if settings.quick else 1)
            outcomes[plan.scenario.name] = outcome
            scenarios.append(report.scenario_document(outcome))
            progress.print(report.scenario_text(scenarios[-1]))
        machine["stolen_cpu_s"] = round(measure.stolen_seconds() - stolen_before, 1)
    whole = report.document(
        kind=_kind(options, programs),
        scenarios=scenarios,
        verdicts=[bars.judge(bar, outcomes) for bar in bars.BARS],
        machine=machine,
        versions=measure.versions(_DISTRIBUTIONS, REPOSITORY),
        settings=asdict(settings),
        absent=programs.absent,
    )
    print("\nPromises")
    for bar in whole["bars"]:
        if bar["scenario"] in outcomes:
            print(report.bar_text(bar))
    _write(whole, options.output)
    failed = any(outcome.problems for outcome in outcomes.values())
    missed = any(bar["word"] == "missed" for bar in whole["bars"])
    return 1 if failed or (options.strict and missed) else 0


def _bench(settings: Settings, programs: Programs, directory: Path) -> Bench:
    limit = connection_limit()
    if limit < _LARGEST_CROWD:
        print(f"the limit of open files allows {limit} connections: crowds are smaller than said")
    secret, tokens = secrets.token_hex(32), directory / "tokens"
    write_tokens(tokens, secret, _LARGEST_CROWD)
    return Bench(
        programs=programs,
        load=LoadGenerator(programs.wsload, settings.load_core, tokens),
        secret=secret,
        core=settings.server_core,
        seconds=settings.seconds,
        max_connections=limit,
        quick=settings.quick,
    )


def _kind(options: argparse.Namespace, programs: Programs) -> str:
    if options.quick:
        return "quick"
    narrowed = options.only or options.peers or options.loops or "heartwire" in programs.absent
    return "partial" if narrowed or options.without_heartwire else "full"


def _plans(options: argparse.Namespace, settings: Settings, programs: Programs) -> list[Plan]:
    patterns = [pattern.strip() for pattern in (options.only or "*").split(",")]
    plans = []
    for scenario in SCENARIOS:
        if not any(fnmatch.fnmatch(scenario.name, pattern) for pattern in patterns):
            continue
        # A quick run takes only what its promises need, unless it is told what to take.
        narrow = settings.quick and not options.peers
        taking_part = scenario.quick_servers if narrow else scenario.servers
        loops = settings.loops[-1:] if scenario.slow else settings.loops
        contestants = [
            Contestant(server, loop)
            for server in taking_part
            if server in settings.servers and server not in programs.absent
            for loop in (loops if server in PYTHON_SERVERS else ("",))
        ]
        cost_s = settings.seconds + (scenario.quick_cost_s if settings.quick else scenario.cost_s)
        if contestants:
            rounds = settings.slow_rounds if scenario.slow else settings.rounds
            plans.append(Plan(scenario, contestants, rounds, cost_s))
    return plans


def _write(whole: report.Document, output: Path | None) -> None:
    """A complete run is the published result; any other goes where it is told, or out of the way."""
    publish = whole["kind"] == "full" or output is not None
    directory = output or (_RESULTS if publish else _UNPUBLISHED)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / ("latest.json" if publish else f"load-{whole['kind']}.json")
    path.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    if publish:
        (directory / "README.md").write_text(report.page(whole))
        (directory / "load.svg").write_text(chart.draw(whole))
    print(f"\nwritten: {path}" + (", README.md and load.svg beside it" if publish else ""))


def _names(text: str | None, known: tuple[str, ...], what: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in (text or "").split(",") if name.strip())
    for name in names:
        if name not in known:
            raise Missing(f"no {what} {name!r}: choose from {', '.join(known)}")
    return names


def _command_line() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="under two minutes: the promises only, few rounds")
    add("--only", metavar="NAMES", help="scenarios, by name or pattern: echo-*,fanout-1k")
    add("--list", action="store_true", help="print the scenarios and end")
    add("--peers", metavar="NAMES", help="servers beside heartwire: picows,ceiling")
    add("--without-heartwire", action="store_true", help="peers alone, to try the benchmark itself")
    add("--loops", metavar="NAMES", help="asyncio,uvloop; the long scenarios take the last one")
    add("--rounds", type=int, metavar="N", help="turns of each server (3; quick: 2)")
    add("--seconds", type=float, metavar="S", help="length of a measured phase (2; quick: 0.8)")
    add("--budget", type=float, metavar="MIN", help="begin no run that would end later (90; quick: 1.9)")
    add("--output", type=Path, metavar="DIR", help="where to write JSON, page and picture")
    add("--server-core", type=int, default=0, metavar="CPU")
    add("--load-core", type=int, default=1, metavar="CPU")
    add("--strict", action="store_true", help="end with 1 if a promise was missed")
    return parser


if __name__ == "__main__":
    sys.exit(main())
