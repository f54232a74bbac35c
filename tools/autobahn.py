"""Runs the Autobahn test suite against heartwire echo servers and prints what is not OK.

    make autobahn                       cases 1-7, 9 and 10 over both links
    make autobahn ARGS='6.4.*'          some cases; --link epoll: over one link
    make autobahn ARGS='--compression shared --link epoll'      cases 12 and 13: about 10 minutes a link

The suite's client, PyPI `autobahntestsuite`, runs on CPython 2.7 alone. This finds one (PYTHON27, PATH,
pyenv) and makes its environment under build/autobahn; the reports stay there too.

Exit status: 0 if every case is OK, 1 if one is not, 3 if there is no Python 2.7 (0 with --if-possible).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Literal

import jwt

from heartwire import Client, Server

Compression = Literal["off", "shared", "dedicated"]

BUILD: Final = Path("build/autobahn")
SUITE: Final = "autobahntestsuite==25.10.1"
VIRTUALENV: Final = "virtualenv<20.22"  # the last that makes environments for 2.7
CASES: Final = ("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*")
COMPRESSION_CASES: Final = ("12.*", "13.*")
LINKS: Final = ("epoll", "asyncio")
PASSED: Final = ("OK", "INFORMATIONAL")  # the suite judges nothing in the latter


def main() -> int:
    """Runs the cases. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Autobahn test suite against heartwire")
    parser.add_argument("cases", nargs="*", help="case patterns such as 6.4.*")
    parser.add_argument("--compression", choices=("shared", "dedicated"), help="for cases 12 and 13")
    parser.add_argument("--link", choices=LINKS, action="append", help="over this link only")
    parser.add_argument("--timeout", type=float, default=3000, help="seconds until a hanging run is ended")
    parser.add_argument("--if-possible", action="store_true", help="no Python 2.7 is no failure")
    options = parser.parse_args()
    python = find_python()
    if python is None:
        print("autobahn: NOT RUN: no Python 2.7 (`pyenv install 2.7.18`, or PYTHON27=/path/to/python2.7)")
        return 0 if options.if_possible else 3
    wstest = install(python)
    started = time.monotonic()
    mode: Compression = options.compression or "off"
    cases = options.cases or (CASES if mode == "off" else COMPRESSION_CASES)
    report = asyncio.run(run(wstest, tuple(options.link or LINKS), mode, cases, options.timeout))
    bad = show(report)
    took = time.monotonic() - started
    print(f"autobahn: compression {mode}, {took:.0f} s; reports: {BUILD}/report-{mode}/index.html")
    return 1 if bad else 0


def find_python() -> Path | None:
    """A CPython 2.7: what PYTHON27 says, from PATH, or pyenv's newest."""
    for candidate in _candidates():
        code = "import sys; sys.stdout.write('%d.%d' % sys.version_info[:2])"
        with contextlib.suppress(OSError):
            found = subprocess.run([candidate, "-c", code], capture_output=True, check=False)
            if found.stdout == b"2.7":
                return Path(candidate)
    return None


def _candidates() -> Iterator[str]:
    if os.environ.get("PYTHON27"):
        yield os.environ["PYTHON27"]
    for name in ("python2.7", "python2"):
        found = shutil.which(name)
        if found:
            yield found
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    yield from map(str, sorted(pyenv.glob("versions/2.7*/bin/python2.7"), reverse=True))


def install(python: Path) -> Path:
    """Makes the suite's environment, once. Returns its `wstest`."""
    home = BUILD.absolute() / "python2.7"
    wstest = home / "bin" / "wstest"
    done = home / ".installed"
    if done.exists() and done.read_text() == SUITE:
        return wstest
    print(f"autobahn: installing {SUITE} for {python}", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    maker = BUILD.absolute() / "virtualenv"
    subprocess.run([sys.executable, "-m", "venv", "--clear", maker], check=True)
    pip = ["-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    subprocess.run([maker / "bin" / "python", *pip, VIRTUALENV], check=True)
    subprocess.run([maker / "bin" / "virtualenv", "--quiet", "--python", python, home], check=True)
    # pip on 2.7 says at length that it is old.
    subprocess.run([home / "bin" / "python", *pip, SUITE], check=True, stderr=subprocess.DEVNULL)
    done.write_text(SUITE)
    return wstest


def echo_server(link: str, mode: Compression, secret: str) -> Server:
    """A server that echoes, with limits above what the cases send (4 MiB in 64-byte fragments, 16 MiB)."""
    server = Server(
        port=0, link=link, jwt_secret=secret, max_message_size=32 << 20, max_fragments=70_000,
        send_buffer_limit=256 << 20, compression=mode, compression_threshold=1, log_level="warning",
    )  # fmt: skip

    @server.on_text
    def echo_text(client: Client, text: str) -> None:
        client.send_text(text)

    @server.on_binary
    def echo_binary(client: Client, data: bytes) -> None:
        client.send_bytes(data)

    return server


async def run(
    wstest: Path, links: Iterable[str], mode: Compression, cases: Iterable[str], timeout_s: float
) -> dict[str, Any]:
    """Runs the fuzzing client against a server for each link. Returns the suite's index, by link and case."""
    secret = secrets.token_hex(32)
    token = jwt.encode({"sub": "autobahn", "exp": time.time() + timeout_s + 60}, secret, algorithm="HS256")
    outdir = BUILD.absolute() / f"report-{mode}"
    shutil.rmtree(outdir, ignore_errors=True)
    async with contextlib.AsyncExitStack() as stack:
        servers = []
        for link in links:
            server = await stack.enter_async_context(echo_server(link, mode, secret))
            servers.append({"agent": link, "url": f"ws://127.0.0.1:{server.port}/ws?token={token}"})
        spec = {
            "outdir": str(outdir), "servers": servers, "cases": list(cases),
            "exclude-cases": [], "exclude-agent-cases": {},
        }  # fmt: skip
        spec_path = BUILD.absolute() / f"spec-{mode}.json"
        spec_path.write_text(json.dumps(spec))
        log_path = BUILD / f"wstest-{mode}.log"
        with log_path.open("wb") as log:
            client = await asyncio.create_subprocess_exec(
                str(wstest), "--mode", "fuzzingclient", "--spec", str(spec_path),
                stdout=log, stderr=log, cwd=BUILD,
            )  # fmt: skip
            try:
                status = await asyncio.wait_for(client.wait(), timeout_s)
            except TimeoutError:
                client.kill()
                await client.wait()
                raise SystemExit(f"autobahn: not done after {timeout_s:.0f} s; see {log_path}") from None
    if status or not (outdir / "index.json").exists():
        raise SystemExit(f"autobahn: wstest ended with {status}; see {log_path}")
    report: dict[str, Any] = json.loads((outdir / "index.json").read_text())
    return report


def show(report: dict[str, Any]) -> int:
    """Prints counts for each link and every case that is not OK. Returns the number of those."""
    bad = 0
    for link, results in report.items():
        counts = Counter(verdict(result) for result in results.values())
        words = ", ".join(f"{count} {word}" for word, count in counts.most_common())
        print(f"{link:8} {len(results)} cases: {words}")
        for case, result in sorted(results.items(), key=lambda item: [int(n) for n in item[0].split(".")]):
            if verdict(result) not in PASSED:
                bad += 1
                print(f"{link:8} {case:8} {verdict(result)}, close code {result.get('remoteCloseCode')}")
    if not report or not all(report.values()):
        raise SystemExit("autobahn: no case was run: does the pattern name one?")
    return bad


def verdict(result: dict[str, Any]) -> str:
    """The word for one case: its behavior, or how the connection ended if that is worse."""
    behavior, ending = str(result["behavior"]), str(result["behaviorClose"])
    return behavior if behavior not in PASSED or ending in PASSED else f"{ending} close"


if __name__ == "__main__":
    sys.exit(main())
