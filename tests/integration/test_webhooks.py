"""Events for the backend, against a real receiver that is slow, down, failing, hanging or cutting off."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import logging
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from examples.processes import free_port, running
from heartwire import Client, ConfigError, Server, webhook_delivery
from heartwire.config import FIELDS
from integration.peers import JsonClient, json_client, raw_client, token, until
from integration.receiver import (
    HOOK_SECRET,
    Mood,
    Receiver,
    answering,
    half_an_answer,
    hanging,
    receiver,
    resetting,
)

Make = Callable[..., Server]
MESSAGES = ("message",)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between tries: tests have no time."""
    monkeypatch.setattr(webhook_delivery, "BACKOFF_S", (0.02, 0.05))


@pytest.fixture
async def backend() -> AsyncIterator[Receiver]:
    """A receiver that takes everything."""
    async with receiver() as made:
        yield made


async def started(make: Make, backend: Receiver, **options: Any) -> Server:
    """A running server that tells the backend; `message` alone unless a test says otherwise."""
    usual = {"webhook_url": backend.url, "webhook_secret": HOOK_SECRET, "webhook_delay": 0.01}
    usual |= {"webhook_events": MESSAGES, "webhook_flush": 0.2, **options}
    server = make(**usual)
    await server.start()
    return server


async def say(client: JsonClient, *values: Any) -> None:
    """Sends messages, and sees that none of them was answered."""
    for value in values:
        await client.send(json.dumps(value))
    await client.quiet()


def said(backend: Receiver) -> list[Any]:
    return [data["message"] for data in backend.of_type("message")]


# -------------------------------------------------------------- what is told


async def test_the_life_of_a_client(make: Make, backend: Receiver) -> None:
    every = ("client_connected", "client_authenticated", "client_disconnected", "message")
    server = await started(make, backend, webhook_events=every)
    headers = {"User-Agent": "tester/1"}
    bearer = token("bob", username="Bob")
    async with json_client(server, bearer, user_agent_header=None, headers=headers) as client:
        (there,) = server.clients.values()
        await say(client, {"action": "deploy", "id": 7, "to": ["a", None]})
    gone = await backend.event("client_disconnected")
    assert [event["type"] for event in backend.events] == [
        "client_connected", "client_authenticated", "message", "client_disconnected",
    ]  # fmt: skip
    who = {"client_id": there.id, "user_id": "bob", "username": "Bob"}
    connected, authenticated, message, _ = (event["data"] for event in backend.events)
    assert connected == {**who, "remote_address": "127.0.0.1", "user_agent": "tester/1"}
    assert authenticated.pop("expires_at").endswith("Z")
    assert authenticated == who
    assert message == {**who, "message": {"action": "deploy", "id": 7, "to": ["a", None]}}
    assert (gone["client_id"], gone["user_id"]) == (there.id, "bob")
    assert (gone["cause"], gone["code"], gone["reason"]) == ("client_closed", 1000, "")
    assert gone["remote_address"] == "127.0.0.1"
    assert (gone["messages_in"], gone["messages_out"]) == (2, 2)  # the message and a ping; connected, pong
    assert gone["bytes_in"] > 0 < gone["bytes_out"]
    assert 0 <= gone["received_ago_ms"] <= gone["duration_ms"] < 60_000
    assert (gone["queued_bytes"], gone["rtt_ms"]) == (0, None)
    for event in backend.events:
        datetime.datetime.fromisoformat(event["timestamp"])
    assert [event["seq"] for event in backend.events] == [1, 2, 3, 4]
    assert [body["batch"] for body in backend.taken] == list(range(1, len(backend.taken) + 1))
    assert {body["dropped"] for body in backend.taken} == {0}
    assert len({body["run"] for body in backend.taken}) == 1


async def test_who_authenticates_later_is_told_once(make: Make, backend: Receiver) -> None:
    events = ("client_connected", "client_authenticated", "message")
    server = await started(make, backend, webhook_events=events, auth="message")
    async with json_client(server) as client:
        await client.error("deploy")  # not authenticated: this is not passed on
        await client.ask("authenticate", token=token("bob"))
        await client.ask("authenticate", token=token("bob"))  # a new token is not a new identity
        await say(client, {"action": "deploy"})
    await backend.event("message")
    assert [event["type"] for event in backend.events] == [*events]
    assert [data["user_id"] for data in backend.of_type(*events)] == [None, "bob", "bob"]


async def test_the_life_of_a_channel(make: Make, backend: Receiver) -> None:
    every = ("channel_occupied", "member_joined", "member_left", "channel_vacated")
    server = await started(make, backend, webhook_events=every, presence_grace=3600)
    room = "presence-room"
    alice = token("alice", username="Alice", channels=["*"])
    async with json_client(server, alice) as one, json_client(server, alice) as tab:
        await one.join(room, data={"mood": "good"})
        await tab.join(room)
        await tab.ask("leave_channel", channel=room)
        async with json_client(server, token("bob", channels=["*"])) as bob:
            await bob.join(room)
            await one.event("member_joined")
        await one.join(room, data="tired")
        await one.join("lobby")
    await server.stop()
    told = backend.events
    assert [(event["type"], event["data"]["channel"]) for event in told] == [
        ("channel_occupied", room), ("member_joined", room), ("member_joined", room), ("member_joined", room),
        ("channel_occupied", "lobby"), ("member_left", room), ("member_left", room),
        ("channel_vacated", room), ("channel_vacated", "lobby"),
    ]  # fmt: skip
    members = [(d["user_id"], d["username"], d["data"]) for d in backend.of_type("member_joined")]
    assert members == [
        ("alice", "Alice", {"mood": "good"}), ("bob", None, None), ("alice", "Alice", "tired"),
    ]  # fmt: skip
    # Who is waited for goes with the channel.
    assert {data["user_id"] for data in backend.of_type("member_left")} == {"alice", "bob"}
    assert all(data["duration_ms"] >= 0 for data in backend.of_type("channel_vacated"))


async def test_what_ends_a_connection_is_told(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_events=("client_disconnected",), auth="optional")
    async with raw_client(server) as peer:
        peer.send(b"\xff\xff")
        await peer.gone()
    assert (await backend.event("client_disconnected"))["cause"] == "protocol_error"
    async with json_client(server, token("bob")) as client:
        next(iter(server.clients.values())).kick("out")
        await client.closed()
    kicked = await backend.event("client_disconnected", 2)
    assert (kicked["cause"], kicked["code"], kicked["reason"]) == ("kicked", 4403, "out")


async def test_every_unclaimed_value_is_passed_on(make: Make, backend: Receiver) -> None:
    server = make(webhook_url=backend.url, webhook_secret=HOOK_SECRET, webhook_events=MESSAGES)

    @server.action("known")
    def known(client: Client) -> str:
        return "done"

    await server.start()
    values: list[Any] = [{"action": "x"}, {"no": "action"}, [1, 2], "text", None, 1 << 80, {"action": 5}, 0.5]
    async with json_client(server, token()) as client:
        await say(client, *values)
        assert (await client.ask("known"))["data"] == "done"
        assert (await client.error("leave_channel", channel="lobby"))["code"] == "not_a_member"
    await backend.until(lambda: len(said(backend)) == len(values))
    assert said(backend) == values


async def test_handlers_come_before_the_webhook(make: Make, backend: Receiver) -> None:
    server = make(webhook_url=backend.url, webhook_secret=HOOK_SECRET)
    server.on_message(lambda client, value: client.send_json("mine"))
    await server.start()
    async with json_client(server, token()) as client:
        await client.send({"action": "x"})
        assert await client.receive() == "mine"
    await backend.event("client_disconnected")
    assert said(backend) == []


async def test_messages_that_are_not_wanted_are_unknown_actions(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_events=("client_connected",))
    async with json_client(server, token()) as client:
        assert (await client.error("deploy"))["code"] == "unknown_action"
    await backend.event("client_connected")
    await server.stop()
    assert [event["type"] for event in backend.events] == ["client_connected"]


# -------------------------------------------------------------- batches


async def test_a_full_batch_does_not_wait(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_batch=10, webhook_delay=60, webhook_flush=5)
    async with json_client(server, token()) as client:
        await say(client, *range(25))
        await backend.until(lambda: len(backend.taken) == 2)
        assert [len(body["events"]) for body in backend.taken] == [10, 10]
        await server.stop()  # the rest need not wait for company either
    assert [len(body["events"]) for body in backend.taken] == [10, 10, 5]
    assert said(backend) == list(range(25))


async def test_large_events_are_not_put_together(make: Make, backend: Receiver) -> None:
    server = await started(make, backend, webhook_delay=60, webhook_flush=5)
    async with json_client(server, token()) as client:
        await say(client, *(["x" * 600_000] for _ in range(3)))
        await server.stop()
    assert [len(body["events"]) for body in backend.taken] == [1, 1, 1]


# -------------------------------------------------------------- receivers that do not work


@pytest.mark.parametrize(
    ("mood", "outcome"),
    [
        (answering(500), "busy"),
        (answering(503), "busy"),
        (answering(408), "busy"),
        (answering(429), "busy"),
        (resetting, "unreachable"),
        (hanging, "timeout"),
    ],
    ids=["500", "503", "408", "429", "reset", "hang"],
)
async def test_what_was_not_taken_comes_again(
    make: Make, backend: Receiver, mood: Mood, outcome: str
) -> None:
    backend.moods = [mood] * 3
    server = await started(make, backend, webhook_timeout=0.15, webhook_batch=2)
    async with json_client(server, token()) as client:
        await say(client, *range(5))
        await backend.until(lambda: len(said(backend)) == 5)
    assert said(backend) == [0, 1, 2, 3, 4]
    ids = [headers["webhook-id"] for headers, _ in backend.requests]
    assert len(set(ids[:4])) == 1, "the same delivery has the same id"
    assert len({body for _, body in backend.requests[:4]}) == 1
    assert len(set(ids)) == len(ids) - 3
    figures = server.metrics.hooks
    assert figures.requests[outcome] == 3
    assert figures.delivered == 5
    assert figures.dropped.total() == 0


@pytest.mark.parametrize("status", [400, 401, 404, 410, 413, 301, 302, 307])
async def test_a_refusal_is_final(make: Make, backend: Receiver, status: int) -> None:
    backend.moods = [answering(status, Location=backend.url)]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, "lost")
        figures = server.metrics.hooks
        await until(lambda: figures.dropped["refused"] == 1)
        await say(client, "kept")
        await backend.until(lambda: backend.taken)
    assert said(backend) == ["kept"]
    assert len(backend.requests) == 2
    assert backend.taken[0]["dropped"] == 1
    assert backend.events[0]["seq"] == 2


async def test_any_2xx_is_success_whatever_it_says(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(204), answering(299, '{"action": "kick"}'), answering(202, "x" * 200_000)]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        for i in range(4):
            await say(client, i)
            await backend.until(lambda i=i: len(backend.taken) == i + 1)
        await client.quiet()
    assert said(backend) == [0, 1, 2, 3]


async def test_a_success_without_its_body_is_a_success(
    make: Make, backend: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_delivery, "ANSWER_S", 0.05)
    backend.moods = [half_an_answer]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, "once")
        await until(lambda: server.metrics.hooks.delivered == 1)
        await say(client, "twice")
        await until(lambda: server.metrics.hooks.delivered == 2)
    assert len(backend.requests) == 2


async def test_a_receiver_that_comes_up_late_misses_nothing(make: Make) -> None:
    backend = Receiver()
    await backend.start()
    port = backend.port
    await backend.stop()
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, *range(100))
        await until(lambda: server.metrics.hooks.requests["unreachable"] >= 2)
        await backend.start(port)
        try:
            await backend.until(lambda: len(said(backend)) == 100)
        finally:
            await backend.stop()
    assert said(backend) == list(range(100))


async def test_retry_after_is_honoured(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(503, Retry_After="1")]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        began = time.monotonic()
        await say(client, "x")
        await backend.until(lambda: backend.taken)
    assert time.monotonic() - began >= 0.95


@pytest.mark.parametrize(
    ("value", "low", "high"),
    [
        ("0", 0, 0), ("7", 7, 7), ("100000", 300, 300), ("9" * 5000, 300, 300), ("-5", 0, 0), ("soon", 0, 0),
        ("", 0, 0), ("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0), ("Fri, 31 Dec 9999 23:59:59 GMT", 300, 300),
        ("١", 0, 0), ("1.5", 0, 0),
    ],
)  # fmt: skip
def test_retry_after_is_bounded(value: str, low: float, high: float) -> None:
    assert low <= webhook_delivery._retry_after_s(value) <= high


async def test_an_old_batch_makes_room(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(500)]
    server = await started(make, backend, webhook_retry=0)
    async with json_client(server, token()) as client:
        await say(client, "old")
        await until(lambda: server.metrics.hooks.dropped["gave_up"] == 1)
        await say(client, "new")
        await backend.until(lambda: backend.taken)
    assert said(backend) == ["new"]


# -------------------------------------------------------------- bounds


async def test_a_full_queue_drops_and_says_so(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_queue=5, webhook_timeout=0.3)
    async with json_client(server, token()) as client:
        await say(client, *range(5))
        assert (await client.error("one too many"))["code"] == "internal"
        await client.send([])
        assert (await client.event("error"))["data"]["code"] == "internal"
        figures = server.metrics.hooks
        assert (figures.queued, figures.dropped["queue_full"]) == (5, 2)
        backend.mood = answering(200)
        await backend.until(lambda: len(said(backend)) == 5)
        await say(client, "there is room again")
        await backend.until(lambda: len(said(backend)) == 6)
    assert [event["seq"] for event in backend.events] == [1, 2, 3, 4, 5, 8]
    assert sum(body["dropped"] for body in backend.taken) == 2
    assert (figures.queued, figures.queued_bytes, figures.delivered) == (0, 0, 6)
    hooks = server.stats()["hooks"]
    assert (hooks["delivered"], hooks["dropped"]["queue_full"], hooks["answers"]["failed"]) == (6, 2, 0)


async def test_a_full_queue_in_bytes(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_queue_size=10_000, webhook_timeout=0.3)
    async with json_client(server, token()) as client:
        await say(client, "x" * 6000)
        await client.send(json.dumps("y" * 6000))
        assert (await client.event("error"))["data"]["code"] == "internal"
        await say(client, "z" * 100)
        assert 6000 < server.metrics.hooks.queued_bytes < 10_000
        backend.mood = answering(200)
        await backend.until(lambda: len(said(backend)) == 2)
    assert [value[0] for value in said(backend)] == ["x", "z"]


async def test_a_receiver_that_hangs_slows_nobody(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, webhook_timeout=30)
    async with json_client(server, token()) as client:
        began = time.monotonic()
        for i in range(300):
            await say(client, {"action": "x", "i": i})
        assert server.metrics.hooks.queued == 300
        assert len(backend.requests) == 1
        assert time.monotonic() - began < 20  # 300 round trips, not one time-out


# -------------------------------------------------------------- the end of the server


async def test_what_waits_is_delivered_before_the_end(make: Make, backend: Receiver) -> None:
    backend.moods = [answering(500)] * 2

    async def slow(request: Any) -> Any:
        await asyncio.sleep(0.1)
        return await answering(200)(request)

    backend.mood = slow
    events = ("message", "client_disconnected")
    options = {"webhook_events": events, "webhook_batch": 5, "webhook_delay": 30, "webhook_flush": 20}
    server = await started(make, backend, **options)
    async with json_client(server, token()) as client:
        await say(client, *range(12))
        await server.stop()
        assert said(backend) == list(range(12))
        assert [data["cause"] for data in backend.of_type("client_disconnected")] == ["shutdown"]
    assert server.metrics.hooks.dropped.total() == 0


async def test_a_drain_delivers_too(make: Make, backend: Receiver) -> None:
    events = ("client_disconnected",)
    options = {"drain_delay": 0, "drain_window": 0.1, "webhook_delay": 30, "webhook_flush": 20}
    server = await started(make, backend, webhook_events=events, **options)
    async with json_client(server, token()), json_client(server, token()):
        await server.drain()
        assert [data["cause"] for data in backend.of_type(*events)] == ["drain", "drain"]


@pytest.mark.parametrize("mood", [hanging, answering(500), answering(503, Retry_After="100")])
async def test_a_receiver_that_hangs_does_not_keep_the_server(
    make: Make, backend: Receiver, mood: Mood, caplog: pytest.LogCaptureFixture
) -> None:
    backend.mood = mood
    server = await started(make, backend, webhook_flush=0.2, webhook_timeout=60)
    async with json_client(server, token()) as client:
        await say(client, *range(7))
        began = time.monotonic()
        await server.stop()
        assert time.monotonic() - began < 10
    figures = server.metrics.hooks
    assert (figures.dropped["shutdown"], figures.queued, figures.queued_bytes) == (7, 0, 0)
    assert "events for the webhook were dropped: shutdown" in caplog.text


# -------------------------------------------------------------- safety


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """Of a server that nobody vouches for."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    pem.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def test_certificates_are_verified(
    make: Make, certificate: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async with receiver(context=certificate) as backend:
        server = await started(make, backend)
        async with json_client(server, token()) as client:
            await say(client, "for the right receiver only")
            await until(lambda: server.metrics.hooks.requests["unreachable"] >= 2)
        await server.stop()
    assert backend.requests == []
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text


async def test_a_certificate_that_the_environment_vouches_for(
    certificate: ssl.SSLContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.pem"))
    monkeypatch.setenv("HEARTWIRE_WEBHOOK_SECRET", HOOK_SECRET)
    port = free_port()
    async with receiver(context=certificate) as backend:
        command = ["-m", "heartwire", "serve", "--auth=optional", f"--port={port}", "--webhook-url"]
        with running([*command, backend.url], port, tmp_path / "log"):
            where: Any = type("There", (), {"port": port})
            async with json_client(where) as client:
                await client.quiet()
            await backend.event("client_disconnected")
    assert HOOK_SECRET not in (tmp_path / "log").read_text()
    assert backend.url not in (tmp_path / "log").read_text()


async def test_no_secret_is_logged(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with receiver() as backend:
        url = f"{backend.url}?key=of-the-receiver"
        backend.moods = [answering(500), resetting, answering(404)]
        server = make(webhook_url=url, webhook_secret=HOOK_SECRET, webhook_delay=0, webhook_timeout=0.2)
        await server.start()
        async with json_client(server, token()):
            pass
        await until(lambda: len(backend.requests) >= 3)
        backend.mood = hanging
        async with json_client(server, token()):
            pass
        await until(lambda: server.metrics.hooks.requests["timeout"])
        await server.stop()
        said = caplog.text + repr(server.config) + server.config.summary()
    assert "the webhook did not take" in caplog.text
    assert HOOK_SECRET not in said
    assert "of-the-receiver" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "signed"),
        ({"webhook_secret": "short"}, "at least 24 bytes"),
        ({"webhook_secret": "whsec_!"}, "base64"),
        ({"webhook_secret": "whsec_c2hvcnQ="}, "at least 24 bytes"),
        ({"webhook_secret": HOOK_SECRET, "webhook_secret_file": "hook.key"}, "one secret signs"),
    ],
)
@pytest.mark.parametrize("url", ["webhook_url", "authorize_url"])
def test_a_secret_is_needed(
    options: dict[str, str], message: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("hook.key").write_text(f"{HOOK_SECRET}\n")
    with pytest.raises(ConfigError, match=message) as raised:
        Server(**{url: "http://127.0.0.1:1/"}, **options)
    assert HOOK_SECRET not in str(raised.value)
    server = Server(webhook_url="http://[::1]:1/a?b=c", webhook_secret_file="hook.key")
    assert server.config.webhook_key() == HOOK_SECRET.encode()
    assert Server(authorize_url="https://a", webhook_secret="whsec_" + "QUJD" * 8).config.webhook_key() == (
        b"ABC" * 8
    )


@pytest.mark.parametrize(
    "url", ["", "backend", "ftp://a/b", "http://", "http://user:password@a/", "http://a b/", "http://a/#x"]
)
def test_a_url_that_is_none(url: str) -> None:
    with pytest.raises(ConfigError, match="webhook_url") as raised:
        Server(webhook_url=url, webhook_secret=HOOK_SECRET)
    assert "password@" not in str(raised.value)


async def test_the_queue_is_in_the_metrics(make: Make, backend: Receiver) -> None:
    backend.mood = hanging
    server = await started(make, backend, metrics_public=True, webhook_timeout=30)
    async with json_client(server, token()) as client:
        await say(client, "x", "y")
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        text = (await reader.read()).decode()
        writer.close()
    size = len(json.dumps("x"))
    assert "heartwire_webhook_queue_events 2.0" in text
    assert f"heartwire_webhook_queue_bytes {float(server.metrics.hooks.queued_bytes)}" in text
    assert server.metrics.hooks.queued_bytes > 2 * size


async def test_the_documented_check_of_signatures(make: Make, backend: Receiver) -> None:
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    names["SECRET"] = HOOK_SECRET.encode()
    verified = names["verified"]
    server = await started(make, backend)
    async with json_client(server, token()) as client:
        await say(client, {"text": "ünï"})
        await backend.until(lambda: backend.taken)
    headers, body = backend.requests[0]
    assert verified(headers, body) == backend.taken[0]
    for name, value in (
        ("webhook-id", "x"),
        ("webhook-timestamp", str(int(time.time()) - 10)),
        ("webhook-signature", "v1,"),
    ):
        with pytest.raises(ValueError, match="wrong signature"):
            verified({**headers, name: value}, body)
    with pytest.raises(ValueError, match="wrong signature"):
        verified(headers, body + b" ")
    names["time"] = type("Later", (), {"time": staticmethod(lambda: time.time() + 301)})
    with pytest.raises(ValueError, match="old"):
        verified(headers, body)


async def test_every_event_is_documented(make: Make) -> None:
    text = (Path(__file__).parents[2] / "docs" / "webhooks.md").read_text(encoding="utf-8")
    documented = re.findall(r"^\| `(\w+)` \| [A-Z]", text, re.MULTILINE)
    assert documented == list(FIELDS["webhook_events"].choices)
