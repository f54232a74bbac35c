"""Builds the compiled modules; everything else about the package is in pyproject.toml.

Environment switches, each a build of its own under build/:
    HEARTWIRE_DEBUG=1       bounds checks and asserts, -O0 -g
    HEARTWIRE_SANITIZE=1    the same under AddressSanitizer and UndefinedBehaviorSanitizer
    HEARTWIRE_FUZZ=1        under AddressSanitizer and with libFuzzer's coverage: needs CC=clang (make fuzz)
    HEARTWIRE_RACE=1        with a data race, which ThreadSanitizer must find (make tsan)
    HEARTWIRE_LEAK=1        with a leak, which valgrind must find (make valgrind)
    HEARTWIRE_TRACE=1       line tracing, for coverage of .pyx files
    HEARTWIRE_ANNOTATE=1    Cython's annotated HTML beside the generated C
    HEARTWIRE_NO_REACTOR=1  without the epoll link, as on every platform but Linux
    HEARTWIRE_NO_DEFLATE=1  without zlib and permessage-deflate, as on Windows
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
CONN = ["mask", "utf8", "frame", "wheel", "parser", "outqueue", "conn", "deflate"]  # deflate: or nodeflate
MODULES = {  # module of heartwire._core: the files of csrc it is linked with
    "frames": ["mask", "utf8", "frame", "jsonscan", "jsonvalue"],
    "wheel": ["wheel"],
    "bucket": [],
    "mailbox": [],
    "engine": [*CONN, "clock"],
    "link": CONN,
    "ending": CONN,
    "sending": CONN,
    "receiving": CONN,
    "connection": CONN,
    "json_reader": ["jsonscan", "jsonvalue"],
    "json_writer": [],
    "reactor": CONN,
    "session": [],
    "fanout": CONN,
    "listing": [],
    "head": ["head"],
    "envelope": ["envelope", "clock"],
}

SWITCHES = (
    "DEBUG", "SANITIZE", "FUZZ", "RACE", "LEAK", "TRACE", "ANNOTATE", "NO_REACTOR", "NO_DEFLATE", "PURE",
)
ON = [name for name in SWITCHES if os.environ.get("HEARTWIRE_" + name) == "1"]
(
    DEBUG, SANITIZE, FUZZ, RACE, LEAK, TRACE, ANNOTATE, NO_REACTOR, NO_DEFLATE, PURE
) = (name in ON for name in SWITCHES)
WITH_REACTOR = sys.platform == "linux" and not NO_REACTOR
WITH_DEFLATE = sys.platform != "win32" and not NO_DEFLATE  # Windows ships no zlib to link with
CHECKED = DEBUG or SANITIZE or FUZZ
VARIANT = "-".join(ON).lower() or "release"
IN_C = ("RACE", "LEAK")  # the translated modules are the same without them
TRANSLATED = "-".join(name for name in ON if name not in IN_C).lower() or "release"

DIRECTIVES = {
    "language_level": 3, "boundscheck": CHECKED, "wraparound": False, "cdivision": True,
    "initializedcheck": CHECKED, "embedsignature": False, "linetrace": TRACE,
    "auto_pickle": False, "freethreading_compatible": True,
}
CFLAGS = ["-std=gnu11", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"]
CFLAGS += ["-O0", "-g", "-UNDEBUG"] if CHECKED else ["-O3", "-DNDEBUG"]
CFLAGS_MSVC = ["/std:c11", "/experimental:c11atomics", "/O2", "/DNDEBUG"]  # Visual Studio 2022 17.5 or later
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"] if SANITIZE else []
if FUZZ:
    CFLAGS[CFLAGS.index("-O0")] = "-O1"
    SANITIZERS = ["-fsanitize=address,fuzzer-no-link"]
MACROS = [("CYTHON_TRACE", "1")] if TRACE else []
MACROS += [] if CHECKED else [("CYTHON_WITHOUT_ASSERTIONS", "1")]
MACROS += [("HW_RACE", "1")] if RACE else []
MACROS += [("HW_LEAK", "1")] if LEAK else []
MACROS += [] if WITH_REACTOR else [("HW_NO_REACTOR", "1")]


class BuildExt(build_ext):
    """Translates with the directives above, and builds the extensions at the same time."""

    def build_extensions(self):
        from Cython.Build import cythonize

        self.parallel = self.parallel or os.cpu_count()
        translated = cythonize(
            copy.deepcopy(self.extensions), compiler_directives=DIRECTIVES, include_path=["src"],
            build_dir=f"build/cython-{TRANSLATED}", annotate=ANNOTATE,
        )
        for extension, result in zip(self.extensions, translated, strict=True):
            extension.sources = result.sources
            if self.compiler.compiler_type == "msvc":
                extension.extra_compile_args = CFLAGS_MSVC
        super().build_extensions()

    def build_extension(self, ext):
        # Extensions share files of csrc: each has its own objects, or two compilers write one file. So have
        # the two builds of one Python version, with and without a GIL.
        own = copy.copy(self)
        own.build_temp = os.path.join(self.build_temp, VARIANT + getattr(sys, "abiflags", ""), ext.name)
        build_ext.build_extension(own, ext)


HEADERS = [str(path) for path in (*CSRC.glob("*.h"), *CORE.glob("*.pxd"), Path("setup.py"))]


def extension(name, files):
    zlib = "deflate" in files and WITH_DEFLATE
    c_files = ["nodeflate" if c == "deflate" and not WITH_DEFLATE else c for c in files]
    return Extension(
        f"heartwire._core.{name}", [str(CORE / f"{name}.pyx"), *(str(CSRC / f"{c}.c") for c in c_files)],
        include_dirs=[str(CSRC)], libraries=["z"] if zlib else [], depends=HEADERS,
        define_macros=MACROS, extra_compile_args=CFLAGS + SANITIZERS, extra_link_args=SANITIZERS,
    )


wanted = [] if PURE else [name for name in MODULES if WITH_REACTOR or name != "reactor"]
setup(cmdclass={"build_ext": BuildExt}, ext_modules=[extension(name, MODULES[name]) for name in wanted])
