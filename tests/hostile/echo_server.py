"""The server under attack, a process of its own: echoes JSON. Options come as one JSON argument.

It writes its port to standard output, and ends when its standard input does.
"""

import asyncio
import json
import logging
import sys

from heartwire import Client, Server


async def main() -> None:
    logging.basicConfig(level=logging.WARNING)
    server = Server(port=0, welcome=False, **json.loads(sys.argv[1]))

    @server.on_message
    def echo(client: Client, message: object) -> None:
        client.send_json(message)

    async with server:
        print(server.port, flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
