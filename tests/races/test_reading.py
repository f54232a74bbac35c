"""Reading by hand: a message that comes in the very moment in which its reader gives up is not lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from heartwire import Client, Server
from heartwire.testing import TEXT, FakeLink, FramePeer, build_frame
from serverless import SECRET, Serverless

TURNS = range(8)  # more than anything here takes


class Talk:
    """One client of a server whose handlers tell what they were told."""

    def __init__(self, world: Serverless, link: FakeLink, told: list[Any]) -> None:
        self.loop = world.loop
        self.link = link
        self.told = told
        self.peer = FramePeer(link)
        self.peer.open()
        self.client: Client = link.connection.owner

    def says(self, *texts: str) -> None:
        """Sends messages, all in one segment."""
        self.link.feed(b"".join(build_frame(TEXT, text.encode()) for text in texts))

    def turns(self, count: int) -> None:
        for _ in range(count):
            self.loop.turn()


@contextmanager
def talk(on_message: Callable[[Client, Any, list[Any]], Awaitable[None] | None]) -> Iterator[Talk]:
    told: list[Any] = []
    server = Server(port=0, jwt_secret=[SECRET], auth="optional", welcome=False)

    @server.on_message
    def handler(client: Client, value: Any) -> Any:
        return on_message(client, value, told)

    @server.authorize
    async def authorize(client: Client, verb: str, channel: str) -> bool:
        """Takes as many turns of the loop as the channel says."""
        for _ in range(int(channel)):
            await asyncio.sleep(0)
        return True

    world = Serverless(server)
    try:
        with world.link() as link:
            yield Talk(world, link, told)
    finally:
        world.close()


def note(client: Client, value: Any, told: list[Any]) -> None:
    told.append(value)


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("reads_again", [True, False])
def test_a_reader_that_is_cancelled_when_its_message_comes(turns: int, reads_again: bool) -> None:
    """The next reader gets it, or without one whoever handles messages."""
    readers: list[asyncio.Task[Any]] = []

    async def read(client: Client, told: list[Any]) -> None:
        readers.append(asyncio.ensure_future(client.read_json()))
        await asyncio.wait(readers)
        if not readers[0].cancelled():
            told.append(readers[0].result())
        if reads_again:
            told.append(["again", await client.read_json()])

    def on_message(client: Client, value: Any, told: list[Any]) -> Awaitable[None] | None:
        return read(client, told) if value == "read" else told.append(value)

    with talk(on_message) as it:
        it.says('"read"')
        it.loop.settle()
        it.says("1", "2", "3")
        it.turns(turns)
        readers[0].cancel()
        it.loop.settle()
        assert [value[1] if isinstance(value, list) else value for value in it.told] == [1, 2, 3]
        assert [type(value) for value in it.told].count(list) == reads_again


@pytest.mark.parametrize("turns", TURNS)
def test_an_action_that_ends_when_a_reader_has_its_message(turns: int) -> None:
    """Somebody outside of handlers reads, and an action that takes its time ends, at any moment beside it."""

    async def read(client: Client, told: list[Any]) -> None:
        for _ in range(3):
            told.append(await client.read_json())

    with talk(note) as it:
        reading = it.loop.create_task(read(it.client, it.told))
        it.loop.settle()
        it.says(f'{{"action":"join_channel","channel":"{turns}"}}', "1", "2", "3")
        it.loop.settle()
        assert it.told == [1, 2, 3]
        assert reading.done()


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_handler_that_leaves_a_reader_behind(turns: int, at_once: bool) -> None:
    """Its read goes on outside of handlers: it neither hangs nor loses a message."""
    readers: list[asyncio.Task[Any]] = []

    async def read(client: Client) -> None:
        readers.append(asyncio.ensure_future(client.read_json()))
        for _ in range(turns):
            await asyncio.sleep(0)

    def on_message(client: Client, value: Any, told: list[Any]) -> Awaitable[None] | None:
        return read(client) if value == "read" else told.append(value)

    with talk(on_message) as it:
        it.says('"read"', *(("1", "2") if at_once else ()))
        it.loop.settle()
        if not at_once:
            it.says("1", "2")
            it.loop.settle()
        assert readers[0].result() == 1
        if it.told == []:  # it had not read when the handler ended
            reading = it.loop.create_task(it.client.read_json())
            it.loop.settle()
            it.told.append(reading.result())
        assert it.told == [2]
