"""The server under churn, a process of its own. Options come as one JSON argument.

It echoes JSON and speaks to its lobby all the time. Standard output gets its port, then a line for each
`on_connect` and `on_disconnect`, and for each line of standard input what it holds; it ends with its input.
"""

import asyncio
import ctypes
import gc
import json
import logging
import sys
from typing import Any

from heartwire import Client, Server

BROADCAST_EVERY_S = 0.02


class Mallinfo2(ctypes.Structure):
    """glibc's account of its heap, see mallinfo(3)."""

    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = tuple((name, ctypes.c_size_t) for name in names.split())


mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2


def say(**values: Any) -> None:
    print(json.dumps(values), flush=True)


async def speak(server: Server) -> None:
    while True:
        await asyncio.sleep(BROADCAST_EVERY_S)
        server.to_channel("lobby", "tick")


async def main() -> None:
    logging.basicConfig(level=logging.DEBUG, format="%(levelname)s %(message)s")
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    server = Server(port=0, **json.loads(sys.argv[1]))

    @server.on_message
    def echo(client: Client, message: Any) -> None:
        client.send_json(message)

    @server.on_connect
    def connected(client: Client) -> None:
        say(connected=client.id)

    @server.on_disconnect
    def disconnected(client: Client, cause: str) -> None:
        say(disconnected=client.id, cause=cause)

    loop = asyncio.get_running_loop()
    lines: asyncio.StreamReader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with server:
        say(port=server.port)
        speaking = asyncio.create_task(speak(server))
        while await lines.readline():
            gc.collect()
            stats = server.stats()
            stats["channel_names"] = list(server.channels)
            stats["python_blocks"] = sys.getallocatedblocks()
            stats["malloc_bytes"] = mallinfo2().uordblks
            say(stats=stats)
        speaking.cancel()


if __name__ == "__main__":
    asyncio.run(main())
