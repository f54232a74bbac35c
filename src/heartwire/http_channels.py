"""Channels in the HTTP API: which there are, who is in them, and memberships made by the backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from heartwire.errors import ActionError, ConnectionClosed
from heartwire.http_clients import PageQuery, page_of
from heartwire.http_endpoint import BadField, Endpoint, Request, read_body, read_query
from heartwire.messages import CHANNEL_EXPECTED, CHANNEL_NAME, METADATA_LIMIT, encode_event, rfc3339
from heartwire.registry import ChannelKind

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.memberships import Memberships
    from heartwire.registry import Channel, Registry

__all__ = ["ChannelCalls"]

SLICE: Final = 1000  # channels written at a time; then others have their turn


class ChannelInfo(msgspec.Struct, omit_defaults=True):
    """A channel with members."""

    kind: ChannelKind
    clients: int
    created_at: str
    users: int | msgspec.UnsetType = msgspec.UNSET
    """Different users among them, and those who have just left; of channels with presence only."""


class Member(msgspec.Struct):
    """A client in a channel."""

    id: str
    user_id: str | None
    username: str | None
    data: Any
    """Its presence metadata; null without."""


class MemberPage(msgspec.Struct):
    """One page of a channel's clients, oldest connection first."""

    channel: str
    clients: list[Member]
    total: int
    next: str | None


class Metadata(Request):
    """What a member brings along."""

    data: Annotated[msgspec.Raw | msgspec.UnsetType, Meta(
        description="Presence metadata, any JSON value.", examples=[{"name": "Alice"}],
        extra={"expected": f"a JSON value of at most {METADATA_LIMIT} bytes"},
    )] = msgspec.UNSET  # fmt: skip


class Joined(msgspec.Struct, tag_field="status", tag="success"):
    """A user's clients are members."""

    joined: int
    """How many are members now; 0 if the user is not here."""
    failed: int
    """Those in too many channels already, or for whom the channel was full."""


class Left(msgspec.Struct, tag_field="status", tag="success"):
    """A user's clients are no members."""

    left: int
    """How many were."""


class ChannelCalls:
    """Lists channels, joins and removes. Loop thread only.

    Args:
        registry: what is listed.
        memberships: makes and ends memberships.
    """

    def __init__(self, registry: Registry, memberships: Memberships) -> None:
        self._registry = registry
        self._memberships = memberships
        membership = "/api/users/{id}/channels/{name}"
        self.endpoints: Final = (
            Endpoint("GET", "/api/channels", "read", "Channels with members, by name", self.channels,
                     dict[str, ChannelInfo]),
            Endpoint("GET", "/api/channels/{name}/clients", "read", "Who is in a channel", self.members,
                     MemberPage, query=PageQuery),
            Endpoint("POST", membership, "admin", "Makes all clients of a user members", self.join, Joined,
                     body=Metadata),
            Endpoint("DELETE", membership, "admin", "Ends the membership of all clients of a user",
                     self.leave, Left),
        )  # fmt: skip

    async def channels(self, request: web.Request) -> web.StreamResponse:
        """Written in slices: there may be 100,000 of them, and clients are waiting."""
        if request.method == "HEAD":
            return web.Response(content_type="application/json")
        answer = None
        part = bytearray(b"{")
        separator = b""
        budget = SLICE
        for channel in [*self._registry.channels.values()]:
            if not channel.members:
                continue  # gone since the list was begun
            part += separator + msgspec.json.encode(channel.name) + b":" + msgspec.json.encode(_info(channel))
            separator = b","
            budget -= 1
            if budget <= 0:
                if answer is None:
                    answer = web.StreamResponse(headers={"Content-Type": "application/json"})
                    await answer.prepare(request)
                await answer.write(part)
                await asyncio.sleep(0)
                part = bytearray()
                budget = SLICE
        part += b"}"
        if answer is None:
            return web.Response(body=bytes(part), content_type="application/json")
        await answer.write_eof(bytes(part))
        return answer

    async def members(self, request: web.Request) -> MemberPage:
        name = _channel_name(request)
        query = read_query(request, PageQuery)
        channel = self._registry.channels.get(name)
        members: dict[Client, Any] = {} if channel is None else channel.members
        page, more = page_of(self._registry.clients, members, query)
        return MemberPage(
            name,
            [Member(c.id, c.user_id, c.username, members[c]) for c in page],
            len(members),
            page[-1].id if more else None,
        )

    async def join(self, request: web.Request) -> Joined:
        """The clients are told by `joined_channel`, as if they had asked for it."""
        name = _channel_name(request)
        body = await read_body(request, Metadata)
        metadata = None if body.data is msgspec.UNSET else bytes(body.data)
        if metadata is not None and len(metadata) > METADATA_LIMIT:
            expected = f"a JSON value of at most {METADATA_LIMIT} bytes"
            raise BadField("data", expected, '{"data":{"name":"Alice"}}')
        joined = failed = 0
        for client in [*self._registry.clients_of(request.match_info["id"])]:
            try:
                new = name not in client.channels
                channel = self._memberships.join(client, name, metadata)
                joined += 1
                if new:
                    self._tell(client, "joined_channel", self._memberships.joined_data(channel))
            except ActionError:
                failed += 1
            except ConnectionClosed:
                continue
        return Joined(joined, failed)

    async def leave(self, request: web.Request) -> Left:
        """The clients are told by `left_channel`."""
        name = _channel_name(request)
        left = 0
        for client in [*self._registry.clients_of(request.match_info["id"])]:
            if self._memberships.leave(client, name):
                left += 1
                self._tell(client, "left_channel", {"channel": name, "reason": "removed by the server"})
        return Left(left)

    def _tell(self, client: Client, event: str, data: Any) -> None:
        if client.connection.sink.speaks_json:
            try:
                client.send_text_bytes(encode_event(event, data))
            except ConnectionClosed:
                return  # it was slow, and is gone


def _info(channel: Channel) -> ChannelInfo:
    users = msgspec.UNSET if channel.present is None else len(channel.present)
    return ChannelInfo(channel.kind, len(channel.members), rfc3339(channel.created_at), users)


def _channel_name(request: web.Request) -> str:
    name = request.match_info["name"]
    if not CHANNEL_NAME.match(name):
        raise BadField("channel", f"{CHANNEL_EXPECTED} (a / percent-encoded)", "lobby")
    return name
