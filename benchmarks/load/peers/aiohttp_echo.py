"""aiohttp's server: no compression, text handed over as bytes, orjson."""

from __future__ import annotations

import asyncio

import jwt
import orjson
from aiohttp import WSMsgType, web

from .options import Options, run
from .tokens import user_id


async def serve(options: Options) -> None:
    users: dict[web.WebSocketResponse[bool], str] = {}
    members: set[web.WebSocketResponse[bool]] = set()

    async def session(request: web.Request) -> web.StreamResponse:
        try:
            user = user_id(request.headers.get("Authorization"), options.secret)
        except jwt.InvalidTokenError:
            raise web.HTTPUnauthorized from None
        ws = web.WebSocketResponse(
            compress=False,
            heartbeat=options.ping_interval_s or None,
            max_msg_size=2**24,
            decode_text=False,
        )
        await ws.prepare(request)
        users[ws] = user
        publishes = options.mode == "fanout" and request.path == "/pub"
        if not publishes:
            members.add(ws)
        try:
            while (message := await ws.receive()).type is WSMsgType.TEXT:
                if options.mode == "json":
                    await ws.send_frame(orjson.dumps(orjson.loads(message.data)), WSMsgType.TEXT)
                elif options.mode == "raw":
                    await ws.send_frame(message.data, WSMsgType.TEXT)
                elif publishes:
                    for member in list(members):
                        await member.send_frame(message.data, WSMsgType.TEXT)
        except ConnectionResetError:
            pass  # the client left while its answer was written
        finally:
            users.pop(ws, None)
            members.discard(ws)
        return ws

    app = web.Application()
    app.router.add_get("/ws", session)
    app.router.add_get("/pub", session)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    run(serve)
