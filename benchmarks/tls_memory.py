"""What a TLS connection costs a server: memory while idle, and processor time for handshake and echo.

    python -m benchmarks.tls_memory [--clients 500] [--kinds epoll,asyncio,tls,tls-uvloop,tls-aiofastnet]

The server is a process of its own. Memory is its private memory (`/proc/PID/smaps_rollup`) by client, between
one batch of clients and the next, so that what the process needs once does not count; sockets' memory in
the kernel does not either. Times are the server's processor time. uvloop and aiofastnet are left out where
they are not installed.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jwt
from websockets.asyncio.client import ClientConnection, connect

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests")]

from integration.certificates import Authority  # noqa: E402 - the tests are no package

SECRET = "x" * 32
KINDS = ("epoll", "asyncio", "tls", "tls-uvloop", "tls-aiofastnet")
AT_ONCE = 50
ECHOES = 20
TEXT = json.dumps({"text": "x" * 200})


def serve(kind: str, cert: str, key: str) -> None:
    """The child: serves until its stdin ends."""
    if kind != "tls-aiofastnet":
        sys.modules["aiofastnet"] = None  # type: ignore[assignment]  # heartwire takes it where it is installed
    from heartwire import Server

    tls = {"tls_cert": cert, "tls_key": key} if kind.startswith("tls") else {}
    link = "asyncio" if kind != "epoll" else "epoll"
    server = Server(port=0, jwt_secret=SECRET, link=link, ping_interval=3600, welcome=False, **tls)
    server.on_message(lambda client, value: client.send_json(value))

    async def run() -> None:
        await server.start()
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        await server.stop()

    if kind == "tls-uvloop":
        import uvloop

        uvloop.run(run())
        return
    asyncio.run(run())


class Child:
    """The server's process, as the system sees it."""

    def __init__(self, kind: str, certificate: tuple[Path, Path]) -> None:
        command = [sys.executable, "-W", "ignore", "-m", "benchmarks.tls_memory", "--serve", kind]
        self.process = subprocess.Popen(
            [*command, *map(str, certificate)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def private_bytes(self) -> int:
        lines = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Private_"))

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(timeout=30)


async def measure(kind: str, clients: int, authority: Authority, certificate: tuple[Path, Path]) -> list[Any]:
    child = Child(kind, certificate)
    context = authority.client_context() if kind.startswith("tls") else None
    token = jwt.encode({"sub": "u", "exp": time.time() + 3600}, SECRET)
    uri = f"{'wss' if context else 'ws'}://127.0.0.1:{child.port}/ws?token={token}"
    gate = asyncio.Semaphore(AT_ONCE)

    async def open_one() -> ClientConnection:
        async with gate:
            return await connect(uri, ssl=context, compression=None, ping_interval=None, proxy=None)

    async def echo(ws: ClientConnection) -> None:
        for _ in range(ECHOES):
            await ws.send(TEXT)
            await ws.recv()

    async def batch() -> list[ClientConnection]:
        opened = await asyncio.gather(*(open_one() for _ in range(clients)))
        await asyncio.gather(*map(echo, opened))
        return opened

    try:
        first = await batch()
        await asyncio.sleep(0.2)
        memory, cpu = child.private_bytes(), child.cpu_s()
        second = await asyncio.gather(*(open_one() for _ in range(clients)))
        handshake_s = (child.cpu_s() - cpu) / clients
        cpu = child.cpu_s()
        await asyncio.gather(*map(echo, second))
        echo_s = (child.cpu_s() - cpu) / clients / ECHOES
        await asyncio.sleep(0.2)
        per_client = (child.private_bytes() - memory) / clients
        for ws in (*first, *second):
            ws.transport.abort()
    finally:
        child.stop()
    return [kind, f"{per_client / 1024:.1f}", f"{handshake_s * 1e6:.0f}", f"{echo_s * 1e6:.1f}"]


def main() -> None:
    if sys.argv[1:2] == ["--serve"]:
        serve(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--clients", type=int, default=500, help="of each of two batches")
    parser.add_argument("--kinds", default=",".join(KINDS))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(Path(folder), "authority")
        certificate = authority.issue("server")
        print("| | memory, KiB a client | handshake, µs of CPU | echo of 200 B, µs of CPU |")
        print("|---|---|---|---|")
        for kind in arguments.kinds.split(","):
            module = kind.partition("-")[2]
            if module and importlib.util.find_spec(module) is None:
                continue
            row = asyncio.run(measure(kind, arguments.clients, authority, certificate))
            print("| " + " | ".join(row) + " |", flush=True)


if __name__ == "__main__":
    main()
