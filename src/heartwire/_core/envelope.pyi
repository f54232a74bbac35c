"""Types of envelope.pyx, where the contracts are."""

from typing import Self

from typing_extensions import disjoint_base

__all__ = ["EventWriter", "instant_text"]

@disjoint_base
class EventWriter:
    def __new__(cls, node: str) -> Self: ...
    def next_id(self) -> str: ...
    def timestamp(self) -> str: ...
    def head(
        self,
        event: str,
        channel: str | None,
        user_id: str | None,
        username: str | None,
        client_id: str | None,
    ) -> bytes | None: ...

def instant_text(unix_ms: int) -> str: ...
