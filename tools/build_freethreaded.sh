#!/bin/bash
# usage: build_freethreaded.sh [--tsan] DIRECTORY
# Builds free-threaded CPython 3.13 from the source package of Debian trixie, since Debian has no binary of
# it, as DIRECTORY/python3.13t. Nothing happens if it is there already.
#
#   --tsan   for `make tsan`: clang, ThreadSanitizer and asserts, used from its build tree (installing it
#            would byte-compile the standard library under ThreadSanitizer, which does not end)
#
# The source comes through apt from the mirror of this machine, with lists and settings of its own: the
# system's are not touched. About 3 minutes and 0.9 GB for each of the two on 2 cores.
set -euo pipefail

die() {
    echo "build_freethreaded.sh: $*" >&2
    exit 1
}

tsan=
[ "${1:-}" = --tsan ] && { tsan=1; shift; }
[ $# = 1 ] && [ "${1#-}" = "$1" ] || die "usage: build_freethreaded.sh [--tsan] DIRECTORY"
mkdir -p "$1"
target=$(cd "$1" && pwd)
python=$target/python3.13t

works() {
    PYTHON_GIL=0 "$python" -c 'import sys, ssl, zlib, ctypes; sys.exit(sys._is_gil_enabled())' 2>/dev/null
}
[ -x "$python" ] && works && exit 0

# Two builds in one directory delete each other's files: the second waits, and finds it done.
exec 9>"$target/lock"
flock 9
[ -x "$python" ] && works && exit 0

compiler=gcc
[ -z "$tsan" ] || compiler=${CLANG:-clang-16}
lacks=()
for need in "apt-get apt" "xz xz-utils" "make make" "flock util-linux" "$compiler $compiler"; do
    command -v "${need% *}" >/dev/null || lacks+=("${need#* }")
done
for need in "openssl/ssl.h libssl-dev" "zlib.h zlib1g-dev" "ffi.h libffi-dev" "sqlite3.h libsqlite3-dev" \
    "bzlib.h libbz2-dev" "lzma.h liblzma-dev"; do
    printf '#include <%s>\n' "${need% *}" | cc -fsyntax-only -xc - 2>/dev/null || lacks+=("${need#* }")
done
[ ${#lacks[@]} = 0 ] || die "missing here; on Debian: apt-get install ${lacks[*]}"
if [ -n "$tsan" ]; then
    runtime=$("$compiler" -print-file-name="libclang_rt.tsan-$(uname -m).a")
    [ -e "$runtime" ] || die "$compiler has no ThreadSanitizer; on Debian: apt-get install libclang-rt-16-dev"
fi

# ------------------------------------------------------------------ the source

apt=$target/apt
mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/none"
# The first Debian mirror that the machine's own sources name.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 2>/dev/null |
    grep -E '/debian/?$' | head -n 1) || true
[ -n "$mirror" ] || die "no mirror of Debian among apt's sources"
echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$apt/sources.list"
options=(-qq -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts="$apt/none"
    -o Dir::State::Lists="$apt/lists" -o Dir::Cache::Archives="$apt/archives" -o Dir::Cache::pkgcache=
    -o Dir::Cache::srcpkgcache= -o APT::Get::List-Cleanup=0 -o APT::Sandbox::User=root)
apt-get "${options[@]}" update || die "the mirror does not give trixie's list of sources"
cd "$target"
if ! compgen -G "python3.13_*.orig.tar.*" >/dev/null; then
    apt-get "${options[@]}" --download-only source python3.13 || die "the mirror does not give the source of python3.13"
fi
# Upstream's tarball, without Debian's patches: they take ensurepip out, and venv needs it.
tarball=$(compgen -G "$target/python3.13_*.orig.tar.*" | grep -v '\.asc$' | sort -V | tail -n 1)
[ -n "$tarball" ] || die "the source package of python3.13 has no tarball"
rm -rf source
mkdir source
tar -xf "$tarball" --strip-components=1 -C source || die "$tarball does not unpack"
cd source

# ------------------------------------------------------------------ the build

# CPython's Makefile needs make's built-in rules; flags of a make above this one, as in `make free-threaded`,
# would take them away.
unset MAKEFLAGS MFLAGS MAKELEVEL

step() {  # name, command...
    local log=$target/$1.log
    shift
    "$@" >"$log" 2>&1 || { tail -n 20 "$log" >&2; die "$1 failed; the whole of it: $log"; }
}

if [ -n "$tsan" ]; then
    step configure env CC="$compiler" CXX="${compiler/clang/clang++}" ./configure --disable-gil \
        --with-thread-sanitizer --with-pydebug --without-ensurepip --disable-test-modules
    step make make -j"$(nproc)"
    ln -sf "$target/source/python" "$python"
else
    step configure ./configure --prefix="$target" --disable-gil --disable-test-modules
    step make make -j"$(nproc)"
    step install make install
    ln -sf "$target/bin/python3.13t" "$python"
    rm -rf "$target/source"
fi
rm -rf "$apt"
works || die "$python was built and does not work: $target/configure.log, $target/make.log"
"$python" -VV
