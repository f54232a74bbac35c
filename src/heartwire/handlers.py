"""What the application registered, and how its functions are called."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from heartwire.messages import BUILT_IN_ACTIONS

__all__ = ["Handlers", "Route"]

Handler = Callable[..., Any]


class Route(NamedTuple):
    """One registered action."""

    call: Callable[[Any, Any], Any]
    """(client, message) -> answer, or an awaitable of it."""
    decode: Callable[[Any], Any]
    """Bytes -> the message, of the type the handler's annotation names."""


class Handlers:
    """The functions of one server, by what they are for."""

    __slots__ = (
        "actions",
        "authenticate",
        "authorize",
        "on_binary",
        "on_connect",
        "on_disconnect",
        "on_message",
        "on_text",
    )

    def __init__(self) -> None:
        self.actions: Final[dict[str, Route]] = {}
        self.on_message: Handler | None = None
        self.on_text: Handler | None = None
        self.on_binary: Handler | None = None
        self.on_connect: Handler | None = None
        self.on_disconnect: Handler | None = None
        self.authenticate: Handler | None = None
        self.authorize: Handler | None = None

    def add_action(self, name: str, handler: Handler, frame_locals: dict[str, Any]) -> None:
        """Registers an action.

        Args:
            name: the value of `action` it answers to.
            handler: `(client)`, `(client, message)`; the annotation of `message` is its type.
            frame_locals: of the place it is defined in, where annotations may find their names.
        Raises:
            ValueError: the name is built in or taken, or the signature does not fit.
        """
        if name in BUILT_IN_ACTIONS:
            raise ValueError(f"{name!r} is a built-in action and cannot be registered again")
        if name in self.actions:
            raise ValueError(f"the action {name!r} is registered already")
        parameters = [
            p for p in inspect.signature(handler).parameters.values()
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        ]  # fmt: skip
        if len(parameters) not in (1, 2):
            raise ValueError(f"the handler of {name!r} must take (client) or (client, message)")
        wanted: Any = Any
        call = handler
        if len(parameters) == 1:
            call = _without_message(handler)
        else:
            hints = inspect.get_annotations(handler, eval_str=False)
            wanted = hints.get(parameters[1].name, Any)
            if isinstance(wanted, str):
                names = getattr(inspect.unwrap(handler), "__globals__", sys.modules["builtins"].__dict__)
                wanted = eval(wanted, names, frame_locals)
        self.actions[name] = Route(call, msgspec.json.Decoder(wanted).decode)

    def set(self, name: str, handler: Handler) -> None:
        """Registers the one handler of that name.

        Raises:
            ValueError: there is one already, or it excludes another.
        """
        if getattr(self, name) is not None:
            raise ValueError(f"{name} is registered already")
        setattr(self, name, handler)
        if self.on_text is not None and (self.on_message is not None or self.actions):
            raise ValueError("on_text takes every text message undecoded: it excludes on_message and actions")


def _without_message(handler: Handler) -> Callable[[Any, Any], Any]:
    def call(client: Any, message: Any) -> Any:
        return handler(client)

    return call
