# make demo: see sessions being kept.  make test: lint, types, tests.  Everything is installed into .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
EXAMPLES := $(VENV)/.examples
DEMO_SAVE := build/demo/session.xml
WORKERS ?= auto

.PHONY: demo test lint types suite diagrams verify mutants torture clean

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
	$(BIN)/client-session diagram -o diagrams/lifecycle.svg
	$(BIN)/client-session diagram -o diagrams/lifecycle.mmd
	$(BIN)/client-session diagram -o diagrams/lifecycle.dot

verify: $(INSTALLED)
	$(BIN)/client-session verify --examples 1000 --report build/verification

# Tests of the tests: each deliberate bug must be caught; writes tests/README.md.
mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py

# Faults on purpose, all of them, within ten minutes; writes the table of SECURITY.md. What is missing is skipped and said.
torture: $(INSTALLED)
	PYTHONPATH=tests $(BIN)/python -m torture

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
