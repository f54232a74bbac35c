from typing import TypeVar

Value = TypeVar("Value")

def page_after(items: dict[str, Value], after: str | None, limit: int) -> tuple[list[Value], bool]: ...
