"""Tokens of a server's clients: judged when they come, replaced in place, watched until they end, revoked."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Iterable
from typing import TYPE_CHECKING, Any, Final

from heartwire.actions import Answer, expires_text
from heartwire.auth import KeyUnknown
from heartwire.client import GATED, Client
from heartwire.credentials import Credentials
from heartwire.errors import ActionError, ConnectionClosed, TokenError
from heartwire.messages import encode_event
from heartwire.revocation import Revocations

if TYPE_CHECKING:
    from heartwire.config import ServerConfig
    from heartwire.dispatch import Dispatcher
    from heartwire.verification import Verification

__all__ = ["Tokens"]

WAITING_MOST: Final = 4096  # a task each, about 4 KB: invented key ids must not fill the memory
SLICE_S: Final = 0.005  # how long clients are looked through before the loop may do something else


class Tokens:
    """The tokens of one server's clients. Loop thread only.

    Args:
        config: the server's options.
        verification: None if there is no key (then only `@server.authenticate` or anonymous clients).
        dispatcher: the sink whose connections the clients have.
    """

    def __init__(
        self, config: ServerConfig, verification: Verification | None, dispatcher: Dispatcher
    ) -> None:
        self._verifier = None if verification is None else verification.verifier
        self._dispatcher = dispatcher
        self._warning_s = config.token_expiring_before
        self._connections_most = config.max_connections_per_user
        # A token that the leeway lets in must not end at once for the same difference of clocks.
        self._grace_s = max(config.token_grace, config.jwt_leeway)
        self._remember_s = float("inf") if config.allow_no_exp else config.revocation_time
        self.revocations: Revocations = Revocations(config.revocation_limit)

    # -------------------------------------------------------------- judging

    def verify(self, token: str) -> Credentials:
        """Who the bearer of a token is.

        Raises:
            TokenError: it is not accepted.
            KeyUnknown: `verify_later` may find a key for it.
        """
        if self._verifier is None:
            raise TokenError("token_invalid", "this server accepts no tokens")
        credentials = self._verifier.verify(token)
        if self.revocations and self.revocations.covers(credentials):
            raise _revoked()
        return credentials

    async def verify_later(self, token: str) -> Credentials:
        """As `verify`, after waiting for new keys. `keys_missing` if too many wait already."""
        assert self._verifier is not None
        metrics = self._dispatcher.metrics
        if metrics.waiting_for_keys >= WAITING_MOST:
            raise TokenError("keys_missing", "Keys are being fetched, and many wait for them: try again.")
        metrics.waiting_for_keys += 1
        try:
            credentials = await self._verifier.verify_later(token)
        finally:
            metrics.waiting_for_keys -= 1
        if self.revocations.covers(credentials):
            raise _revoked()
        return credentials

    def user_full(self, user_id: str) -> bool:
        """Has the user as many connections as they may?"""
        most = self._connections_most
        return most > 0 and len(self._dispatcher.registry.clients_of(user_id)) >= most

    def authenticate(self, client: Client, token: str) -> Answer | Awaitable[Answer]:
        """The action `authenticate`: the first token of a client, or a new one for the same user.

        The first one closes the connection (4429) if its user has as many as they may.

        Raises:
            ActionError: `token_invalid`, `token_expired` or `user_mismatch`.
        """
        try:
            credentials = self.verify(token)
        except KeyUnknown:
            return self._authenticate_later(client, token)
        except TokenError as error:
            raise _action_error(error) from None
        return self._authenticated(client, credentials)

    async def _authenticate_later(self, client: Client, token: str) -> Answer:
        try:
            credentials = await self.verify_later(token)
        except TokenError as error:
            raise _action_error(error) from None
        if not client.is_connected:  # it has left meanwhile, and must not come into the maps again
            conn = client.connection
            raise ConnectionClosed(conn.code or 1006, conn.reason or "", conn.cause or "peer_gone")
        answer = self._authenticated(client, credentials)
        return await answer if isinstance(answer, Awaitable) else answer

    def _authenticated(self, client: Client, credentials: Credentials) -> Answer | Awaitable[Answer]:
        before = client.credentials
        if before is not None and before.user_id != credentials.user_id:
            detail = "the token is another user's: open a connection of its own for it"
            raise ActionError("user_mismatch", detail)
        if before is None and self.user_full(credentials.user_id):
            self._dispatcher.refusals.tell("4429 user_full", client.remote_address)
            client.connection.close(4429, "user_full", "rate_limited")
            return None
        client.credentials = credentials
        if before is not None:
            self._dispatcher.metrics.tokens_renewed += 1
        else:
            self._dispatcher.registry.add_user(client)
            if self._dispatcher.webhooks is not None:
                self._dispatcher.webhooks.client_authenticated(client)
        conn = client.connection
        conn.special &= ~GATED
        conn.set_due("opening", None)
        self.watch(client)
        answer = "authenticated", {
            "user_id": credentials.user_id,
            "username": credentials.username,
            "expires_at": expires_text(credentials.expires_at),
        }
        revising = self._dispatcher.memberships.revise(client, before is None)
        return answer if revising is None else _after(revising, answer)

    # -------------------------------------------------------------- the end of a token

    def watch(self, client: Client) -> None:
        """Sets the deadline for the warning: so long before the token ends, or in half of what is left."""
        expires_at = None if client.credentials is None else client.credentials.expires_at
        if expires_at is None:
            client.connection.set_due("token", None)
        elif not self._warning_s:
            client.connection.set_due("token", max(expires_at - time.time() + self._grace_s, 0) + 0.001)
        else:
            left = expires_at - time.time()
            client.connection.set_due("token", max(left - self._warning_s, left / 2, 0.001))

    def due(self, client: Client) -> None:
        """The deadline passed. The wall clock decides, whatever it was set to since: warn, wait, close."""
        expires_at = None if client.credentials is None else client.credentials.expires_at
        if expires_at is None:
            return
        left = expires_at - time.time()
        with contextlib.suppress(ConnectionClosed):
            if left + self._grace_s <= 0:
                client.connection.close(4410, "token expired", "token_expired")
            elif left > self._warning_s + 1:
                self.watch(client)
            else:
                client.connection.set_due("token", left + self._grace_s + 0.001)  # rounded up, not down
                if left > 0.001 and self._warning_s and self._dispatcher.speaks_json:
                    warning = {"expires_at": expires_text(expires_at)}
                    client.send_text_bytes(encode_event("token_expiring", warning))

    # -------------------------------------------------------------- revoking

    async def revoke(
        self,
        *,
        jti: str | None = None,
        user_id: str | None = None,
        issued_before: float | None = None,
        until: float | None = None,
    ) -> tuple[int, float | None]:
        """Takes tokens back: they are refused from now on, and their open connections close with 4410.

        Args:
            jti: of the one token; or
            user_id: whose, and `issued_before` (Unix seconds; None: now) if not all of them; or
            issued_before: alone: of everybody.
            until: when the last of them has expired by itself; None: after the option `revocation_time`.
        Returns:
            How many connections were closed, and until when it is remembered; None: for ever.
        Raises:
            RevocationsFull: nothing was revoked.
        """
        now = time.time()
        if until is None:
            until = now + self._remember_s
        clients: Iterable[Client]
        if jti is not None:
            self.revocations.revoke_token(jti, until)
            clients = self._dispatcher.registry.clients.values()
        elif user_id is not None:
            self.revocations.revoke_user(user_id, now if issued_before is None else issued_before, until)
            clients = self._dispatcher.registry.clients_of(user_id)
        else:
            assert issued_before is not None
            self.revocations.revoke_before(issued_before)
            clients = self._dispatcher.registry.clients.values()
            until = float("inf")
        closed = await self._close_revoked(list(clients))
        return closed, None if until == float("inf") else until

    async def _close_revoked(self, clients: list[Client]) -> int:
        """Looks through clients a slice at a time: those who come meanwhile are judged when they come."""
        closed = 0
        end = time.monotonic() + SLICE_S
        for client in clients:
            credentials = client.credentials
            if credentials is not None and client.is_connected and self.revocations.covers(credentials):
                client.connection.close(4410, "token revoked", "token_revoked")
                closed += 1
            if time.monotonic() >= end:
                await asyncio.sleep(0)
                end = time.monotonic() + SLICE_S
        return closed


async def _after(revising: Awaitable[Any], answer: Answer) -> Answer:
    await revising
    return answer


def _revoked() -> TokenError:
    return TokenError("token_invalid", "The token was revoked.")


def _action_error(error: TokenError) -> ActionError:
    """`keys_missing` is none of the client's errors: it did nothing wrong, and may try again."""
    return ActionError("internal" if error.code == "keys_missing" else error.code, error.detail)
