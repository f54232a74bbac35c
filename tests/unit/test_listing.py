"""Pages of long lists: whatever came and went, each client that stayed is on exactly one page."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from heartwire._core.listing import describe, instant, page_after, page_among, pick_after
from heartwire._core.session import Session
from heartwire.messages import is_own_id, next_id, rfc3339
from pair import Pair

NODE = "0123456789"


def key(counter: int) -> str:
    return f"{NODE}{counter:x}"


def expected(ids: list[str], after: str | None, limit: int) -> tuple[list[str], bool]:
    """The obvious way."""
    behind = [i for i in ids if after is None or (len(i), i) > (len(after), after)]
    behind.sort(key=lambda i: (len(i), i))
    return behind[:limit], len(behind) > limit


def sessions(numbers: Iterable[int], kind: type[Session] = Session) -> dict[str, Session]:
    """Clients with these numbers in their ids, by id."""
    conn = Pair().conn
    made = {}
    for number in numbers:
        made[key(number)] = session = kind(conn)
        session.id = key(number)
    return made


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
    numbers = list(range(500))
    if order == "random":
        rng.shuffle(numbers)
    elif order == "descending":
        numbers.reverse()
    members = dict.fromkeys(sessions(numbers).values())
    for after in (None, key(0), key(17), key(250), key(499), key(900)):
        for limit in (1, 3, 100, 499, 500, 1000):
            page, more = pick_after(members, after, limit)
            wanted = expected([key(n) for n in numbers], after, limit)
            assert ([session.id for session in page], more) == wanted
    assert pick_after({}, None, 10) == ([], False)


@pytest.mark.parametrize("share", [0.0, 0.002, 0.1, 0.9, 1.0])
def test_members_among_all(share: float, rng: random.Random) -> None:
    """Few, which are picked out, and many, which are met by walking: the same pages."""
    items = sessions(range(0, 3000, 3))
    members = dict.fromkeys(rng.sample(list(items.values()), round(share * len(items))))
    for cut in (range(0), range(0, 1500, 3)):  # these have left
        for number in cut:
            members.pop(items.pop(key(number)), None)
        for after in (None, key(0), key(700), key(2600), key(2997), key(9000)):
            for limit in (1, 7, 100, 1000):
                page, more = page_among(items, members, after, limit)
                wanted = expected([member.id for member in members], after, limit)
                assert ([member.id for member in page], more) == wanted


def test_members_of_a_large_channel_are_not_all_walked_over() -> None:
    asked = 0

    class Counted(Session):
        def __hash__(self) -> int:
            nonlocal asked
            asked += 1
            return id(self)

    items = sessions(range(5000), Counted)
    members = {value: None for number, value in enumerate(items.values()) if number % 2}
    asked = 0
    page, more = page_among(items, members, key(4000), 100)
    assert (page[0].id, len(page), more) == (key(4001), 100, True)
    assert asked < 300


# -------------------------------------------------------------- what is said of them


@pytest.mark.parametrize(
    "seconds",
    [0, 0.0015, 951_782_399.9994, 951_782_399.9996, 951_868_800, 1_709_164_800.0005, 1_709_251_199.5,
     4_107_542_400, 253_402_300_799.999, *range(1_700_000_000, 1_740_000_000, 86_399)],
)  # fmt: skip
def test_instants(seconds: float) -> None:
    """Around the ends of Februaries, of leap years and others; and each day of a year."""
    assert instant(seconds) == rfc3339(seconds)


@pytest.mark.parametrize(
    ("host", "port", "text"),
    [
        ("", 0, "unix"),
        ("127.0.0.1", 0, "127.0.0.1"),
        ("2001:db8::7", 0, "2001:db8::7"),
        ("203.0.113.255", 65_535, "203.0.113.255:65535"),
        ("0.9.10.100", 1000, "0.9.10.100:1000"),
        ("2001:db8::7", 443, "[2001:db8::7]:443"),
        ("::ffff:10.0.0.1", 8080, "10.0.0.1:8080"),
    ],
)
def test_addresses(host: str, port: int, text: str) -> None:
    pair = Pair()
    pair.conn.set_peer(host, port)
    ((_, user_id, username, channels, address, *_),) = describe([Session(pair.conn)], lambda *facts: facts)
    assert (user_id, username, channels, address) == (None, None, [], text)


def test_ids_of_this_process() -> None:
    assert is_own_id(next_id())
    own = next_id()
    for text in ("", "x", NODE + "1", own + "\n", own + "g", own[:10], own[:10] + "01"):
        assert not is_own_id(text)
