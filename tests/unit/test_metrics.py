"""Figures of the core and the shell, and how Prometheus reads them."""

from __future__ import annotations

import contextlib
import math
import random
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heartwire._core.fanout import Frame, fan_out
from heartwire._core.session import Session
from heartwire.closing import CAUSES
from heartwire.config import ServerConfig
from heartwire.errors import ConnectionClosed
from heartwire.exposition import Exposition
from heartwire.metrics import Metrics
from heartwire.registry import Registry
from heartwire.revocation import Revocations
from heartwire.testing import PING, ManualClock
from heartwire.verification import Verification
from pair import Pair

DOCS = Path(__file__).parents[2] / "docs" / "metrics.md"
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(exposition: Exposition) -> Samples:
    """What a scrape says, by name and labels."""
    body, content_type = exposition.scrape("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def counts(engine: Any, name: str) -> dict[int | None, int]:
    """The buckets of an engine's distribution that are not empty, by upper bound."""
    bounds, values, _ = engine.histograms()[name]
    return {bound: n for bound, n in zip((*bounds, None), values, strict=True) if n}


# -------------------------------------------------------------- the core


@pytest.mark.parametrize(
    ("seconds", "bucket_us"),
    [(0.001, 1000), (0.0011, 2500), (0.25, 250_000), (0.3, 500_000), (9.999, 10_000_000), (12, None)],
)
def test_round_trips_are_counted_by_bound(seconds: float, bucket_us: int | None) -> None:
    pair = Pair()
    pair.conn.ping()
    (ping,) = pair.sent()
    assert ping.opcode == PING
    pair.clock.jump(seconds)
    pair.peer.send(10, ping.payload)
    assert counts(pair.engine, "rtt_us") == {bucket_us: 1}
    assert pair.engine.histograms()["rtt_us"][2] == pytest.approx(seconds * 1e6, abs=1)
    pair.peer.send(10, ping.payload)  # the same pong again is nobody's
    pair.peer.send(10, b"else")
    assert sum(counts(pair.engine, "rtt_us").values()) == 1


def test_lag_is_the_lateness_of_timers() -> None:
    pair = Pair()
    pair.conn.set_due("token", 5)
    pair.clock.advance(20)  # a loop that is on time
    on_time = counts(pair.engine, "lag_us")
    assert set(on_time) == {1000}
    pair.conn.set_due("token", 1)
    pair.clock.jump(1.4)
    late = counts(pair.engine, "lag_us")
    assert late.pop(500_000) == 1
    assert late == on_time
    assert pair.engine.statistics()["stalls"] == 1
    assert pair.engine.statistics()["stalled_ms"] == pytest.approx(400, abs=20)


def test_fan_outs_are_counted_by_recipients() -> None:
    pair = Pair()
    pairs = [pair, *(pair.beside() for _ in range(11))]
    members = {Session(p.conn): None for p in pairs}
    fan_out(Frame(b"x"), members)
    assert pair.engine.statistics()["queued_bytes"] == 12 * 3  # at once: the sends may take several turns
    pairs[0].conn.close()
    fan_out(Frame(b"x"), members, list(members)[1])
    fan_out(Frame(b"x"), {Session(pairs[2].conn): None})
    fan_out(Frame(b"x"), {Session(pairs[0].conn): None})  # nobody
    assert counts(pair.engine, "fanout_recipients") == {1: 1, 10: 1, 25: 1}
    assert pair.engine.histograms()["fanout_recipients"][2] == 1 + 10 + 12


def test_queued_bytes_are_the_sum_over_connections(rng: random.Random) -> None:
    """Whatever is sent, blocked, dropped and closed: the engine's total is what the connections say."""
    first = Pair(send_buffer_limit=5000)
    pairs = [first]

    def check() -> None:
        first.clock.run()
        waiting = sum(p.conn.queued_bytes for p in pairs if p.conn.phase != "CLOSED")
        assert first.engine.statistics()["queued_bytes"] == waiting

    for _ in range(600):
        pair = rng.choice(pairs)
        with contextlib.suppress(ConnectionClosed):
            match rng.randrange(14):
                case 0 | 1 if len(pairs) < 40:
                    pairs.append(first.beside())
                case 2 | 3:
                    pair.link.block()
                case 4:
                    pair.link.unblock()
                case 5:
                    pair.link.most = rng.choice([None, 1, 100])
                case 6 | 7:
                    fan_out(Frame(bytes(rng.randrange(2000)), True), {Session(p.conn): None for p in pairs})
                case 8:
                    pair.conn.close()
                case 9:
                    pair.link.reset()
                case 10:
                    pair.conn.ping()
                case 11:
                    pair.conn.send_fragment(2, b"begun", False)
                    pair.conn.send(2, bytes(300))
                    check()
                    pair.conn.send_fragment(0, b"done", True)
                case _:
                    pair.conn.send(2, bytes(rng.randrange(3000)))
        check()
    for pair in pairs:
        pair.conn.abort()
    first.clock.run()
    assert first.engine.statistics()["queued_bytes"] == 0


def test_slow_consumers_are_counted_once() -> None:
    pair = Pair(send_buffer_limit=100)
    pair.link.block()
    pair.conn.send(2, bytes(200))
    members = {Session(pair.conn): None}
    fan_out(Frame(b"one too many"), members)
    fan_out(Frame(b"and another"), members)
    assert pair.engine.statistics()["slow_consumers"] == 1


# -------------------------------------------------------------- the shell


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for i in range(1000):
        metrics.errors[f"no user {i}"] += 1
        metrics.errors["forbidden" if i else "no user 0"] += 1
    assert len(metrics.errors) <= 102
    assert metrics.errors["forbidden"] == 999 or metrics.errors["other"] > 900
    assert metrics.errors.total() == 2000


# -------------------------------------------------------------- the exposition


def exposition(pair: Pair, metrics: Metrics | None = None) -> Exposition:
    verification = Verification(ServerConfig(jwt_secret=("x" * 32,), jwks_url="https://id.example.com/keys"))
    return Exposition(pair.engine, Registry(), metrics or Metrics(), verification, Revocations(1))


def test_totals_are_those_of_the_engine() -> None:
    pair = Pair()
    scraped = exposition(pair)
    pair.peer.send_text("hello")
    pair.conn.send(1, "world!")
    pair.conn.ping()
    pair.sent()
    found = samples(scraped)
    value = {name: v for (name, labels), v in found.items() if not labels}
    statistics = pair.engine.statistics()
    assert value["heartwire_connections_opened_total"] == 1
    assert value["heartwire_connections_closed_total"] == 0
    assert value["heartwire_messages_received_total"] == 1
    assert value["heartwire_messages_sent_total"] == 1
    assert value["heartwire_received_bytes_total"] == statistics["bytes_in"] > 0
    assert value["heartwire_sent_bytes_total"] == statistics["bytes_out"] > 0
    assert value["heartwire_pings_sent_total"] == 1
    assert value["heartwire_send_queue_bytes"] == 0


def test_histograms_are_cumulated_and_in_seconds() -> None:
    pair = Pair()
    for seconds in (0.002, 0.002, 0.7, 20):
        pair.conn.ping()
        (ping,) = pair.sent()
        pair.clock.jump(seconds)
        pair.peer.send(10, ping.payload)
    found = samples(exposition(pair))
    buckets = {
        float(dict(labels)["le"]): value
        for (name, labels), value in found.items()
        if name == "heartwire_ping_rtt_seconds_bucket"
    }
    assert (buckets[0.001], buckets[0.0025], buckets[0.5], buckets[1], buckets[10]) == (0, 2, 2, 3, 3)
    assert buckets[math.inf] == found["heartwire_ping_rtt_seconds_count", ()] == 4
    assert found["heartwire_ping_rtt_seconds_sum", ()] == pytest.approx(20.704, abs=0.001)


def test_every_cause_and_reason_is_there_from_the_start() -> None:
    metrics = Metrics()
    metrics.disconnects["kicked"] += 2
    metrics.ping_stopped["send_error"] += 1
    found = samples(exposition(Pair(), metrics))
    for cause in CAUSES:
        assert found["heartwire_disconnects_total", (("cause", cause),)] == (2 if cause == "kicked" else 0)
    for reason in ("invalid", "unregistered", "nil_during_ping", "send_error"):
        assert found["heartwire_ping_stopped_total", (("reason", reason),)] == (reason == "send_error")


def test_labels_of_refusals_and_errors() -> None:
    metrics = Metrics()
    metrics.refusals["401 token_invalid"] += 3
    metrics.errors['a "quoted"\ncode'] += 1
    metrics.bad_json += 5
    for i in range(100):
        metrics.refusals[f"403 reason{i}"] += 1
    found = samples(exposition(Pair(), metrics))
    assert found["heartwire_handshake_refusals_total", (("code", "token_invalid"), ("status", "401"))] == 3
    assert found["heartwire_handshake_refusals_total", (("code", "other"), ("status", "other"))] == 1
    assert found["heartwire_errors_total", (("code", 'a "quoted"\ncode'),)] == 1
    assert found["heartwire_json_decode_failures_total", ()] == 5


def test_two_servers_do_not_mix() -> None:
    one, other = Pair(), Pair()
    one.peer.send_text("x")
    assert samples(exposition(one))["heartwire_messages_received_total", ()] == 1
    assert samples(exposition(other))["heartwire_messages_received_total", ()] == 0


def test_openmetrics_for_those_who_ask() -> None:
    body, content_type = exposition(Pair()).scrape("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_the_documentation_names_every_metric_and_no_other() -> None:
    body, _ = exposition(Pair(clock=ManualClock())).scrape("")
    exposed = {
        family.name if family.type != "counter" else family.name + "_total"
        for family in text_string_to_metric_families(body.decode())
    }
    documented = set(re.findall(r"^\| `(\w+)", DOCS.read_text(encoding="utf-8"), re.MULTILINE))
    assert documented == exposed
