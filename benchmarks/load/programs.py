"""The programs that a run needs: built for it, and gone with it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
PYTHON_MODULES = {
    "heartwire": ("heartwire", "jwt"),
    "picows": ("picows", "orjson", "jwt"),
    "websockets": ("websockets", "orjson", "jwt"),
    "aiohttp": ("aiohttp", "orjson", "jwt"),
}
SERVERS = (*PYTHON_MODULES, "gorilla", "ceiling")
_C_FLAGS = ("-O3", "-march=native", "-std=gnu11", "-Wall", "-Wextra")


class Missing(Exception):
    """Something the benchmark cannot do without is not here; the message says how to get it."""


@dataclass(frozen=True)
class Programs:
    """Where the compiled programs are, and why a server cannot take part.

    Attributes:
        wsload: The load generator.
        ceiling: The C epoll server.
        gorilla: The Go server, or None.
        absent: Server name to the reason it is left out.
    """

    wsload: Path
    ceiling: Path
    gorilla: Path | None
    absent: dict[str, str]


def build(directory: Path, wanted: tuple[str, ...], loops: tuple[str, ...]) -> Programs:
    """Compile into `directory` what the wanted servers need.

    Raises:
        Missing: No C compiler, no taskset, no PyJWT, or no package for a loop.
    """
    for tool, package in (("gcc", "gcc"), ("taskset", "util-linux")):
        if shutil.which(tool) is None:
            raise Missing(f"{tool} is not installed (Debian package: {package})")
    if importlib.util.find_spec("jwt") is None:
        raise Missing("PyJWT is not installed: pip install -r benchmarks/load/requirements.txt")
    if "uvloop" in loops and importlib.util.find_spec("uvloop") is None:
        raise Missing(
            "uvloop is not installed: pip install -r benchmarks/load/requirements.txt, or --loops asyncio"
        )
    absent = {}
    for server in wanted:
        modules = PYTHON_MODULES.get(server, ())
        lacking = [name for name in modules if importlib.util.find_spec(name) is None]
        if lacking:
            source = "." if server == "heartwire" else "-r benchmarks/load/requirements.txt"
            absent[server] = f"not installed: {', '.join(lacking)} (pip install {source})"
    gorilla = None
    if "gorilla" in wanted:
        gorilla, reason = _build_gorilla(directory)
        if reason:
            absent["gorilla"] = reason
    return Programs(_compile(directory, "wsload"), _compile(directory, "ceiling"), gorilla, absent)


def _compile(directory: Path, name: str) -> Path:
    program = directory / name
    command = ["gcc", *_C_FLAGS, "-o", str(program), str(HERE / f"{name}.c"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Missing(f"{name}.c does not compile:\n{done.stderr}")
    return program


def _build_gorilla(directory: Path) -> tuple[Path | None, str]:
    """Built only from what is on this machine: nothing is downloaded for a benchmark."""
    if shutil.which("go") is None:
        return None, "Go is not installed"
    program = directory / "gorilla"
    go_path = os.environ.get("GOPATH", "")
    attempts = (
        {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GOSUMDB": "off"},  # the module cache
        {"GO111MODULE": "off", "GOPATH": f"{go_path}:/usr/share/gocode".lstrip(":")},  # Debian's packages
    )
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch) / "gorilla"  # a copy, since -mod=mod writes go.sum
        shutil.copytree(HERE / "peers" / "gorilla", source)
        for attempt in attempts:
            done = subprocess.run(
                ["go", "build", "-o", str(program), "."],
                cwd=source,
                env={"GOCACHE": str(Path(scratch) / "cache"), **os.environ, **attempt},
                capture_output=True,
                check=False,
                timeout=300,
            )
            if done.returncode == 0:
                return program, ""
    return None, (
        "Go is here, github.com/gorilla/websocket is not (Debian: golang-github-gorilla-websocket-dev, "
        "or `go mod download` in benchmarks/load/peers/gorilla)"
    )
