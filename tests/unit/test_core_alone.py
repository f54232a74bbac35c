"""The compiled core imports without what the server depends on: its decoders are given to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPENDENCIES = ("aiohttp", "cyclopts", "jwt", "msgspec", "prometheus_client", "uvloop", "websockets")
POLICY = ("asyncio", "logging")

PROGRAM = """
import importlib, pkgutil, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {blocked}:
            raise ImportError(f"{{name}} is blocked")

sys.meta_path.insert(0, Blocked())
import heartwire._core
names = [info.name for info in pkgutil.iter_modules(heartwire._core.__path__)]
for name in names:
    importlib.import_module(f"heartwire._core.{{name}}")
import {more}
print(*sorted(names))
"""


def run(blocked: tuple[str, ...], more: str) -> subprocess.CompletedProcess[str]:
    program = PROGRAM.format(blocked=set(blocked), more=more)
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_every_module_of_the_core_and_the_errors_import_alone() -> None:
    done = run((*DEPENDENCIES, *POLICY), "heartwire.errors, heartwire.closing")
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in (ROOT / "src/heartwire/_core").glob("*.pyx")}
    assert built - {"reactor"} <= set(done.stdout.split()) <= built  # the reactor is for Linux


def test_the_tools_for_testing_it_do_as_well() -> None:
    assert run(DEPENDENCIES, "heartwire.testing").returncode == 0


@pytest.mark.parametrize("name", ["Client", "Message", "Server"])
def test_the_server_does_not(name: str) -> None:
    """The block works, and what was missing is named."""
    done = run(("msgspec",), f"heartwire; heartwire.{name}")
    assert done.returncode == 1
    assert "ImportError: msgspec is blocked" in done.stderr


def test_names_that_are_imported_late() -> None:
    pytest.importorskip("msgspec", reason="only the core is tested where msgspec cannot be had")
    import heartwire
    from heartwire import server, testing

    assert heartwire.Server is server.Server
    assert {*heartwire.__all__} <= {*dir(heartwire)}
    assert testing.background_server is not None
    for module in (heartwire, testing):
        assert all(getattr(module, name) is not None for name in module.__all__)
        with pytest.raises(AttributeError, match=f"module '{module.__name__}' has no attribute 'Serber'"):
            module.Serber  # noqa: B018
