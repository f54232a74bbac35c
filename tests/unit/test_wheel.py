"""The timing wheel against a dictionary, and its structure checked after each step."""

from __future__ import annotations

import gc
import random

import pytest

from heartwire._core.wheel import TimerHandle, TimingWheel

UINT64_MAX = (1 << 64) - 1


def first_look(deadlines: list[int], now: int, slot_count: int) -> int | None:
    """next_deadline() by its definition: the first tick whose slot holds anything."""
    if not deadlines:
        return None
    if min(deadlines) <= now:
        return now
    slots = {deadline % slot_count for deadline in deadlines}
    return next(tick for tick in range(now + 1, now + slot_count + 1) if tick % slot_count in slots)


@pytest.mark.parametrize("slot_count", [64, 128, 1024])
def test_random_steps_against_a_model(slot_count: int, rng: random.Random) -> None:
    start = rng.choice([0, 1, slot_count - 1, rng.getrandbits(40)])
    wheel = TimingWheel(slot_count, start)
    handles = [TimerHandle(i) for i in range(60)]
    model: dict[TimerHandle, int] = {}
    now = start
    spans = [1, 3, slot_count // 2, slot_count, 5 * slot_count, 1 << 30]
    for _ in range(5000):
        match rng.randrange(7):
            case 0 | 1 | 2:
                handle = rng.choice(handles)
                model[handle] = max(now + rng.randrange(-2, rng.choice(spans)), 0)
                wheel.add(handle, model[handle])
                assert handle.deadline == model[handle]
            case 3 | 4:
                handle = rng.choice(handles)
                model.pop(handle, None)
                wheel.remove(handle)
            case _:
                to = now + rng.randrange(rng.choice([1, 2, *spans]) + 1)
                if rng.random() < 0.1:
                    to = max(now - rng.randrange(100), 0)
                now = max(now, to)
                expired = wheel.advance(to)
                assert len(expired) == len(set(expired))
                assert set(expired) == {handle for handle, at in model.items() if at <= now}
                for handle in expired:
                    del model[handle]
        wheel.check()
        assert (wheel.now, len(wheel)) == (now, len(model))
        assert all(handle.linked == (handle in model) for handle in handles)
        assert wheel.next_deadline() == first_look(list(model.values()), now, slot_count)


def test_every_deadline_expires_at_its_tick_and_no_other() -> None:
    wheel = TimingWheel(64, 1000)
    for delay in range(1, 400):
        wheel.add(TimerHandle(), 1000 + delay)
    for tick in range(1001, 1400):
        assert [handle.deadline for handle in wheel.advance(tick)] == [tick]
        wheel.check()
    assert len(wheel) == 0


def test_following_next_deadline_misses_nothing(rng: random.Random) -> None:
    """A loop that sleeps until next_deadline() sees each timer at its very tick."""
    wheel = TimingWheel(128, 7)
    for _ in range(500):
        wheel.add(TimerHandle(), rng.randrange(8, 3000))
    seen = 0
    while (tick := wheel.next_deadline()) is not None:
        for handle in wheel.advance(tick):
            assert handle.deadline == tick
            seen += 1
    assert seen == 500


@pytest.mark.parametrize("jump", [63, 64, 65, 127, 128, 1 << 20, 1 << 62])
def test_a_jump_of_any_length_finds_everything_due(jump: int) -> None:
    wheel = TimingWheel(64, 10)
    handles = [TimerHandle() for _ in range(200)]
    for i, handle in enumerate(handles):
        wheel.add(handle, 11 + i)
    late = TimerHandle()
    wheel.add(late, 10 + jump + 1)
    due = {handle for handle in handles if handle.deadline <= 10 + jump}
    assert set(wheel.advance(10 + jump)) == due
    wheel.check()
    assert late.linked


def test_what_is_due_already_expires_with_the_next_advance() -> None:
    wheel = TimingWheel(64, 100)
    past, present = TimerHandle("past"), TimerHandle("present")
    wheel.add(past, 3)
    wheel.add(present, 100)
    wheel.check()
    assert wheel.next_deadline() == 100
    assert [handle.value for handle in wheel.advance(100)] == ["past", "present"]
    assert wheel.next_deadline() is None


def test_time_never_goes_backwards() -> None:
    wheel = TimingWheel(64, 100)
    handle = TimerHandle()
    wheel.add(handle, 101)
    assert wheel.advance(50) == []
    assert wheel.now == 100
    assert wheel.advance(101) == [handle]


def test_a_timer_that_is_set_again_is_moved() -> None:
    wheel = TimingWheel(64)
    handle = TimerHandle()
    wheel.add(handle, 5)
    wheel.add(handle, 500)
    assert len(wheel) == 1
    assert wheel.advance(499) == []
    assert wheel.advance(500) == [handle]


def test_the_last_tick_there_is() -> None:
    wheel = TimingWheel(64, UINT64_MAX - 40)
    handle = TimerHandle()
    wheel.add(handle, UINT64_MAX)
    assert wheel.next_deadline() == UINT64_MAX
    assert wheel.advance(UINT64_MAX - 1) == []
    assert wheel.advance(UINT64_MAX) == [handle]


def test_a_cancelled_timer_wakes_nobody() -> None:
    wheel = TimingWheel(64)
    handles = [TimerHandle(), TimerHandle()]
    for handle in handles:
        wheel.add(handle, 9)
    wheel.remove(handles[0])
    assert wheel.next_deadline() == 9
    wheel.remove(handles[1])
    assert wheel.next_deadline() is None
    wheel.add(handles[0], 30)
    assert wheel.next_deadline() == 30


def test_a_handle_belongs_to_one_wheel_at_a_time() -> None:
    first, second = TimingWheel(64), TimingWheel(64)
    handle = TimerHandle()
    first.add(handle, 5)
    with pytest.raises(ValueError, match="another wheel"):
        second.add(handle, 5)
    with pytest.raises(ValueError, match="another wheel"):
        second.remove(handle)
    first.remove(handle)
    second.add(handle, 5)
    assert (len(first), len(second)) == (0, 1)


def test_a_wheel_that_dies_lets_go_of_its_handles() -> None:
    wheel = TimingWheel(64)
    kept = TimerHandle()
    wheel.add(kept, 5)
    wheel.add(TimerHandle(), 500)
    del wheel
    assert not kept.linked
    other = TimingWheel(64)
    other.add(kept, 7)
    assert other.advance(7) == [kept]


def test_a_wheel_in_a_reference_cycle_is_collected() -> None:
    class Gone:
        pass

    gc.collect()
    for _ in range(20):
        wheel = TimingWheel(64)
        for delay in range(100):
            wheel.add(TimerHandle((wheel, Gone())), delay)
    del wheel
    gc.collect()
    assert not [thing for thing in gc.get_objects() if isinstance(thing, Gone)]


@pytest.mark.parametrize("slot_count", [0, 1, 32, 63, 65, 96, 1000])
def test_slot_counts_that_are_refused(slot_count: int) -> None:
    with pytest.raises(ValueError, match="power of two"):
        TimingWheel(slot_count)
