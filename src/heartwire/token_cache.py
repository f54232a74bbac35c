"""Tokens that were verified before, so that a client that reconnects costs a hash instead of a signature.

Only good tokens are kept, by their SHA-256 digest, never the token itself. Whether one has ended meanwhile
is for whoever asks to see: what is kept says when it ends.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from heartwire.credentials import Credentials

__all__ = ["TokenCache"]

LONGEST_BYTES: Final = 2048  # of a token; longer ones are rare, and would make the size hard to foresee


class TokenCache:
    """A bounded map from tokens to what they say. Loop thread only.

    Two generations: when the young one holds half of the limit it becomes the old one, and the old one is
    dropped whole. So keeping costs the same whether the cache is full or not, what was asked for lately
    stays, and no list of uses is kept.

    Args:
        limit: most tokens kept.
    """

    __slots__ = ("_half", "_old", "_young", "hits", "misses")

    def __init__(self, limit: int) -> None:
        self._half = max(limit // 2, 1)
        self._young: dict[bytes, Credentials] = {}
        self._old: dict[bytes, Credentials] = {}
        self.hits: int = 0
        self.misses: int = 0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def __repr__(self) -> str:
        return f"<TokenCache of {len(self)} tokens>"

    def find(self, token: bytes) -> tuple[bytes, Credentials | None]:
        """The digest to keep a token by (empty: do not keep it), and what is kept for it."""
        if len(token) > LONGEST_BYTES:
            return b"", None
        digest = sha256(token).digest()
        found = self._young.get(digest)
        if found is None:
            found = self._old.get(digest)
            if found is None:
                self.misses += 1
                return digest, None
            self.keep(digest, found)
        self.hits += 1
        return digest, found

    def keep(self, digest: bytes, credentials: Credentials) -> None:
        """Keeps what a good token says."""
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[digest] = credentials

    def clear(self) -> None:
        """Forgets everything: the keys have changed."""
        self._young, self._old = {}, {}
