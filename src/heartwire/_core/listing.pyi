"""Types of listing.pyx, where the contracts are."""

from typing import Any, TypeVar

__all__ = ["page_after", "pick_after"]

_Value = TypeVar("_Value")

def page_after(items: dict[str, _Value], after: str | None, limit: int) -> tuple[list[_Value], bool]: ...
def pick_after(members: dict[_Value, Any], after: str | None, limit: int) -> tuple[list[_Value], bool]: ...
