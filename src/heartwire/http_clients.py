"""Clients and users in the HTTP API: who is connected, kicking and disconnecting them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from heartwire._core.listing import describe, page_among
from heartwire.http_endpoint import BadField, Endpoint, Request, not_found, read_body, read_query
from heartwire.messages import is_own_id

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.registry import Registry

__all__ = ["ClientCalls", "PageQuery", "page_of"]

PAGE_DEFAULT: Final = 100
PAGE_MOST: Final = 1000
CURSOR_EXPECTED: Final = "`next` of an earlier page, from the same run of the server (or begin without it)"


class PageQuery(Request):
    """Which part of a long list."""

    limit: Annotated[int, Meta(
        ge=1, le=PAGE_MOST, description="The most entries of one page.",
        examples=[PAGE_DEFAULT], extra={"expected": f"a number from 1 to {PAGE_MOST}"},
    )] = PAGE_DEFAULT  # fmt: skip
    after: Annotated[str | None, Meta(
        description="`next` of the page before: this one begins behind it.",
        examples=["5f0c2b91aa1c"],
        extra={"expected": CURSOR_EXPECTED},
    )] = None  # fmt: skip


class ClientQuery(PageQuery):
    """Which clients."""

    user_id: Annotated[str | None, Meta(
        description="Only the clients of this user.",
        examples=["alice"], extra={"expected": "the id of a user"},
    )] = None  # fmt: skip


class ClientInfo(msgspec.Struct, gc=False):
    """A connected client. Its fields are in the order in which `describe` gives them."""

    id: str
    user_id: str | None
    username: str | None
    channels: list[str]
    remote_address: str
    """`host:port`, `host` alone where a proxy told no port, or `unix`."""
    user_agent: str | None
    connected_at: str
    last_seen: str
    rtt_ms: float | None
    """Of the last answered ping; null before the first."""
    queued_bytes: int


class ClientPage(msgspec.Struct):
    """One page of clients, oldest first."""

    clients: list[ClientInfo]
    total: int
    """Of all pages."""
    next: str | None
    """`after` of the next page; null on the last."""


class Reason(Request):
    """Why a client has to go."""

    reason: Annotated[Annotated[str, Meta(max_length=256)] | None, Meta(
        description="Sent to the client with the event `kicked`; 123 bytes of it also in the CLOSE frame.",
        examples=["spam"], extra={"expected": "a text of at most 256 characters"},
    )] = None  # fmt: skip


class Kicked(msgspec.Struct, tag_field="status", tag="success"):
    """A client was kicked."""

    client_id: str


class Disconnected(msgspec.Struct, tag_field="status", tag="success"):
    """A user's connections were closed."""

    disconnected: int
    """How many; 0 if the user is not here."""


class ClientCalls:
    """Lists clients, and sends them away. Loop thread only.

    Args:
        registry: who is here.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self.endpoints: Final = (
            Endpoint(
                "GET", "/api/clients", "read", "Connected clients, oldest first", self.page, ClientPage,
                query=ClientQuery,
            ),
            Endpoint("GET", "/api/clients/{id}", "read", "One client", self.show, ClientInfo, errors=(404,)),
            Endpoint(
                "POST", "/api/clients/{id}/kick", "admin",
                "Sends `kicked`, then closes with 4403: the client stays away", self.kick, Kicked,
                body=Reason, errors=(404,),
            ),
            Endpoint(
                "POST", "/api/users/{id}/disconnect", "admin", "Kicks all connections of a user",
                self.disconnect_user, Disconnected, body=Reason,
            ),
        )  # fmt: skip

    async def page(self, request: web.Request) -> ClientPage:
        query = read_query(request, ClientQuery)
        if query.user_id is None:
            check_cursor(query.after)
            total = len(self._registry.clients)
            clients, more = self._registry.page(query.after, query.limit)
        else:
            of_user = self._registry.clients_of(query.user_id)
            total = len(of_user)
            clients, more = page_of(self._registry.clients, of_user, query)
        return ClientPage(describe(clients, ClientInfo), total, clients[-1].id if more else None)

    async def show(self, request: web.Request) -> ClientInfo:
        return describe([self._find(request)], ClientInfo)[0]

    async def kick(self, request: web.Request) -> Kicked:
        body = await read_body(request, Reason)
        client = self._find(request)
        client.kick(body.reason or "")
        return Kicked(client.id)

    async def disconnect_user(self, request: web.Request) -> Disconnected:
        body = await read_body(request, Reason)
        clients = [*self._registry.clients_of(request.match_info["id"])]  # kicking takes them out
        for client in clients:
            client.kick(body.reason or "")
        return Disconnected(len(clients))

    def _find(self, request: web.Request) -> Client:
        client = self._registry.clients.get(request.match_info["id"])
        if client is None:
            raise not_found("no client with this id is connected")
        return client


def page_of(
    everybody: dict[str, Client], some: dict[Client, Any], query: PageQuery
) -> tuple[list[Client], bool]:
    """One page of some of the clients, which are in no order, by their ids, and whether more follow."""
    check_cursor(query.after)
    return page_among(everybody, some, query.after, query.limit)


def check_cursor(after: str | None) -> None:
    """Refuses a cursor that this server never gave.

    Raises:
        BadField: it is none, or from before a restart.
    """
    if after is not None and not is_own_id(after):
        raise BadField("after", CURSOR_EXPECTED, '{"after":"5f0c2b91aa1c"}')
