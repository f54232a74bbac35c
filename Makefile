# make serve | test | test-unit | churn | lint | types | debug | asan | portable | browser | autobahn | clean
# make docs | deploy-check | wheel | coverage | hot | cross
# make fuzz SECONDS=60 | bench | bench-quick | bench-micro   (PYTHON=python3.12 make test)

PYTHON ?= python3
MAKEFLAGS += --no-builtin-rules

# One environment for each interpreter version (3.13t is the free-threaded one).
TAG := $(shell $(PYTHON) -c 'import sys, sysconfig; \
	print("%d.%d" % sys.version_info[:2] + ("t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""))' 2>/dev/null)
VENV := .venv/$(or $(TAG),none)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

SOURCES := setup.py $(wildcard csrc/*.[ch] src/heartwire/_core/*.pyx src/heartwire/_core/*.pxd)
REPORTS := $(abspath build/reports)
SANITIZED = env LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:log_path=$(REPORTS)/asan UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	HEARTWIRE_SLOWER=4

# Where the Pythons without a GIL are built, and kept beyond `make clean`: they take minutes.
FREE_THREADED ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/heartwire/python3.13t
CORE_TESTS := $(addprefix tests/unit/test_,$(addsuffix .py,bucket connection core_alone deflate ending engine \
	frame_header jsonscan mask outqueue rate_limits receiving sending state_word utf8 wheel)) \
	$(addprefix tests/races/test_,$(addsuffix .py,any_order many_threads reactor stalls threads))

.PHONY: all build serve test test-unit churn debug asan valgrind free-threaded core-tests tsan portable browser \
	playwright autobahn fuzz bench bench-quick bench-micro lint types hot cross coverage wheel docs \
	deploy-check clean preflight
.DELETE_ON_ERROR:

all: build

build: $(VENV)/.built

serve: build
	exec $(BIN)/socket-server --port 8085 --jwt-secret test-jwt-secret

# So many test processes side by side: much of a test is waiting, so more than there are cores.
JOBS ?= 3
test: build
	$(BIN)/pytest -n $(JOBS) $(ARGS)

test-unit: build
	$(BIN)/pytest tests/unit $(ARGS)

# The long form of tests/churn: rounds of 20 s.
churn: build
	HEARTWIRE_CHURN_S=20 $(BIN)/pytest -s tests/churn $(ARGS)

debug: $(VENV)/.debug
	PYTHONPATH=build/$(TAG)-debug $(BIN)/pytest -n $(JOBS) -m 'not speed' $(ARGS)

# Leaks are valgrind's: LeakSanitizer sees those of every package that is imported. What ASAN says in any
# process of the tests is in a file, since a test may swallow that process's output: one such file is a failure.
# UBSAN knows no such file beside ASAN. It ends the process, so that a test fails, and what the tests write is shown
# as it comes (-s), or its last words would be lost with the process.
asan: $(VENV)/.sanitize
	mkdir -p $(REPORTS) && rm -f $(REPORTS)/asan.*
	status=0; $(SANITIZED) PYTHONPATH=build/$(TAG)-sanitize \
		$(BIN)/pytest -s --timeout 300 -m 'not speed' $(ARGS) || status=$$?; \
	for report in $(REPORTS)/asan.*; do [ ! -e $$report ] || { cat $$report; status=1; }; done; \
	exit $$status

# Leaks and uses of memory that is not there or not set, in a server under churn; then the same with a leak that
# is planted on purpose, which must be reported: 5 minutes.
valgrind: $(VENV)/.debug $(VENV)/.leak
	$(BIN)/python tools/valgrind.py --package build/$(TAG)-debug --planted build/$(TAG)-leak

# The core on a Python without a GIL: 3.13, since Debian's source has no later one, and msgspec refuses to be
# built there. tools/build_freethreaded.sh makes it, once.
free-threaded:
	tools/build_freethreaded.sh $(FREE_THREADED)
	$(MAKE) --no-print-directory PYTHON=$(FREE_THREADED)/python3.13t core-tests

core-tests: $(VENV)/.core
	PYTHONPATH=src $(BIN)/pytest $(CORE_TESTS) $(ARGS)

# The same threads under ThreadSanitizer, in an interpreter that was built with it.
tsan:
	tools/build_freethreaded.sh $(FREE_THREADED)
	CLANG=$(CLANG) tools/build_freethreaded.sh --tsan $(FREE_THREADED)-tsan
	$(MAKE) --no-print-directory PYTHON=$(FREE_THREADED)/python3.13t .venv/3.13t/.core
	tools/tsan.sh $(FREE_THREADED)-tsan/python3.13t .venv/3.13t

# What a platform without epoll, zlib and GCC's vector units gets, here: the same tests over asyncio transports.
portable: $(VENV)/.portable
	PYTHONPATH=build/$(TAG)-portable $(BIN)/python -c 'from heartwire import features as f; exit(f.REACTOR or f.DEFLATE)'
	PYTHONPATH=build/$(TAG)-portable $(BIN)/pytest -n $(JOBS) -m 'not speed' \
		$(or $(ARGS),tests/unit tests/integration tests/races tests/hostile)

# The monitor page, heartwire.js and the chat in a real Chromium: Debian's `chromium`, or what $CHROMIUM names.
# With playwright in the environment, `make test` runs these too.
browser: build $(VENV)/.browser
	$(BIN)/pytest tests/browser tests/examples $(ARGS)

playwright: $(VENV)/.browser

# The Autobahn test suite: RFC 6455 conformance over both links. Needs a Python 2.7 for its client.
autobahn: build
	$(BIN)/python tools/autobahn.py $(ARGS)

# The fuzzers of tests/fuzz, guided by coverage, SECONDS for each; tests/fuzz/__main__.py has the options.
SECONDS ?= 60
CLANG ?= $(firstword $(shell for i in '' -19 -18 -17 -16 -15 -14; do command -v clang$$i; done))
fuzz: $(VENV)/.fuzz
	HEARTWIRE_FUZZ_BUILD=build/$(TAG)-fuzz PYTHONPATH=tests $(BIN)/python -m fuzz --seconds $(SECONDS) $(ARGS)

# Beside other servers, over sockets: benchmarks/README.md. Nothing else may run meanwhile.
bench: build $(VENV)/.peers
	$(BIN)/python -m benchmarks.load $(ARGS)

bench-quick: build $(VENV)/.peers
	$(BIN)/python -m benchmarks.load --quick $(ARGS)

# Parts by themselves, beside others and what no program can do without. ARGS=--benchmark-disable only checks them.
bench-micro: build $(VENV)/.peers
	$(BIN)/python -m pytest -o python_files='bench_*.py' --timeout 300 --benchmark-max-time=0.2 \
		--benchmark-group-by=func --benchmark-columns=median,iqr,rounds benchmarks $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check
	PATH="$(abspath $(BIN)):$$PATH" cython-lint src
	$(BIN)/actionlint
	$(BIN)/zizmor --offline --quiet .github
	$(CC) -std=gnu11 -O2 -Wall -Wextra -Wconversion -Werror -fsyntax-only $(wildcard csrc/*.c)

# stubtest holds the stubs against the compiled modules; of what is public every type is known (pyright asks
# the interpreter on the path for it).
types: build
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	mkdir -p build
	PYTHONPATH=src PATH="$(abspath $(BIN)):$$PATH" pyright --ignoreexternal --verifytypes heartwire >build/types.txt || \
		{ cat build/types.txt; false; }
	@grep completeness build/types.txt
	$(BIN)/python -m mypy.stubtest heartwire._core

# Lines of hot Cython functions that touch Python, against tools/hot_budget.toml.
hot: $(VENV)/.installed
	$(BIN)/python tools/check_hot.py

# The C sources as other platforms' compilers read them: MinGW's for Windows (Debian: gcc-mingw-w64-x86-64
# libz-mingw-w64-dev), and this one's without what Linux has.
CROSS := -std=c11 -Wall -Wextra -Wconversion -Werror -fsyntax-only
cross:
	x86_64-w64-mingw32-gcc $(CROSS) $(wildcard csrc/*.c)
	x86_64-w64-mingw32-gcc $(CROSS) -DHW_PORTABLE $(wildcard csrc/*.c)
	$(CC) $(CROSS) -D_DEFAULT_SOURCE -U__linux__ $(wildcard csrc/*.c)

# Python and Cython lines that the tests run. Functions in a .pxd (refs.pxd) are not among them: Cython's plugin
# counts their lines under the .pxd of whoever includes them, whose lines they are not.
coverage: $(VENV)/.trace $(VENV)/.coverage
	rm -f .coverage .coverage.*
	PYTHONPATH=build/$(TAG)-trace $(BIN)/coverage run -m pytest -n $(JOBS) -q --timeout 300 -m 'not speed' \
		$(or $(ARGS),tests/unit tests/integration tests/races tests/deploy)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report --include='*.pyx' --skip-covered
	$(BIN)/coverage report --include='*.py' --skip-covered --fail-under=95

# For every interpreter on the path: built from the sdist, checked, installed, tested without a compiler.
wheel: $(VENV)/.release
	$(BIN)/python tools/check_wheel.py $(ARGS)

# The site, in docs/_build/html. Pages made from the code are made anew.
docs: build $(VENV)/.docs docs/options.md
	$(BIN)/python tools/gen_reference.py
	$(BIN)/sphinx-build -W --keep-going -q -j auto -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

# The files of docs/deploy. systemd wants to see the program that a unit starts: a copy names this one.
deploy-check: build $(VENV)/.deploy
	$(BIN)/hadolint docs/deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docs/deploy/compose.yaml
	$(BIN)/kubernetes-validate --strict docs/deploy/kubernetes.yaml
	rm -rf build/unit && mkdir -p build/unit && cp docs/deploy/heartwire.service docs/deploy/heartwire.socket build/unit
	sed -i 's#/opt/heartwire/bin#$(abspath $(BIN))#' build/unit/heartwire.service
	systemd-analyze verify build/unit/heartwire.service build/unit/heartwire.socket
	systemd-analyze security --offline=true --threshold=20 build/unit/heartwire.service | tail -1

docs/options.md: $(wildcard src/heartwire/config/*.py) src/heartwire/options.py tools/gen_options.py | build
	mkdir -p docs
	$(BIN)/python tools/gen_options.py > $@

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .benchmarks
	find src tests tools \( -name '*.so' -o -name __pycache__ -o -path 'src/*.c' \) -prune -exec rm -rf {} +

preflight:
	@tools/preflight.sh $(PYTHON)

# The tools and what the package needs; the checkout itself is installed without its compiled modules,
# which .built puts in place.
$(VENV)/.installed: pyproject.toml src/heartwire/_version.py | preflight
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install --group build --group test --group lint
	command -v node >/dev/null || $(PIP) install 'pyright[nodejs]'
	HEARTWIRE_PURE=1 $(PIP) install --no-build-isolation --editable .
	touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) install --group docs
	touch $@

$(VENV)/.coverage: $(VENV)/.installed
	$(PIP) install --group coverage
	touch $@

# Cython's plugin for coverage takes lines of a .pyx for its own only where the generated C lies beside it.
$(VENV)/.trace: $(VENV)/.installed $(SOURCES) $(shell find src -name '*.py') | preflight
	HEARTWIRE_TRACE=1 HEARTWIRE_DEBUG=1 $(BIN)/python setup.py --quiet build --build-lib build/$(TAG)-trace
	cp build/cython-debug-trace/src/heartwire/_core/*.c src/heartwire/_core
	touch $@

$(VENV)/.deploy: $(VENV)/.installed
	$(PIP) install --group deploy
	touch $@

$(VENV)/.release: $(VENV)/.installed
	$(PIP) install --group release
	touch $@

# What the core's own tests need, where the rest of the package cannot be installed.
$(VENV)/.core: pyproject.toml $(SOURCES) | preflight
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(PIP) install --group build --group core-test
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

$(VENV)/.browser: $(VENV)/.installed
	$(PIP) install --group browser
	touch $@

$(VENV)/.built: $(VENV)/.installed $(SOURCES) | preflight
	$(BIN)/python setup.py --quiet build_ext --inplace
	touch $@

$(VENV)/.peers: benchmarks/load/requirements.txt | $(VENV)/.installed
	$(PIP) install --requirement $<
	touch $@

FUZZED := $(addprefix csrc/,parser.c frame.c mask.c utf8.c deflate.c head.c jsonscan.c jsonvalue.c envelope.c)
$(VENV)/.fuzz: $(VENV)/.built $(SOURCES) tests/fuzz/csrc_fuzz.c $(shell find src -name '*.py')
	@[ -n "$(CLANG)" ] || { echo "make fuzz needs clang with its runtime (Debian: clang libclang-rt-dev)"; false; }
	$(PIP) install --group fuzz
	CC=$(CLANG) HEARTWIRE_FUZZ=1 $(BIN)/python setup.py --quiet build --build-lib build/$(TAG)-fuzz
	mkdir -p build/fuzz
	$(CLANG) -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -Icsrc \
		tests/fuzz/csrc_fuzz.c $(FUZZED) -lz -o build/fuzz/csrc-fuzzer
	touch $@

# These builds hold the whole package, and stand before the checkout on the path of the tests.
$(VENV)/.portable: $(VENV)/.installed $(SOURCES) $(shell find src -name '*.py') | preflight
	HEARTWIRE_DEBUG=1 HEARTWIRE_NO_REACTOR=1 HEARTWIRE_NO_DEFLATE=1 CFLAGS=-DHW_PORTABLE \
		$(BIN)/python setup.py --quiet build --build-lib build/$(TAG)-portable
	touch $@

$(VENV)/.leak: $(VENV)/.debug
	HEARTWIRE_DEBUG=1 HEARTWIRE_LEAK=1 $(BIN)/python setup.py --quiet build --build-lib build/$(TAG)-leak
	touch $@

$(VENV)/.debug $(VENV)/.sanitize: $(VENV)/.%: $(VENV)/.installed $(SOURCES) $(shell find src -name '*.py') | preflight
	HEARTWIRE_$(shell echo $* | tr a-z A-Z)=1 $(BIN)/python setup.py --quiet build --build-lib build/$(TAG)-$*
	touch $@
