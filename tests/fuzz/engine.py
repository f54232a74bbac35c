"""atheris on one target, which the first argument names; the others are libFuzzer's. See __main__.py."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import atheris

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
with atheris.instrument_imports(include=["heartwire", "websockets", "fuzz"]):
    from fuzz.corpus import TARGETS

if __name__ == "__main__":
    name = sys.argv.pop(1)
    # A merge starts itself again through a shell, by what it finds here.
    sys.argv[0] = shlex.join([sys.executable, sys.argv[0], name])
    atheris.Setup(sys.argv, TARGETS[name].one_input)
    atheris.Fuzz()
