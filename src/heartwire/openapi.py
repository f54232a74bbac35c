"""The API as an OpenAPI document, made from the endpoints and the Structs that they read and answer.

Source: https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from heartwire._version import __version__
from heartwire.http_endpoint import Endpoint, ErrorInfo, Request

__all__ = ["document"]

REASONS: Final = {
    101: "Upgraded: a text message with JSON each second.",
    200: "Done.",
    400: "A field does not fit; the message names it, what was expected and an example.",
    401: "The API key is missing or wrong.",
    403: "The API key lacks the scope, or the server has no API key.",
    404: "There is nothing by that id.",
    409: "The idempotency key was used with another body.",
    413: "The body is too large.",
    426: "It has to be asked for as a WebSocket.",
    503: "Not ready.",
    507: "As many revocations are remembered as fit.",
}
PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "id": {
        "description": "The id of a client or of a user, percent-encoded.",
        "schema": {"type": "string", "minLength": 1},
    },
    "name": {
        "description": "The name of a channel, `/` in it percent-encoded.",
        "schema": {"type": "string", "pattern": r"^[A-Za-z0-9_\-=@,.;:/]{1,200}$"},
    },
}


def document(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    """Describes the endpoints.

    Returns:
        An OpenAPI 3.1 document, as plain values.
    """
    types = [endpoint.answers for endpoint in endpoints if endpoint.answers is not None]
    bodies = [endpoint.body for endpoint in endpoints if endpoint.body is not None]
    kinds = [*types, *bodies, ErrorInfo]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = {repr(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "heartwire",
            "version": __version__,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"api_key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(endpoint: Endpoint, schema_of: dict[str, Any]) -> dict[str, Any]:
    if endpoint.answers is None:
        content: dict[str, Any] = {endpoint.media: {"schema": {"type": "string"}}}
    else:
        schema = schema_of[repr(endpoint.answers)]
        content = _json({"type": "array", "items": schema} if endpoint.batch else schema)
    errors = {400, *((401, 403) if endpoint.scope else ()), *endpoint.errors}
    if endpoint.body is not None:
        errors.add(413)
    error = _json(schema_of[repr(ErrorInfo)])
    succeeding = () if endpoint.upgrade else (200, *endpoint.statuses)
    responses = {
        **({"101": {"description": REASONS[101]}} if endpoint.upgrade else {}),
        **{str(s): {"description": REASONS[s], "content": content} for s in succeeding},
        **{str(status): {"description": REASONS[status], "content": error} for status in sorted(errors)},
    }
    operation: dict[str, Any] = {
        "operationId": _operation_id(endpoint),
        "summary": endpoint.summary,
        "responses": responses,
        "security": [{"api_key": []}] if endpoint.scope else [],
    }
    if endpoint.scope:
        operation["description"] = f"Needs an API key with the scope `{endpoint.scope}`."
    parameters = [*_path_parameters(endpoint.path), *_query_parameters(endpoint.query)]
    if parameters:
        operation["parameters"] = parameters
    if endpoint.body is not None:
        schema = schema_of[repr(endpoint.body)]
        operation["requestBody"] = {
            "required": endpoint.scope == "publish",
            "content": _json({"type": "array", "items": schema} if endpoint.batch else schema),
        }
    return operation


def _operation_id(endpoint: Endpoint) -> str:
    return "_".join([endpoint.method.lower(), *re.findall(r"\w+", endpoint.path)])


def _path_parameters(path: str) -> list[dict[str, Any]]:
    names = re.findall(r"{(\w+)}", path)
    return [{"name": name, "in": "path", "required": True, **PATH_PARAMETERS[name]} for name in names]


def _query_parameters(query: type[Request] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    schema = msgspec.json.schema(query)["$defs"][query.__name__]
    return [
        {
            "name": name,
            "in": "query",
            "description": described.pop("description"),
            "schema": _without_null(described),
        }
        for name, described in schema["properties"].items()
    ]


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not given is absent and never null."""
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    if kinds:
        schema.update(kinds[0])
        schema.pop("default", None)
    return schema


def _json(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
