"""The command `socket-server` as its users run it: a process, signals, systemd (protocol.md 7)."""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from websockets.asyncio.client import unix_connect

from integration.peers import PATIENCE_S, SECRET, JsonClient, get, handshake, json_client, raw_peer, token

PIPES = asyncio.subprocess
COMMAND = str(Path(sys.executable).with_name("socket-server"))
# Becomes the process systemd would start: the socket is descriptor 3, and it is told so.
AS_SYSTEMD = (
    "import os, sys; fd = int(sys.argv[1]); os.dup2(fd, 3); os.set_inheritable(3, True); "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1'); os.execv(sys.argv[2], sys.argv[2:])"
)
# Has so many descriptors, and may have so many.
WITH_DESCRIPTORS = (
    "import os, resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, tuple(map(int, sys.argv[1:3]))); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)


class Ended(NamedTuple):
    status: int
    output: str


class Running:
    """A server in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.output = ""
        self.port = 0

    async def says(self, pattern: str) -> re.Match[str]:
        """Waits for a line of its log."""
        assert self.process.stderr is not None
        async with asyncio.timeout(PATIENCE_S):
            while (found := re.search(pattern, self.output)) is None:
                line = await self.process.stderr.readline()
                assert line, f"it ended without saying so: {self.output}"
                self.output += line.decode()
        return found

    async def listening(self) -> None:
        self.port = int((await self.says(r"listening on \S*:(\d+)"))[1])

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> Ended:
        async with asyncio.timeout(PATIENCE_S):
            rest_out, rest_err = await self.process.communicate()
        status = self.process.returncode
        assert status is not None
        return Ended(status, self.output + rest_out.decode() + rest_err.decode())


Run = Callable[..., Any]


@pytest.fixture
async def run(link: str) -> AsyncIterator[Run]:
    """Starts the command with these arguments; what is still running in the end is killed."""
    async with AsyncExitStack() as stack:

        async def run(
            *args: str, ready: bool = True, env: dict[str, str] | None = None, launcher: tuple[str, ...] = (),
            pass_fds: tuple[int, ...] = (), loop: str = "auto", port: int = 0, level: str = "debug",
            secret: str | None = SECRET,
        ) -> Running:  # fmt: skip
            environ = {k: v for k, v in os.environ.items() if not k.startswith("HEARTWIRE_")}
            if secret is not None:
                environ["HEARTWIRE_JWT_SECRET"] = secret
            options = [f"--link={link}", f"--loop={loop}", "--port", str(port), "--log-level", level, *args]
            process = await asyncio.create_subprocess_exec(
                *launcher, COMMAND, *options, env={**environ, **(env or {})}, pass_fds=pass_fds,
                stdin=PIPES.DEVNULL, stdout=PIPES.PIPE, stderr=PIPES.PIPE,
            )  # fmt: skip
            running = Running(process)
            stack.push_async_callback(_kill, process)
            if ready:
                await running.listening()
            return running

        yield run


async def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.communicate()


@asynccontextmanager
async def unix_client(path: Path) -> AsyncIterator[JsonClient]:
    headers = {"Authorization": f"Bearer {token()}"}
    async with unix_connect(str(path), "ws://localhost/ws", additional_headers=headers) as ws:
        client = JsonClient(ws)
        await client.event("connected")
        yield client


# ------------------------------------------------------------------ signals


async def status_of(port: int, head: bytes) -> int:
    async with raw_peer(port) as peer:
        peer.send(head)
        status: int = (await peer.answer()).status
        return status


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sigterm_drains(run: Run, loop: str) -> None:
    server = await run("--drain-delay=0.5s", "--drain-window=0.2s", loop=loop)
    async with json_client(server, token()) as client, raw_peer(server.port) as probe:
        probe.send(get("/ready"))
        assert (await probe.answer()).status == 200
        server.signal(signal.SIGTERM)
        await server.says("draining 1 client")
        probe.send(get("/ready"))
        assert (await probe.answer()).status == 503
        assert await status_of(server.port, get("/ready")) == 503
        assert await status_of(server.port, get("/health")) == 200
        assert await status_of(server.port, handshake(bearer=token())) == 503
        await client.quiet()
        code, reason = await client.closed()
        assert code == 1012
        assert re.fullmatch(r"reconnect_in=\d+", reason)
    ended = await server.ended()
    assert ended.status == 0
    assert ended.output.rstrip().endswith("stopped")
    assert "Traceback" not in ended.output


async def test_sigterm_without_clients(run: Run) -> None:
    server = await run("--drain-delay=60s")
    server.signal(signal.SIGTERM)
    assert (await server.ended()).status == 0


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_sigint_stops_now(run: Run, loop: str) -> None:
    server = await run("--drain-delay=60s", "--drain-window=60s", loop=loop)
    async with AsyncExitStack() as crowd:
        clients = [await crowd.enter_async_context(json_client(server, token())) for _ in range(5)]
        server.signal(signal.SIGINT)
        for client in clients:
            code, reason = await client.closed()
            assert code == 1001
            assert reason.startswith("reconnect_in=")
    ended = await server.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.output


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_a_second_signal_stops_now(run: Run, second: signal.Signals) -> None:
    server = await run("--drain-delay=60s")
    async with json_client(server, token()) as client:
        server.signal(signal.SIGTERM)
        await server.says("draining")
        await client.quiet()
        server.signal(second)
        assert (await client.closed())[0] == 1001
    ended = await server.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.output


async def test_what_a_drain_leaves_is_aborted(run: Run) -> None:
    """A client that does not answer our CLOSE holds the process up for so long and no longer."""
    server = await run(
        "--drain-delay=0", "--drain-window=0", "--drain-timeout=0.5s", "--close-timeout=60s"
    )
    async with raw_peer(server.port) as peer:
        peer.send(handshake(bearer=token()))
        assert (await peer.answer()).status == 101
        server.signal(signal.SIGTERM)
        assert (await peer.close_frame())[0] == 1012
        ended = await server.ended()
        await peer.gone()
    assert ended.status == 0
    assert "cause=drain code=1012" in ended.output


async def test_a_storm_of_signals(run: Run) -> None:
    server = await run("--drain-delay=60s", "--close-timeout=0.2s")
    async with json_client(server, token()):
        for _ in range(5):
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGINT)
        ended = await server.ended()
    assert ended.status == 0
    assert "Traceback" not in ended.output


# ------------------------------------------------------------------ what it says


async def test_a_port_that_is_taken(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        server = await run(port=port, level="info", ready=False)
        ended = await server.ended()
    assert ended.status == 1
    assert ended.output.splitlines() == [
        f"socket-server: cannot listen on 127.0.0.1 port {port}: Address already in use"
    ]


async def test_a_short_secret_is_told_once(run: Run) -> None:
    secret = "short-secret"
    server = await run("--jwt-secret", secret, secret=None)
    for _ in range(2):
        async with json_client(server, token(secret=secret)) as client:
            await client.quiet()
    server.signal(signal.SIGTERM)
    output = (await server.ended()).output
    warnings = [line for line in output.splitlines() if " WARNING " in line]
    assert len(warnings) == 1
    assert "shorter than 32 bytes" in warnings[0]
    assert secret not in output


async def test_a_long_secret_is_not(run: Run) -> None:
    server = await run()
    server.signal(signal.SIGTERM)
    assert "WARNING" not in (await server.ended()).output


@pytest.mark.parametrize("form", ["text", "json"])
async def test_secrets_are_never_in_the_output(run: Run, form: str) -> None:
    api_key, good = "an-api-key-nobody-may-see", token("bob", username="Bob")
    wrong_secret = token(secret="another secret of at least 32 bytes")
    server = await run(f"--log-format={form}", "--api-key", api_key, "--auth-cookie=session")
    async with json_client(server, good) as client:
        await client.error("authenticate", token=wrong_secret)
        await client.ask("authenticate", token=good)
    async with json_client(server, path=f"/ws?token={good}"):
        pass
    for head in (
        handshake(bearer=wrong_secret),
        handshake(f"/ws?token={wrong_secret}"),
        handshake(f"/ws?token={wrong_secret}&token={good}"),
        handshake("/ws", f"Cookie: session={good}"),
        handshake("/ws", f"Sec-WebSocket-Protocol: heartwire.bearer, {wrong_secret}"),
        handshake(f"/elsewhere?token={good}"),
        handshake(f"/ws?token={good}", "Host: two"),
    ):
        assert 400 <= await status_of(server.port, head) < 500
    for key in (api_key, api_key + "x"):
        for target in ("/api/clients", f"/api/clients?token={good}"):
            head = get(target, f"Authorization: Bearer {key}")
            assert await status_of(server.port, head) in (200, 400, 401)
    server.signal(signal.SIGTERM)
    ended = await server.ended()
    assert ended.status == 0
    assert "listening" in ended.output
    for secret in (SECRET, api_key, good, wrong_secret, *good.split("."), *wrong_secret.split(".")):
        assert secret not in ended.output


# ------------------------------------------------------------------ Unix sockets and systemd


async def test_unix(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = await run(f"--unix={path}", ready=False)
    await server.says("listening on ")
    async with unix_client(path) as client:
        await client.quiet()
        server.signal(signal.SIGINT)
        assert (await client.closed())[0] == 1001
    assert (await server.ended()).status == 0
    assert not path.exists()


async def test_a_dead_unix_socket_is_replaced_and_a_live_one_is_not(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s"
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    one = await run(f"--unix={path}", ready=False)
    await one.says("listening on ")
    two = await run(f"--unix={path}", level="info", ready=False)
    ended = await two.ended()
    assert ended.status == 1
    assert ended.output.splitlines() == [f"socket-server: cannot listen on {path}: Address already in use"]
    async with unix_client(path) as client:
        await client.quiet()


async def test_what_is_no_socket_is_not_replaced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_text("precious")
    server = await run(f"--unix={path}", ready=False)
    ended = await server.ended()
    assert ended.status == 1
    assert "Traceback" not in ended.output
    assert str(path) in ended.output
    assert path.read_text() == "precious"


async def test_a_unix_path_that_is_too_long(run: Run) -> None:
    server = await run(f"--unix=/tmp/{'x' * 200}", level="info", ready=False)
    ended = await server.ended()
    assert ended.status == 1
    (line,) = ended.output.splitlines()
    assert line.endswith("File name too long")


async def test_socket_activation(run: Run) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        fd = listener.fileno()
        launcher = (sys.executable, "-c", AS_SYSTEMD, str(fd))
        server = await run(ready=False, launcher=launcher, pass_fds=(fd,))
        await server.says("listening on ")
        server.port = listener.getsockname()[1]
        async with json_client(server, token()) as client:
            await client.quiet()
        server.signal(signal.SIGTERM)
        assert (await server.ended()).status == 0


@pytest.mark.parametrize("kind", ["path", "abstract"])
async def test_notify(run: Run, tmp_path: Path, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@heartwire-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name if kind == "path" else "\0" + name[1:])
        manager.setblocking(False)
        loop = asyncio.get_running_loop()
        server = await run(env={"NOTIFY_SOCKET": name})
        async with asyncio.timeout(PATIENCE_S):
            assert await loop.sock_recv(manager, 1000) == b"READY=1"
            assert await status_of(server.port, get("/ready")) == 200
            server.signal(signal.SIGTERM)
            assert await loop.sock_recv(manager, 1000) == b"STOPPING=1"
        assert (await server.ended()).status == 0


@pytest.mark.skipif(sys.platform != "linux", reason="prlimit(2)")
async def test_the_descriptor_limit_is_raised_and_bounds_the_connections(run: Run) -> None:
    """To the hard one; all but 256 of it are clients'."""
    launcher = (sys.executable, "-c", WITH_DESCRIPTORS, "100", "266")
    server = await run(launcher=launcher)
    assert resource.prlimit(server.process.pid, resource.RLIMIT_NOFILE) == (266, 266)
    async with AsyncExitStack() as crowd:
        for _ in range(10):
            await crowd.enter_async_context(json_client(server, token()))
        assert await status_of(server.port, handshake(bearer=token())) == 503
