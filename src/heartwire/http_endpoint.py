"""What the calls of the HTTP API are made of: how each is described, what it reads, answers and refuses.

An `Endpoint` is one row of the API: routes are added from it, and `openapi` writes it down. Requests and
answers are msgspec Structs, so that what is checked, what is sent and what is documented cannot differ.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, get_type_hints

import msgspec
from aiohttp import web

__all__ = [
    "ApiError",
    "BadField",
    "Endpoint",
    "ErrorInfo",
    "Request",
    "decode",
    "error_answer",
    "json_answer",
    "not_found",
    "read_body",
    "read_query",
]

Scope = Literal["read", "publish", "admin"]
Handler = Callable[[web.Request], Awaitable[Any]]
Kind = TypeVar("Kind", bound="Request")

BODY_LIMIT: Final = 16 << 20  # bytes; a batch of large broadcasts


class Request(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Base of bodies and queries. An unknown field is refused: a misspelt `channel` must not reach everybody.

    Each field is annotated with a Meta that has `description`, `examples`, and `extra={"expected": …}`, the
    words that follow "expected" in an error.
    """


class ErrorInfo(msgspec.Struct):
    """Every answer that is no success."""

    code: str
    message: str


class ApiError(Exception):
    """A call is refused.

    Args:
        status: of the answer.
        code: a word for programs.
        message: what is wrong and what to do.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(status, code, message)
        self.status = status
        self.info: ErrorInfo = ErrorInfo(code, message)


class BadField(ApiError):
    """A field of a request cannot be used: names it, what was expected, and an example."""

    def __init__(self, field: str, expected: str, example: str) -> None:
        super().__init__(400, "bad_field", f"{field}: expected {expected}; example: {example}")


def not_found(what: str) -> ApiError:
    """404, as in "no client with this id is connected"."""
    return ApiError(404, "not_found", what)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One call.

    Args:
        method, path: of the route; `{name}` in the path is a parameter, described in `path_parameters`.
        scope: what an API key needs; None: no key is asked for.
        summary: one line.
        handler: (request) -> a value to be sent as JSON, or a Response.
        answers: the type of its answer; None: text, of the type `media`.
        body, query: what it reads; a body may be left out if all of its fields may.
        batch: the body is a list of `body`, and the answer one of `answers`.
        errors: statuses it may answer besides 400, 401 and 403.
        statuses: further statuses that come with `answers`.
        upgrade: it answers 101 and goes on as a WebSocket.
    """

    method: Literal["GET", "POST", "DELETE"]
    path: str
    scope: Scope | None
    summary: str
    handler: Handler
    answers: Any
    body: type[Request] | None = None
    query: type[Request] | None = None
    batch: bool = False
    errors: tuple[int, ...] = ()
    statuses: tuple[int, ...] = ()
    media: str = "text/plain"
    upgrade: bool = False


# -------------------------------------------------------------- answers


def json_answer(value: Any, status: int = 200) -> web.Response:
    """A response with a JSON body."""
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")


def error_answer(status: int, code: str, message: str) -> web.Response:
    """A response that refuses."""
    return json_answer(ErrorInfo(code, message), status)


# -------------------------------------------------------------- requests


async def read_body(request: web.Request, kind: type[Kind]) -> Kind:
    """The body as a Struct; an empty one is an empty object.

    Raises:
        ApiError: it is no JSON, or a field does not fit.
    """
    return decode(await request.read() or b"{}", kind)


def read_query(request: web.Request, kind: type[Kind]) -> Kind:
    """The query as a Struct.

    Raises:
        BadField: a parameter is unknown, does not fit, or is given twice.
    """
    for name in request.query:
        if len(request.query.getall(name)) > 1:
            raise _bad_field(kind, name, "one value only")
    try:
        return msgspec.convert(dict(request.query), kind, strict=False)
    except msgspec.ValidationError as error:
        raise _explain(kind, error) from None


def decode(data: bytes | msgspec.Raw, kind: type[Kind]) -> Kind:
    """JSON as a Struct. Its `Raw` fields are views of `data`, and valid UTF-8.

    Raises:
        ApiError: it is no JSON, or a field does not fit.
    """
    try:
        str(data, "utf-8")  # msgspec does not look into Raw  # type: ignore[arg-type]
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise _explain(kind, error) from None
    except Exception as error:  # DecodeError, RecursionError, UnicodeDecodeError
        raise bad_json(error) from None


def bad_json(error: Exception) -> ApiError:
    """400 for what is no JSON."""
    why = "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error) or "nested too deep"
    return ApiError(400, "bad_json", f"the body is not JSON: {why}")


_FIELD: Final = re.compile(r" - at `\$\.(\w+)")
_UNKNOWN: Final = re.compile(r"unknown field `(.*)`", re.DOTALL)
_MISSING: Final = re.compile(r"missing required field `(\w+)`")


def _explain(kind: type[Request], error: msgspec.ValidationError) -> ApiError:
    text = str(error)
    if found := _UNKNOWN.search(text):
        return _unknown_field(kind, found[1])
    if found := _FIELD.search(text) or _MISSING.search(text):
        return _bad_field(kind, found[1])
    return BadField("body", "a JSON object", example(kind))


def _bad_field(kind: type[Request], name: str, expected: str | None = None) -> BadField:
    meta = described(kind).get(name)
    if meta is None:
        return _unknown_field(kind, name)
    assert meta.extra is not None
    assert meta.examples is not None
    return BadField(name, expected or meta.extra["expected"], _json({name: meta.examples[0]}))


def _unknown_field(kind: type[Request], name: str) -> BadField:
    return BadField(repr(name[:64]), "one of the fields " + ", ".join(kind.__struct_fields__), example(kind))


def example(kind: type[Request]) -> str:
    """An object with an example of each of the first three fields, as JSON."""
    first = list(described(kind).items())[:3]
    return _json({name: meta.examples[0] for name, meta in first if meta.examples})


@functools.cache
def described(kind: type[Request]) -> Mapping[str, msgspec.Meta]:
    """What is said about each field."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name].__metadata__[-1] for name in kind.__struct_fields__}


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
