"""A chat room in one process: heartwire carries the messages, aiohttp serves the page and hands out tokens.

    python examples/chat/server.py        # then open http://127.0.0.1:8000 in two windows

There are no passwords: who says a name gets a token for it. In a program of yours, the token comes from
where users log in. Both servers share this process's event loop, and nothing else.
"""

import argparse
import asyncio
import logging
import secrets
import signal
import time
from importlib.resources import files
from pathlib import Path

import jwt
from aiohttp import web

from heartwire import Client, Server

ROOM = "presence-lobby"  # a presence channel: the server keeps and announces its members
PAGE = Path(__file__).parent
CLIENT = files("heartwire") / "static" / "heartwire.js"
SECRET = secrets.token_hex(32)  # anew at each start: the page asks for another token by itself

logger = logging.getLogger("chat")


def chat_server(port: int, page_port: int) -> Server:
    """The WebSocket half. Joining, leaving and sending are built into heartwire."""
    # The page comes from another port, hence from another origin: it has to be named.
    origins = [f"http://{host}:{page_port}" for host in ("127.0.0.1", "localhost")]
    server = Server(port=port, jwt_secret=SECRET, origin=origins, close_timeout=1)

    @server.on_connect
    def connected(client: Client) -> None:
        logger.info("%s came", client.username)

    @server.on_disconnect
    def disconnected(client: Client, cause: str) -> None:
        logger.info("%s left: %s", client.username, cause)

    return server


def page_server(server: Server) -> web.Application:
    """The HTTP half: the files, where the chat is, and `POST /token` with `{"name": …}`."""

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(PAGE / (request.match_info.get("name") or "index.html"))

    async def client(request: web.Request) -> web.Response:
        # heartwire serves it too, but on its own port: a browser loads modules from the page's origin alone.
        return web.Response(text=CLIENT.read_text(), content_type="text/javascript")

    async def room(request: web.Request) -> web.Response:
        return web.json_response({"port": server.port, "room": ROOM})

    async def token(request: web.Request) -> web.Response:
        try:
            name = str((await request.json())["name"]).strip()
        except (ValueError, KeyError, TypeError):
            name = ""
        if not 1 <= len(name) <= 24 or not name.isprintable():
            return web.json_response({"message": "A name has 1 to 24 printable characters."}, status=400)
        claims = {
            "sub": name.casefold(),
            "username": name,
            "channels": [ROOM],
            "exp": int(time.time()) + 12 * 3600,
        }
        signed = jwt.encode(claims, SECRET, algorithm="HS256")
        return web.json_response({"token": signed})

    app = web.Application()
    app.router.add_get("/", file)
    app.router.add_get(r"/{name:chat\.js|chat\.css}", file)
    app.router.add_get("/heartwire.js", client)
    app.router.add_get("/room", room)
    app.router.add_post("/token", token)
    return app


async def main(port: int, page_port: int) -> None:
    """Serves both until SIGINT or SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with chat_server(port, page_port) as server:
        runner = web.AppRunner(page_server(server), access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", page_port).start()
        print(f"The chat is at http://127.0.0.1:{page_port}", flush=True)
        await stop.wait()
        await runner.cleanup()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A chat room with a page for the browser.")
    parser.add_argument("--port", type=int, default=8085, help="of the WebSocket server (%(default)s)")
    parser.add_argument("--page-port", type=int, default=8000, help="of the page (%(default)s)")
    options = parser.parse_args()
    asyncio.run(main(options.port, options.page_port))
