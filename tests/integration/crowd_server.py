"""A server for a crowd, a process of its own. Options come as one JSON argument.

It writes its port to standard output, then, for each line of standard input, what it has seen since the line
before: the longest turn of its event loop and all it has used, as CPU time, so that a busy machine is not
taken for a stall.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from heartwire import Server
from heartwire.lifetime import loop_factory


class Watch:
    """The longest turn of the loop."""

    def __init__(self) -> None:
        self.longest_s = 0.0

    async def run(self) -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0.001)
            now = time.thread_time()
            self.longest_s = max(self.longest_s, now - before)
            before = now


async def main(options: dict[str, Any]) -> None:
    logging.basicConfig(level=logging.WARNING)
    server = Server(port=0, **options)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    watch = Watch()
    async with server:
        watching = asyncio.create_task(watch.run())
        print(server.port, flush=True)
        used = time.process_time()
        while await lines.readline():
            seen = {
                "clients": len(server.clients),
                "disconnects": server.stats()["disconnects"],
                "longest_turn_ms": round(watch.longest_s * 1000, 1),
                "cpu_s": round(time.process_time() - used, 2),
            }
            used = time.process_time()
            watch.longest_s = 0.0
            print(json.dumps(seen), flush=True)
        watching.cancel()


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    with asyncio.Runner(loop_factory=loop_factory(given.get("loop", "asyncio"))) as runner:
        runner.run(main(given))
