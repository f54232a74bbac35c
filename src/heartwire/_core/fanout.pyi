"""Types of fanout.pyx, where the contracts are."""

from typing import Any, Self, TypeVar

from typing_extensions import Buffer, disjoint_base

from heartwire._core.session import Session

__all__ = ["Frame", "fan_out"]

_Member = TypeVar("_Member", bound=Session)

@disjoint_base
class Frame:
    def __new__(cls, payload: bytes, binary: bool = False, data: Buffer | None = None) -> Self: ...

def fan_out(frame: Frame, members: dict[_Member, Any], skip: _Member | None = None) -> int: ...
