#!/bin/sh
# usage: preflight.sh PYTHON
# Says in one line what a build with this interpreter lacks, and which Debian package has it.
python=$1

lack() {
    echo "heartwire: $1; on Debian or Ubuntu: apt-get install $2" >&2
    exit 1
}

command -v "$python" >/dev/null 2>&1 || lack "there is no $python" python3

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "heartwire: $python is older than Python 3.11, or does not start; choose another: PYTHON=python3.12 make" >&2
    exit 1
}

# Debian names the packages of its default interpreter python3-x, of others python3.12-x.
case ${python##*/} in
    python3.*) package=${python##*/} ;;
    *) package=python3 ;;
esac

"$python" -c 'import venv, ensurepip' 2>/dev/null || lack "$python has no venv module" "$package-venv"

compiler=${CC:-$("$python" -c 'import sysconfig; print((sysconfig.get_config_var("CC") or "cc").split()[0])')}
command -v "${compiler%% *}" >/dev/null 2>&1 || lack "there is no C compiler ($compiler)" gcc

include=$("$python" -c 'import sysconfig; print(sysconfig.get_path("include"))')
compiles() {
    printf '%s\n' "$1" | $compiler -I"$include" -fsyntax-only -xc - >/dev/null 2>&1
}
compiles '#include <stdlib.h>' || lack "the C library's headers are missing (stdlib.h)" libc6-dev
compiles '#include <zlib.h>' || lack "the headers of zlib are missing (zlib.h)" zlib1g-dev
compiles '#include <Python.h>' || lack "the headers of $python are missing (Python.h)" "$package-dev"
