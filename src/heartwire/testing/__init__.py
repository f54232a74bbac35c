"""Tools for tests of heartwire and of applications that use it.

`background_server` runs a real server beside a synchronous test. The others leave out the network: a
`ManualClock` moves time, a `FakeLink` carries a connection's bytes and fails when told to, a `FramePeer` is
the client, one frame at a time, and a `RecordingSink` notes what the server's side was told::

    clock = ManualClock()
    link = FakeLink(clock.engine(), RecordingSink())
    peer = FramePeer(link)
    peer.open()
    peer.send_text("hello")
    clock.advance(31)
    assert peer.receive().opcode == PING
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from heartwire.testing.clock import ManualClock
from heartwire.testing.link import FakeLink, RecordingSink
from heartwire.testing.peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    FramePeer,
    build_frame,
    close_payload,
)

if TYPE_CHECKING:
    from heartwire.testing.server import BackgroundServer, background_server

__all__ = [
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "PONG",
    "TEXT",
    "BackgroundServer",
    "FakeLink",
    "Frame",
    "FramePeer",
    "ManualClock",
    "RecordingSink",
    "background_server",
    "build_frame",
    "close_payload",
]


def __getattr__(name: str) -> Any:
    # Imported when they are asked for: what tests the core alone needs none of what a server needs.
    if name not in ("BackgroundServer", "background_server"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module("heartwire.testing.server"), name)
    return value
