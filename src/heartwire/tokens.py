"""Tokens of a server's clients: judged when they come, replaced in place, watched until they end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final

from heartwire.actions import Answer, expires_text
from heartwire.auth import Credentials, TokenVerifier
from heartwire.client import GATED, Client
from heartwire.errors import ActionError, ConnectionClosed, TokenError
from heartwire.messages import encode_event

if TYPE_CHECKING:
    from heartwire.config import ServerConfig
    from heartwire.dispatch import Dispatcher

__all__ = ["Tokens"]

EXPIRY_WARNING_S: Final = 60  # a client that renews by a round trip to its backend has time for retries


class Tokens:
    """The tokens of one server's clients. Loop thread only.

    Args:
        config: the server's options.
        verifier: None if there is no key (then only `@server.authenticate` or anonymous clients).
        dispatcher: the sink whose connections the clients have.
    """

    def __init__(
        self, config: ServerConfig, verifier: TokenVerifier | None, dispatcher: Dispatcher
    ) -> None:
        self._verifier = verifier
        self._dispatcher = dispatcher
        # A token that the leeway lets in must not end at once for the same difference of clocks.
        self._grace_s = max(config.token_grace, config.jwt_leeway)

    def verify(self, token: str) -> Credentials:
        """Who the bearer of a token is.

        Raises:
            TokenError: it is not accepted.
        """
        if self._verifier is None:
            raise TokenError("token_invalid", "this server accepts no tokens")
        return self._verifier.verify(token)

    def authenticate(self, client: Client, token: str) -> Answer | Awaitable[Answer]:
        """The action `authenticate`: the first token of a client, or a new one for the same user.

        Raises:
            ActionError: `token_invalid`, `token_expired` or `user_mismatch`.
        """
        try:
            credentials = self.verify(token)
        except TokenError as error:
            raise ActionError(error.code, error.detail) from None
        before = client.credentials
        if before is not None and before.user_id != credentials.user_id:
            detail = "the token is another user's: open a connection of its own for it"
            raise ActionError("user_mismatch", detail)
        client.credentials = credentials
        if before is None:
            self._dispatcher.registry.add_user(client)
        conn = client.connection
        conn.special &= ~GATED
        conn.set_due("opening", None)
        self.watch(client)
        answer = "authenticated", {
            "user_id": credentials.user_id,
            "username": credentials.username,
            "expires_at": expires_text(credentials.expires_at),
        }
        revising = self._dispatcher.actions.revise(client)
        return answer if revising is None else _after(revising, answer)

    def watch(self, client: Client) -> None:
        """Sets the deadline for the warning: a minute before the token ends, or in half of what is left."""
        expires_at = None if client.credentials is None else client.credentials.expires_at
        if expires_at is None:
            client.connection.set_due("token", None)
        else:
            left = expires_at - time.time()
            client.connection.set_due("token", max(left - EXPIRY_WARNING_S, left / 2, 0.001))

    def due(self, client: Client) -> None:
        """The deadline passed. The wall clock decides, whatever it was set to since: warn, wait, close."""
        expires_at = None if client.credentials is None else client.credentials.expires_at
        if expires_at is None:
            return
        left = expires_at - time.time()
        with contextlib.suppress(ConnectionClosed):
            if left > EXPIRY_WARNING_S + 1:
                self.watch(client)
            elif left + self._grace_s > 0:
                client.connection.set_due("token", left + self._grace_s + 0.001)  # rounded up, not down
                if left > 0.001 and self._dispatcher.speaks_json:
                    warning = {"expires_at": expires_text(expires_at)}
                    client.send_text_bytes(encode_event("token_expiring", warning))
            else:
                client.connection.close(4410, "token expired", "token_expired")


async def _after(revising: Awaitable[None], answer: Answer) -> Answer:
    await revising
    return answer
