#!/bin/bash
# usage: tsan.sh PYTHON ENVIRONMENT
# Runs the core's thread tests under ThreadSanitizer, twice: as it is, nothing may be reported; with one race
# planted (HEARTWIRE_RACE=1, csrc/word.h), that one must be, or the first run has proven nothing.
#
#   PYTHON        a free-threaded CPython that was built with ThreadSanitizer (tools/build_freethreaded.sh --tsan)
#   ENVIRONMENT   a virtual environment of the same version with pytest, setuptools and Cython
set -euo pipefail
python=$1
site=$(echo "$2"/lib/python*/site-packages)
tree=$(dirname "$(readlink -f "$python")")  # it was not installed: its headers are there
reports=build/reports
mkdir -p "$reports"
export PYTHONDONTWRITEBYTECODE=1

die() {
    echo "tsan.sh: $*" >&2
    exit 1
}

build() {  # name, switch: a package under build/ of its own
    env $2 PYTHONPATH="$site" CPATH="$tree/Include:$tree" TSAN_OPTIONS=report_bugs=0 \
        "$python" setup.py --quiet build --build-lib "build/3.13t-$1" --build-temp "build/temp-$1"
}

run() {  # name, arguments of pytest
    local name=$1
    shift
    rm -f "$reports/$name".*
    PYTHONPATH="build/3.13t-$name:$site" PYTHON_GIL=0 HEARTWIRE_ROUNDS="${HEARTWIRE_ROUNDS:-60}" \
        TSAN_OPTIONS="suppressions=tools/tsan.supp log_path=$reports/$name exitcode=0 print_suppressions=1" \
        "$python" -m pytest -p no:cacheprovider -q tests/races/test_many_threads.py "$@"
}

build tsan HEARTWIRE_RACE=0
run tsan
# Each process ends by telling which suppressions it needed: nothing else may be there.
if cat "$reports"/tsan.* 2>/dev/null | grep ThreadSanitizer: | grep -qv ": Matched "; then
    cat "$reports"/tsan.* >&2
    die "ThreadSanitizer found races: see above"
fi
cat "$reports"/tsan.* 2>/dev/null || echo "ThreadSanitizer: no suppression was needed"

build tsan-planted HEARTWIRE_RACE=1
run tsan-planted -k every_call >"$reports/planted.log" 2>&1 || true  # its sums may well be wrong
grep -qs "data race" "$reports"/tsan-planted.* || {
    tail -n 20 "$reports/planted.log" >&2
    die "the planted race was not reported: this run proves nothing"
}
grep -qE "hw_word_add|send_foreign" "$reports"/tsan-planted.* || die "another race than the planted one was reported"
echo "ThreadSanitizer: nothing in the core, and the planted race was found"
