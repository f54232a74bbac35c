"""The echo pair and the README's, run as processes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.processes import PATIENCE_S, free_port, running

ROOT = Path(__file__).parents[2]


def readme_blocks() -> list[str]:
    """The Python of the README: a server, and a client for it."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("pair", ["examples", "README"])
def test_server_and_client(pair: str, tmp_path: Path) -> None:
    if pair == "examples":
        paths = [ROOT / "examples" / name for name in ("echo_server.py", "echo_client.py")]
        server, client = (path.read_text() for path in paths)
        expected = r'\{"hello":\s*"world"\}$'
    else:
        server, client = readme_blocks()[:2]
        expected = r'"distance":5\.0'
    port = free_port()  # theirs may be in use
    programs = []
    for name, text in (("server.py", server), ("client.py", client)):
        assert text.count("8085") == 1
        (tmp_path / name).write_text(text.replace("8085", str(port)))
        programs.append(str(tmp_path / name))
    with running([programs[0]], port, tmp_path / "log"):
        said = subprocess.run(
            [sys.executable, programs[1]], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    assert (said.returncode, said.stderr) == (0, "")
    welcome, answer = said.stdout.splitlines()
    assert '"event":"connected"' in welcome
    assert re.search(expected, answer), answer
