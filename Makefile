# make demo: see sessions being kept.  make test: lint, types, tests.  Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXAMPLES := $(VENV)/.examples
DEMO_SAVE := build/demo/session.xml
WORKERS ?= auto

FUZZ_SECONDS ?= 60

.PHONY: demo test lint types suite diagrams verify mutants torture fuzz bench bench-check docs clean

demo: $(INSTALLED)
	rm -rf $(dir $(DEMO_SAVE))
	@printf '\nA day, on a new save file:\n\n'
	@$(BIN)/client-session replay --save $(DEMO_SAVE) examples/desktop_day.jsonl
	@printf '\nThe same day again, on the save file that the first one left:\n\n'
	@$(BIN)/client-session replay --save $(DEMO_SAVE) examples/desktop_day.jsonl
	@printf '\nThe save file, $(DEMO_SAVE):\n\n'
	@$(BIN)/client-session show $(DEMO_SAVE)

test: lint types suite

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED) $(EXAMPLES)
	$(BIN)/mypy
	$(BIN)/pyright

suite: $(INSTALLED) $(EXAMPLES)
	$(BIN)/pytest -n $(WORKERS)

diagrams: $(INSTALLED)
	$(BIN)/client-session diagram -o fsm/client_session/lifecycle.svg
	cp fsm/client_session/lifecycle.svg diagrams/lifecycle.svg
	$(BIN)/client-session diagram -o diagrams/lifecycle.mmd
	$(BIN)/client-session diagram -o diagrams/lifecycle.dot

verify: $(INSTALLED)
	$(BIN)/client-session verify --examples 1000 --report build/verification

# The site, into build/site; a warning is an error.
docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict
	@printf 'build/site/index.html\n'

# Tests of the tests: each deliberate bug must be caught; writes tests/README.md.
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py

# Faults on purpose, all of them, within ten minutes; writes the table of SECURITY.md. What is missing is skipped and said.
torture: $(INSTALLED)
	@command -v strace >/dev/null && command -v mkfs.ext4 >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y -qq strace e2fsprogs; } || true
	PYTHONPATH=tests $(BIN)/python -m torture

# Bytes for the codec, for FUZZ_SECONDS. atheris is installed here alone: it has no wheels for every platform.
fuzz: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group fuzz
	$(BIN)/python tests/fuzz_codec.py -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1

# What the session costs beside the least that could do its work, within five minutes; writes the results and the chart.
bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

# The same again, against the stored ratios.
bench-check: $(INSTALLED)
	$(BIN)/python -m benchmarks --check

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# pip 25.1 knows dependency groups; an older one that came with Python may not.
$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[cli,verify]' --group dev
	touch $@

# What the example programs stand on: an 85 MB download, which the demo can do without.
$(EXAMPLES): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group examples
	touch $@
