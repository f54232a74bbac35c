"""token_cache: what is kept, for how long, and that it stays small."""

from __future__ import annotations

import tracemalloc

from heartwire.credentials import Credentials
from heartwire.token_cache import LONGEST_BYTES, TokenCache


def credentials(i: int) -> Credentials:
    payload = b'{"sub":"user-%08d","username":"User %08d","iat":1800000000,"exp":1800003600}' % (i, i)
    return Credentials(f"user-{i:08d}", f"User {i:08d}", 1800003600.0, payload)


def put(cache: TokenCache, token: bytes, value: Credentials) -> None:
    digest, found = cache.find(token)
    assert found is None
    cache.keep(digest, value)


def test_what_was_kept_is_found() -> None:
    cache = TokenCache(10)
    value = credentials(1)
    put(cache, b"token", value)
    assert cache.find(b"token")[1] is value
    assert cache.find(b"other")[1] is None
    assert (cache.hits, cache.misses) == (1, 2)


def test_it_never_holds_more_than_its_limit() -> None:
    cache = TokenCache(10)
    for i in range(1000):
        put(cache, b"%d" % i, credentials(i))
        assert len(cache) <= 10
    assert cache.find(b"999")[1] is not None
    assert cache.find(b"0")[1] is None


def test_what_is_asked_for_stays() -> None:
    cache = TokenCache(10)
    put(cache, b"loved", credentials(0))
    for i in range(100):
        put(cache, b"%d" % i, credentials(i))
        assert cache.find(b"loved")[1] is not None


def test_the_smallest_cache() -> None:
    cache = TokenCache(1)
    put(cache, b"a", credentials(1))
    put(cache, b"b", credentials(2))
    assert cache.find(b"b")[1] is not None


def test_long_tokens_are_not_kept() -> None:
    assert TokenCache(10).find(b"x" * (LONGEST_BYTES + 1)) == (b"", None)
    assert TokenCache(10).find(b"x" * LONGEST_BYTES)[0]


def test_clearing() -> None:
    cache = TokenCache(10)
    for i in range(8):
        put(cache, b"%d" % i, credentials(i))
    cache.clear()
    assert len(cache) == 0
    assert cache.find(b"7")[1] is None


def test_what_a_token_costs() -> None:
    """As docs/authentication.md says: below 1 KiB for an ordinary one."""
    count = 8192
    cache = TokenCache(count)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for i in range(count):
        put(cache, b"%0300d" % i, credentials(i))
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    print(f"{used / len(cache):.0f} bytes a token")
    assert used / len(cache) < 1024
