"""Types of session.pyx, where the contracts are."""

from typing import Any, Self

from typing_extensions import Buffer, disjoint_base

from heartwire._core.connection import Connection

__all__ = ["Session"]

@disjoint_base
class Session:
    id: Any
    credentials: Any
    memberships: Any
    state: Any
    user_agent: Any
    request: Any
    reader: Any
    running: Any
    def __new__(cls, connection: Connection, *args: Any, **kwargs: Any) -> Self: ...
    @property
    def connection(self) -> Connection: ...
    @property
    def is_connected(self) -> bool: ...
    @property
    def rtt_ms(self) -> float | None: ...
    @property
    def remote_address(self) -> tuple[str, int]: ...
    @property
    def connected_at(self) -> float: ...
    @property
    def last_seen(self) -> float: ...
    def send_json(self, value: Any) -> None: ...
    def send_text(self, text: str) -> None: ...
    def send_bytes(self, data: Buffer) -> None: ...
    def ping(self) -> None: ...
