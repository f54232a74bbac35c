"""Everything that goes to many clients goes through the broker, whoever says it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from heartwire import Server
from heartwire.brokers import MemoryBroker
from integration.peers import SECRET, json_client, token

KEY = "a-key-of-this-test"


class RecordingBroker(MemoryBroker):
    """Writes down what is published."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def heard(self) -> list[tuple[Any, ...]]:
        """The calls since the last time."""
        calls, self.calls = self.calls, []
        return calls

    def occupied(self, channel: str) -> None:
        self.calls.append(("occupied", channel))

    def vacated(self, channel: str) -> None:
        self.calls.append(("vacated", channel))

    def to_channel(self, channel: str, payload: bytes, **options: Any) -> int:
        shown = {name: value for name, value in options.items() if name != "data"}
        self.calls.append(("to_channel", channel, json.loads(payload)["event"], shown))
        return super().to_channel(channel, payload, **options)

    def to_user(self, user_id: str, payload: bytes, **options: Any) -> int:
        self.calls.append(("to_user", user_id, json.loads(payload)["event"], options))
        return super().to_user(user_id, payload, **options)

    def to_all(self, payload: bytes, **options: Any) -> int:
        self.calls.append(("to_all", json.loads(payload)["event"], options))
        return super().to_all(payload, **options)

    def to_client(self, client_id: str, payload: bytes) -> int:
        self.calls.append(("to_client", client_id, json.loads(payload)["event"]))
        return super().to_client(client_id, payload)


@pytest.fixture
def broker() -> RecordingBroker:
    return RecordingBroker()


@pytest.fixture
async def server(broker: RecordingBroker) -> AsyncIterator[Server]:
    async with Server(
        broker=broker, port=0, jwt_secret=[SECRET], api_key=[KEY], ping_interval=3600, close_timeout=2,
        presence_grace=0,
    ) as server:  # fmt: skip
        yield server


async def test_clients_and_presence(server: Server, broker: RecordingBroker) -> None:
    async with json_client(server, token("bob", channels=["*"])) as bob:
        (there,) = server.users["bob"]
        await bob.join("presence-room")
        room = "presence-room"
        joined = ("to_channel", room, "member_joined", {"skip": there.id})
        assert broker.heard() == [("occupied", room), joined]
        await bob.send({"action": "send_message", "channel": room, "event": "hello"})
        await bob.event("hello")
        assert broker.heard() == [("to_channel", room, "hello", {})]
        async with json_client(server, token("carol", channels=["*"])) as carol:
            await carol.join(room)
            await bob.event("member_joined")
        await bob.event("member_left")
        assert [call[2] for call in broker.heard()] == ["member_joined", "member_left"]
        await bob.ask("leave_channel", channel=room)
        assert broker.heard() == [("vacated", room)]


async def test_the_application(server: Server, broker: RecordingBroker) -> None:
    async with json_client(server, token("bob")):
        (there,) = server.users["bob"]
        assert server.to_channel("lobby", "a") == 0
        assert server.to_user("bob", "b", skip=there) == 0
        assert server.to_all("c") == 1
        assert server.broadcast("d", channel="lobby", skip=there) == 0
        assert server.broadcast("e", user_id="bob") == 1
        assert server.broadcast("f") == 1
        assert broker.heard() == [
            ("to_channel", "lobby", "a", {"skip": None}),
            ("to_user", "bob", "b", {"skip": there.id}),
            ("to_all", "c", {"skip": None}),
            ("to_channel", "lobby", "d", {"skip": there.id}),
            ("to_user", "bob", "e", {"skip": None}),
            ("to_all", "f", {"skip": None}),
        ]


async def test_the_backend(server: Server, broker: RecordingBroker) -> None:
    async with json_client(server, token("bob")), aiohttp.ClientSession() as session:
        (client_id,) = server.clients
        batch = [
            {"event": "a", "channel": "lobby"},
            {"event": "b", "user_id": "bob"},
            {"event": "c", "client_id": client_id},
            {"event": "d"},
            {"event": "e", "broadcast_type": "authenticated"},
            {"event": "f", "broadcast_type": "user_except", "user_id": "bob"},
            {"event": "g", "broadcast_type": "user_except", "user_id": "bob", "channel": "lobby"},
        ]
        url = f"http://127.0.0.1:{server.http_port}/api/batch"
        headers = {"Authorization": f"Bearer {KEY}"}
        async with session.post(url, json=batch, headers=headers) as answer:
            assert [item["recipients"] for item in await answer.json()] == [0, 1, 1, 1, 1, 0, 0]
        assert broker.heard() == [
            ("to_channel", "lobby", "a", {}),
            ("to_user", "bob", "b", {}),
            ("to_client", client_id, "c"),
            ("to_all", "d", {}),
            ("to_all", "e", {"authenticated": True}),
            ("to_all", "f", {"except_user": "bob"}),
            ("to_channel", "lobby", "g", {"except_user": "bob"}),
        ]
