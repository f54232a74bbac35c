"""The figures of a server as Prometheus reads them (docs/metrics.md).

Everything is read at scrape time: totals of the data path from the engine, counters of the shell from
`Metrics`, sizes from the registry. Nothing here walks clients: a scrape costs the same with any number.

Source: https://prometheus.io/docs/instrumenting/writing_exporters/
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from heartwire._version import __version__
from heartwire.closing import CAUSES

if sys.platform != "win32":
    import resource

if TYPE_CHECKING:
    from heartwire._core.engine import Engine
    from heartwire.metrics import HookFigures, Metrics
    from heartwire.registry import Registry
    from heartwire.revocation import Revocations
    from heartwire.verification import Verification

__all__ = ["Exposition"]

Distribution = tuple[tuple[int, ...], tuple[int, ...], int]

# The engine's totals: (name there, name of the metric, help, what one unit there is in the metric's).
TOTALS: Final = (
    ("opened", "heartwire_connections_opened", "Connections that were upgraded to WebSocket.", 1),
    ("closed", "heartwire_connections_closed", "Upgraded connections whose socket was closed.", 1),
    ("messages_in", "heartwire_messages_received", "Complete messages received, control frames excepted.", 1),
    ("messages_out", "heartwire_messages_sent", "Messages queued for clients, control frames excepted.", 1),
    ("bytes_in", "heartwire_received_bytes", "Bytes received on connections, request heads included.", 1),
    ("bytes_out", "heartwire_sent_bytes", "Bytes the kernel took from connections, refusals included.", 1),
    ("pings", "heartwire_pings_sent", "Pings sent to clients.", 1),
    ("pongs", "heartwire_pongs_received", "Pongs that answered a ping of ours.", 1),
    ("slow_consumers", "heartwire_slow_consumers", "Clients let go because they did not read.", 1),
    ("stalls", "heartwire_loop_stalls", "Times the event loop was more than 100 ms late.", 1),
    ("stalled_ms", "heartwire_loop_stalled_seconds", "By how much it was late then, together.", 1000),
)

# The engine's distributions: (name there, name of the metric, help, what one unit there is in the metric's).
DISTRIBUTIONS: Final = (
    ("rtt_us", "heartwire_ping_rtt_seconds", "Time between a ping and its pong.", 1_000_000),
    ("lag_us", "heartwire_loop_lag_seconds", "How late the event loop was for a deadline.", 1_000_000),
    ("fanout_recipients", "heartwire_fanout_recipients", "Clients that one fan-out was queued for.", 1),
)


class Exposition(Collector):
    """The collector of one server, in a registry of its own: two servers in a process do not mix.

    Loop thread only.

    Args:
        engine, registry, metrics, verification, revocations: what is read.
    """

    def __init__(
        self, engine: Engine, registry: Registry, metrics: Metrics, verification: Verification | None,
        revocations: Revocations,
    ) -> None:  # fmt: skip
        self._engine = engine
        self._verification = verification
        self._revocations = revocations
        self._registry = registry
        self._metrics = metrics
        self._collectors = CollectorRegistry()
        self._collectors.register(self)

    def scrape(self, accept: str) -> tuple[bytes, str]:
        """Writes all metrics.

        Args:
            accept: the request's Accept header: OpenMetrics for those who ask for it, else the text format.
        Returns:
            (body, value of the Content-Type header).
        """
        encode, content_type = choose_encoder(accept)
        return encode(self._collectors), content_type

    def describe(self) -> list[Metric]:
        """Names for the registry: none, so that nothing is collected before the first scrape."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Everything, as it is now."""
        totals: dict[str, int] = self._engine.statistics()
        yield InfoMetricFamily("heartwire", "The server.", value={"version": __version__})
        yield GaugeMetricFamily("heartwire_clients", "Clients connected now.", len(self._registry.clients))
        yield GaugeMetricFamily(
            "heartwire_users", "Users with a client connected now.", len(self._registry.members_by_user)
        )
        yield GaugeMetricFamily(
            "heartwire_channels", "Channels with members now.", len(self._registry.channels)
        )
        yield GaugeMetricFamily(
            "heartwire_send_queue_bytes", "Bytes that wait to be sent to clients.", totals["queued_bytes"]
        )
        for key, name, about, unit in TOTALS:
            yield CounterMetricFamily(name, about, totals[key] / unit)
        distributions: dict[str, Distribution] = self._engine.histograms()
        for key, name, about, unit in DISTRIBUTIONS:
            yield _histogram(name, about, distributions[key], unit)
        yield from self._counters()
        yield from self._about_tokens()
        yield from _process()

    def _counters(self) -> Iterator[Metric]:
        metrics = self._metrics
        causes = dict.fromkeys(CAUSES, 0) | metrics.disconnects  # from the start, so that rates are seen
        yield _by("heartwire_disconnects", "Connections that ended, by cause.", "cause", causes)
        reasons = metrics.ping_stopped
        yield _by("heartwire_ping_stopped", "Clients the heartbeat let go, by reason.", "reason", reasons)
        yield _by("heartwire_errors", "Error events sent to clients, by code.", "code", metrics.errors)
        yield _by(
            "heartwire_rate_limited_messages", "Messages thrown away because they came too fast, by limit.",
            "limit", metrics.rate_limited,
        )  # fmt: skip
        yield CounterMetricFamily(
            "heartwire_json_decode_failures", "Text messages that were no JSON.", metrics.bad_json
        )
        yield from _hooks(metrics.hooks)
        refused = CounterMetricFamily(
            "heartwire_handshake_refusals",
            "Handshakes refused, by HTTP status and code.",
            labels=["status", "code"],
        )
        for words, count in metrics.refusals.items():
            status, _, code = words.rpartition(" ")
            refused.add_metric([status or "other", code], count)
        yield refused

    def _about_tokens(self) -> Iterator[Metric]:
        yield GaugeMetricFamily(
            "heartwire_token_revocations", "Revocations remembered now.", len(self._revocations)
        )
        yield GaugeMetricFamily(
            "heartwire_token_revocations_limit", "Most that are remembered.", self._revocations.limit
        )
        yield CounterMetricFamily(
            "heartwire_tokens_renewed", "Tokens that clients replaced in place.", self._metrics.tokens_renewed
        )
        yield GaugeMetricFamily(
            "heartwire_tokens_waiting_for_keys", "Tokens whose verdict waits for new keys.",
            self._metrics.waiting_for_keys,
        )  # fmt: skip
        if self._verification is None:
            return
        yield GaugeMetricFamily(
            "heartwire_jwt_keys", "Keys that verify tokens; without any nobody comes in.",
            len(self._verification.keys),
        )  # fmt: skip
        if (cache := self._verification.cache) is not None:
            yield CounterMetricFamily(
                "heartwire_token_cache_hits", "Tokens that had been verified before.", cache.hits
            )
            yield CounterMetricFamily(
                "heartwire_token_cache_misses", "Tokens that were not in the cache.", cache.misses
            )
        if (remote := self._verification.remote) is not None:
            fetches = {"ok": remote.fetched, "error": remote.failed}
            yield _by("heartwire_jwks_fetches", "Requests to the JWKS URL, by result.", "result", fetches)
            yield GaugeMetricFamily(
                "heartwire_jwks_fetched_timestamp_seconds", "When keys came last, Unix time; 0: never.",
                remote.fetched_at or 0,
            )  # fmt: skip


def _hooks(hooks: HookFigures) -> Iterator[Metric]:
    yield GaugeMetricFamily("heartwire_webhook_queue_events", "Events that wait to be sent.", hooks.queued)
    yield GaugeMetricFamily("heartwire_webhook_queue_bytes", "Bytes of them.", hooks.queued_bytes)
    yield CounterMetricFamily(
        "heartwire_webhook_events_delivered", "Events that the receiver took.", hooks.delivered
    )
    yield _by("heartwire_webhook_events_dropped", "Events not delivered, by reason.", "reason", hooks.dropped)
    yield _by(
        "heartwire_webhook_requests", "Requests to the webhook, by outcome.", "outcome", hooks.requests
    )
    yield _by(
        "heartwire_authorize_requests", "Requests to the authorization hook, by answer.",
        "answer", hooks.answers,
    )  # fmt: skip


def _process() -> Iterator[Metric]:
    """The process, by the names every Prometheus client has for it.

    Not by prometheus_client's ProcessCollector: it counts descriptors by listing them, 126 ms with 15,000
    clients (measured). Linux says the number since 6.2.
    """
    if sys.platform == "win32":
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    yield CounterMetricFamily(
        "process_cpu_seconds", "User and system CPU time of the process.", usage.ru_utime + usage.ru_stime
    )
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield GaugeMetricFamily("process_max_fds", "Most open file descriptors.", float(soft))
    with contextlib.suppress(OSError):  # no /proc: not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        yield GaugeMetricFamily(
            "process_resident_memory_bytes", "Resident memory.", pages * resource.getpagesize()
        )
        if descriptors := os.stat("/proc/self/fd").st_size:
            yield GaugeMetricFamily("process_open_fds", "Open file descriptors.", descriptors)


def _by(name: str, about: str, label: str, counts: Mapping[str, int]) -> Metric:
    family = CounterMetricFamily(name, about, labels=[label])
    for value, count in counts.items():
        family.add_metric([value], count)
    return family


def _histogram(name: str, about: str, distribution: Distribution, unit: int) -> Metric:
    bounds, counts, total = distribution
    buckets = []
    cumulated = 0
    for bound, count in zip((*bounds, None), counts, strict=True):
        cumulated += count
        buckets.append(("+Inf" if bound is None else repr(bound / unit), float(cumulated)))
    return HistogramMetricFamily(name, about, buckets=buckets, sum_value=total / unit)
