"""docs/protocol-tests.md names tests that exist, for every sentence."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PAGE = TESTS.parent / "docs" / "protocol-tests.md"
NAMED = re.compile(r"`([\w/]+\.py)?::(\w+)`")


def rows() -> list[tuple[str, str]]:
    """Each sentence, and what the page says about its tests."""
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("|") and line not in ("| sentence | tests |", "|---|---|"):
            sentence, tests = line.removeprefix("| ").removesuffix(" |").split(" | ")
            found.append((sentence, tests))
    return found


ROWS = rows()


def named(tests: str) -> Iterator[tuple[str, str]]:
    """The tests of a row: (file, function)."""
    file = ""
    for path, function in NAMED.findall(tests):
        file = path or file
        yield file, function


@functools.cache
def functions(file: str) -> frozenset[str]:
    """The tests that a file defines."""
    tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in tree.body if isinstance(node, kinds))


def test_there_are_sentences_of_every_part() -> None:
    parts = re.findall(r"^## (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(parts) == 7
    assert len(ROWS) > 60
    assert len({sentence for sentence, _ in ROWS}) == len(ROWS)


@pytest.mark.parametrize(("sentence", "tests"), ROWS, ids=[sentence for sentence, _ in ROWS])
def test_the_tests_of_a_sentence_exist(sentence: str, tests: str) -> None:
    found = list(named(tests))
    assert found, "no test"
    assert not NAMED.sub("", tests).strip(",; "), "what is neither a test nor between two"
    for file, function in found:
        assert function.startswith("test_")
        assert Path(file).name.startswith("test_")
        assert function in functions(file), f"{file} has no {function}"
