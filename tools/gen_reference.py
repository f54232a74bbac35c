"""Writes the pages of the reference that are made from the code into docs/reference: cli.md, close-codes.md
and http-calls.md. `make docs` calls it; git does not keep them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from heartwire.closing import CAUSES
from heartwire.testing import background_server

PAGES: Final = Path(__file__).parents[1] / "docs" / "reference"
SCRIPTS: Final = Path(sysconfig.get_path("scripts"))
COMMANDS: Final = (("socket-server",), ("heartwire",), ("heartwire", "token"), ("heartwire", "check"))
METHODS: Final = ("get", "post", "put", "delete")


def cli() -> Iterator[str]:
    """What each command says of itself."""
    yield "# Commands\n"
    yield "`socket-server` and `heartwire serve` are the same server. The options, with the reason for each"
    yield "default, are on [a page of their own](../options.md).\n"
    yield "What is wrong with a command line is one line on standard error, and the exit status is 2.\n"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HEARTWIRE_")}
    environment |= {"COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    for command in COMMANDS:
        words = [str(SCRIPTS / command[0]), *command[1:], "--help"]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env=environment)
        yield f"## {' '.join(command)}\n\n```text\n{done.stdout.rstrip()}\n```\n"


def close_codes() -> Iterator[str]:
    """The table of closing.py."""
    yield "# Close codes\n"
    yield "Exactly one cause belongs to each connection that ended. The same word stands in the log, in"
    yield "`heartwire_disconnects_total{cause=…}` and in `on_disconnect`.\n"
    yield "| cause | code | the client should |\n|---|---|---|"
    for cause in CAUSES.values():
        code = cause.code if cause.code is not None else "the choice of who closed"
        yield f"| `{cause.word}` | {code} | {cause.advice} |"
    yield "\n1006 is never sent: programs report it where the connection ended without a CLOSE frame."
    yield "Applications may close with 1000, 3000–3999 and 4000–4399; 4400–4599 are the server's own.\n"


def http_calls() -> Iterator[str]:
    """The OpenAPI document that the server answers with, for people."""
    with background_server(api_key=["documentation"]) as server:
        address = f"http://127.0.0.1:{server.port}/api/openapi.json"
        request = urllib.request.Request(address, headers={"Authorization": "Bearer documentation"})
        with urllib.request.urlopen(request, timeout=10) as response:
            document = json.load(response)
    yield "# HTTP calls\n"
    yield "Made from `GET /api/openapi.json` (OpenAPI 3.1). What they mean together: [HTTP"
    yield "API](../http-api.md).\n"
    schemas = document["components"]["schemas"]
    for path, operations in document["paths"].items():
        for method in METHODS:
            if method in operations:
                yield from _call(f"{method.upper()} {path}", operations[method])
    yield "## Types\n"
    for name, schema in sorted(schemas.items()):
        yield from _schema(name, schema)


def _call(title: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield f"{operation['summary'].rstrip('.')}. {operation.get('description', 'Needs no API key.')}\n"
    if parameters := operation.get("parameters"):
        yield "| parameter | in | |\n|---|---|---|"
        for parameter in parameters:
            yield f"| `{parameter['name']}` | {parameter['in']} | {parameter['description']} |"
        yield ""
    if body := operation.get("requestBody"):
        yield f"Body: {_kind(_content(body))}\n"
    yield "| status | answer | |\n|---|---|---|"
    for status, response in operation["responses"].items():
        answer = _kind(_content(response)) if "content" in response else "none"
        yield f"| {status} | {answer} | {response['description']} |"
    yield ""


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f"### {name}\n"
    if about := schema.get("description"):
        yield f"{about.splitlines()[0]}\n"
    yield "| field | type | |\n|---|---|---|"
    required = schema.get("required", [])
    for field, details in schema.get("properties", {}).items():
        about = details.get("description", "")
        yield f"| `{field}`{'' if field in required else ' (optional)'} | {_kind(details)} | {about} |"
    yield ""


def _content(message: dict[str, Any]) -> dict[str, Any]:
    (content,) = message["content"].values()
    schema: dict[str, Any] = content["schema"]
    return schema


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    return f"`{schema.get('type', 'any')}`"


def main() -> int:
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, lines in (("cli", cli()), ("close-codes", close_codes()), ("http-calls", http_calls())):
        (PAGES / f"{name}.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
