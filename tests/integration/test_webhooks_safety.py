"""Certificates, secrets and signatures of webhooks, and that what is documented is so."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import json
import logging
import re
import ssl
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from examples.processes import free_port, running
from heartwire import ConfigError, Server
from heartwire.config import FIELDS
from integration.peers import json_client, token, until
from integration.receiver import (
    HOOK_SECRET,
    Make,
    Receiver,
    answering,
    backend,
    hanging,
    receiver,
    resetting,
    say,
    short_waits,
    started,
)

__all__ = ["backend", "short_waits"]


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
        times = {"webhook_delay": 0, "webhook_timeout": 0.2, "webhook_flush": 0.2}
        server = make(webhook_url=url, webhook_secret=HOOK_SECRET, **times)
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
