"""Pages of 100,000 clients (_core/listing.pyx): how long the server does nothing else.

Beside the obvious way: islice and a walk over all, datetime, properties.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from heartwire._core.listing import describe, page_after, page_among
from heartwire._core.session import Session
from heartwire.http_clients import ClientInfo
from heartwire.registry import Channel

CLIENTS = 100_000
PAGE = 1000

Page = tuple[list[Session], bool]


@pytest.fixture
def clients(memory_server: Any) -> dict[str, Session]:
    """By id, in the order of their ids; one connection serves them all."""
    conn, _ = memory_server().connect("anna")
    conn.set_peer("203.0.113.7", 51_234)
    made: dict[str, Session] = {}
    lobby = Channel("lobby")
    for number in range(1, CLIENTS + 1):
        session = Session(conn)
        session.id = f"0123456789{number:x}"
        session.credentials = conn.owner.credentials
        session.memberships = (lobby,)
        session.user_agent = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
        made[session.id] = session
    return made


def said(page: Page) -> bytes:
    return msgspec.json.encode(describe(page[0], ClientInfo))


def obvious(page: Page) -> bytes:
    def instant(seconds: float) -> str:
        text = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
        return text.replace("+00:00", "Z")

    return msgspec.json.encode([
        {
            "id": c.id,
            "user_id": c.credentials.user_id,
            "username": c.credentials.username,
            "channels": sorted(channel.name for channel in c.memberships),
            "remote_address": ":".join(map(str, c.remote_address)),
            "user_agent": c.user_agent,
            "connected_at": instant(c.connected_at),
            "last_seen": instant(c.last_seen),
            "rtt_ms": c.rtt_ms,
            "queued_bytes": c.connection.queued_bytes,
        }
        for c in page[0]
    ])  # fmt: skip


def walk(clients: dict[str, Session], members: dict[Session, None], after: str, limit: int) -> Page:
    behind = [c for c in members if (len(c.id), c.id) > (len(after), after)]
    behind.sort(key=lambda c: (len(c.id), c.id))
    return behind[:limit], len(behind) > limit


def test_a_page_as_json(beside: Any, clients: dict[str, Session]) -> None:
    """A page of 1,000, found and written; time for each client on it."""
    first = page_after(clients, None, PAGE)
    assert [info["id"] for info in msgspec.json.decode(said(first))] == [*clients][:PAGE]
    assert msgspec.json.decode(said(first)) == msgspec.json.decode(obvious(first))
    beside((said, first), per=PAGE, obvious_way=(obvious, first))


@pytest.mark.parametrize("share", [1, 2, 1000], ids=["everybody", "half", "one-of-1000"])
def test_a_page_of_a_channel(beside: Any, clients: dict[str, Session], share: int) -> None:
    """100 members from the middle of the list."""
    members = dict.fromkeys([*clients.values()][::share])
    after = [*clients][CLIENTS // 2]
    assert page_among(clients, members, after, 100) == walk(clients, members, after, 100)
    beside((page_among, clients, members, after, 100), walk_over_all=(walk, clients, members, after, 100))
