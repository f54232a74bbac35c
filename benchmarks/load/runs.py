"""Runs scenarios: contestants in turn, round after round, within a bounded time."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field

from .load_generator import LoadFailed
from .scenarios import Bench, Sample, Scenario
from .servers import Contestant, ServerFailed


@dataclass
class Outcome:
    """What one scenario gave.

    Attributes:
        scenario: Which.
        rounds: For each contestant one entry a round; None where no run was accepted.
        rejected: Runs in which neither core was busy enough for the figure to mean something.
        problems: Failed runs and left-out contestants, in words.
    """

    scenario: Scenario
    rounds: dict[Contestant, list[Sample | None]] = field(default_factory=dict)
    rejected: dict[Contestant, list[Sample]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def contestants(self) -> list[Contestant]:
        return list(self.rounds)

    def samples(self, contestant: Contestant) -> list[Sample]:
        return [sample for sample in self.rounds[contestant] if sample is not None]

    def values(self, contestant: Contestant) -> list[float]:
        return [sample.value for sample in self.samples(contestant)]


@dataclass(frozen=True)
class Plan:
    """One scenario of this run.

    Attributes:
        scenario: Which.
        contestants: Who takes part, in their order of turns.
        rounds: How often each has a turn.
        sample_s: About how long one turn takes, in seconds.
    """

    scenario: Scenario
    contestants: list[Contestant]
    rounds: int
    sample_s: float

    @property
    def cost_s(self) -> float:
        return self.sample_s * len(self.contestants) * self.rounds


class Progress:
    """One line that says where the run is; rewritten on a terminal, appended elsewhere."""

    def __init__(self, plans: list[Plan], budget_s: float) -> None:
        self._turns = sum(len(plan.contestants) * plan.rounds for plan in plans)
        self._left_s = sum(plan.cost_s for plan in plans)
        self._turn = 0
        self._deadline = time.monotonic() + budget_s
        self._width = 0

    @property
    def remaining_s(self) -> float:
        return self._deadline - time.monotonic()

    def turn(self, plan: Plan, contestant: Contestant, round_number: int) -> None:
        self._turn += 1
        left_s = min(self._left_s, max(self.remaining_s, 0.0))
        self._left_s -= plan.sample_s
        self._say(
            f"[{self._turn}/{self._turns}] {plan.scenario.name}: {contestant}, "
            f"round {round_number + 1} of {plan.rounds}, about {left_s / 60:.1f} min to go"
        )

    def _say(self, line: str) -> None:
        if sys.stderr.isatty():
            print("\r" + line.ljust(self._width), end="", file=sys.stderr, flush=True)
            self._width = len(line)
        else:
            print(line, file=sys.stderr, flush=True)

    def print(self, text: str) -> None:
        """A line that stays."""
        if sys.stderr.isatty() and self._width:
            print("\r" + " " * self._width + "\r", end="", file=sys.stderr, flush=True)
            self._width = 0
        print(text, flush=True)


def run(plan: Plan, bench: Bench, progress: Progress, *, again: int) -> Outcome:
    """Every contestant once a round, in turn (A B A B), so that a change of the machine meets all.

    Args:
        plan: What to run.
        bench: What to run it with.
        progress: Told of each turn; knows how much time is left.
        again: How often a rejected run is repeated.
    """
    outcome = Outcome(plan.scenario)
    for contestant in plan.contestants:
        outcome.rounds[contestant] = []
        outcome.rejected[contestant] = []
    for number in range(plan.rounds):
        for contestant in plan.contestants:
            progress.turn(plan, contestant, number)
            outcome.rounds[contestant].append(_accepted(plan, contestant, bench, progress, outcome, again))
    return outcome


def _accepted(
    plan: Plan, contestant: Contestant, bench: Bench, progress: Progress, outcome: Outcome, again: int
) -> Sample | None:
    for _ in range(1 + again):
        if progress.remaining_s < plan.sample_s:
            if "out of time" not in outcome.problems:
                outcome.problems.append("out of time")
            return None
        try:
            sample = plan.scenario.measure(bench, contestant)
        except (LoadFailed, ServerFailed) as problem:
            outcome.problems.append(f"{contestant}: {problem}")
            return None
        if sample.busiest_core is None or sample.busiest_core >= plan.scenario.busy_from:
            return sample
        outcome.rejected[contestant].append(sample)
    return None


def spread(values: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest."""
    return statistics.median(values), min(values), max(values)
