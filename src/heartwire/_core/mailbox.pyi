"""Types of mailbox.pyx, where the contracts are."""

from typing import Self

from typing_extensions import disjoint_base

__all__ = ["Mailbox"]

@disjoint_base
class Mailbox:
    def __new__(cls) -> Self: ...
