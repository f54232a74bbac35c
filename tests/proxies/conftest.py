"""Real proxies before a real server, with the configurations that the documentation shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from heartwire.testing import BackgroundServer, background_server
from integration.certificates import Authority

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
PATIENCE_S = 20.0
PING_INTERVAL_S = 0.3


class Proxied(NamedTuple):
    """A server, and the port of the proxy before it."""

    server: BackgroundServer
    port: int
    authority: Authority


Start = Callable[[BackgroundServer], Proxied]


def program(name: str) -> str:
    """The path of a proxy; where there is none, the test is skipped, but not in CI."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin")
    if path is None:
        if os.environ.get("CI"):
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


@pytest.fixture(params=["epoll", "asyncio"])
def server(request: pytest.FixtureRequest, kind: str) -> Iterator[BackgroundServer]:
    """The server behind: it sees no peer but the proxy."""
    options = {"max_message_size": 1 << 22, "ping_interval": PING_INTERVAL_S, "ping_always": True}
    with background_server(
        link=request.param, trusted_proxy=["127.0.0.1"], api_key=["key-of-the-tests"],
        proxy_protocol=kind == "haproxy-tcp", max_connections_per_address=3, **options,
    ) as running:  # fmt: skip
        yield running


@pytest.fixture(params=["nginx", "haproxy", "haproxy-tcp"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which configuration."""
    name: str = request.param
    return name


@pytest.fixture
def proxied(kind: str, server: BackgroundServer, tmp_path: Path) -> Iterator[Proxied]:
    """A proxy with a certificate for 127.0.0.1, whose time-outs for idle connections are a second."""
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("proxy")
    port = free_port()
    backend = f"127.0.0.1:{server.port}"
    if kind == "nginx":
        config = fill_in("nginx.conf", {
            "/etc/ssl/chat.example.com.crt": str(cert), "/etc/ssl/chat.example.com.key": str(key),
            "/var/log/nginx/chat.log": str(tmp_path / "access.log"), "127.0.0.1:8080": backend,
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "proxy_read_timeout 75s": "proxy_read_timeout 1s",
            "worker_processes auto": "worker_processes 1",
            "worker_connections 16384": "worker_connections 64",
            # Debian's are root's, and there only once nginx has run as root.
            "http {": "http {" + "".join(
                f"{use}_temp_path {tmp_path}/{use};"
                for use in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
            ),
        })  # fmt: skip
        (tmp_path / "nginx.conf").write_text(config)
        command = [
            program("nginx"), "-p", str(tmp_path), "-c", "nginx.conf", "-e", "stderr",
            "-g", f"daemon off; pid {tmp_path}/nginx.pid;",
        ]  # fmt: skip
    else:
        pem = tmp_path / "proxy.pem"
        pem.write_bytes(cert.read_bytes() + key.read_bytes())
        idle = ["timeout tunnel 75s"] if kind == "haproxy" else ["timeout client 75s", "timeout server 75s"]
        config = fill_in(f"{kind}.cfg", {
            "/etc/haproxy/chat.example.com.pem": str(pem), "127.0.0.1:8080": backend,
            "bind :443": f"bind 127.0.0.1:{port}", "maxconn 20000": "maxconn 100",
            **{text: text.replace("75s", "1s") for text in idle},
        })  # fmt: skip
        (tmp_path / "haproxy.cfg").write_text(config)
        command = [program("haproxy"), "-db", "-f", str(tmp_path / "haproxy.cfg")]
    errors = tmp_path / "errors.log"
    with errors.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
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
