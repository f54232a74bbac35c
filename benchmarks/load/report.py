"""The results of a run: one JSON document, and from it the page and the lines for people."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import Any

from .bars import Verdict, best, ratios
from .runs import Outcome, spread
from .scenarios import Sample
from .servers import Contestant

Document = dict[str, Any]


def scenario_document(outcome: Outcome) -> Document:
    """One scenario's part of the document."""
    ours = best(outcome, "heartwire")
    return {
        "name": outcome.scenario.name,
        "title": outcome.scenario.title,
        "unit": outcome.scenario.unit,
        "higher_is_better": outcome.scenario.higher_is_better,
        "results": [_result(outcome, contestant, ours) for contestant in outcome.contestants],
        "problems": outcome.problems,
    }


def _result(outcome: Outcome, contestant: Contestant, ours: Contestant | None) -> Document:
    samples, values = outcome.samples(contestant), outcome.values(contestant)
    rejected = outcome.rejected[contestant]
    costs = [sample.details["server_us"] for sample in samples if "server_us" in sample.details]
    quotients = ratios(outcome, ours, contestant) if ours and ours.server != contestant.server else []
    return {
        "server": contestant.server,
        "loop": contestant.loop,
        **_spread(values),
        "rounds_accepted": len(values),
        "rounds_rejected": len(rejected),
        "rejected_median": spread([sample.value for sample in rejected])[0] if rejected else None,
        "server_us": spread(costs)[0] if costs else None,
        "heartwire_ratio": _spread(quotients) if quotients else None,
        "samples": [_sample(sample, True) for sample in samples]
        + [_sample(sample, False) for sample in rejected],
    }


def _sample(sample: Sample, accepted: bool) -> Document:
    return {
        "accepted": accepted,
        "value": sample.value,
        "busiest_core": sample.busiest_core,
        **sample.details,
    }


def _spread(values: list[float]) -> Document:
    if not values:
        return {"median": None, "low": None, "high": None}
    median, low, high = spread(values)
    return {"median": median, "low": low, "high": high}


def document(
    *,
    kind: str,
    scenarios: list[Document],
    verdicts: list[Verdict],
    machine: Mapping[str, Any],
    versions: Mapping[str, str],
    settings: Mapping[str, Any],
    absent: Mapping[str, str],
) -> Document:
    """The whole document; everything in it can be written as JSON."""
    return {
        "format": 1,
        "kind": kind,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": dict(machine),
        "versions": dict(versions),
        "settings": dict(settings),
        "absent": dict(absent),
        "bars": [
            {
                "text": verdict.bar.text,
                "scenario": verdict.bar.scenario,
                "limit": verdict.bar.limit,
                "at_least": verdict.bar.at_least,
                "rival": verdict.bar.rival,
                "word": verdict.word,
                "median": verdict.median,
                "low": verdict.low,
                "high": verdict.high,
                "note": verdict.note,
            }
            for verdict in verdicts
        ],
        "scenarios": scenarios,
    }


def number(value: float | None) -> str:
    """As many digits as a reader can use."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 20 else f"{value:.2f}"


def label(result: Mapping[str, Any]) -> str:
    return f"{result['server']} ({result['loop']})" if result["loop"] else str(result["server"])


def scenario_text(scenario: Document) -> str:
    """A scenario for the terminal."""
    lines = [f"\n{scenario['title']} ({scenario['unit']})"]
    for result in scenario["results"]:
        line = f"  {label(result):22}{number(result['median']):>12}"
        if result["median"] is not None:
            line += f"  [{number(result['low'])} to {number(result['high'])}]"
        elif result["rejected_median"] is not None:
            line += f"  no core was busy: about {number(result['rejected_median'])}, not counted"
        if result["server_us"] is not None:
            line += f"  {number(result['server_us'])} µs CPU"
        if result["heartwire_ratio"]:
            ratio = result["heartwire_ratio"]
            line += (
                f"  heartwire is {number(ratio['median'])} × this"
                f" [{number(ratio['low'])} to {number(ratio['high'])}]"
            )
        lines.append(line)
    lines += [f"  ! {problem}" for problem in scenario["problems"]]
    return "\n".join(lines)


def bar_text(bar: Document) -> str:
    """A promise for the terminal."""
    line = f"  {bar['word']:11}{bar['text']}: {limit(bar)}"
    if bar["median"] is not None:
        line += f", measured {number(bar['median'])} [{number(bar['low'])} to {number(bar['high'])}]"
    return f"{line} ({bar['note']})"


def limit(bar: Document) -> str:
    sign = "≥" if bar["at_least"] else "≤"
    rival = f" × {bar['rival']}" if bar["rival"] else ""
    return f"{sign} {bar['limit']:g}{rival}"


def page(whole: Document) -> str:
    """The results page, Markdown."""
    machine, settings = whole["machine"], whole["settings"]
    out = [
        "# Results of the load benchmark",
        "",
        f"Written by `make bench`; do not edit. {whole['date'][:10]}, a {whole['kind']} run. "
        "The same in numbers: [latest.json](latest.json).",
        "",
        "![The best loop of each server: median, and a line from the lowest to the highest round](load.svg)",
        "",
        "## Promises",
        "",
        "| promise | bar | measured (lowest to highest) | | compared |",
        "|---|---|---|---|---|",
    ]
    for bar in whole["bars"]:
        measured = number(bar["median"])
        if bar["median"] is not None:
            measured += f" ({number(bar['low'])} to {number(bar['high'])})"
        out.append(f"| {bar['text']} | {limit(bar)} | {measured} | {bar['word']} | {bar['note']} |")
    out += ["", "## Figures", ""]
    for scenario in whole["scenarios"]:
        out += _scenario_section(scenario)
    out += ["## Machine and versions", ""]
    out += [
        f"- {machine['cpu']}, {machine['cpus_usable']} CPUs usable, {machine['memory_gib']} GiB, "
        f"{machine['kernel']}; "
        f"load average {machine['load_average_at_start']} before the run; "
        f"{machine['stolen_cpu_s']} CPU seconds taken away by the hypervisor during it",
        "- " + ", ".join(f"{name} {version}" for name, version in whole["versions"].items()),
    ]
    out += [f"- not measured: {name}, {reason}" for name, reason in whole["absent"].items()]
    out += ["", "## Method", "", _method(settings), "", "## What this does not show", "", _LIMITS, ""]
    return "\n".join(out)


def _scenario_section(scenario: Document) -> list[str]:
    good = "higher" if scenario["higher_is_better"] else "lower"
    out = [
        f"### {scenario['title'][0].upper()}{scenario['title'][1:]}",
        "",
        f"| server | {scenario['unit']} ({good} is better): median | lowest to highest | runs "
        "| server CPU µs each | heartwire ÷ this |",
        "|---|---|---|---|---|---|",
    ]
    for result in scenario["results"]:
        spread_words = (
            f"{number(result['low'])} to {number(result['high'])}" if result["median"] is not None else "–"
        )
        ratio = result["heartwire_ratio"]
        ratio_words = (
            f"{number(ratio['median'])} ({number(ratio['low'])} to {number(ratio['high'])})" if ratio else ""
        )
        runs = str(result["rounds_accepted"])
        if result["rounds_rejected"]:
            runs += f", {result['rounds_rejected']} rejected"
        out.append(
            f"| {label(result)} | {number(result['median'])} | {spread_words} | {runs} "
            f"| {number(result['server_us']) if result['server_us'] is not None else ''} | {ratio_words} |"
        )
    out += [""]
    out += [f"- {problem}" for problem in scenario["problems"]]
    slab = [
        (label(result), sample["kernel_slab_bytes_per_connection_both_ends"])
        for result in scenario["results"]
        for sample in result["samples"][:1]
        if "kernel_slab_bytes_per_connection_both_ends" in sample
    ]
    if slab:
        words = ", ".join(f"{name} {number(value)}" for name, value in slab)
        out += [f"Kernel memory for both ends of a connection comes on top, in bytes: {words}.", ""]
    return out if out[-1] == "" else [*out, ""]


def _method(settings: Mapping[str, Any]) -> str:
    return _METHOD.format(**settings)


_METHOD = """\
- The server is pinned to CPU {server_core}, the load generator (`wsload.c`) to CPU {load_core}; loopback,
  no TLS, no compression.
- Every run starts its server anew. The servers take turns (A B A B); rounds: {rounds}, {slow_rounds} for the
  long scenarios; {seconds:g} s measured after a warm-up, 100 connections where nothing else is said.
- Every client carries a JWT of its own (HS256; the Python servers check it with PyJWT).
- Figures are medians with the lowest and the highest round. A ratio is taken in each round, then its median;
  for a promise each side runs on the loop that suits it best.
- A throughput run in which neither core was 97 % busy is rejected and, but for a quick run, repeated once.
- Server CPU is user and system time of the process, by the kernel's accounting.
- Replies are compared byte by byte; a wrong or missing one fails the run.
- heartwire is used by its public API: `on_message` with `send_json`, `on_text` with `send_text`, and the
  built-in `join_channel` and `send_message`. The peers decode and encode with orjson, gorilla with
  encoding/json.
- The ceiling is `ceiling.c`, the least an epoll server can do: no JSON, no tokens, no limits, no deadlines.
  In fan-out it sends the bare 64 bytes, where heartwire sends them in its envelope, one broadcast at a time.
- Memory is the growth of the proportional set size between two crowds of one process."""

_LIMITS = """\
- Loopback has no loss, no latency and no slow links. TLS, compression and proxies are not measured.
- Echo is a closed loop under constant concurrency: service time, not response time at a given arrival rate.
- One core for the server. Several processes, several machines and a broker are not measured.
- The messages are small synthetic JSON; the handlers do nothing. An application's own work comes on top.
- Differences under about 7 % are none. On a virtual machine neighbours take CPU time; see above how much.
- The servers do not do the same work: heartwire checks UTF-8, limits and nesting, keeps a registry and
  builds envelopes; the others do what their authors chose. A ratio says what a message costs, not what it is
  worth.
- Figures of another machine cannot be compared with these; ratios can, with care."""
