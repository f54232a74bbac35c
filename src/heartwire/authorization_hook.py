"""The backend's word on joins and publishes: `--authorize-url` (docs/webhooks.md).

To the server it is what `@server.authorize` registers: a function that returns a bool, or an awaitable of
one while the backend is asked; the client's further messages wait meanwhile, nobody else's do.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

import aiohttp
import msgspec

from heartwire.credentials import matches_pattern
from heartwire.logs import RateLimited
from heartwire.webhook_delivery import hook_session, signed_headers

if TYPE_CHECKING:
    from heartwire.client import Client
    from heartwire.config import ServerConfig
    from heartwire.metrics import HookFigures

__all__ = ["AuthorizationHook"]

CONNECTIONS: Final = 100  # requests under way; more wait, within their time-out
ANSWER_BYTES: Final = 4096

Decide = Callable[["Client", str, str], bool]

logger: logging.Logger = logging.getLogger("heartwire.webhooks")


class _Decision(msgspec.Struct):
    allow: bool


class AuthorizationHook:
    """Asks `authorize_url`. Loop thread only.

    Args:
        config: its `authorize_` options; there is an `authorize_url`.
        figures: where it counts.
        otherwise: decides about the channels and verbs that the backend is not asked about.
    """

    def __init__(self, config: ServerConfig, figures: HookFigures, otherwise: Decide) -> None:
        assert config.authorize_url is not None
        self._url = config.authorize_url
        self._key = config.webhook_key()
        self._timeout_s = config.authorize_timeout
        self._fail_open = config.authorize_fail == "open"
        self._verbs = frozenset(config.authorize_verbs)
        self._channels = config.authorize_channels
        self._figures = figures
        self._otherwise = otherwise
        self._session: aiohttp.ClientSession | None = None
        self._log = RateLimited(logger)

    def start(self) -> None:
        """Begins, in the running loop."""
        self._session = hook_session(self._timeout_s, CONNECTIONS)

    async def stop(self) -> None:
        """Closes its connections. Idempotent."""
        if self._session is not None:
            await self._session.close()
            self._log.tell(at_once=True)

    def __call__(self, client: Client, verb: str, channel: str) -> bool | Awaitable[bool]:
        """Whether the client may; the form of `@server.authorize`."""
        if verb not in self._verbs or not any(matches_pattern(p, channel) for p in self._channels):
            return self._otherwise(client, verb, channel)
        return self._ask(client, verb, channel)

    async def _ask(self, client: Client, verb: str, channel: str) -> bool:
        assert self._session is not None
        question = {
            "verb": verb, "channel": channel, "client_id": client.id, "user_id": client.user_id,
            "username": client.username, "remote_address": client.remote_address[0],
        }  # fmt: skip
        body = msgspec.json.encode(question)
        headers = signed_headers(self._key, "ask-" + secrets.token_hex(12), body)
        try:
            async with self._session.post(
                self._url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status == 403:
                    return self._answered(False)
                if response.status != 200:
                    return self._failed(f"status {response.status}")
                answer = await response.content.read(ANSWER_BYTES)
                while not response.content.at_eof() and len(answer) < ANSWER_BYTES:
                    answer += await response.content.read(ANSWER_BYTES - len(answer))
                return self._answered(msgspec.json.decode(answer, type=_Decision).allow)
        except TimeoutError:
            return self._failed(f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return self._failed(str(error) or type(error).__name__)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return self._failed('the answer is not {"allow": true} or {"allow": false}')

    def _answered(self, allow: bool) -> bool:
        self._figures.answers["allowed" if allow else "denied"] += 1
        return allow

    def _failed(self, why: str) -> bool:
        self._figures.answers["failed"] += 1
        self._log.warning(
            "the authorization hook gave no answer, so it was %s: %s",
            "allowed" if self._fail_open else "refused", why,
        )  # fmt: skip
        return self._fail_open
