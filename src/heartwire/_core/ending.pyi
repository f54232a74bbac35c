"""Types of ending.pyx, where the contracts are."""

from typing import Any, Self

from typing_extensions import disjoint_base

from heartwire._core.engine import Endpoint, Engine
from heartwire._core.link import Link, Sink

__all__ = ["Ending"]

@disjoint_base
class Ending(Endpoint):
    owner: Any
    special: int
    errors_in_a_row: int
    def __new__(
        cls, engine: Engine, sink: Sink, link: Link, fd: int = -1, slot: int = 0, generation: int = 0
    ) -> Self: ...
    @property
    def sink(self) -> Any: ...
    @property
    def cause(self) -> str | None: ...
    @property
    def code(self) -> int: ...
    @property
    def reason(self) -> str | None: ...
    def close(self, code: int = 1000, reason: str = "", cause: str = "server_closed") -> None: ...
    def abort(self, cause: str = "server_closed", code: int = 1006) -> None: ...
