"""The pages of the reference that come from the code can be made; `make docs` then judges the whole site."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("gen_reference", ROOT / "tools" / "gen_reference.py")
assert SPEC is not None
assert SPEC.loader is not None
gen_reference = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(gen_reference)


@pytest.mark.parametrize(
    ("page", "wanted"),
    [
        ("cli", ["## socket-server\n", "--jwt-secret"]),
        ("close_codes", ["| `drain` | 1012 |"]),
        ("http_calls", ["## POST /api/broadcast\n", "| 101 | none |", "### Health\n"]),
    ],
)
def test_pages(page: str, wanted: list[str]) -> None:
    text = "\n".join(getattr(gen_reference, page)())
    assert [part for part in wanted if part not in text] == []
