"""The monitor's tickets, and what it finds among many clients and channels."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from heartwire.monitor import LOOKED_AT, PAGE_FILES, ROWS, TICKET_S, Monitor, Tickets
from heartwire.registry import Channel, Registry


class Clock:
    """Stands still until it is moved."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_ticket_opens_once() -> None:
    tickets = Tickets()
    one, other = tickets.issue().ticket, tickets.issue().ticket
    assert one != other
    assert len(one) >= 32
    assert tickets.redeem(one)
    assert not tickets.redeem(one)
    assert tickets.redeem(other)
    assert not tickets.redeem("")


def test_a_ticket_ends() -> None:
    clock = Clock()
    tickets = Tickets(clock)
    in_time, late = tickets.issue().ticket, tickets.issue().ticket
    clock.now += TICKET_S - 0.001
    assert tickets.redeem(in_time)
    clock.now += 0.001
    assert not tickets.redeem(late)
    tickets.issue()
    clock.now += TICKET_S
    tickets.issue()
    assert len(tickets._until) == 1, "those that ended are forgotten"


class Peer:
    """What the monitor reads of a client."""

    user_id = username = memberships = None
    connected_at = 0.0
    is_connected = True

    def __init__(self, number: int, *, rtt_ms: float | None = None, queued_bytes: int = 0) -> None:
        self.id = f"{number:06x}"
        self.rtt_ms = rtt_ms
        self.queued_bytes = queued_bytes
        self.connection = self


class Idle:
    """What the monitor reads of an engine."""

    def statistics(self) -> dict[str, int]:
        return {}

    def histograms(self) -> dict[str, Any]:
        return {"rtt_us": ((), (0,), 0)}


class Counts:
    """What the monitor reads of the metrics."""

    disconnects = refusals = errors = {"kicked": 1}  # noqa: RUF012


def monitor_of(registry: Registry) -> Monitor:
    engine: Any = Idle()
    metrics: Any = Counts()
    return Monitor(engine, registry, metrics, lambda: None)


def ids(figures: dict[str, Any], name: str) -> list[str]:
    return [row.id for row in figures[name]]


def test_the_slowest_are_found_in_turns_and_kept() -> None:
    registry = Registry()
    clients: dict[str, Any] = registry.clients
    for number in range(3 * LOOKED_AT):
        peer = Peer(number, rtt_ms=1.0 + number % 7 / 10)
        clients[peer.id] = peer
    early, late = Peer(5, rtt_ms=900.0), Peer(2 * LOOKED_AT + 5, rtt_ms=901.0)
    waiting = Peer(LOOKED_AT + 5, queued_bytes=7)
    clients.update({peer.id: peer for peer in (early, waiting, late)})
    monitor = monitor_of(registry)
    assert ids(monitor.figures(0), "slowest")[0] == early.id
    assert ids(monitor.figures(1), "slowest")[:2] == [waiting.id, early.id]
    assert ids(monitor.figures(2), "slowest")[:3] == [waiting.id, late.id, early.id]
    late.is_connected = False
    waiting.queued_bytes = 0
    slowest = ids(monitor.figures(3), "slowest")
    assert slowest[0] == early.id
    assert len(slowest) == ROWS
    assert not {late.id, waiting.id} & set(slowest)
    newest = ids(monitor.figures(4), "newest")
    assert newest == [f"{3 * LOOKED_AT - i:06x}" for i in range(1, ROWS + 1)]


def test_clients_of_which_nothing_is_known_are_not_slow() -> None:
    registry = Registry()
    clients: dict[str, Any] = registry.clients
    clients.update({peer.id: peer for peer in (Peer(1), Peer(2, rtt_ms=3.0))})
    assert ids(monitor_of(registry).figures(0), "slowest") == ["000002"]


def test_the_largest_channels_are_found_in_turns_and_kept() -> None:
    registry = Registry()
    for number in range(LOOKED_AT + 500):
        channel = registry.channels[f"c{number}"] = Channel(f"c{number}")
        member: Any = number
        channel.members[member] = None
    first, last = registry.channels["c0"], registry.channels[f"c{LOOKED_AT + 499}"]
    for channel, members in ((first, 20), (last, 30)):
        others: Any = {f"m{i}": None for i in range(members)}
        channel.members.update(others)
    monitor = monitor_of(registry)
    assert monitor.figures(0)["largest_channels"][0].name == "c0"
    names = [row.name for row in monitor.figures(1)["largest_channels"]]
    assert names[:2] == [last.name, "c0"]
    assert len(names) == ROWS
    del registry.channels[last.name]
    assert monitor.figures(2)["largest_channels"][0].name == "c0"


def test_the_page_is_whole() -> None:
    """Every file that the page loads is served, and every file there is used."""
    folder = files("heartwire").joinpath("static")
    assert {file.name for file in folder.iterdir()} == {"index.html", "heartwire.js", *PAGE_FILES}
    page = folder.joinpath("index.html").read_text()
    assert "style=" not in page
    assert "onclick=" not in page
    assert page.count("<script") == page.count('<script type="module" src=') == 1
