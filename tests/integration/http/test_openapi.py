"""The API does what its OpenAPI document says: schemathesis asks what that allows, and what it does not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi.checks import negative_data_rejection, positive_data_acceptance

from heartwire.http_api import HttpApi
from heartwire.http_endpoint import described
from heartwire.monitor import Monitor
from heartwire.openapi import document
from heartwire.testing import BackgroundServer, background_server
from integration.http.api import FULL, KEYS, Api

NOBODY: Any = None  # the calls are described here, not made
MONITOR = Monitor(NOBODY, NOBODY, NOBODY, lambda: None)
API = HttpApi(NOBODY, NOBODY, NOBODY, NOBODY, (), False, lambda: None, MONITOR, NOBODY)
SCHEMA = schemathesis.openapi.from_dict(document(API.described))


@pytest.fixture(scope="module")
def backend() -> Iterator[BackgroundServer]:
    """A server with two clients of a user, one of them in a channel."""
    with background_server(api_key=KEYS) as server, server.peer() as one, server.peer():
        one.send_text('{"action":"join_channel","channel":"0"}')
        yield server


@SCHEMA.parametrize()
@settings(
    max_examples=30, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
def test_calls_conform(case: schemathesis.Case, backend: BackgroundServer) -> None:
    # A schema cannot say which cursors were given, or which field a broadcast_type needs: what fits it may
    # still be refused. A batch is answered item by item, and 200 as a whole.
    excluded = [positive_data_acceptance]
    if case.path == "/api/batch":
        excluded.append(negative_data_rejection)
    case.call_and_validate(
        base_url=f"http://127.0.0.1:{backend.server.http_port}",
        headers={"Authorization": f"Bearer {FULL}"},
        excluded_checks=excluded,
    )


async def test_the_document_is_served(api: Api) -> None:
    assert await api.get("/api/openapi.json") == document(API.described)


def test_every_field_of_a_request_is_described() -> None:
    kinds = {kind for call in API.described for kind in (call.body, call.query) if kind is not None}
    assert len(kinds) == 7
    for kind in kinds:
        for name, meta in described(kind).items():
            assert meta.description, (kind, name)
            assert meta.examples, (kind, name)
            assert meta.extra is not None, (kind, name)
            assert meta.extra["expected"], (kind, name)


def test_what_the_document_says() -> None:
    paths = SCHEMA.raw_schema["paths"]
    operation = paths["/api/broadcast"]["post"]
    assert operation["security"] == [{"api_key": []}]
    assert set(operation["responses"]) == {"200", "400", "401", "403", "404", "409", "413"}
    assert paths["/health"]["get"]["security"] == []
    limit = paths["/api/clients"]["get"]["parameters"][0]
    assert (limit["name"], limit["in"], limit["schema"]["maximum"]) == ("limit", "query", 1000)
    assert paths["/metrics"]["get"]["responses"]["200"]["content"].keys() == {"text/plain"}
    feed = paths["/api/monitor"]["get"]["responses"]
    assert feed.keys() == {"101", "400", "403", "426"}
    assert paths["/"]["get"]["responses"]["200"]["content"].keys() == {"text/html"}
    for path, methods in paths.items():
        for operation in methods.values():
            assert ("413" in operation["responses"]) == ("requestBody" in operation), path
    identifiers = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(set(identifiers)) == len(identifiers) == 20
