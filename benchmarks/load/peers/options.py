"""The command line that all Python servers of the benchmark share."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

SECRET_VARIABLE = "BENCH_JWT_SECRET"


@dataclass(frozen=True)
class Options:
    """The command line of one server.

    Attributes:
        port: TCP port on 127.0.0.1.
        mode: `json` (decode, encode, answer), `async` (the same by an `async def` handler; heartwire's alone,
            the others go on as they do for `json`), `raw` (answer the same bytes), `fanout` (what comes on
            path `/pub` goes to every other connection; heartwire does it by `send_message`).
        loop: `asyncio` or `uvloop`.
        ping_interval_s: Seconds between two pings to one client; 0 sends none.
        secret: HS256 key of the tokens.
    """

    port: int
    mode: str
    loop: str
    ping_interval_s: float
    secret: str


def from_command_line() -> Options:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--mode", choices=("json", "async", "raw", "fanout"), default="json")
    parser.add_argument("--loop", choices=("asyncio", "uvloop"), default="asyncio")
    parser.add_argument("--ping-interval", type=float, default=0.0)
    given = parser.parse_args()
    # The key comes by the environment: a command line can be read by every user of the machine.
    return Options(given.port, given.mode, given.loop, given.ping_interval, os.environ[SECRET_VARIABLE])


def run(main: Callable[[Options], Coroutine[Any, Any, None]]) -> None:
    """Run `main` for ever on the loop that the command line names."""
    options = from_command_line()
    factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(options))
