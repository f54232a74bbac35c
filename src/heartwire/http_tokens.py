"""Tokens in the HTTP API: taking them back before their end."""

from __future__ import annotations

import time
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final

import msgspec
from aiohttp import web
from msgspec import Meta

from heartwire.http_endpoint import ApiError, BadField, Endpoint, Request, read_body
from heartwire.messages import rfc3339
from heartwire.revocation import RevocationsFull

if TYPE_CHECKING:
    from heartwire.tokens import Tokens

__all__ = ["TokenCalls"]

CLOCKS_APART_S: Final = 60.0
INSTANT_EXAMPLE: Final = "2025-05-01T10:00:00Z"
YEAR_9999_S: Final = 253_370_764_800.0  # its beginning


class Revocation(Request):
    """Which tokens: one by `jti`, a user's, or all that were issued before an instant."""

    jti: Annotated[Annotated[str, Meta(min_length=1, max_length=256)] | None, Meta(
        description="The token with this claim `jti`.",
        examples=["7d0c4c1f"], extra={"expected": "1 to 256 characters"},
    )] = None  # fmt: skip
    user_id: Annotated[Annotated[str, Meta(min_length=1, max_length=128)] | None, Meta(
        description="The tokens of this user (claim `sub`).",
        examples=["alice"], extra={"expected": "the id of a user, 1 to 128 characters"},
    )] = None  # fmt: skip
    issued_before: Annotated[Annotated[datetime, Meta(tz=True)] | None, Meta(
        description="Those issued (claim `iat`) before this instant; of everybody, without `user_id`. "
        "Left out: a user's tokens up to now.",
        examples=[INSTANT_EXAMPLE], extra={"expected": "an instant in RFC 3339 that is not in the future"},
    )] = None  # fmt: skip
    expires_at: Annotated[Annotated[datetime, Meta(tz=True)] | None, Meta(
        description="When the last of the tokens has expired by itself, so that the revocation can be "
        "forgotten. Left out: after `--revocation-time`.",
        examples=["2025-05-02T10:00:00Z"], extra={"expected": "an instant in RFC 3339 that is to come"},
    )] = None  # fmt: skip


class Revoked(msgspec.Struct, tag_field="status", tag="success"):
    """The tokens are refused from now on."""

    disconnected: int
    """Open connections that were closed with 4410."""
    remembered_until: str | None
    """When the revocation is forgotten; null: not before the process ends."""


class TokenCalls:
    """Revokes tokens. Loop thread only.

    Args:
        tokens: of the server's clients.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self.endpoints: Final = (
            Endpoint(
                "POST", "/api/tokens/revoke", "admin",
                "Takes tokens back: refuses them, and closes their connections with 4410",
                self.revoke, Revoked, body=Revocation, errors=(507,),
            ),
        )  # fmt: skip

    async def revoke(self, request: web.Request) -> Revoked:
        body = await read_body(request, Revocation)
        now = time.time()
        before = None if body.issued_before is None else body.issued_before.timestamp()
        until = None if body.expires_at is None else body.expires_at.timestamp()
        if body.jti is None and body.user_id is None and before is None:
            raise BadField("body", "`jti`, `user_id` or `issued_before`", '{"jti":"7d0c4c1f"}')
        if body.jti is not None and (body.user_id is not None or before is not None):
            raise BadField("jti", "no `user_id` or `issued_before` beside it", '{"jti":"7d0c4c1f"}')
        if before is not None and before > now + CLOCKS_APART_S:
            example = f'{{"issued_before":"{INSTANT_EXAMPLE}"}}'
            raise BadField("issued_before", "an instant that is not in the future", example)
        if until is not None and not now < until < YEAR_9999_S:
            example = '{"expires_at":"2025-05-02T10:00:00Z"}'
            raise BadField("expires_at", "an instant that is to come", example)
        try:
            disconnected, until = await self._tokens.revoke(
                jti=body.jti, user_id=body.user_id, issued_before=before, until=until
            )
        except RevocationsFull:
            raise ApiError(
                507, "revocations_full",
                "nothing was revoked: as many revocations are remembered as fit (--revocation-limit)",
            ) from None  # fmt: skip
        return Revoked(disconnected, None if until is None else rfc3339(until))
