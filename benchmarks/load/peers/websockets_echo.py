"""websockets' asyncio server: no compression, `async for`, orjson."""

from __future__ import annotations

import asyncio
import http

import jwt
import orjson
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from .options import Options, run
from .tokens import user_id


async def main(options: Options) -> None:
    users: dict[ServerConnection, str] = {}
    members: set[ServerConnection] = set()

    def authenticate(connection: ServerConnection, request: Request) -> Response | None:
        try:
            users[connection] = user_id(request.headers.get("Authorization"), options.secret)
        except jwt.InvalidTokenError:
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "token refused\n")
        return None

    async def session(connection: ServerConnection) -> None:
        publishes = connection.request is not None and connection.request.path == "/pub"
        if not publishes:
            members.add(connection)
        try:
            if options.mode == "json":
                async for message in connection:
                    await connection.send(orjson.dumps(orjson.loads(message)), text=True)
            elif options.mode == "raw":
                async for message in connection:
                    await connection.send(message)
            else:
                async for message in connection:
                    if publishes:
                        broadcast(members, message)
        except ConnectionClosed:
            pass  # the client left without a close frame, or while its answer was written
        finally:
            users.pop(connection, None)
            members.discard(connection)

    async with serve(
        session,
        "127.0.0.1",
        options.port,
        process_request=authenticate,
        compression=None,
        open_timeout=30,
        ping_interval=options.ping_interval_s or None,
        ping_timeout=60,
        max_size=2**24,
        backlog=4096,
    ):
        await asyncio.Event().wait()


if __name__ == "__main__":
    run(main)
