"""Keys that an identity provider publishes at a URL: a JWK Set, fetched again and again.

One task a server. Keys are asked for at the start, every `refresh_s`, and, at most once a minute, when a
token names one that is not known: then the handshakes with such tokens wait for the answer. While the URL
does not answer, the keys that are known stay, and it is asked again with growing pauses.

Sources: RFC 7517 section 5; OpenID Connect Core section 10.1.1 (rotation of signing keys).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Final

import aiohttp
from yarl import URL

from heartwire._version import __version__
from heartwire.keys import UnfitKey, VerificationKey, jwk_keys, usable

__all__ = ["JwksUrl"]

SIZE_LIMIT: Final = 256 * 1024  # bytes; sets of real providers have 2 to 10 KiB
UNKNOWN_KEY_PAUSE_S: Final = 60.0
RETRY_MOST_S: Final = 60.0

logger: logging.Logger = logging.getLogger("heartwire.jwks")


class JwksError(Exception):
    """Keys could not be had this time. Says why."""


def retry_pause(failures: int) -> float:
    """Seconds to the next attempt after so many failures in a row: 1, 2, 4, … or half of that, by chance."""
    return min(RETRY_MOST_S, 2.0 ** min(failures - 1, 10)) * random.uniform(0.5, 1.0)


class JwksUrl:
    """The keys of one URL. Loop thread only.

    Args:
        url: http or https.
        algorithms: accepted ones: a set without a key for them is taken for a mistake.
        on_keys: takes the keys whenever they are not those of the last time.
        timeout_s: for the whole answer.
        refresh_s: between two successful fetches, give or take a tenth.
        clock: monotonic seconds.

    Attributes:
        fetched: how often keys came.
        failed: how often they did not.
        fetched_at: Unix time of the last success; None before the first.
        problem: why the last fetch failed; None if it did not.
    """

    def __init__(
        self,
        url: str,
        algorithms: frozenset[str],
        on_keys: Callable[[Sequence[VerificationKey]], None],
        *,
        timeout_s: float,
        refresh_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = URL(url)
        self._algorithms = algorithms
        self._on_keys = on_keys
        self._timeout_s = timeout_s
        self._refresh_s = refresh_s
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._round: asyncio.Future[None] | None = None
        """Done when the fetch that is under way, or about to begin, has ended."""
        self._wake = asyncio.Event()
        self._asked_at = -UNKNOWN_KEY_PAUSE_S
        self._digest = b""
        self.fetched: int = 0
        self.failed: int = 0
        self.fetched_at: float | None = None
        self.problem: str | None = None

    def start(self) -> None:
        """Begins to fetch, in the running loop."""
        loop = asyncio.get_running_loop()
        self._asked_at = self._clock() - UNKNOWN_KEY_PAUSE_S
        self._round = loop.create_future()
        self._task = loop.create_task(self._run())

    async def stop(self) -> None:
        """Ends it. Whoever waits is let go."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None

    # -------------------------------------------------------------- for tokens whose key is not known

    def may_learn(self) -> bool:
        """Whether a fetch is under way, or may be begun for an unknown key now."""
        return self._task is not None and (
            self._round is not None or self._clock() - self._asked_at >= UNKNOWN_KEY_PAUSE_S
        )

    async def learn(self, timeout_s: float) -> bool:
        """Waits for the fetch under way, or begins one; False if none may be begun yet, or time is over."""
        if not self.may_learn() or timeout_s <= 0:
            return False
        if self._round is None:
            self._asked_at = self._clock()
            self._round = asyncio.get_running_loop().create_future()
            self._wake.set()
        ended, _ = await asyncio.wait((self._round,), timeout=timeout_s)
        return bool(ended)

    # -------------------------------------------------------------- fetching

    async def _run(self) -> None:
        failures = 0
        while True:
            if self._round is None:
                self._round = asyncio.get_running_loop().create_future()
            self._wake.clear()
            try:
                self._take(await self._fetch())
                failures = 0
                delay = self._refresh_s * random.uniform(0.9, 1.1)
            except Exception as error:
                if not isinstance(error, JwksError):
                    logger.exception("fetching keys failed")
                failures += 1
                self._failed(str(error) if isinstance(error, JwksError) else "internal error")
                delay = retry_pause(failures)
            finally:
                ended, self._round = self._round, None
                ended.set_result(None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._wake.wait()

    async def _fetch(self) -> bytes:
        headers = {
            "Accept": "application/jwk-set+json, application/json",
            "Accept-Encoding": "identity",  # and nothing is inflated: the limit is that of the keys
            "User-Agent": f"heartwire/{__version__}",
        }
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, headers=headers, auto_decompress=False) as session,
                session.get(self._url, allow_redirects=False) as answer,
            ):
                if 300 <= answer.status < 400:
                    raise JwksError(f"it redirects ({answer.status}): configure the address it redirects to")
                if answer.status != 200:
                    raise JwksError(f"it answers {answer.status}")
                document = bytearray()
                async for piece in answer.content.iter_any():
                    document += piece
                    if len(document) > SIZE_LIMIT:
                        raise JwksError(f"its answer is larger than {SIZE_LIMIT} bytes")
                return bytes(document)
        except TimeoutError:
            raise JwksError(f"it does not answer within {self._timeout_s:g} s") from None
        except aiohttp.ClientConnectorCertificateError:
            raise JwksError("its certificate is not trusted") from None
        except (aiohttp.ClientError, OSError) as error:
            # Not its text, which may hold the address with a key in its query.
            raise JwksError(f"it cannot be reached ({type(error).__name__})") from None

    def _take(self, document: bytes) -> None:
        digest = sha256(document).digest()
        if digest != self._digest:
            try:
                keys, problems = jwk_keys(document, with_secrets=False)
            except UnfitKey as error:
                raise JwksError(str(error)) from None
            if not usable(keys, self._algorithms):
                why = "; ".join(problems[:3]) or f"none is for {', '.join(sorted(self._algorithms))}"
                raise JwksError(f"it holds no key that is of use: {why}")
            for problem in problems[:10]:
                logger.warning("JWKS %s: %s", self._place, problem)
            logger.info("JWKS %s: %d keys", self._place, len(keys))
            self._digest = digest
            self._on_keys(keys)
        elif self.problem is not None:
            logger.info("JWKS %s: it answers again, with the same keys", self._place)
        self.problem = None
        self.fetched += 1
        self.fetched_at = time.time()

    def _failed(self, problem: str) -> None:
        self.failed += 1
        if problem != self.problem:  # once, and not at every attempt
            kept = "the keys known so far stay" if self._digest else "there are no keys yet"
            logger.warning("JWKS %s: %s; %s", self._place, problem, kept)
        self.problem = problem

    @property
    def _place(self) -> str:
        """The address without its query, for the log."""
        return str(self._url.with_query(None))
