"""One line at each connection's end, and lines that peers cause at will (docs/logs.md)."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from examples.processes import free_port, running
from heartwire import Client, ConnectionClosed, Server
from heartwire.endings import Ending
from integration.peers import Ends, json_client, raw_client, raw_peer, token, until

Make = Callable[..., Server]
DOCS = Path(__file__).parents[2] / "docs" / "logs.md"


def endings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "heartwire.connections"]


async def test_an_ordinary_end(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(ping_interval=0.05, ping_always=True)
    await server.start()
    async with json_client(server, token("bob")) as client:
        (there,) = server.clients.values()
        await until(lambda: there.rtt_ms is not None)
        await client.quiet()
        await client.ws.close(3001, "enough\nERROR forged")
    await until(lambda: endings(caplog))
    (record,) = endings(caplog)
    fields = record.__dict__
    assert record.levelno == logging.DEBUG
    assert {k: fields[k] for k in ("event", "client_id", "user_id", "remote_address", "cause", "code")} == {
        "event": "client_disconnected", "client_id": there.id, "user_id": "bob",
        "remote_address": "127.0.0.1", "cause": "client_closed", "code": 3001,
    }  # fmt: skip
    assert fields["reason"] == "enough\nERROR forged"
    assert (fields["messages_in"], fields["messages_out"]) == (1, 2)
    assert fields["bytes_in"] > 100 < fields["bytes_out"]
    assert 0 <= fields["sent_ago_ms"] <= fields["duration_ms"] < 60_000
    assert 0 <= fields["received_ago_ms"] <= fields["duration_ms"]
    assert fields["rtt_ms"] > 0
    assert fields["queued_bytes"] == 0
    assert "\n" not in record.getMessage()


def overfill(client: Client) -> None:
    for _ in range(1000):
        client.send_bytes(bytes(500_000))


async def test_a_slow_consumers_end(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(send_buffer_limit=1000, auth="optional")
    ends = Ends(server)
    await server.start()
    async with raw_client(server):
        client = await ends.client()
        with pytest.raises(ConnectionClosed, match="slow_consumer"):
            overfill(client)
        assert await ends.cause() == "slow_consumer"
    (record,) = endings(caplog)
    fields = record.__dict__
    assert (fields["cause"], fields["code"], fields["user_id"]) == ("slow_consumer", 4503, None)
    assert fields["queued_bytes"] > 0
    assert fields["rtt_ms"] is None


async def test_how_long_ago_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make(close_timeout=0.1)
    ends = Ends(server)
    await server.start()
    async with raw_client(server, token()):  # it does not answer a CLOSE
        (await ends.client()).set_read_deadline(0.3)
        assert await ends.cause() == "read_deadline"
    fields = endings(caplog)[0].__dict__
    assert 350 <= fields["received_ago_ms"] <= fields["duration_ms"] + 100
    assert 50 <= fields["sent_ago_ms"] < fields["received_ago_ms"]


async def test_each_client_has_one_line_and_others_none(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make()
    ends = Ends(server)
    await server.start()
    async with raw_peer(server) as peer:  # never a client
        peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        await peer.answer()
    for _ in range(3):
        async with raw_client(server, token()):
            await ends.client()
        await ends.cause()
    assert [record.__dict__["cause"] for record in endings(caplog)] == ["peer_gone"] * 3


async def test_nothing_is_gathered_while_it_is_off(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    gathered: list[Client] = []
    monkeypatch.setattr(Ending, "of", gathered.append)
    logger = logging.getLogger("heartwire.connections")
    server = make()
    ends = Ends(server)
    await server.start()
    logger.setLevel(logging.INFO)
    try:
        async with json_client(server, token()):
            pass
        await ends.cause()
    finally:
        logger.setLevel(logging.NOTSET)
    assert gathered == []


def test_the_documentation_names_every_field() -> None:
    section = DOCS.read_text(encoding="utf-8").partition("## The end of a connection")[2]
    rows = re.findall(r"^\| (`.*?) \|", section.partition("\n## ")[0], re.MULTILINE)
    documented = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    fields = [field.name for field in msgspec.structs.fields(Ending)]
    assert sorted(documented) == sorted(["event", *fields])


async def test_a_handler_that_fails_for_every_message(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    server = make()

    @server.action("x")
    def fail(client: Client) -> None:
        raise ValueError("as always")

    @server.action("y")
    def fail_otherwise(client: Client) -> None:
        raise KeyError("else")

    await server.start()
    async with json_client(server, token()) as client:
        for _ in range(5):
            for action in ("x", "x", "x", "ping"):
                await client.ask(action)
        assert (await client.error("y"))["code"] == "internal"
    await server.stop()
    lines = [record for record in caplog.records if "a handler failed" in record.getMessage()]
    kinds = [record.exc_info[0] for record in lines if record.exc_info]
    assert kinds == [ValueError] * 10 + [KeyError]
    assert [record.__dict__["suppressed"] for record in lines if not record.exc_info] == [5]


@pytest.mark.parametrize("options", [["--log-connections"], ["--log-level", "debug"], []])
async def test_the_command(options: list[str], tmp_path: Path) -> None:
    log = tmp_path / "log"
    port = free_port()
    command = ["-m", "heartwire", "serve", "--port", str(port), "--auth", "optional"]
    with running([*command, "--log-format", "json", *options], port, log):
        where: Any = type("There", (), {"port": port})
        async with json_client(where) as client:
            await client.quiet()
        if options:
            await until(lambda: "client_disconnected" in log.read_text())
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    told = [line for line in lines if line.get("event") == "client_disconnected"]
    assert len(told) == bool(options)
    for line in told:
        assert (line["logger"], line["level"], line["cause"]) == (
            "heartwire.connections", "debug", "client_closed",
        )  # fmt: skip
        assert (line["messages_in"], line["messages_out"]) == (1, 2)
