"""Drives wsload, the load generator: one measured run, or a crowd of idle clients in the background."""

from __future__ import annotations

import json
import resource
import secrets
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from .servers import RunningServer

_SLACK_S = 60.0
_SOURCES_FROM = 5_000  # above this the search for a free client port shows in the figures


class LoadFailed(Exception):
    """wsload saw wrong replies, lost connections or no server; the message says which."""


@dataclass(frozen=True)
class LoadGenerator:
    """wsload on its core.

    Attributes:
        program: The compiled wsload.
        core: The CPU it is pinned to.
        tokens: A file of tokens, one a line; connection i sends line i.
    """

    program: Path
    core: int
    tokens: Path

    def command(self, server: RunningServer, mode: str, options: dict[str, Any]) -> list[str]:
        """The command line.

        Args:
            server: The one to load.
            mode: `echo`, `idle`, `fanout` or `churn`.
            options: wsload's options by name; True stands for a flag.
        """
        command = ["taskset", "-c", str(self.core), str(self.program), mode, "--json"]
        given = {
            "port": server.port,
            "path": "/ws",
            "pub_path": "/ws" if server.contestant.server == "heartwire" else "/pub",
            "pid": server.pid,
            "tokens_file": self.tokens,
            **options,
        }
        if given.get("conns", 0) > _SOURCES_FROM or mode == "churn":
            given = {"src_base": "127.0.0.2", "src_count": 4, **given}
        for name, value in given.items():
            command.append("--" + name.replace("_", "-"))
            if value is not True:
                command.append(str(value))
        return command

    def run(self, server: RunningServer, mode: str, **options: Any) -> dict[str, Any]:
        """One run to its end.

        Returns:
            wsload's result.

        Raises:
            LoadFailed: Replies were wrong or missing, or it took too long.
            ServerFailed: The server died of it.
        """
        seconds = float(options.get("seconds", 5)) + float(options.get("settle", 1))
        try:
            done = subprocess.run(
                self.command(server, mode, options),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=seconds + _SLACK_S,
            )
        except subprocess.TimeoutExpired:
            server.check()
            raise LoadFailed(f"no end after {seconds + _SLACK_S:.0f} s") from None
        return _result(server, done.returncode, done.stdout, done.stderr)

    def idle(
        self, server: RunningServer, conns: int, *, source: str = "127.0.0.2", skip: int = 0
    ) -> IdleCrowd:
        """A crowd of clients that answer pings and do nothing else; a context manager.

        Args:
            server: The one they connect to.
            conns: How many.
            source: First of the four source addresses; two crowds take two ranges.
            skip: Messages that the server sends by itself to each.
        """
        options: dict[str, Any] = {"conns": conns, "seconds": 600, "settle": 0.5, "skip": skip}
        options |= {"notify": True, "src_base": source, "src_count": 4}
        return IdleCrowd(self.command(server, "idle", options), server)


class IdleCrowd:
    """Connected while entered. After it, `result` is what wsload saw."""

    def __init__(self, command: list[str], server: RunningServer) -> None:
        self._command = command
        self._server = server
        self._process: subprocess.Popen[str] | None = None
        self.result: dict[str, Any] = {}

    def __enter__(self) -> IdleCrowd:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stderr is not None
        said = []
        for line in self._process.stderr:  # wsload bounds the wait: --connect-timeout
            if line.strip() == "@connected":
                return self
            said.append(line.strip())
        self._process.kill()
        self._process.wait()
        self._server.check()
        raise LoadFailed(_words(self._server, "idle clients did not connect", "\n".join(said)))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._process is not None
        if kind is not None:
            self._process.kill()
            self._process.communicate()
            return
        try:
            stdout, stderr = self._process.communicate(timeout=_SLACK_S)  # closes stdin: the hold ends
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
            raise LoadFailed("idle clients did not end") from None
        self.result = _result(self._server, self._process.returncode, stdout, stderr)


def _result(server: RunningServer, code: int, stdout: str, stderr: str) -> dict[str, Any]:
    server.check()
    try:
        result: dict[str, Any] = json.loads(stdout)
    except ValueError:
        raise LoadFailed(_words(server, f"wsload ended with {code}", stderr)) from None
    if code:
        counts = ("connect_failed", "bad_replies", "bad_messages", "protocol_errors", "lost_conns", "missing")
        seen = ", ".join(f"{name} {result[name]}" for name in counts if result.get(name))
        raise LoadFailed(_words(server, seen or f"wsload ended with {code}", stderr))
    return result


def _words(server: RunningServer, what: str, stderr: str) -> str:
    """What failed, what wsload said last, what the server said last."""
    client, last = " | ".join(stderr.strip().splitlines()[-2:]), server.last_words()
    return what + (f"; {client}" if client else "") + (f"; the server said: {last}" if last else "")


def write_tokens(path: Path, secret: str, count: int) -> None:
    """Write `count` tokens, no two alike, good for a day."""
    import jwt  # here, so that build() can say that it is missing

    now = int(time.time())
    with path.open("w") as file:
        for number in range(count):
            claims = {
                "sub": f"user-{number}",
                "username": f"User {number}",
                "iat": now,
                "exp": now + 86_400,
                "jti": secrets.token_hex(8),
            }
            file.write(jwt.encode(claims, secret, algorithm="HS256") + "\n")


def connection_limit() -> int:
    """Raise this process's limit of open files, which its children inherit, as far as it goes.

    Returns:
        How many connections one process can hold beside its other files.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1_048_576
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard - 512
