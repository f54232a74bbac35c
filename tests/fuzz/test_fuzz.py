"""The fuzzers' short form: every kept input again, and a bounded number of mutations of them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from fuzz import harness
from fuzz.corpus import TARGETS, load, mutated, save
from links import needs_deflate

NAMES = [pytest.param(name, marks=needs_deflate if name == "deflated" else ()) for name in TARGETS]
MUTATIONS_S = 2.0  # of each target, and at most so many
MUTATIONS = 4000


@pytest.fixture(scope="module", autouse=True)
def servers() -> Iterator[None]:
    """Stops the servers of the targets that have one."""
    yield
    harness.close()


@pytest.mark.parametrize("name", NAMES)
def test_kept_inputs(name: str) -> None:
    target = TARGETS[name]
    inputs = [*target.seeds(), *load(name)]
    for data in inputs:
        judge(name, data)
    assert load(name), f"there is no corpus of {name}"


def test_a_corpus_is_not_lost() -> None:
    """libFuzzer ends a merge that could run nothing with 0 and no inputs."""
    before = load("frames")
    with pytest.raises(ValueError, match="no inputs"):
        save("frames", [])
    assert load("frames") == before


@pytest.mark.parametrize("name", NAMES)
def test_mutations(name: str, rng: random.Random) -> None:
    target = TARGETS[name]
    inputs = [*target.seeds(), *load(name)]
    end = time.monotonic() + MUTATIONS_S
    for _ in range(MUTATIONS):
        judge(name, mutated(rng.choice(inputs), inputs, target.words, rng))
        if time.monotonic() > end:
            break


def judge(name: str, data: bytes) -> None:
    try:
        TARGETS[name].one_input(data)
    except BaseException as error:
        error.add_note(f"input of {name}: {data!r}")
        raise
