"""The dashboard and the alert rules in docs/: what they name is what a real server has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heartwire import Server
from integration.http.api import KEYS, api_of
from integration.peers import handshake, json_client, raw_peer, token
from publisher import publisher

DOCS = Path(__file__).parents[3] / "docs"
ALERTS = DOCS / "alerts.yml"
DASHBOARD = DOCS / "grafana-dashboard.json"
ADDED_BY_PROMETHEUS = {"instance", "job", "le"}


def dashboard_expressions() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(DASHBOARD.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def alert_expressions() -> list[str]:
    text = ALERTS.read_text(encoding="utf-8")
    found = re.findall(r"^ +expr: (>-\n(?: {10}.*\n)+|.*\n)", text, re.MULTILINE)
    return [" ".join(text.removeprefix(">-").split()) for text in found]


def named(expression: str) -> Iterator[tuple[str, set[str]]]:
    """The metrics an expression names, each with the labels it is selected by."""
    for name, selector in re.findall(r"\b((?:heartwire|process)_\w+)(?:\{([^}]*)\})?", expression):
        yield name, set(re.findall(r"(\w+)(?:=~|!=|=)", selector))


@pytest.fixture
async def scraped(make: Callable[..., Server]) -> dict[str, set[str]]:
    """The samples of a real server to which something has happened: name -> labels."""
    async with publisher() as provider:
        server = make(api_key=KEYS, jwks_url=provider.url)
        await server.start()
        await happen(server)
        async with api_of(server) as api:
            reply = await api.call("GET", "/metrics")
    labels: dict[str, set[str]] = defaultdict(set)
    labels["process_open_fds"] = set()  # which only Linux 6.2 and later tells
    for family in text_string_to_metric_families(reply.body.decode()):
        for sample in family.samples:
            labels[sample.name] |= set(sample.labels)
    return labels


async def happen(server: Server) -> None:
    """Something of each that is counted by label only once it has happened."""
    async with json_client(server, token()) as client:
        await client.error("no such action")
        async with raw_peer(server) as peer:
            peer.send(handshake(bearer="no token"))
            assert (await peer.answer()).status == 401


@pytest.mark.parametrize("expressions", [dashboard_expressions, alert_expressions])
async def test_what_is_named_exists(
    expressions: Callable[[], list[str]], scraped: dict[str, set[str]]
) -> None:
    texts = expressions()
    assert len(texts) >= 10
    for text in texts:
        metrics = dict(named(text))
        assert metrics or text.startswith("up{"), text
        known = set(ADDED_BY_PROMETHEUS)
        for name, labels in metrics.items():
            assert name in scraped, f"{name} in {text}"
            assert labels <= scraped[name] | ADDED_BY_PROMETHEUS, text
            known |= scraped[name]
        for group in re.findall(r"\b(?:by|on) \(([^)]*)\)", text):
            assert set(group.split(", ")) <= known, text


def test_the_dashboard_is_laid_out() -> None:
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"])
                     for y in range(place["y"], place["y"] + place["h"])):  # fmt: skip
            assert cell not in taken, panel["title"]
            taken.add(cell)
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "instance"]


# -------------------------------------------------------------- Prometheus itself


@pytest.fixture
def promtool() -> Callable[..., str]:
    """Runs Prometheus' own tool; returns what it says."""
    tool = shutil.which("promtool")
    if tool is None:
        missing = "promtool is not installed (Debian: prometheus)"
        if os.environ.get("CI") == "true":  # .ci/run installs it: there these tests are not passed over
            pytest.fail(missing)
        pytest.skip(missing)

    def run(*args: object) -> str:
        done = subprocess.run([tool, *map(str, args)], capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


def test_promtool_accepts_the_alerts(promtool: Callable[..., str]) -> None:
    assert f"SUCCESS: {len(alert_expressions())} rules found" in promtool("check", "rules", ALERTS)


def test_promtool_accepts_the_dashboards_expressions(promtool: Callable[..., str], tmp_path: Path) -> None:
    texts = [text.replace("$__rate_interval", "5m") for text in dashboard_expressions()]
    rules = [{"record": f"panel:{i}", "expr": text} for i, text in enumerate(texts)]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "g", "rules": rules}]}))
    assert f"SUCCESS: {len(texts)} rules found" in promtool("check", "rules", file)


# alert: (series that set it off, the same in order). Values are per minute, for 20 minutes.
CLIENTS = ("heartwire_clients", "1000x40")
CASES: dict[str, tuple[list[tuple[str, str]], list[tuple[str, str]]]] = {
    "HeartwireDown": ([("up", "0x40")], [("up", "1x40")]),
    "HeartwireNobodyCanComeIn": ([("heartwire_jwt_keys", "0x40")], [("heartwire_jwt_keys", "1x40")]),
    "HeartwireFull": (
        [('heartwire_handshake_refusals_total{status="503",code="full"}', "0+6x40")],
        [('heartwire_handshake_refusals_total{status="503",code="draining"}', "0+6x40")],
    ),
    "HeartwireOutOfDescriptors": (
        [("process_open_fds", "960x40"), ("process_max_fds", "1000x40"), CLIENTS],
        [("process_open_fds", "960x40"), ("process_max_fds", "1000x40")],  # of another program
    ),
    "HeartwireTokensRefused": (
        [
            ('heartwire_handshake_refusals_total{status="401",code="a"}', "0+60x40"),
            ('heartwire_handshake_refusals_total{status="401",code="b"}', "0+60x40"),
            ("heartwire_connections_opened_total", "0+60x40"),
        ],
        [
            ('heartwire_handshake_refusals_total{status="401",code="a"}', "0+60x40"),
            ("heartwire_connections_opened_total", "0+60x40"),
        ],
    ),
    "HeartwireKeysOutOfDate": (
        [
            ('heartwire_jwks_fetches_total{result="error"}', "0+1x40"),
            ('heartwire_jwks_fetches_total{result="ok"}', "7x40"),
        ],
        [
            ('heartwire_jwks_fetches_total{result="error"}', "0+1x40"),
            ('heartwire_jwks_fetches_total{result="ok"}', "0 0 0 1 1 1 2x34"),
        ],
    ),
    "HeartwireRevocationsFillUp": (
        [("heartwire_token_revocations", "950x40"), ("heartwire_token_revocations_limit", "1000x40")],
        [("heartwire_token_revocations", "900x40"), ("heartwire_token_revocations_limit", "1000x40")],
    ),
    "HeartwireLimitsReached": (
        [('heartwire_handshake_refusals_total{status="429",code="address_full"}', "0+60x40")],
        [
            ('heartwire_handshake_refusals_total{status="429",code="address_full"}', "0+20x40"),
            ('heartwire_handshake_refusals_total{status="401",code="token_invalid"}', "0+60x40"),
        ],
    ),
    "HeartwireProxySpeaksOtherwise": (
        [('heartwire_handshake_refusals_total{status="closed",code="proxy_header"}', "0+1x40")],
        [('heartwire_handshake_refusals_total{status="closed",code="tls_handshake"}', "0+60x40")],
    ),
    "HeartwireLoopLate": (
        [
            ('heartwire_loop_lag_seconds_bucket{le="0.1"}', "0+6x40"),
            ('heartwire_loop_lag_seconds_bucket{le="0.25"}', "0+60x40"),
            ('heartwire_loop_lag_seconds_bucket{le="+Inf"}', "0+60x40"),
        ],
        [
            ('heartwire_loop_lag_seconds_bucket{le="0.1"}', "0+59x40"),
            ('heartwire_loop_lag_seconds_bucket{le="0.25"}', "0+60x40"),
            ('heartwire_loop_lag_seconds_bucket{le="+Inf"}', "0+60x40"),
        ],
    ),
    "HeartwireHandlersFail": (
        [
            ('heartwire_errors_total{code="internal"}', "0+5x40"),
            ('heartwire_disconnects_total{cause="handler_timeout"}', "0+5x40"),
        ],
        [
            ('heartwire_errors_total{code="forbidden"}', "0+50x40"),
            ('heartwire_disconnects_total{cause="handler_timeout"}', "0x40"),
        ],
    ),
    "HeartwireClientsVanish": (
        [('heartwire_disconnects_total{cause="ping_timeout"}', "0+20x40"), CLIENTS],
        [('heartwire_disconnects_total{cause="ping_timeout"}', "0+10x40"), CLIENTS],
    ),
    "HeartwireSlowConsumers": (
        [("heartwire_slow_consumers_total", "0+10x40"), CLIENTS],
        [("heartwire_slow_consumers_total", "0+5x40"), CLIENTS],
    ),
    "HeartwirePingsFail": (
        [('heartwire_ping_stopped_total{reason="send_error"}', "0+1x40")],
        [('heartwire_ping_stopped_total{reason="invalid"}', "0+1x40")],
    ),
    "HeartwireWebhookLosesEvents": (
        [('heartwire_webhook_events_dropped_total{reason="refused"}', "0+1x40")],
        [('heartwire_webhook_events_dropped_total{reason="shutdown"}', "0+1x40")],
    ),
    "HeartwireWebhookBehind": (
        [("heartwire_webhook_queue_events", "5000x40")],
        [("heartwire_webhook_queue_events", "0 9000 0 9000 0 9000 0x34")],
    ),
    "HeartwireAuthorizationFails": (
        [
            ('heartwire_authorize_requests_total{answer="allowed"}', "0+60x40"),
            ('heartwire_authorize_requests_total{answer="failed"}', "0+6x40"),
        ],
        [
            ('heartwire_authorize_requests_total{answer="allowed"}', "0+60x40"),
            ('heartwire_authorize_requests_total{answer="failed"}', "0+1x40"),
        ],
    ),
}


def test_each_alert_goes_off_when_it_should(promtool: Callable[..., str], tmp_path: Path) -> None:
    names = re.findall(r"- alert: (\w+)", ALERTS.read_text(encoding="utf-8"))
    assert sorted(names) == sorted(CASES)
    tests = []
    for name, (bad, good) in CASES.items():
        for series, expected in ((bad, True), (good, False)):
            inputs = [{"series": labelled(metric), "values": values} for metric, values in series]
            # The rule's result as a number of series: the text of an alert is not this test's matter.
            count = f'count(ALERTS{{alertname="{name}",alertstate="firing"}}) or vector(0)'
            tests.append({
                "interval": "1m",
                "input_series": inputs,
                "promql_expr_test": [
                    {"expr": count, "eval_time": "20m",
                     "exp_samples": [{"labels": "{}", "value": int(expected)}]}
                ],
            })  # fmt: skip
    file = tmp_path / "tests.yml"
    file.write_text(json.dumps({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    promtool("test", "rules", file)


def labelled(metric: str) -> str:
    """A series as Prometheus stores it, with the labels of its target."""
    name, _, labels = metric.rstrip("}").partition("{")
    return f'{name}{{{labels}{"," if labels else ""}instance="chat-1:8080",job="heartwire"}}'
