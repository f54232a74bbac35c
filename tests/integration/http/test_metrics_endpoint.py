"""`/metrics` of a running server: what happened is what is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from heartwire import Client, ConnectionClosed, Server
from integration.http.api import KEYS, READER, Api, api_of
from integration.peers import PING, PONG, TEXT, Ends, handshake, json_client, raw_client, raw_peer, token


async def scrape(api: Api, **options: str | None) -> dict[str, float]:
    """Samples by name, with the values of their labels behind it."""
    reply = await api.call("GET", "/metrics", **options)
    assert reply.status == 200
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(reply.body.decode())
        for sample in family.samples
    }


async def test_what_happened_is_counted(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS)
    ends = Ends(server)
    await server.start()
    async with api_of(server) as api, json_client(server, token()) as client:
        await client.join("lobby")
        await client.send("{")
        await client.event("error")
        await client.error("leave_channel", channel="other")
        await api.post("/api/broadcast")
        await client.event("broadcast")
        async with json_client(server, token("bob")) as other:
            await other.ask("ping")
        assert await ends.cause() == "client_closed"
        async with raw_peer(server) as peer:
            peer.send(handshake(bearer="no token"))
            assert (await peer.answer()).status == 401
        found = await scrape(api)
    assert found["heartwire_clients"] == found["heartwire_users"] == found["heartwire_channels"] == 1
    assert found["heartwire_connections_opened_total"] == 2
    assert found["heartwire_connections_closed_total"] == 1
    assert found["heartwire_disconnects_total client_closed"] == 1
    assert found["heartwire_disconnects_total peer_gone"] == 0
    assert found["heartwire_ping_stopped_total invalid"] == 1
    assert found["heartwire_errors_total bad_json"] == 1
    assert found["heartwire_errors_total not_a_member"] == 1
    assert found["heartwire_json_decode_failures_total"] == 1
    assert found["heartwire_handshake_refusals_total token_invalid 401"] == 1
    assert found["heartwire_messages_received_total"] == 4  # join, `{`, leave, ping
    assert found["heartwire_messages_sent_total"] == 7  # connected twice, an answer each, the broadcast
    assert found["heartwire_fanout_recipients_bucket 1.0"] == found["heartwire_fanout_recipients_count"] == 1
    assert found["heartwire_info 0.1.0"] == 1
    assert found["process_resident_memory_bytes"] > 1 << 20


@pytest.mark.parametrize("options", [{"ping_interval": 0.05}])
async def test_round_trips_and_lag(server: Server, api: Api) -> None:
    async with raw_client(server, token()) as peer:
        await peer.event("connected")
        opcode, payload = await peer.frame()
        assert opcode == PING  # the real heartbeat
        peer.send_frame(PONG, payload)
        peer.send_frame(TEXT, b'{"action":"ping"}')
        while (await peer.frame())[0] != TEXT:
            pass  # further pings
        found = await scrape(api)
    assert found["heartwire_pings_sent_total"] >= found["heartwire_pongs_received_total"] > 0
    assert found["heartwire_ping_rtt_seconds_count"] == found["heartwire_pongs_received_total"]
    assert 0 < found["heartwire_ping_rtt_seconds_sum"] < 60
    assert found["heartwire_loop_lag_seconds_count"] > 0


def overfill(client: Client) -> None:
    """Sends at once until the server refuses: the kernel makes room for what waited, as it likes."""
    for _ in range(100):
        client.send_bytes(bytes(500_000))


async def test_queued_bytes_and_slow_consumers(make: Callable[..., Server]) -> None:
    server = make(api_key=KEYS, send_buffer_limit=1000)
    ends = Ends(server)
    await server.start()
    async with api_of(server) as api:
        async with raw_client(server, token()):
            client = await ends.client()
            while not client.connection.queued_bytes:
                client.send_bytes(bytes(500_000))
                await asyncio.sleep(0)
            found = await scrape(api)
            assert found["heartwire_send_queue_bytes"] == client.connection.queued_bytes > 0
            client.connection.ping()
            with pytest.raises(ConnectionClosed, match="slow_consumer"):
                overfill(client)
            assert await ends.cause() == "slow_consumer"
        found = await scrape(api)
    assert found["heartwire_slow_consumers_total"] == 1
    assert found["heartwire_disconnects_total slow_consumer"] == 1
    assert found["heartwire_send_queue_bytes"] == 0


@pytest.mark.parametrize("apart", [{}, {"http_port": 0}])
async def test_public_metrics(make: Callable[..., Server], apart: dict[str, int]) -> None:
    server = make(metrics_public=True, **apart)
    await server.start()
    async with api_of(server) as api:
        assert (await scrape(api, key=None))["heartwire_clients"] == 0
        assert (await api.call("GET", "/api/health")).error == (403, "no_api_key_configured")


async def test_the_format_is_negotiated(api: Api) -> None:
    text = await api.call("GET", "/metrics", key=READER)
    assert text.headers["Content-Type"].startswith("text/plain; version=")
    accept = {"Accept": "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"}
    openmetrics = await api.call("GET", "/metrics", headers=accept)
    assert openmetrics.headers["Content-Type"].startswith("application/openmetrics-text")
    assert openmetrics.body.endswith(b"# EOF\n")
