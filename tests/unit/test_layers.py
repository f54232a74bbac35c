"""Who may import whom: the direction is downwards only, and this walks every import to see it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "heartwire"

# Lowest first. A module imports only what stands above it in this list, that is in an earlier row; a
# new module must be given its place here.
LAYERS = (
    ("errors", "closing", "_version"),
    ("_core",),
    ("options", "json_codec", "metrics", "logs", "features"),
    ("messages",),
    ("channel_settings",),
    ("config",),
    ("http_head",),
    ("limits", "origin", "proxies", "refusals"),
    ("credentials", "keys"),
    ("token_cache", "revocation", "signatures"),
    ("keyring", "jwks", "auth", "handshake"),
    ("verification",),
    ("transport", "accepting"),
    ("tls",),
    ("listeners",),
    ("registry", "handlers"),
    ("client", "brokers"),
    ("presence",),
    ("memberships",),
    ("endings", "webhook_delivery"),
    ("webhooks", "authorization_hook"),
    ("actions", "handler_tasks"),
    ("tokens", "greeting"),
    ("admission", "dispatch"),
    ("heartbeat",),
    ("exposition",),
    ("http_endpoint",),
    ("monitor",),
    ("http_clients",),
    ("http_channels", "http_publish", "http_tokens", "openapi"),
    ("http_api",),
    ("http_server",),
    ("lifetime",),
    ("server",),
    ("__init__",),
    ("cli", "testing"),
    ("__main__",),
)
RANK = {name: rank for rank, row in enumerate(LAYERS) for name in row}

# Narrower than "everything below": the core knows no policy, leaves know nobody.
ONLY = {
    "_core": {"errors", "closing"},
    "options": {"errors"},
    "json_codec": {"_core"},
    "messages": {"_core", "errors", "closing", "json_codec"},
    "metrics": {"errors", "closing"},
    "logs": set[str](),
    "features": {"_core"},
    "channel_settings": {"options", "messages"},
    "config": {"errors", "closing", "options", "features", "channel_settings"},
}
ONLY_BY = {"server": {"cli", "testing", "__init__"}}
NOT_IN_CORE = {
    "aiohttp",
    "asyncio",
    "cyclopts",
    "jwt",
    "logging",
    "msgspec",
    "prometheus_client",
    "websockets",
}

CYTHON_FROM = re.compile(r"^\s*from\s+([\w.]+)\s+c?import\s+(\([^)]*\)|[^#\n]*)", re.MULTILINE)
CYTHON_IMPORT = re.compile(r"^\s*c?import\s+([\w., ]+)", re.MULTILINE)
CYTHON_EXTERN = re.compile(r'^\s*cdef extern from\s+"([^"]+)"', re.MULTILINE)


def python_imports(text: str, package: str) -> Iterator[str]:
    """Dotted names that Python source imports, inside functions too; not what only type checkers see."""
    for node in walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = resolve("." * node.level + (node.module or ""), package)
            yield from (f"{base}.{alias.name}" for alias in node.names)


def walk(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those under `if TYPE_CHECKING:`, which never run."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for other in child.orelse:
                yield from walk(other)
        else:
            yield from walk(child)


def cython_imports(text: str, package: str) -> Iterator[str]:
    """Dotted names that Cython source imports or cimports."""
    for base, names in CYTHON_FROM.findall(text):
        for name in re.findall(r"(\w+|\*)(?:\s+as\s+\w+)?", re.sub(r"#[^\n]*", "", names)):
            yield f"{resolve(base, package)}.{name}"
    for names in CYTHON_IMPORT.findall(text):
        yield from (name.split(" as ")[0].strip() for name in names.split(","))


def resolve(name: str, package: str) -> str:
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    parents = package.split(".")
    return ".".join([*parents[: len(parents) - level + 1], *filter(None, [name[level:]])])


def module_of(path: Path, package: Path) -> str:
    """The name of a file in the table: its module, or the subpackage it is in."""
    first = path.relative_to(package).parts[0]
    return first.split(".")[0]


def target_of(dotted: str, package: Path) -> str | None:
    """The name in the table of what is imported; None if that is not of this package."""
    parts = dotted.split(".")
    if parts[0] != "heartwire":
        return None
    if len(parts) == 1 or not (
        parts[1] in RANK or any(package.glob(f"{parts[1]}.*")) or (package / parts[1]).is_dir()
    ):
        return "__init__"
    return parts[1]


def violations(package: Path) -> list[str]:
    """Every import under a package directory that breaks a rule, in words."""
    found = []
    for path in sorted(package.rglob("*.p*")):
        if path.suffix not in (".py", ".pyi", ".pyx", ".pxd"):
            continue
        where = path.relative_to(package)
        module = module_of(path, package)
        if module not in RANK:
            found.append(f"{where}: {module} has no place in LAYERS of tests/unit/test_layers.py yet")
            continue
        inside = ".".join(["heartwire", *where.parts[:-1]])
        text = path.read_text(encoding="utf-8")
        imports = cython_imports if path.suffix in (".pyx", ".pxd") else python_imports
        for dotted in imports(text, inside):
            if module == "_core" and dotted.split(".")[0] in NOT_IN_CORE:
                found.append(f"{where}: the core imports {dotted}")
            target = target_of(dotted, package)
            if target is not None and target != module and not allowed(module, target):
                found.append(f"{where}: {module} imports {target}")
    return found


def allowed(module: str, target: str) -> bool:
    if target not in RANK or module not in ONLY_BY.get(target, {module}):
        return False
    return target in ONLY[module] if module in ONLY else RANK[target] < RANK[module]


def test_imports_go_downwards() -> None:
    assert len(list(PACKAGE.glob("*.py"))) > 5  # the walk looks at something
    assert violations(PACKAGE) == []


PLANTED = {
    "a leaf knows its user": (
        "messages.py",
        "from heartwire.client import Client",
        "messages imports client",
    ),
    "lazily": ("registry.py", "def f():\n    import heartwire.server", "registry imports server"),
    "relatively": ("auth.py", "from .registry import Registry", "auth imports registry"),
    "by the package": ("client.py", "from heartwire import Server", "client imports __init__"),
    "the server": ("__main__.py", "from heartwire.server import Server", "__main__ imports server"),
    "core policy": ("_core/frames.py", "import asyncio", "the core imports asyncio"),
    "core config": ("_core/link.pyx", "from heartwire.config import ServerConfig", "_core imports config"),
    "core cimport": ("_core/link.pxd", "from ..client cimport (\n    A,\n    B,\n)", "_core imports client"),
    "core import": ("_core/link.pyx", "cimport cython\nimport os, logging", "the core imports logging"),
    "unknown": ("helpers.py", "", "helpers has no place in LAYERS"),
    "of unknown": ("client.py", "from heartwire import helpers", "client imports helpers"),
}


@pytest.mark.parametrize(("file", "text", "message"), PLANTED.values(), ids=PLANTED)
def test_a_planted_violation_is_found(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / "_core").mkdir()
    if message == "client imports helpers":
        (tmp_path / "helpers.pyi").touch()
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert any(message in line for line in violations(tmp_path))


FINE = {
    "downwards": ("server.py", "from heartwire.client import Client\nimport heartwire.errors"),
    "the core's own": (
        "_core/link.pyx",
        "from heartwire._core.csrc cimport *\nfrom heartwire.errors import A",
    ),
    "for types": (
        "registry.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from heartwire.client import Client",
    ),
    "others": ("client.py", "import asyncio, logging"),
}


@pytest.mark.parametrize(("file", "text"), FINE.values(), ids=FINE)
def test_what_is_fine_is_left_alone(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / "_core").mkdir()
    (tmp_path / file).write_text(text, encoding="utf-8")
    assert violations(tmp_path) == []


def test_c_sources_know_no_python() -> None:
    sources = [*(ROOT / "csrc").glob("*.[ch]")]
    assert sources
    assert [path.name for path in sources if "Python.h" in path.read_text(encoding="utf-8")] == []


def test_csrc_is_declared_in_one_place() -> None:
    headers = {path.name for path in (ROOT / "csrc").glob("*.h")}
    declared = {
        path.name
        for path in (PACKAGE / "_core").glob("*.p*")
        if path.suffix in (".pyx", ".pxd")
        and headers & set(CYTHON_EXTERN.findall(path.read_text(encoding="utf-8")))
    }
    assert declared == {"csrc.pxd"}


def test_every_cython_module_is_built() -> None:
    tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "MODULES"
    )
    assert isinstance(table, ast.Dict)
    listed = {ast.literal_eval(key) for key in table.keys if key is not None}
    assert {path.stem for path in (PACKAGE / "_core").glob("*.pyx")} <= listed
