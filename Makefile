# make demo replays an example day. make test runs the linter, the type checkers and the tests; make test-engines tests
# with database servers. All install into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXAMPLES := $(VENV)/.examples
COMMAND := $(VENV)/.command
DEMO_SAVE := build/demo/session.xml
# Some tests wait, so there is one worker more than processors.
WORKERS ?= $(shell $(PYTHON) -c "import os; print((os.cpu_count() or 1) + 1)")

FUZZ_SECONDS ?= 60

.PHONY: demo test test-engines lint types mypy pyright suite coverage matrix diagrams api verify mutants torture fuzz \
	freeze bench bench-check bench-visitors bench-sessionize docs clean

demo: $(COMMAND)
	rm -rf $(dir $(DEMO_SAVE))
	@printf '\nA day with a new save file:\n\n'
	@$(BIN)/client-session replay --save $(DEMO_SAVE) --write examples/desktop_day.jsonl
	@printf '\nThe same day again, with the save file from the first run:\n\n'
	@$(BIN)/client-session replay --save $(DEMO_SAVE) --write examples/desktop_day.jsonl
	@printf '\nThe save file, $(DEMO_SAVE):\n\n'
	@$(BIN)/client-session show $(DEMO_SAVE)

test: lint types suite

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@if command -v actionlint >/dev/null; then actionlint; else echo 'Skipped .github/workflows: actionlint is not installed'; fi

types: $(INSTALLED) $(EXAMPLES)
	+$(MAKE) --jobs=2 --no-print-directory mypy pyright

mypy pyright:
	$(BIN)/$@

suite: $(INSTALLED) $(EXAMPLES)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m 'not engines'

# Runs the tests that need Redis, Valkey or PostgreSQL. Starts those that are installed, and prints what it skips.
test-engines: $(INSTALLED) $(EXAMPLES)
	$(PYTHON) -m venv build/dbt
	build/dbt/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	build/dbt/bin/python -m pip install --quiet --group dbt
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m engines

# Runs the fast tests on every installed Python, using virtual environments in build/matrix that later runs reuse.
matrix:
	$(PYTHON) tests/matrix.py

# Measures the branch coverage of both packages in every process that the tests start, and fails if it is below 98%.
# Excludes test_torture.py, because measuring coverage would change the system calls, seconds and bytes that it counts.
# The calls that test_reentrancy.py interrupts are not measured, because that test uses sys.settrace() itself. The
# folder build/coverage is world-writable, because some tests run programs as other users.
coverage: $(INSTALLED) $(EXAMPLES)
	rm -rf build/coverage
	install -d -m 1777 build/coverage
	$(BIN)/coverage run -m pytest -n $(WORKERS) --ignore tests/test_torture.py
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

diagrams: $(INSTALLED)
	$(BIN)/client-session diagram -o diagrams/lifecycle.svg
	$(BIN)/client-session diagram -o diagrams/lifecycle.mmd
	$(BIN)/client-session diagram -o diagrams/lifecycle.dot
	$(BIN)/client-session replay --svg diagrams/day.svg examples/desktop_day.jsonl >/dev/null

# Lists the public API in docs/api.txt.
api: $(INSTALLED)
	$(BIN)/python tests/public_api.py

verify: $(INSTALLED)
	$(BIN)/client-session verify --examples 1000 --report build/verification

# Builds the site in build/site, treating warnings as errors.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@printf 'build/site/index.html\n'

# Mutation testing: the tests must catch every deliberate bug. Writes tests/README.md.
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py

# Injects real faults and updates the table in SECURITY.md. Takes about half an hour. Skips tests whose tools are not
# installed.
torture: $(INSTALLED)
	@command -v strace >/dev/null && command -v mkfs.ext4 >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq strace e2fsprogs; } || true
	PYTHONPATH=tests $(BIN)/python -m torture

# Fuzzes the codec for FUZZ_SECONDS. Only this target installs atheris, because some platforms have no wheel for it.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group fuzz
	$(BIN)/python tests/fuzz_codec.py -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1

# Compiles a program that embeds the library with Nuitka, and tests it. Takes about ten minutes. Nuitka is not installed
# into .venv, because `make test` would then compile the program too.
freeze: $(INSTALLED)
	@command -v patchelf >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq patchelf; } || true
	$(BIN)/python -m pip install --quiet --upgrade --target build/nuitka --group freeze
	PYTHONPATH=$(CURDIR)/build/nuitka $(BIN)/pytest tests/test_frozen.py

# Compares a session with minimal implementations, and writes the results and the chart. Takes up to five minutes.
bench: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m benchmarks

# Reruns the benchmarks, and compares the ratios with the stored ones.
bench-check: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m benchmarks --check

# Compares visitors on Redis with a bare GET and SET, and writes the results and the chart. Takes about five minutes.
bench-visitors: $(INSTALLED)
	@command -v redis-server >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq redis-server; } || true
	PYTHONPATH=tests $(BIN)/python -m benchmarks visitors

# Compares sessionizing a log of 10 million rows with the usual queries, sessionizes a Parquet file of 100 million, and
# writes the results and the chart. Spark needs Java.
bench-sessionize: $(INSTALLED)
	@! command -v java >/dev/null || $(BIN)/python -m pip install --quiet --group spark
	PYTHONPATH=tests $(BIN)/python -m benchmarks sessionize

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# Dependency groups need pip 25.1 or later; Python may bundle an older version.
$(COMMAND): pyproject.toml
	@printf 'Installing the client-session command into $(VENV)...\n'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[cli]'
	touch $@

$(INSTALLED): $(COMMAND)
	@printf 'Installing what the tests need...\n'
	$(BIN)/python -m pip install --quiet --editable '.[cli,verify]' --group dev
	touch $@

# Installs the example programs' dependencies, an 85 MB download that the demo does not need.
$(EXAMPLES): $(INSTALLED)
	@printf "Installing the example programs' dependencies...\n"
	$(BIN)/python -m pip install --quiet --group examples
	touch $@
