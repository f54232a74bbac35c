"""A WebSocket server for authenticated JSON messaging, with a C/Cython core.

    from heartwire import Client, Message, Server

The names here are the public API; `heartwire.testing` has tools for tests. Everything else may change.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from heartwire._version import __version__
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

if TYPE_CHECKING:
    from heartwire.client import Client
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

# Imported when they are asked for: the compiled core needs none of what these need.
_LATER: Final = {"Client": "heartwire.client", "Message": "heartwire.messages", "Server": "heartwire.server"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LATER[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
