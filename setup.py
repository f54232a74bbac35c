"""Builds the compiled modules; everything else about the package is in pyproject.toml.

Environment switches, each a build of its own under build/:
    HEARTWIRE_DEBUG=1       bounds checks and asserts, -O0 -g
    HEARTWIRE_SANITIZE=1    the same under AddressSanitizer and UndefinedBehaviorSanitizer
    HEARTWIRE_TRACE=1       line tracing, for coverage of .pyx files
    HEARTWIRE_ANNOTATE=1    Cython's annotated HTML beside the generated C
    HEARTWIRE_PURE=1        no extensions: for the metadata of a checkout built in place
"""

import copy
import os
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CORE = Path("src/heartwire/_core")
CSRC = Path("csrc")
CONN = ["mask", "utf8", "frame", "wheel", "parser", "outqueue", "conn", "deflate"]
MODULES = {  # module of heartwire._core: the files of csrc it is linked with
    "frames": ["mask", "utf8", "frame", "jsonscan"],
    "wheel": ["wheel"],
    "bucket": [],
    "engine": CONN,
    "link": CONN,
    "connection": CONN,
    "json_reader": ["jsonscan"],
    "reactor": CONN,
    "session": [],
    "fanout": CONN,
    "listing": [],
    "head": ["head"],
}
LINUX_ONLY = {"reactor"}

SWITCHES = ("DEBUG", "SANITIZE", "TRACE", "ANNOTATE", "PURE")
ON = [name for name in SWITCHES if os.environ.get("HEARTWIRE_" + name) == "1"]
DEBUG, SANITIZE, TRACE, ANNOTATE, PURE = (name in ON for name in SWITCHES)
CHECKED = DEBUG or SANITIZE
VARIANT = "-".join(ON).lower() or "release"

DIRECTIVES = {
    "language_level": 3, "boundscheck": CHECKED, "wraparound": False, "cdivision": True,
    "initializedcheck": CHECKED, "embedsignature": False, "linetrace": TRACE,
    "auto_pickle": False,
}
CFLAGS = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
CFLAGS += ["-O0", "-g", "-UNDEBUG"] if CHECKED else ["-O3", "-DNDEBUG"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZE else []
MACROS = [("CYTHON_TRACE", "1")] if TRACE else []
MACROS += [] if CHECKED else [("CYTHON_WITHOUT_ASSERTIONS", "1")]


class BuildExt(build_ext):
    """Translates with the directives above, and builds the extensions at the same time."""

    def build_extensions(self):
        from Cython.Build import cythonize

        self.parallel = self.parallel or os.cpu_count()
        translated = cythonize(
            copy.deepcopy(self.extensions), compiler_directives=DIRECTIVES, include_path=["src"],
            build_dir=f"build/cython-{VARIANT}", annotate=ANNOTATE,
        )
        for extension, result in zip(self.extensions, translated, strict=True):
            extension.sources = result.sources
        super().build_extensions()

    def build_extension(self, ext):
        # Extensions share files of csrc: each has its own objects, or two compilers write one file.
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, VARIANT, ext.name)
        build_ext.build_extension(own, ext)


HEADERS = [str(path) for path in (*CSRC.glob("*.h"), *CORE.glob("*.pxd"), Path("setup.py"))]
setup(cmdclass={"build_ext": BuildExt}, ext_modules=[] if PURE else [
    Extension(f"heartwire._core.{name}", [str(CORE / f"{name}.pyx"), *(str(CSRC / f"{c}.c") for c in files)],
              include_dirs=[str(CSRC)], libraries=["z"] if "deflate" in files else [], depends=HEADERS,
              define_macros=MACROS, extra_compile_args=CFLAGS + SANITIZERS, extra_link_args=SANITIZERS)
    for name, files in MODULES.items()
    if (CORE / f"{name}.pyx").exists() and (name not in LINUX_ONLY or sys.platform == "linux")
])
