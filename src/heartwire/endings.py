"""What is told of a connection at its end: one line of the log (docs/logs.md), and the webhook's event."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from heartwire.client import Client

__all__ = ["Ending", "log_ending"]

logger: logging.Logger = logging.getLogger("heartwire.connections")


class Ending(msgspec.Struct):
    """A connection that has ended, in `on_closed`: afterwards its figures are gone."""

    client_id: str
    user_id: str | None
    remote_address: str
    cause: str
    code: int
    reason: str
    duration_ms: int
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    received_ago_ms: int
    sent_ago_ms: int
    queued_bytes: int
    rtt_ms: float | None

    @classmethod
    def of(cls, client: Client) -> Ending:
        """That of a client whose connection has just ended."""
        conn = client.connection
        figures = conn.statistics()
        return cls(
            client_id=client.id,
            user_id=client.user_id,
            remote_address=conn.remote_address[0],
            cause=conn.cause or "peer_gone",
            code=conn.code,
            reason=conn.reason or "",
            duration_ms=max(round((time.time() - conn.opened_at) * 1000), 0),
            queued_bytes=conn.queued_bytes,
            rtt_ms=conn.rtt_ms,
            **figures,
        )


def log_ending(client: Client) -> None:
    """Writes the line, at DEBUG: a busy server closes thousands of connections a second."""
    if not logger.isEnabledFor(logging.DEBUG):
        return
    end = Ending.of(client)
    logger.debug(
        "client %s of user %s at %s disconnected after %.3f s: cause=%s code=%d reason=%r, "
        "%d messages in, %d out, %d bytes queued",
        end.client_id, end.user_id, end.remote_address, end.duration_ms / 1000, end.cause, end.code,
        end.reason, end.messages_in, end.messages_out, end.queued_bytes,
        extra={"event": "client_disconnected", **msgspec.structs.asdict(end)},
    )  # fmt: skip
