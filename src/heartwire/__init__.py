"""A WebSocket server for authenticated JSON messaging, with a C/Cython core.

    from heartwire import Client, Message, Server

The names here are the public API; `heartwire.testing` has tools for tests. Everything else may change.
"""

from heartwire._version import __version__
from heartwire.client import Client
from heartwire.errors import (
    ActionError,
    ConfigError,
    ConnectionClosed,
    HeartwireError,
    LocalProtocolError,
    ProtocolError,
    Refusal,
    RemoteProtocolError,
    TokenError,
)
from heartwire.messages import Message
from heartwire.server import Server

__all__ = [
    "ActionError",
    "Client",
    "ConfigError",
    "ConnectionClosed",
    "HeartwireError",
    "LocalProtocolError",
    "Message",
    "ProtocolError",
    "Refusal",
    "RemoteProtocolError",
    "Server",
    "TokenError",
    "__version__",
]
