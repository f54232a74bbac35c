"""Broadcasts by the backend: to a channel, a user, a client, everybody; one or a list of them, each once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple

import msgspec
from aiohttp import web
from msgspec import Meta

from heartwire.http_endpoint import (
    ApiError,
    BadField,
    Endpoint,
    Request,
    bad_json,
    decode,
    example,
    json_answer,
    not_found,
)
from heartwire.messages import (
    CHANNEL_EXPECTED,
    CHANNEL_NAME,
    EVENT_EXPECTED,
    EVENT_NAME,
    OWN_EVENTS,
    encode_event,
)

if TYPE_CHECKING:
    from heartwire.brokers import Broker
    from heartwire.registry import Registry

__all__ = ["Broadcast", "IdempotencyKeys", "PublishCalls"]

BATCH_MOST: Final = 1000
TURN: Final = 1000  # recipients after which a batch lets others have their turn
KEYS_KEPT: Final = 10_000
KEPT_S: Final = 300.0

BroadcastType = Literal["channel", "global", "authenticated", "user", "user_except", "client"]

OTHER_EVENT: Final = f"{EVENT_EXPECTED}, and none of the server's own events"


class Broadcast(Request):
    """An event for many clients."""

    event: Annotated[str, Meta(
        pattern=r"^[A-Za-z0-9_.:\-]{1,64}$", description="What clients find in `event`.",
        examples=["news"], extra={"expected": OTHER_EVENT},
    )] = "broadcast"  # fmt: skip
    data: Annotated[msgspec.Raw | msgspec.UnsetType, Meta(
        description="Any JSON value, passed on byte for byte; null if left out.",
        examples=[{"text": "Hello"}], extra={"expected": "a JSON value"},
    )] = msgspec.UNSET  # fmt: skip
    channel: Annotated[Annotated[str, Meta(pattern=r"^[A-Za-z0-9_\-=@,.;:/]{1,200}$")] | None, Meta(
        description="The channel; also with another `broadcast_type` it stands in the event.",
        examples=["lobby"], extra={"expected": CHANNEL_EXPECTED},
    )] = None  # fmt: skip
    user_id: Annotated[Annotated[str, Meta(min_length=1, max_length=128)] | None, Meta(
        description="The user, or with `user_except` the one who is left out.",
        examples=["alice"], extra={"expected": "the id of a user, 1 to 128 characters"},
    )] = None  # fmt: skip
    client_id: Annotated[Annotated[str, Meta(min_length=1, max_length=128)] | None, Meta(
        description="The client.", examples=["5f0c2b91aa1c"], extra={"expected": "the id of a client"},
    )] = None  # fmt: skip
    broadcast_type: Annotated[BroadcastType | None, Meta(
        description="Who gets it. If left out: `client` if there is a `client_id`, else `user` if there is a "
        "`user_id`, else `channel` if there is one, else `global`. `user_except` is everybody, or with "
        "`channel` its members, but that user.",
        examples=["global"],
        extra={"expected": "one of channel, global, authenticated, user, user_except, client"},
    )] = None  # fmt: skip
    idempotency_key: Annotated[Annotated[str, Meta(min_length=1, max_length=128)] | None, Meta(
        description="Within five minutes the same key with the same body is not sent again: the first answer "
        "comes back; with another body 409.",
        examples=["order-4711"], extra={"expected": "1 to 128 characters"},
    )] = None  # fmt: skip


class Sent(msgspec.Struct, tag_field="status", tag="success"):
    """It was queued."""

    type: BroadcastType
    recipients: int
    """For how many clients; 0 if nobody was there."""


class NotSent(msgspec.Struct, tag_field="status", tag="error"):
    """One broadcast of a batch was refused."""

    code: str
    message: str


class _Kept(NamedTuple):
    body: bytes  # digest
    answer: Sent
    until: float


class IdempotencyKeys:
    """Answers that were given, by API key and idempotency key; the oldest go when there are too many.

    Args:
        clock: () -> seconds, monotonic.
        kept: the most that are remembered.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic, kept: int = KEYS_KEPT) -> None:
        self._clock = clock
        self._most = kept
        # All live equally long: the oldest first.
        self._answers: OrderedDict[tuple[str, str], _Kept] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def find(self, owner: str, key: str, body: bytes) -> Sent | None:
        """The first answer to the same request; None if it is new.

        Raises:
            ApiError: 409, the key was used for another body.
        """
        self._expire()
        kept = self._answers.get((owner, key))
        if kept is None:
            return None
        if kept.body != body:
            message = "this idempotency_key had another body within the last five minutes: choose a new one"
            raise ApiError(409, "idempotency_conflict", message)
        return kept.answer

    def keep(self, owner: str, key: str, body: bytes, answer: Sent) -> None:
        """Remembers an answer for five minutes."""
        self._answers[owner, key] = _Kept(body, answer, self._clock() + KEPT_S)
        if len(self._answers) > self._most:
            self._answers.popitem(last=False)

    def _expire(self) -> None:
        now = self._clock()
        while self._answers:
            oldest = next(iter(self._answers))
            if self._answers[oldest].until > now:
                return
            del self._answers[oldest]


class PublishCalls:
    """Sends what the backend has for clients. Loop thread only.

    Args:
        registry: knows which clients are here.
        broker: carries what is sent.
        owner_of: whose idempotency keys a request uses: something that differs between API keys.
    """

    def __init__(
        self, registry: Registry, broker: Broker, owner_of: Callable[[web.Request], str]
    ) -> None:
        self._registry = registry
        self._broker = broker
        self._owner_of = owner_of
        self.keys: IdempotencyKeys = IdempotencyKeys()
        self.endpoints: Final = (
            Endpoint(
                "POST", "/api/broadcast", "publish", "Sends an event to many clients", self.broadcast, Sent,
                body=Broadcast, errors=(404, 409, 413),
            ),
            Endpoint(
                "POST", "/api/batch", "publish",
                f"At most {BATCH_MOST} broadcasts, in order, an answer for each", self.batch, Sent | NotSent,
                body=Broadcast, batch=True, errors=(413,),
            ),
        )  # fmt: skip

    async def broadcast(self, request: web.Request) -> Sent:
        body = await request.read()
        if not body:
            raise BadField("body", "a JSON object", example(Broadcast))
        return self._once(self._owner_of(request), decode(body, Broadcast))

    async def batch(self, request: web.Request) -> web.Response:
        """Each for itself: one that is refused does not keep the others from being sent."""
        body = await request.read()
        try:
            str(body, "utf-8")
            items = msgspec.json.decode(body, type=list[msgspec.Raw])
        except msgspec.ValidationError:
            raise BadField("body", "a list of broadcasts", f"[{example(Broadcast)}]") from None
        except Exception as error:
            raise bad_json(error) from None
        if len(items) > BATCH_MOST:
            raise BadField("body", f"a list of at most {BATCH_MOST} broadcasts", f"[{example(Broadcast)}]")
        owner = self._owner_of(request)
        answers: list[Sent | NotSent] = []
        work = 0
        for item in items:
            try:
                answer = self._once(owner, decode(item, Broadcast))
                answers.append(answer)
                work += answer.recipients
            except ApiError as error:
                answers.append(NotSent(error.info.code, error.info.message))
            if work >= TURN:
                await asyncio.sleep(0)
                work = 0
        return json_answer(answers)

    def _once(self, owner: str, body: Broadcast) -> Sent:
        _check(body)
        key = body.idempotency_key
        if key is None:
            return self._send(body)
        digest = _digest(body)
        answer = self.keys.find(owner, key, digest)
        if answer is None:
            answer = self._send(body)
            self.keys.keep(owner, key, digest, answer)
        return answer

    def _send(self, body: Broadcast) -> Sent:
        kind = body.broadcast_type or _inferred(body)
        data = msgspec.Raw(b"null") if body.data is msgspec.UNSET else body.data
        channel = msgspec.UNSET if body.channel is None else body.channel
        return Sent(kind, self._publish(kind, body, encode_event(body.event, data, channel=channel)))

    def _publish(self, kind: BroadcastType, body: Broadcast, payload: bytes) -> int:
        broker = self._broker
        match kind:
            case "channel":
                return broker.to_channel(_needed(body, "channel", kind), payload)
            case "user":
                return broker.to_user(_needed(body, "user_id", kind), payload)
            case "client":
                client_id = _needed(body, "client_id", kind)
                if client_id not in self._registry.clients:
                    raise not_found("no client with this client_id is connected")
                return broker.to_client(client_id, payload)
            case "user_except":
                user_id = _needed(body, "user_id", kind)
                if body.channel is None:
                    return broker.to_all(payload, except_user=user_id)
                return broker.to_channel(body.channel, payload, except_user=user_id)
            case "authenticated":
                return broker.to_all(payload, authenticated=True)
            case "global":
                return broker.to_all(payload)


def _inferred(body: Broadcast) -> BroadcastType:
    if body.client_id is not None:
        return "client"
    if body.user_id is not None:
        return "user"
    return "global" if body.channel is None else "channel"


def _check(body: Broadcast) -> None:
    """What the patterns do not see: `$` also matches before a line feed."""
    if not EVENT_NAME.match(body.event) or body.event in OWN_EVENTS:
        raise BadField("event", OTHER_EVENT, '{"event":"news"}')
    if body.channel is not None and not CHANNEL_NAME.match(body.channel):
        raise BadField("channel", CHANNEL_EXPECTED, '{"channel":"lobby"}')


def _needed(body: Broadcast, field: str, kind: BroadcastType) -> str:
    value: str | None = getattr(body, field)
    if value is None:
        what = field.removesuffix("_id")
        expected = f"the {what} that a broadcast of type {kind} goes to"
        if kind == "user_except":
            expected = "the user who is left out"
        sample = {"channel": "lobby", "user_id": "alice", "client_id": "5f0c2b91aa1c"}[field]
        raise BadField(field, expected, f'{{"broadcast_type":"{kind}","{field}":"{sample}"}}')
    return value


def _digest(body: Broadcast) -> bytes:
    """Of what the body says: the order of keys and white space make no difference."""
    data = b"null" if body.data is msgspec.UNSET else bytes(body.data)
    with contextlib.suppress(Exception):  # numbers beyond a float: compared as they were written
        data = msgspec.json.encode(msgspec.json.decode(data), order="deterministic")
    plain = (body.event, body.channel, body.user_id, body.client_id, body.broadcast_type)
    return hashlib.blake2b(msgspec.json.encode(plain) + data, digest_size=16).digest()
