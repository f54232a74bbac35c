"""The state word: every transition from every phase, and races of which each has one winner."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from heartwire._core.frames import StateWord

CONNECTING, OPEN, CLOSING, CLOSED = PHASES = range(4)
FLAGS = [1 << bit for bit in range(2, 32)]
GENERATION = 0xDEADBEEF


def word_in(phase: int, flags: int = 0) -> StateWord:
    word = StateWord(GENERATION)
    for flag in FLAGS:
        if flags & flag:
            word.set(flag)
    word.advance(phase)
    assert word.load() == GENERATION << 32 | flags | phase
    return word


def in_threads(count: int, work: Callable[[int], int]) -> list[int]:
    """Calls work(0) to work(count - 1), each in a thread, all released together."""
    start = threading.Barrier(count)

    def run(index: int) -> int:
        start.wait()
        return work(index)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(run, range(count)))


def test_a_new_word_is_connecting_with_no_flags() -> None:
    word = StateWord(GENERATION)
    assert (word.phase, word.generation, word.load()) == (CONNECTING, GENERATION, GENERATION << 32)


@pytest.mark.parametrize("flags", [0, 1 << 2, 1 << 31, sum(FLAGS)])
@pytest.mark.parametrize("to", PHASES)
@pytest.mark.parametrize("phase", PHASES)
def test_advance_only_grows_the_phase(phase: int, to: int, flags: int) -> None:
    word = word_in(phase, flags)
    assert word.advance(to) == (to > phase)
    assert word.load() == GENERATION << 32 | flags | max(phase, to)
    assert not word.advance(to)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("origin", PHASES)
@pytest.mark.parametrize("to", PHASES)
def test_step_moves_from_one_phase_only(phase: int, origin: int, to: int) -> None:
    word = word_in(phase, sum(FLAGS))
    if to <= origin:
        with pytest.raises(ValueError, match="only grows"):
            word.step(origin, to)
        assert word.phase == phase
    else:
        assert word.step(origin, to) == (phase == origin)
        assert word.load() == GENERATION << 32 | sum(FLAGS) | (to if phase == origin else phase)
        assert not word.step(origin, to)


@pytest.mark.parametrize("flag", FLAGS)
def test_setting_and_clearing_say_whether_they_changed_it(flag: int) -> None:
    others = sum(FLAGS) & ~flag
    word = word_in(CLOSING, others)
    assert word.set(flag)
    assert word.load() == GENERATION << 32 | sum(FLAGS) | CLOSING
    assert not word.set(flag)
    assert word.clear(flag)
    assert word.load() == GENERATION << 32 | others | CLOSING
    assert not word.clear(flag)


@pytest.mark.parametrize("flag", [0, 1, 2, 3, 12])
def test_only_flag_bits_can_be_set(flag: int) -> None:
    word = word_in(OPEN)
    for change in (word.set, word.clear):
        with pytest.raises(ValueError, match="one bit"):
            change(flag)
    assert word.phase == OPEN


@pytest.mark.parametrize("phase", [-1, 4])
def test_there_are_four_phases(phase: int) -> None:
    with pytest.raises(ValueError, match="0 to 3"):
        StateWord().advance(phase)


def test_each_race_to_a_phase_has_one_winner(rng: random.Random) -> None:
    threads = 4
    for _ in range(20):
        words = [StateWord(GENERATION) for _ in range(5000)]
        orders = [list(words) for _ in range(threads)]
        for order in orders[2:]:
            rng.shuffle(order)

        def work(index: int, orders: list[list[StateWord]] = orders) -> int:
            return StateWord.advance_all(orders[index], CLOSING)

        wins = in_threads(threads, work)
        assert sum(wins) == len(words)
        assert all(word.load() == GENERATION << 32 | CLOSING for word in words)


def test_sets_and_clears_alternate_under_a_hammer() -> None:
    """Whatever the threads do to each other, one set that finds the flag clear can only be followed by
    one clear that finds it set: they balance, and lose nothing of the other flags."""
    word = StateWord(GENERATION)
    balance = in_threads(3, lambda i: word.toggle(1 << (i // 2 + 5), 200_000))
    assert (balance[0] + balance[1], balance[2]) == (0, 0)
    assert word.load() == GENERATION << 32


def test_an_advance_loses_no_flag_under_a_hammer() -> None:
    """Each phase is reached once while other threads change flags in the same word."""
    for _ in range(200):
        word = StateWord(GENERATION)

        def work(index: int, word: StateWord = word) -> int:
            if index == 0:
                return sum(word.advance(phase) for phase in (OPEN, CLOSING, CLOSED))
            return word.toggle(1 << (index + 5), 1000)

        assert in_threads(3, work) == [3, 0, 0]
        assert word.load() == GENERATION << 32 | CLOSED
