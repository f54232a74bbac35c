"""What heartwire promises, each held against a measured figure."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from .runs import Outcome
from .servers import Contestant


@dataclass(frozen=True)
class Bar:
    """One promise.

    Attributes:
        text: For people.
        scenario: Where its figure comes from.
        limit: What must be reached, or not be passed.
        at_least: Whether `limit` is a minimum.
        rival: The server whose figure heartwire's is divided by; empty: the figure itself counts.
    """

    text: str
    scenario: str
    limit: float
    at_least: bool
    rival: str = ""


BARS = (
    Bar("JSON echo, 64 B, 1 in flight", "echo-64", 1.25, True, "picows"),
    Bar("JSON echo, 64 B, 16 in flight", "pipelined-64", 5.0, True, "picows"),
    Bar("JSON echo, 1 KB, 1 in flight", "echo-1k", 1.1, True, "picows"),
    Bar("JSON echo, 16 KB, 1 in flight", "echo-16k", 1.0, True, "picows"),
    Bar("send_message with 16 KB of data, against a JSON echo of it", "routed-16k", 4.0, True, "picows"),
    Bar("fan-out to 1,000 members", "fanout-1k", 0.85, True, "ceiling"),
    Bar("fan-out to 10,000 members", "fanout-10k", 0.85, True, "ceiling"),
    Bar("bytes of user memory per idle connection", "idle-memory", 1024.0, False),
    Bar("µs of server CPU per authenticated handshake", "handshakes", 60.0, False),
    Bar("% of a core for 10,000 idle clients, a ping each every 10 s", "ping-cost", 1.2, False),
    Bar("ms of the slowest scrape of /metrics with 15,000 clients", "scrape", 50.0, False),
    Bar("ms of the slowest page of /api/clients with 15,000 clients", "clients-page", 20.0, False),
    Bar("p99 while both are asked for twice a second, over p99 without", "beside-asking", 1.2, False),
    Bar("p99 beside 15,000 idle connections, over p99 without", "beside-idle", 1.2, False),
)


@dataclass(frozen=True)
class Verdict:
    """How a promise was kept.

    Attributes:
        bar: The promise.
        word: `met`, `missed` or `not judged`.
        median: The ratio or the figure; None if not judged.
        low: The lowest of the rounds.
        high: The highest of the rounds.
        note: Who was compared, or why nobody was.
    """

    bar: Bar
    word: str
    median: float | None = None
    low: float | None = None
    high: float | None = None
    note: str = ""


def best(outcome: Outcome, server: str) -> Contestant | None:
    """The server on the loop that suits it best, by the median; None without an accepted run."""
    medians = {
        contestant: statistics.median(values)
        for contestant in outcome.contestants
        if contestant.server == server and (values := outcome.values(contestant))
    }
    if not medians:
        return None
    choose = max if outcome.scenario.higher_is_better else min
    return choose(medians, key=lambda contestant: medians[contestant])


def ratios(outcome: Outcome, ours: Contestant, theirs: Contestant) -> list[float]:
    """Ours over theirs, in each round in which both runs were accepted."""
    pairs = zip(outcome.rounds[ours], outcome.rounds[theirs], strict=False)
    return [a.value / b.value for a, b in pairs if a is not None and b is not None and b.value]


def judge(bar: Bar, outcomes: dict[str, Outcome]) -> Verdict:
    """Hold one promise against what was measured; each side on its best loop."""
    outcome = outcomes.get(bar.scenario)
    if outcome is None:
        return Verdict(bar, "not judged", note="not part of this run")
    ours = best(outcome, "heartwire")
    theirs = best(outcome, bar.rival) if bar.rival else None
    if ours is None or (bar.rival and theirs is None):
        absent = "heartwire" if ours is None else bar.rival
        return Verdict(bar, "not judged", note=f"no accepted run of {absent}")
    if theirs is None:
        figures, note = outcome.values(ours), str(ours)
    else:
        figures, note = ratios(outcome, ours, theirs), f"{ours} over {theirs}"
    if not figures:
        return Verdict(bar, "not judged", note="no round in which both runs were accepted")
    middle = statistics.median(figures)
    kept = middle >= bar.limit if bar.at_least else middle <= bar.limit
    return Verdict(bar, "met" if kept else "missed", middle, min(figures), max(figures), note)
