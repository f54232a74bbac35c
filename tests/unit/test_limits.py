"""Limits by address, and the log lines about those who were turned away."""

from __future__ import annotations

import logging

import pytest

from heartwire.config import ServerConfig, burst
from heartwire.errors import Refusal
from heartwire.limits import AddressLimits, ConnectRate
from heartwire.metrics import Metrics
from heartwire.proxies import TrustedProxies
from heartwire.refusals import Refusals
from heartwire.testing import FakeLink, ManualClock, RecordingSink


def connection(host: str) -> FakeLink:
    link = FakeLink(ManualClock().engine(), RecordingSink())
    link.connection.set_peer(host, 1)
    return link


def test_connect_rate() -> None:
    rate = ConnectRate(0.5, 2)
    assert [rate.take(b"a", 0.0) for _ in range(3)] == [0.0, 0.0, 2.0]
    assert rate.take(b"b", 0.0) == 0.0
    assert rate.take(b"a", 1.5) == 0.5
    assert rate.take(b"a", 2.0) == 0.0
    assert rate.take(b"a", 2.0) == 2.0


def test_addresses_that_are_known_are_bounded() -> None:
    rate = ConnectRate(1, 1, most=100)
    for i in range(1000):
        assert rate.take(str(i).encode(), 0.0) == 0.0
        assert len(rate) <= 100
    assert rate.take(b"999", 0.0) > 0  # known
    assert rate.take(b"0", 0.0) == 0.0  # forgotten: it has not connected for the longest
    assert rate.take(b"a", 1000.0) == 0.0
    for _ in range(100):
        rate.take(b"a", 1000.0 + 0.001)
        rate.take(b"b", 2000.0)
    for i in range(60):
        rate.take(b"b", 3000.0 + i)
    assert len(rate) == 1  # those whose bucket is full again are forgotten, a few at a time


def test_connections_of_an_address() -> None:
    limits = AddressLimits(ServerConfig(max_connections_per_address=2))
    assert limits.active
    here = connection("192.0.2.1").connection
    beside = connection("192.0.2.2").connection
    for _ in range(2):
        limits.check(here)
        limits.opened(here)
    with pytest.raises(Refusal) as refused:
        limits.check(here)
    assert (refused.value.status, refused.value.code) == (429, "address_full")
    assert dict(refused.value.headers)["Retry-After"] == "5"
    limits.check(beside)
    limits.closed(here)
    limits.check(here)
    limits.closed(here)
    assert not limits._open  # nothing is kept of addresses that have gone


def test_ipv6_counts_by_its_64_and_unix_peers_do_not() -> None:
    limits = AddressLimits(ServerConfig(max_connections_per_address=1, connect_rate=1, connect_burst=2))
    limits.opened(connection("2001:db8::1").connection)
    with pytest.raises(Refusal, match="as many connections"):
        limits.check(connection("2001:db8::ffff:1").connection)
    limits.check(connection("2001:db8:0:1::1").connection)
    for _ in range(5):
        limits.check(connection("").connection)
        limits.opened(connection("").connection)


def test_retry_after_is_the_time_to_the_next_token() -> None:
    now = [5.0]
    limits = AddressLimits(ServerConfig(connect_rate=0.1), lambda: now[0])
    here = connection("192.0.2.1").connection
    limits.check(here)
    with pytest.raises(Refusal) as refused:
        limits.check(here)
    assert (refused.value.code, dict(refused.value.headers)) == ("connect_rate", {"Retry-After": "10"})
    now[0] += 10
    limits.check(here)


def test_no_limits() -> None:
    limits = AddressLimits(ServerConfig())
    assert not limits.active
    assert not TrustedProxies([], unix=False, header="forwarded")


@pytest.mark.parametrize(("rate", "given", "expected"), [(10, None, 20), (0.1, None, 1), (10, 3, 3)])
def test_what_may_come_at_once(rate: float, given: int | None, expected: int) -> None:
    assert burst(rate, given) == expected


def test_a_line_for_each_reason_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "heartwire")
    now = [0.0]
    metrics = Metrics()
    refusals = Refusals(metrics, lambda: now[0])
    for _ in range(50):
        refusals.count(429, "connect_rate", ("192.0.2.1", 5))
    refusals.count(401, "100%s", ("", 0))
    refusals.tell("4429 rate_limited", ("192.0.2.1", 5))
    now[0] = 10.0
    refusals.count(429, "connect_rate", ("192.0.2.3", 5))
    refusals.count(429, "connect_rate", ("192.0.2.4", 5))
    refusals.close()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "refused: 429 connect_rate, from 192.0.2.1"),
        ("INFO", "refused: 401 100%s, from a Unix socket"),
        ("WARNING", "refused: 4429 rate_limited, from 192.0.2.1"),
        ("WARNING", "49 more such lines were left out in 10 s: refused: 429 connect_rate, from %s"),
        ("WARNING", "refused: 429 connect_rate, from 192.0.2.3"),
        ("WARNING", "1 more such lines were left out in 10 s: refused: 429 connect_rate, from %s"),
    ]
    assert metrics.refusals == {"429 connect_rate": 52, "401 100%s": 1}
