"""Types of listing.pyx, where the contracts are."""

from collections.abc import Callable
from typing import Any, TypeVar

from heartwire._core.session import Session

__all__ = ["describe", "instant", "page_after", "page_among", "pick_after"]

_Client = TypeVar("_Client", bound=Session)
_Made = TypeVar("_Made")
_Value = TypeVar("_Value")

def page_after(items: dict[str, _Value], after: str | None, limit: int) -> tuple[list[_Value], bool]: ...
def page_among(
    clients: dict[str, _Value], members: dict[_Value, Any], after: str | None, limit: int
) -> tuple[list[_Value], bool]: ...
def pick_after(members: dict[_Value, Any], after: str | None, limit: int) -> tuple[list[_Value], bool]: ...
def describe(clients: list[_Client], make: Callable[..., _Made]) -> list[_Made]: ...
def instant(seconds: float) -> str: ...
