"""heartwire under test, by its public API alone."""

from __future__ import annotations

import asyncio
from typing import Any

from heartwire import Client, Server

from .options import Options, run


async def serve(options: Options) -> None:
    settings: dict[str, Any] = {}
    if options.ping_interval_s:
        settings["ping_interval"] = options.ping_interval_s
    settings["api_key"] = options.secret
    server = Server(port=options.port, jwt_secret=options.secret, log_level="warning", **settings)
    if options.mode == "json":

        @server.on_message
        def echo(client: Client, message: object) -> None:
            client.send_json(message)

    elif options.mode == "async":

        @server.on_message
        async def echo_async(client: Client, message: object) -> None:
            client.send_json(message)

    elif options.mode == "raw":

        @server.on_text
        def echo_text(client: Client, text: str) -> None:
            client.send_text(text)

    async with server:
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve)
