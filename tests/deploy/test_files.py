"""The files of docs/deploy: the unit's command is run as systemd runs it, and the times fit each other."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
from websockets.sync.client import connect

from heartwire.config import FIELDS
from heartwire.testing import background_server

DEPLOY = Path(__file__).parents[2] / "docs" / "deploy"
SECRET = "a-secret-of-the-deployment-tests-of-32-bytes"
LONGEST_END_S = FIELDS["drain_timeout"].default + FIELDS["close_timeout"].default


def setting(file: str, pattern: str) -> str:
    """The only match in a file."""
    (found,) = re.findall(pattern, (DEPLOY / file).read_text(), re.MULTILINE)
    return str(found)


@pytest.mark.skipif(sys.platform != "linux", reason="systemd runs on Linux only")
def test_the_units_command_under_socket_activation(tmp_path: Path) -> None:
    """Takes the socket it is given, says READY and STOPPING, drains on SIGTERM and ends with status 0."""
    (tmp_path / "jwt-secrets").write_text(SECRET + "\n")
    (tmp_path / "heartwire.toml").write_text("drain_delay = 0\ndrain_window = 0\nclose_timeout = 1\n")
    command = setting("heartwire.service", r"^ExecStart=(.*)$")
    command = command.replace("/opt/heartwire/bin/socket-server", f"{sys.executable} -m heartwire serve")
    command = command.replace("/etc/heartwire/heartwire.toml", str(tmp_path / "heartwire.toml"))
    command = command.replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    assert "/opt" not in command
    assert "${" not in command

    notes = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    notes.bind(str(tmp_path / "notify"))
    notes.settimeout(20)
    listener = socket.create_server(("127.0.0.1", 0))
    # LISTEN_PID is the server's own: the shell becomes it.
    shell = f"exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec {shlex.join(shlex.split(command))}"
    process = subprocess.Popen(
        ["/bin/bash", "-c", shell], pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "NOTIFY_SOCKET": str(tmp_path / "notify")},
    )  # fmt: skip
    try:
        assert notes.recv(100) == b"READY=1"
        token = jwt.encode({"sub": "a", "exp": 4102444800}, SECRET)
        port = listener.getsockname()[1]
        headers = {"Authorization": f"Bearer {token}"}
        with connect(f"ws://127.0.0.1:{port}/ws", additional_headers=headers, proxy=None) as client:
            assert '"event":"connected"' in str(client.recv(timeout=20))
            process.send_signal(signal.SIGTERM)
            assert notes.recv(100) == b"STOPPING=1"
        said = process.communicate(timeout=20)[1]
        assert process.returncode == 0, said
        assert SECRET not in said
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()
        notes.close()
        listener.close()


@pytest.mark.parametrize(
    ("file", "pattern", "before"),
    [
        ("heartwire.service", r"^TimeoutStopSec=(\d+)s$", 0),
        ("compose.yaml", r"stop_grace_period: (\d+)s", 0),
        ("kubernetes.yaml", r"terminationGracePeriodSeconds: (\d+)$", 5),
    ],
)
def test_who_stops_the_server_waits_until_it_has_drained(file: str, pattern: str, before: float) -> None:
    assert float(setting(file, pattern)) >= before + LONGEST_END_S
    if before:
        assert float(setting(file, r"time\.sleep\((\d+)\)")) == before


def test_the_images_health_check_tells_a_server_from_none() -> None:
    program, *arguments = json.loads(setting("Dockerfile", r"^    CMD (\[.*\])$"))
    assert program == "python"

    def status(port: int) -> int:
        command = [sys.executable, *(word.replace(":8080/", f":{port}/") for word in arguments)]
        return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=30).returncode

    with background_server(jwt_secret=[SECRET]) as server:
        port = server.port
        assert status(port) == 0
    assert status(port) == 1


def test_the_image_is_built_from_all_that_a_wheel_needs() -> None:
    """.dockerignore lets in by name: what setup.py and pyproject.toml read has to be among it."""
    let_in = set(re.findall(r"^!(\S+)$", (DEPLOY / "Dockerfile.dockerignore").read_text(), re.MULTILINE))
    assert let_in >= {"csrc", "src", "pyproject.toml", "setup.py", "README.md", "LICENSE"}
    assert [name for name in sorted(let_in) if not (DEPLOY.parents[1] / name).exists()] == []


def test_paths_that_are_probed_exist() -> None:
    assert {*re.findall(r"path: (/\w+)", (DEPLOY / "kubernetes.yaml").read_text())} == {"/ready", "/health"}
    assert setting("Dockerfile", r"127\.0\.0\.1:8080(/\w+)") == "/health"


@pytest.mark.parametrize("file", ["Dockerfile", "compose.yaml", "kubernetes.yaml"])
def test_variables_are_options(file: str) -> None:
    found = re.findall(r"\bHEARTWIRE_([A-Z_]+)", (DEPLOY / file).read_text())
    assert found
    assert {name.lower() for name in found} <= FIELDS.keys()
