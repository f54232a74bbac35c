"""The state word: every transition from every phase, and races of which each has one winner."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from heartwire._core.frames import StateWord

CONNECTING, OPEN, CLOSING, CLOSED = PHASES = range(4)
FLAGS = [1 << bit for bit in range(2, 32)]
GENERATION = 0xDEADBEEF
ROUNDS = 50_000
MET = 0b11 << 24  # what StateWord.race leaves behind with two racers


def word_in(phase: int, flags: int = 0) -> StateWord:
    word = StateWord(GENERATION)
    for flag in FLAGS:
        if flags & flag:
            word.set(flag)
    word.advance(phase)
    assert word.load() == GENERATION << 32 | flags | phase
    return word


def race(words: list[StateWord], *steps: tuple[str, int]) -> list[int]:
    """Each step in a thread of its own, all at the same instant on each word: who won how often."""
    start = threading.Barrier(len(steps))

    def run(racer: int) -> int:
        start.wait()
        return StateWord.race(words, *steps[racer], racer, len(steps))

    with ThreadPoolExecutor(len(steps)) as pool:
        return list(pool.map(run, range(len(steps))))


def new_words(flags: int = 0) -> list[StateWord]:
    return [word_in(OPEN, flags) for _ in range(ROUNDS)]


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


def test_each_race_to_a_phase_has_one_winner() -> None:
    words = new_words()
    wins = race(words, ("advance", CLOSING), ("advance", CLOSING))
    assert sum(wins) == ROUNDS
    assert all(word.load() == GENERATION << 32 | MET | CLOSING for word in words)


def test_racing_to_different_phases_ends_in_the_later() -> None:
    words = new_words()
    closing, closed = race(words, ("advance", CLOSING), ("advance", CLOSED))
    assert closed == ROUNDS
    assert 0 <= closing <= ROUNDS
    assert all(word.load() == GENERATION << 32 | MET | CLOSED for word in words)


def test_each_race_to_set_a_flag_has_one_winner() -> None:
    words = new_words()
    assert sum(race(words, ("set", FLAGS[0]), ("set", FLAGS[0]))) == ROUNDS
    assert all(word.load() == GENERATION << 32 | MET | FLAGS[0] | OPEN for word in words)


def test_each_race_to_clear_a_flag_has_one_winner() -> None:
    words = new_words(FLAGS[0])
    assert sum(race(words, ("clear", FLAGS[0]), ("clear", FLAGS[0]))) == ROUNDS
    assert all(word.load() == GENERATION << 32 | MET | OPEN for word in words)


@pytest.mark.parametrize("step", ["advance", "set", "clear"])
@pytest.mark.parametrize("other", ["set", "clear"])
def test_steps_that_race_each_other_all_happen(step: str, other: str) -> None:
    first, second = FLAGS[0], FLAGS[1]
    words = new_words((first if step == "clear" else 0) | (second if other == "clear" else 0))
    value = CLOSING if step == "advance" else first
    assert race(words, (step, value), (other, second)) == [ROUNDS, ROUNDS]
    phase = CLOSING if step == "advance" else OPEN
    flags = (first if step == "set" else 0) | (second if other == "set" else 0)
    assert all(word.load() == GENERATION << 32 | MET | flags | phase for word in words)
