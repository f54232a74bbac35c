"""The backend of a server under test: calls of its HTTP API, through real sockets."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import aiohttp
from yarl import URL

from heartwire import Server

FULL = "a-key-for-everything"
READER = "a-key-that-reads"
SENDER = "a-key-that-publishes"
BOSS = "a-key-that-administers"
KEYS = [FULL, f"reader:read:{READER}", f"sender:publish:{SENDER}", f"boss:admin:{BOSS}"]


class Reply(NamedTuple):
    """An answer of the API."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/json"), self
        return json.loads(self.body)

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of an error, whose form is looked at."""
        info = self.json
        assert set(info) == {"code", "message"}, info
        assert info["message"]
        return self.status, info["code"]

    @property
    def message(self) -> str:
        message: str = self.json["message"]
        return message


class Api:
    """Calls one server with one key."""

    def __init__(self, session: aiohttp.ClientSession, port: int) -> None:
        self._session = session
        self._base = f"http://127.0.0.1:{port}"

    async def call(self, method: str, path: str, **options: Any) -> Reply:
        """A request; `key` replaces the API key, None leaves it out. Paths go out as they are."""
        key = options.pop("key", FULL)
        headers = dict(options.pop("headers", {}))
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        url = URL(self._base + path, encoded=True)
        async with self._session.request(method, url, headers=headers, **options) as answer:
            return Reply(answer.status, answer.headers, await answer.read())

    async def get(self, path: str, **options: Any) -> Any:
        """The JSON of a GET that succeeds."""
        reply = await self.call("GET", path, **options)
        assert reply.status == 200, reply
        return reply.json

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """The JSON of a POST that succeeds."""
        reply = await self.call("POST", path, json={} if body is None else body, **options)
        assert reply.status == 200, reply
        return reply.json

    async def refused(self, method: str, path: str, body: Any = None, **options: Any) -> str:
        """The message of a 400 `bad_field`."""
        if body is not None:
            options["json"] = body
        reply = await self.call(method, path, **options)
        assert reply.error == (400, "bad_field"), reply
        return reply.message


@contextlib.asynccontextmanager
async def api_of(server: Server) -> AsyncIterator[Api]:
    timeout = aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        yield Api(session, server.http_port)
