"""Types of receiving.pyx, where the contracts are."""

from typing_extensions import disjoint_base

from heartwire._core.sending import Sending

__all__ = ["Receiving"]

@disjoint_base
class Receiving(Sending):
    introduced: int
    def pause(self) -> None: ...
    def resume(self) -> None: ...
