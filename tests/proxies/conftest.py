"""Real proxies before a real server, with the configurations that the documentation shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from heartwire.testing import BackgroundServer, background_server
from integration.certificates import Authority

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
PATIENCE_S = 20.0
PING_INTERVAL_S = 0.3
HTTP_PROXIES = ("nginx", "haproxy", "caddy")
# Those pass bytes on, after a PROXY header, of version 2 or 1. `haproxy-through` leaves TLS to the server.
TCP_PROXIES = ("haproxy-tcp", "haproxy-tcp-v1")


class Proxied(NamedTuple):
    """A server, and the port of the proxy before it."""

    server: BackgroundServer
    port: int
    authority: Authority


def program(name: str) -> str:
    """The path of a proxy; where there is none, the test is skipped, but not in CI, which has to have all but
    Caddy."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI") and name != "caddy":
            pytest.fail(f"{name} is not installed, and CI must have it: apt-get install {name}")
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    return path


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def fill_in(name: str, values: dict[str, str]) -> str:
    """A configuration of the documentation with other ports and paths."""
    text = (DEPLOY / name).read_text()
    for documented, ours in values.items():
        assert text.count(documented) == 1, f"{documented!r} is not once in {name}"
        text = text.replace(documented, ours)
    return text


@pytest.fixture(
    params=[
        *((kind, link) for kind in (*HTTP_PROXIES, *TCP_PROXIES) for link in ("epoll", "asyncio")),
        ("haproxy-through", "asyncio"),
    ],
    ids="-".join,
)
def behind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """Which configuration before which link."""
    pair: tuple[str, str] = request.param
    return pair


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """Whose certificates the clients trust."""
    return Authority(tmp_path, "authority")


@pytest.fixture
def server(behind: tuple[str, str], authority: Authority) -> Iterator[BackgroundServer]:
    """The server behind: it sees no peer but the proxy."""
    kind, link = behind
    options: dict[str, Any] = {"ping_interval": PING_INTERVAL_S, "ping_always": True}
    if kind == "haproxy-through":
        options["tls_cert"], options["tls_key"] = authority.issue("server")
    with background_server(
        link=link, trusted_proxy=["127.0.0.1"], api_key=["key-of-the-tests"], max_message_size=1 << 22,
        proxy_protocol=kind not in HTTP_PROXIES, max_connections_per_address=3, **options,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture
def proxied(
    behind: tuple[str, str], server: BackgroundServer, authority: Authority, tmp_path: Path
) -> Iterator[Proxied]:
    """A proxy with a certificate for 127.0.0.1, whose time-outs for idle connections are a second."""
    kind = behind[0]
    port = free_port()
    command = COMMANDS.get(kind, haproxy)(
        kind, tmp_path, port, f"127.0.0.1:{server.port}", authority.issue("proxy")
    )
    errors = tmp_path / "errors.log"
    environment = {**os.environ, "XDG_DATA_HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    with errors.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            if process.poll() is not None or time.monotonic() > end:
                pytest.fail(f"{kind} did not start: {errors.read_text()}")
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.01)
        yield Proxied(server, port, authority)
    finally:
        process.terminate()
        process.wait(timeout=PATIENCE_S)


# ------------------------------------------------------------------ the configurations, filled in


def nginx(kind: str, folder: Path, port: int, backend: str, certificate: tuple[Path, Path]) -> list[str]:
    config = fill_in("nginx.conf", {
        "/etc/ssl/chat.example.com.crt": str(certificate[0]),
        "/etc/ssl/chat.example.com.key": str(certificate[1]),
        "/var/log/nginx/chat.log": str(folder / "access.log"), "127.0.0.1:8080": backend,
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "proxy_read_timeout 75s": "proxy_read_timeout 1s",
        "worker_processes auto": "worker_processes 1",
        "worker_connections 16384": "worker_connections 64",
        # Debian's are root's, and there only once nginx has run as root.
        "http {": "http {" + "".join(
            f"{use}_temp_path {folder}/{use};"
            for use in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ),
    })  # fmt: skip
    (folder / "nginx.conf").write_text(config)
    return [
        program("nginx"), "-p", str(folder), "-c", "nginx.conf", "-e", "stderr",
        "-g", f"daemon off; pid {folder}/nginx.pid;",
    ]  # fmt: skip


def haproxy(kind: str, folder: Path, port: int, backend: str, certificate: tuple[Path, Path]) -> list[str]:
    pem = folder / "proxy.pem"
    pem.write_bytes(certificate[0].read_bytes() + certificate[1].read_bytes())
    tls = "ssl crt /etc/haproxy/chat.example.com.pem"
    values = {
        "127.0.0.1:8080": backend, "bind :443": f"bind 127.0.0.1:{port}", "maxconn 20000": "maxconn 100",
        tls: tls.replace("/etc/haproxy/chat.example.com.pem", str(pem)),
    }  # fmt: skip
    if kind == "haproxy-tcp-v1":
        values["send-proxy-v2"] = "send-proxy"
    if kind == "haproxy-through":
        values[f" {tls} ssl-min-ver TLSv1.2 alpn http/1.1"] = ""
        del values[tls]
        values["send-proxy-v2 check"] = "send-proxy-v2 check check-ssl verify none"
    idle = ["timeout tunnel 75s"] if kind == "haproxy" else ["timeout client 75s", "timeout server 75s"]
    values |= {text: text.replace("75s", "1s") for text in idle}
    config = fill_in("haproxy.cfg" if kind == "haproxy" else "haproxy-tcp.cfg", values)
    (folder / "haproxy.cfg").write_text(config)
    return [program("haproxy"), "-db", "-f", str(folder / "haproxy.cfg")]


def caddy(kind: str, folder: Path, port: int, backend: str, certificate: tuple[Path, Path]) -> list[str]:
    site = f"https://127.0.0.1:{port} {{\n\tbind 127.0.0.1\n\ttls {certificate[0]} {certificate[1]}"
    config = fill_in("Caddyfile", {"chat.example.com {": site, "127.0.0.1:8080": backend})
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https disable_redirects\n}\n" + config)
    return [program("caddy"), "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


COMMANDS = {"nginx": nginx, "caddy": caddy}
