"""Events on their way to the application's backend: signed, in batches, in order, and never in the way.

`put` only appends to a bounded queue. One task sends: the next batch goes when the receiver has taken the one
before it, so a receiver that is slow, or down, makes events wait, and in the end be dropped and counted. What
the receiver has to know is in docs/webhooks.md. Requests are signed as Standard Webhooks says.

Source: https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import logging
import random
import time
from collections import deque
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

import aiohttp

from heartwire._version import __version__
from heartwire.logs import RateLimited

if TYPE_CHECKING:
    from heartwire.metrics import HookFigures

__all__ = ["Delivery", "DeliveryLimits", "hook_session", "signed_headers"]

BACKOFF_S: Final = (0.5, 30.0)  # the first wait at most, and the longest; full jitter within
RETRY_AFTER_MOST_S: Final = 300.0
BATCH_BYTES: Final = 1 << 20  # a request is no longer, unless a single event is
ANSWER_BYTES: Final = 1 << 16  # of an answer that is read, so that the connection can be kept
ANSWER_S: Final = 1.0
CANCEL_AGAIN_S: Final = 1.0

logger: logging.Logger = logging.getLogger("heartwire.webhooks")


def signed_headers(key: bytes, message_id: str, body: bytes) -> dict[str, str]:
    """The headers of a request that is signed now.

    Args:
        key: what the signature is made with.
        message_id: of the delivery; the same when it is tried again.
        body: what is sent.
    """
    timestamp = str(int(time.time()))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, "sha256")
    return {
        "Content-Type": "application/json",
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": "v1," + base64.b64encode(digest).decode(),
    }


def hook_session(timeout_s: float, connections: int) -> aiohttp.ClientSession:
    """An HTTP client for hooks: verifies certificates, uses no cookies and no proxy of the environment."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections),
        timeout=aiohttp.ClientTimeout(total=timeout_s),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": f"heartwire/{__version__}"},
    )


@dataclass(frozen=True, slots=True)
class DeliveryLimits:
    """The bounds of a delivery: events and bytes that wait, events of a batch, and times in seconds."""

    events: int
    size_bytes: int
    batch: int
    delay_s: float
    timeout_s: float
    retry_s: float


class _Answer(NamedTuple):
    outcome: str
    """A label of `HookFigures.requests`."""
    detail: str
    retry_after_s: float = 0.0


class Delivery:
    """The queue and the task of one server. Loop thread only.

    Args:
        url: where batches go.
        key: signs them.
        limits: see there.
        figures: where it counts.
        run: tells this run of the server from others.
    """

    def __init__(self, url: str, key: bytes, limits: DeliveryLimits, figures: HookFigures, run: str) -> None:
        self._url = url
        self._key = key
        self._limits = limits
        self._figures = figures
        self._run = run
        self._queue: deque[bytes] = deque()
        self._batches = 0
        self._dropped_since = 0
        """Events dropped since the last batch that arrived: the next one tells."""
        self._some = asyncio.Event()
        self._enough = asyncio.Event()
        """For a batch at once: it is full, or the server ends."""
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._log = RateLimited(logger)

    def put(self, event: bytes) -> bool:
        """Queues an event, a JSON object. False: it was dropped, since as much waits as may."""
        figures = self._figures
        if (
            figures.queued >= self._limits.events
            or figures.queued_bytes + len(event) > self._limits.size_bytes
            or self._stopping.is_set()
        ):
            self._drop(1, "shutdown" if self._stopping.is_set() else "queue_full")
            return False
        self._queue.append(event)
        figures.queued += 1
        figures.queued_bytes += len(event)
        if figures.queued == 1:
            self._some.set()
        if figures.queued >= self._limits.batch:
            self._enough.set()
        return True

    def start(self) -> None:
        """Begins to deliver, in the running loop."""
        self._task = asyncio.get_running_loop().create_task(self._deliver_all())

    async def stop(self, patience_s: float) -> None:
        """Delivers what waits, for at most so many seconds; the rest is dropped and counted. Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        self._some.set()
        self._enough.set()
        await asyncio.wait((task,), timeout=patience_s)
        while not task.done():  # again, since an HTTP client may take a cancellation for its own time-out
            task.cancel()
            await asyncio.wait((task,), timeout=CANCEL_AGAIN_S)
        if left := len(self._queue):
            self._forget(left)
            self._drop(left, "shutdown")
        self._log.tell(at_once=True)

    # -------------------------------------------------------------- the task

    async def _deliver_all(self) -> None:
        async with hook_session(self._limits.timeout_s, connections=1) as session:
            while await self._something():
                count, body = self._next_batch()
                try:
                    await self._deliver(session, count, body)
                except Exception:  # a bug of ours must not end the task, nor be met again at once
                    self._log.exception("delivering a batch of events failed")
                    self._drop(count, "gave_up")
                self._forget(count)

    async def _something(self) -> bool:
        """Waits for a batch. False: there is nothing left, and the server ends."""
        await self._some.wait()
        if self._limits.delay_s:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._limits.delay_s):
                    await self._enough.wait()
        return bool(self._queue)

    def _next_batch(self) -> tuple[int, bytes]:
        count = size = 0
        for event in islice(self._queue, self._limits.batch):
            size += len(event)
            if count and size > BATCH_BYTES:
                break
            count += 1
        self._batches += 1
        head = f'{{"run":"{self._run}","batch":{self._batches},"dropped":{self._dropped_since},"events":['
        return count, head.encode() + b",".join(islice(self._queue, count)) + b"]}"

    def _forget(self, count: int) -> None:
        figures = self._figures
        for _ in range(count):
            figures.queued_bytes -= len(self._queue.popleft())
        figures.queued -= count
        if not self._stopping.is_set():
            if not self._queue:
                self._some.clear()
            if len(self._queue) < self._limits.batch:
                self._enough.clear()

    def _drop(self, count: int, reason: str) -> None:
        self._figures.dropped[reason] += count
        if reason != "queue_full" or not self._dropped_since:  # of a full queue once, not for each event
            self._log.warning("events for the webhook were dropped: %s", reason)
        self._dropped_since += count

    async def _deliver(self, session: aiohttp.ClientSession, count: int, body: bytes) -> None:
        """Sends a batch until it is taken, refused, or too old."""
        loop = asyncio.get_running_loop()
        message_id = f"{self._run}-{self._batches}"
        dropped = self._dropped_since
        end = loop.time() + self._limits.retry_s
        tries = 0
        while True:
            answer = await self._send(session, message_id, body)
            self._figures.requests[answer.outcome] += 1
            if answer.outcome == "ok":
                self._figures.delivered += count
                self._dropped_since -= dropped
                if tries or dropped:
                    logger.info("the webhook takes events again; %d were dropped meanwhile", dropped)
                return
            self._log.warning("the webhook did not take a batch of events: %s", answer.detail)
            if answer.outcome == "refused":
                self._drop(count, "refused")
                return
            left = end - loop.time()
            if left <= 0:
                self._drop(count, "gave_up")
                return
            most = min(BACKOFF_S[0] * 2 ** min(tries, 16), BACKOFF_S[1])
            tries += 1
            await self._pause(min(max(random.uniform(0, most), answer.retry_after_s), left))

    async def _pause(self, seconds: float) -> None:
        """Waits; when the server begins to end, a wait ends at once, and the next are short."""
        if self._stopping.is_set():
            await asyncio.sleep(min(seconds, BACKOFF_S[0]))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _send(self, session: aiohttp.ClientSession, message_id: str, body: bytes) -> _Answer:
        headers = signed_headers(self._key, message_id, body)
        try:
            async with session.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                await _read_away(response)
                return _judge(response)
        except TimeoutError:
            return _Answer("timeout", f"no answer within {self._limits.timeout_s:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return _Answer("unreachable", str(error) or type(error).__name__)


async def _read_away(response: aiohttp.ClientResponse) -> None:
    """Reads the answer's body, so that the connection can be kept; it means nothing."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(ANSWER_S):
            left = ANSWER_BYTES
            while left > 0 and (part := await response.content.read(left)):
                left -= len(part)


def _judge(response: aiohttp.ClientResponse) -> _Answer:
    """2xx is success; what will not change by trying again is refused; the rest is tried again."""
    status = response.status
    if 200 <= status < 300:
        return _Answer("ok", "")
    if status < 500 and status not in (408, 429):
        return _Answer("refused", f"status {status}")
    return _Answer("busy", f"status {status}", _retry_after_s(response.headers.get("Retry-After", "")))


def _retry_after_s(value: str) -> float:
    """Seconds that a Retry-After header asks for, within bounds; 0 for what is none (RFC 9110 10.2.3)."""
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), RETRY_AFTER_MOST_S)
    try:
        wanted = parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, OverflowError):
        return 0.0
    return min(max(wanted, 0.0), RETRY_AFTER_MOST_S)
