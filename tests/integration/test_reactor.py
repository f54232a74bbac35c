"""Links where the system fails them: out of descriptors, and in a forked child."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest
import websockets

from integration.peers import SECRET, token
from links import LINKS, needs_reactor

LIMIT = 40  # descriptors of the server's process


def start(script: str, **environment: str) -> tuple[subprocess.Popen[str], int]:
    """Runs a server script that prints its port first."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment},
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def finish(process: subprocess.Popen[str]) -> tuple[str, str]:
    process.terminate()
    out, errors = process.communicate(timeout=20)
    return out, errors


SERVER = f"""
    import asyncio, logging, os, resource, sys, uvloop
    logging.basicConfig(level=logging.WARNING)
    if "NOFILE" in os.environ:
        resource.setrlimit(resource.RLIMIT_NOFILE, (int(os.environ["NOFILE"]),) * 2)
    from heartwire import Server

    link = os.environ["LINK"]
    server = Server(port=0, link=link, jwt_secret={SECRET!r}, max_connections=10000)

    @server.on_message
    def echo(client, value):
        client.send_json(value)

    async def main():
        async with server:
            print(server.port, flush=True)
            loop = asyncio.get_running_loop()
            stop = asyncio.Event()
            loop.add_signal_handler(15, stop.set)
            await stop.wait()

    factory = uvloop.new_event_loop if os.environ["LOOP"] == "uvloop" else None
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
"""


async def echoes(ws: websockets.ClientConnection, text: str) -> None:
    await ws.send(text)
    assert await asyncio.wait_for(ws.recv(), 5) == text


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("link", LINKS)
async def test_out_of_descriptors_the_listener_pauses_and_clients_go_on(link: str, loop: str) -> None:
    process, port = start(SERVER, NOFILE=str(LIMIT), LINK=link, LOOP=loop)
    url = f"ws://127.0.0.1:{port}/ws?token={token()}"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)  # a kept-alive HTTP connection
    request = b"GET /ready HTTP/1.1\r\nHost: a\r\n\r\n"

    async def ready() -> bytes:
        writer.write(request)
        status = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)).split(b" ")[1]
        await asyncio.wait_for(reader.readuntil(b"}"), 5)
        return status

    assert await ready() == b"200"
    crowd: list[websockets.ClientConnection] = []
    more: list[asyncio.Task[websockets.ClientConnection]] = []
    try:
        while True:  # as many as it can take
            attempt = asyncio.create_task(websockets.connect(url, open_timeout=20).__aenter__())
            done, _ = await asyncio.wait([attempt], timeout=1)
            if not done:
                more.append(attempt)
                break
            crowd.append(attempt.result())
            assert len(crowd) < LIMIT
        assert len(crowd) > 10
        assert await ready() == b"503"
        for ws in crowd:
            await ws.recv()  # the welcome
            await echoes(ws, "[1]")
        for ws in crowd[:5]:
            await ws.close()
        late = await asyncio.wait_for(more[0], 5)  # accepted once descriptors are free again
        await late.recv()
        await echoes(late, "[2]")
        async with asyncio.timeout(5):  # at once, unless it took the first descriptor that was free again
            while await ready() != b"200":
                await asyncio.sleep(0.01)
        await late.close()
    finally:
        writer.close()
        for ws in crowd:
            await ws.close()
        _, errors = await asyncio.to_thread(finish, process)
    assert "Traceback" not in errors, errors


@needs_reactor
async def test_a_forked_child_leaves_the_parents_connections_alone() -> None:
    source = f"""
        import asyncio, os, time
        from heartwire import Server

        server = Server(port=0, link="epoll", jwt_secret={SECRET!r}, loop="asyncio")
        parent = os.getpid()

        @server.on_message
        def answer(client, value):
            if value == "fork" and os.fork() == 0:
                end = time.monotonic() + 1
                while time.monotonic() < end:  # as a loop that was forked would go on
                    server._listeners._reactor.on_ready()
                os._exit(0)
            client.send_json(os.getpid() == parent)

        async def main():
            async with server:
                print(server.port, flush=True)
                stop = asyncio.Event()
                asyncio.get_running_loop().add_signal_handler(15, stop.set)
                await stop.wait()

        asyncio.run(main())
    """
    process, port = start(source)
    try:
        async with websockets.connect(f"ws://127.0.0.1:{port}/ws?token={token()}") as ws:
            await ws.recv()
            await ws.send('"fork"')
            assert await asyncio.wait_for(ws.recv(), 5) == "true"
            for _ in range(300):  # a child that read from the parent's sockets would answer some of them
                await ws.send("1")
                assert await asyncio.wait_for(ws.recv(), 5) == "true"
                await asyncio.sleep(0.002)
    finally:
        _, errors = await asyncio.to_thread(finish, process)
    assert "Traceback" not in errors, errors
