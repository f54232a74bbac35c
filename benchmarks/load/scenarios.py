"""What is measured: for each scenario one function that takes a contestant and returns one sample."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from .asker import METRICS, Asker
from .load_generator import LoadFailed, LoadGenerator
from .measure import kernel_slab_bytes, memory, open_descriptors
from .programs import Programs
from .servers import Contestant, RunningServer

PYTHON_SERVERS = ("heartwire", "picows", "websockets", "aiohttp")
PEERS = (*PYTHON_SERVERS, "gorilla")
_JOIN = '{"action":"join_channel","channel":"%s"}'
_SEND = '{"action":"send_message","channel":"%s","data":'


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        value: In the scenario's unit.
        details: What else was seen; all of it goes into the JSON results.
        busiest_core: Share of the busier of the two cores that was used, or of both where the two
            take turns (0–1); None where the load is not meant to fill a core.
    """

    value: float
    details: dict[str, Any] = field(default_factory=dict)
    busiest_core: float | None = None


@dataclass(frozen=True)
class Bench:
    """What a scenario has at hand.

    Attributes:
        programs: Compiled programs.
        load: The load generator.
        secret: HS256 key of the tokens.
        core: CPU of the servers.
        seconds: Length of a measured phase.
        max_connections: What the limit of open files allows.
        quick: Fewer connections and shorter waits.
    """

    programs: Programs
    load: LoadGenerator
    secret: str
    core: int
    seconds: float
    max_connections: int
    quick: bool

    def start(self, contestant: Contestant, mode: str, ping_interval_s: float = 0.0) -> RunningServer:
        return RunningServer(
            contestant,
            mode,
            programs=self.programs,
            core=self.core,
            secret=self.secret,
            ping_interval_s=ping_interval_s,
        )

    def connections(self, wanted: int) -> int:
        return min(wanted, self.max_connections)


@dataclass(frozen=True)
class Scenario:
    """One thing to measure.

    Attributes:
        name: For the command line.
        title: For people.
        unit: Of the samples' values.
        higher_is_better: Which way the value is good.
        servers: Who takes part.
        measure: Takes one sample.
        quick_servers: Who takes part in a quick run; none: the scenario is left out of it.
        slow: Many connections or long holds: fewer rounds, one loop.
        cost_s: About how long one sample takes beside the measured phase, in seconds.
        quick_cost_s: The same in a quick run.
        busy_from: A run in which the busiest core was less so is rejected (0–1).
    """

    name: str
    title: str
    unit: str
    higher_is_better: bool
    servers: tuple[str, ...]
    measure: Callable[[Bench, Contestant], Sample]
    quick_servers: tuple[str, ...] = ()
    slow: bool = False
    cost_s: float = 1.5
    quick_cost_s: float = 1.3
    busy_from: float = 0.97


def _welcomes(contestant: Contestant) -> int:
    """Messages that the server sends by itself after the handshake."""
    return 1 if contestant.server == "heartwire" else 0


def _throughput(result: dict[str, Any], rate: str, cost: str) -> Sample:
    return Sample(
        result[rate], {"server_us": result[cost], **result}, max(result["client_cpu"], result["server_cpu"])
    )


def _echo(size: int, depth: int, mode: str = "json") -> Callable[[Bench, Contestant], Sample]:
    def measure(bench: Bench, contestant: Contestant) -> Sample:
        with bench.start(contestant, mode) as server:
            # A text handler has the connection to itself: no welcome.
            skip = _welcomes(contestant) if mode != "raw" else 0
            result = bench.load.run(
                server, "echo", conns=100, size=size, depth=depth, skip=skip, seconds=bench.seconds
            )
        return _throughput(result, "msgs_per_s", "server_us_per_msg")

    return measure


def _async_echo(depth: int) -> Callable[[Bench, Contestant], Sample]:
    """heartwire by an `async def` handler, picows as ever: its handlers are functions."""
    ours, theirs = _echo(64, depth, "async"), _echo(64, depth)
    return lambda bench, contestant: (ours if contestant.server == "heartwire" else theirs)(bench, contestant)


def _routed(size: int) -> Callable[[Bench, Contestant], Sample]:
    json_echo = _echo(size, 1)

    def measure(bench: Bench, contestant: Contestant) -> Sample:
        if contestant.server != "heartwire":
            return json_echo(bench, contestant)
        with bench.start(contestant, "fanout") as server:
            result = bench.load.run(
                server,
                "echo",
                conns=100,
                size=size,
                hello=_JOIN % "bench-%d",
                pub_prefix=_SEND % "bench-%d",
                pub_suffix="}",
                expect="contains",
                skip=2,
                seconds=bench.seconds,
            )
        return _throughput(result, "msgs_per_s", "server_us_per_msg")

    return measure


def _fanout(members: int) -> Callable[[Bench, Contestant], Sample]:
    def measure(bench: Bench, contestant: Contestant) -> Sample:
        conns = bench.connections(members)
        options: dict[str, Any] = {"conns": conns, "size": 64, "settle": 1 + conns / 10_000, "seconds": 20}
        options["count"] = max(10, int(bench.seconds * 150_000 / conns))
        if contestant.server == "heartwire":
            options |= {"hello": _JOIN % "bench", "pub_prefix": _SEND % "bench", "pub_suffix": "}"}
            options |= {"expect": "contains", "skip": 2}
        with bench.start(contestant, "fanout") as server:
            result = bench.load.run(server, "fanout", **options)
        sample = _throughput(result, "deliveries_per_s", "server_us_per_delivery")
        # One broadcast at a time: the server waits while the last are read, the clients while the next is
        # made. Neither core is busy all the time; together they are, unless something else ran.
        return replace(sample, busiest_core=min(1.0, result["client_cpu"] + result["server_cpu"]))

    return measure


def _idle_memory(bench: Bench, contestant: Contestant) -> Sample:
    """The slope between two crowds of one process: what it needs without clients drops out."""
    interval_s = 3.0 if bench.quick else 10.0
    few, many = 3_000, bench.connections(9_000 if bench.quick else 18_000)
    skip = _welcomes(contestant)
    with bench.start(contestant, "json", interval_s) as server:
        first = bench.load.idle(server, few, skip=skip)
        second = bench.load.idle(server, many - few, source="127.0.0.6", skip=skip)
        alone = memory(server.pid)
        with first:
            time.sleep(interval_s * 1.5)
            before, slab_before = memory(server.pid), kernel_slab_bytes()
            with second:
                time.sleep(interval_s * 1.5)
                after, slab_after = memory(server.pid), kernel_slab_bytes()
    for crowd in (first, second):
        # A connection that was never pinged has not cost what a pinged one costs.
        if not crowd.result["pings_per_conn_min"]:
            raise LoadFailed("not every idle client was pinged before memory was read")
    added = many - few
    return Sample(
        (after.pss - before.pss) / added,
        {
            "connections": [few, many],
            "rss_bytes_per_connection": (after.rss - before.rss) / added,
            "kernel_slab_bytes_per_connection_both_ends": (slab_after - slab_before) / added,
            "pss_without_clients": alone.pss,
            "pings_per_connection": [first.result["pings_per_conn_min"], first.result["pings_per_conn_max"]],
        },
    )


def _handshakes(bench: Bench, contestant: Contestant) -> Sample:
    conns = bench.connections(3_000 if bench.quick else 10_000)
    with bench.start(contestant, "json") as server:
        result = bench.load.run(
            server, "idle", conns=conns, settle=0.2, seconds=0.1, skip=_welcomes(contestant)
        )
    return Sample(result["server_us_per_handshake"], result)


def _ping_cost(bench: Bench, contestant: Contestant) -> Sample:
    interval_s, conns = 10.0, bench.connections(10_000)
    hold_s = interval_s if bench.quick else 2 * interval_s
    with bench.start(contestant, "json", interval_s) as server:
        result = bench.load.run(
            server, "idle", conns=conns, settle=2, seconds=hold_s, skip=_welcomes(contestant)
        )
    expected = conns * result["hold_s"] / interval_s
    if not 0.8 * expected <= result["pings_in_hold"] <= 1.2 * expected:
        raise LoadFailed(
            f"{result['pings_in_hold']} pings came where {expected:.0f} were due: not what is measured"
        )
    per_ping = result["server_cpu_s_hold"] / result["pings_in_hold"] * 1e6
    return Sample(result["server_cpu_pct_hold"], {"server_us_per_ping": round(per_ping, 2), **result})


def _echo_beside_idle(bench: Bench, contestant: Contestant) -> Sample:
    """Alone and beside the crowd by turns, in one process, the crowd connected anew each time."""
    crowd_size = bench.connections(15_000)
    skip = _welcomes(contestant)
    turns: dict[str, list[dict[str, Any]]] = {"alone": [], "beside": []}
    with bench.start(contestant, "json", 30.0) as server:

        def echo() -> dict[str, Any]:
            return bench.load.run(server, "echo", conns=100, size=64, skip=skip, seconds=bench.seconds)

        for _ in range(1 if bench.quick else 2):
            turns["alone"].append(echo())
            with bench.load.idle(server, crowd_size, source="127.0.0.6", skip=skip):
                turns["beside"].append(echo())
    p99 = {name: [run["lat_p99_us"] for run in runs] for name, runs in turns.items()}
    ratio = sum(p99["beside"]) / sum(p99["alone"])
    details = {"idle_connections": crowd_size, "p99_us": p99, "runs": turns}
    every_run = turns["alone"] + turns["beside"]
    return Sample(ratio, details, min(max(run["client_cpu"], run["server_cpu"]) for run in every_run))


def _asked(value: Callable[[dict[str, Any]], float]) -> Callable[[Bench, Contestant], Sample]:
    """An echo beside a crowd, by turns with and without somebody who asks the HTTP API."""

    def measure(bench: Bench, contestant: Contestant) -> Sample:
        crowd_size = bench.connections(15_000)
        skip = _welcomes(contestant)
        turns: dict[str, list[dict[str, Any]]] = {"alone": [], "asked": []}
        with bench.start(contestant, "json", 30.0) as server:
            asker = Asker(server.port, bench.secret, crowd_size, bench.load.core)

            def echo() -> dict[str, Any]:
                return bench.load.run(server, "echo", conns=100, size=64, skip=skip, seconds=bench.seconds)

            with bench.load.idle(server, crowd_size, source="127.0.0.6", skip=skip):
                turns["alone"].append(echo())
                with asker:
                    turns["asked"].append(echo())
                turns["alone"].append(echo())
        p99 = {name: [run["lat_p99_us"] for run in runs] for name, runs in turns.items()}
        details = {
            "idle_connections": crowd_size, "p99_us": p99, **asker.summary(),
            "p99_ratio": round(statistics.mean(p99["asked"]) / statistics.mean(p99["alone"]), 3),
        }  # fmt: skip
        return Sample(value(details), details)

    return measure


def _churn(bench: Bench, contestant: Contestant) -> Sample:
    with bench.start(contestant, "json", 5.0) as server:
        files_before = open_descriptors(server.pid)
        result = bench.load.run(
            server,
            "churn",
            conns=500,
            skip=_welcomes(contestant),
            seconds=max(3.0, bench.seconds),
        )
        time.sleep(1.0)  # both ends of the last connections are gone by now
        files_left = open_descriptors(server.pid) - files_before
    if result["bad_replies"]:
        raise LoadFailed(f"{result['bad_replies']} wrong replies")
    cpu_us = result["server_cpu"] * result["seconds"] * 1e6 / max(result["opened"], 1)
    return Sample(
        result["opened_per_s"], {"descriptors_left": files_left, "server_us": round(cpu_us, 1), **result}
    )


_ECHO_PAIR = ("heartwire", "picows")
_ALL = (*PEERS, "ceiling")
_RATE = ("messages/s", True)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario("echo-64", "JSON echo, 64 B, 1 in flight", *_RATE, PEERS, _echo(64, 1), _ECHO_PAIR),
    Scenario("echo-1k", "JSON echo, 1 KB, 1 in flight", *_RATE, PEERS, _echo(1024, 1), _ECHO_PAIR),
    Scenario("echo-16k", "JSON echo, 16 KB, 1 in flight", *_RATE, PEERS, _echo(16384, 1), _ECHO_PAIR),
    Scenario("pipelined-64", "JSON echo, 64 B, 16 in flight", *_RATE, PEERS, _echo(64, 16), _ECHO_PAIR),
    Scenario("pipelined-1k", "JSON echo, 1 KB, 16 in flight", *_RATE, PEERS, _echo(1024, 16)),
    Scenario(
        "echo-async-64", "the 64 B echo by an async def handler", *_RATE, _ECHO_PAIR, _async_echo(1)
    ),
    Scenario(
        "pipelined-async-64", "the same with 16 in flight", *_RATE, _ECHO_PAIR, _async_echo(16)
    ),
    Scenario("raw-64", "text echo, undecoded, 64 B, 1 in flight", *_RATE, _ALL, _echo(64, 1, "raw")),
    Scenario(
        "raw-pipelined-64", "text echo, undecoded, 64 B, 16 in flight", *_RATE, _ALL, _echo(64, 16, "raw")
    ),
    Scenario(
        "routed-16k",
        "16 KB of data: heartwire by send_message, picows by echo",
        *_RATE,
        _ECHO_PAIR,
        _routed(16384),
        _ECHO_PAIR,
    ),
    Scenario(
        "fanout-1k",
        "fan-out to 1,000 members, 64 B",
        "deliveries/s",
        True,
        _ALL,
        _fanout(1_000),
        ("heartwire", "ceiling"),
        cost_s=3.0,
        quick_cost_s=2.0,
    ),
    Scenario(
        "fanout-10k",
        "fan-out to 10,000 members, 64 B",
        "deliveries/s",
        True,
        _ALL,
        _fanout(10_000),
        ("heartwire", "ceiling"),
        cost_s=8.0,
        quick_cost_s=4.5,
    ),
    Scenario(
        "handshakes",
        "server CPU of one authenticated handshake",
        "µs",
        False,
        _ALL,
        _handshakes,
        _ECHO_PAIR,
        cost_s=4.0,
        quick_cost_s=0.7,
    ),
    Scenario(
        "idle-memory",
        "user memory of one idle connection, authenticated and pinged",
        "bytes",
        False,
        PEERS,
        _idle_memory,
        ("heartwire",),
        slow=True,
        cost_s=36.0,
        quick_cost_s=11.0,
    ),
    Scenario(
        "ping-cost",
        "CPU while 10,000 idle clients are pinged every 10 s",
        "% of a core",
        False,
        _ALL,
        _ping_cost,
        ("heartwire",),
        slow=True,
        cost_s=25.0,
        quick_cost_s=14.0,
    ),
    Scenario(
        "beside-idle",
        "p99 of a 64 B echo with 15,000 idle clients beside it ÷ without",
        "×",
        False,
        PEERS,
        _echo_beside_idle,
        ("heartwire",),
        slow=True,
        cost_s=16.0,
        quick_cost_s=5.0,
        # A ratio of latencies: both sides must be under the same load, which need not be all there is.
        busy_from=0.9,
    ),
    Scenario(
        "scrape",
        "/metrics with 15,000 idle clients and a busy echo beside them",
        "ms",
        False,
        ("heartwire",),
        _asked(lambda details: details[METRICS]["slowest_ms"]),
        slow=True,
        cost_s=16.0,
    ),
    Scenario(
        "clients-page",
        "a page of /api/clients with 15,000 idle clients and a busy echo beside them",
        "ms",
        False,
        ("heartwire",),
        _asked(lambda details: details["/api/clients"]["slowest_ms"]),
        slow=True,
        cost_s=16.0,
    ),
    Scenario(
        "beside-asking",
        "p99 of that echo while somebody asks for both twice a second ÷ without",
        "×",
        False,
        ("heartwire",),
        _asked(lambda details: details["p99_ratio"]),
        slow=True,
        cost_s=16.0,
    ),
    Scenario(
        "churn",
        "clients that come and go in every way, 500 at a time",
        "connections/s",
        True,
        PEERS,
        _churn,
        ("heartwire",),
        slow=True,
        cost_s=4.0,
        quick_cost_s=4.0,
    ),
)
