# kdsearch: `make demo` shows it, `make test` proves it. Both install what they need into .venv first.
#
#   make install                    .venv with everything (PYTHON=..., TORCH_INDEX=... if the defaults do not fit)
#   make demo                       a whole study on synthetic text, on the CPU, and its best student in exported/
#   make test [PYTEST="-k store"]   the whole suite, or a part
#   make check                      format, lint, types, imports, size limits, docs
#   make docs                       the documentation's own tests
#   make clean                      .venv, caches and build outputs; a study's data (.kdsearch) stays

.DEFAULT_GOAL := help
.PHONY: help install demo test check docs clean

BIN := .venv/bin
STAMP := .venv/.installed
PYTEST ?=
DEMO_STUDY := studies/quickstart.yaml
DEMO_NAME = $(shell sed -n 's/^name: *\([^ #]*\).*/\1/p' $(DEMO_STUDY))
DEMO_EXPORT := exported/quickstart

help:
	@sed -n 's/^#   //p' Makefile

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/install.sh
	@./scripts/install.sh
	@touch $@

demo: install
	$(BIN)/kdsearch run $(DEMO_STUDY) --workers 2
	$(BIN)/kdsearch export $(DEMO_NAME) --to $(DEMO_EXPORT) --overwrite
	@echo "The student is in $(DEMO_EXPORT). Look at the search: $(BIN)/kdsearch dashboard"

test: install
	$(BIN)/python -m pytest $(PYTEST)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -q tests/test_architecture.py tests/test_docs.py -k "not load"

docs: install
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist exported
	find kdsearch dashboard tests -name __pycache__ -type d -prune -exec rm -rf {} +
