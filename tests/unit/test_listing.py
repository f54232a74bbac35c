"""Pages of long lists: whatever came and went, each client that stayed is on exactly one page."""

from __future__ import annotations

import random
from typing import Any

import pytest

from heartwire._core.listing import page_after, pick_after
from heartwire._core.session import Session
from heartwire.messages import is_own_id, next_id
from pair import Pair

NODE = "0123456789"


def key(counter: int) -> str:
    return f"{NODE}{counter:x}"


def expected(ids: list[str], after: str | None, limit: int) -> tuple[list[str], bool]:
    """The obvious way."""
    behind = [i for i in ids if after is None or (len(i), i) > (len(after), after)]
    behind.sort(key=lambda i: (len(i), i))
    return behind[:limit], len(behind) > limit


def test_pages_of_a_dict_that_grows_and_shrinks(rng: random.Random) -> None:
    items: dict[str, str] = {}
    counter = 0
    for _ in range(300):
        for _ in range(rng.choice([0, 1, 10, 200])):
            counter += rng.choice([1, 1, 1, 2, 50])
            items[key(counter)] = key(counter)
        for gone in rng.sample(list(items), min(len(items), rng.choice([0, 1, 10, 150]))):
            del items[gone]
        if rng.random() < 0.05:  # a long run of deleted entries, at one of the ends
            order = list(items)
            cut = rng.randrange(len(order) + 1)
            for gone in order[:cut] if rng.random() < 0.5 else order[cut:]:
                del items[gone]
        for after in (None, key(0), key(rng.randrange(counter + 2)), key(counter), key(counter + 9)):
            limit = rng.choice([1, 2, 7, 100, 1000])
            assert page_after(items, after, limit) == expected(list(items), after, limit)


def test_walking_all_pages_meets_everybody_who_stays(rng: random.Random) -> None:
    items = {key(i): i for i in range(5000)}
    staying = {i for i in items.values() if i % 3}
    met: list[int] = []
    after, more, counter = None, True, 5000
    while more:
        page, more = page_after(items, after, 97)
        met += page
        after = key(page[-1])
        for gone in rng.sample([i for i in items.values() if i % 3 == 0], 20):
            del items[key(gone)]
        items[key(counter)] = counter
        counter += 1
    assert met == sorted(set(met))
    assert staying <= set(met)


def test_an_empty_dict_and_the_limits_of_a_page() -> None:
    assert page_after({}, None, 5) == ([], False)
    assert page_after({}, key(7), 5) == ([], False)
    items = {key(i): i for i in range(3)}
    assert page_after(items, None, 3) == ([0, 1, 2], False)
    assert page_after(items, None, 2) == ([0, 1], True)
    assert page_after(items, key(2), 2) == ([], False)


@pytest.mark.parametrize("order", ["ascending", "descending", "random"])
def test_members_in_any_order(order: str, rng: random.Random) -> None:
    pair = Pair()
    numbers = list(range(500))
    if order == "random":
        rng.shuffle(numbers)
    elif order == "descending":
        numbers.reverse()
    members: dict[Any, None] = {}
    for number in numbers:
        session = Session(pair.conn)
        session.id = key(number)
        members[session] = None
    for after in (None, key(0), key(17), key(250), key(499), key(900)):
        for limit in (1, 3, 100, 499, 500, 1000):
            page, more = pick_after(members, after, limit)
            wanted = expected([key(n) for n in numbers], after, limit)
            assert ([session.id for session in page], more) == wanted
    assert pick_after({}, None, 10) == ([], False)


def test_ids_of_this_process() -> None:
    assert is_own_id(next_id())
    own = next_id()
    for text in ("", "x", NODE + "1", own + "\n", own + "g", own[:10], own[:10] + "01"):
        assert not is_own_id(text)
