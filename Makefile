# Every task sets up what it needs: a virtual environment, the development packages, the compiled
# module. A fresh machine needs Python 3.11 or later, a Rust toolchain and the package registries.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= $(shell command -v python3.11 || command -v python3)
CARGO ?= cargo
DATA ?=
PRESET ?=
OUT ?= out
ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/.stamps
RUST_FILES := $(shell find rust -name '*.rs' -o -name 'Cargo.toml' -o -name 'clippy.toml')
CORE_CRATES := -p clustercore-core -p clustercore-dbn

export VIRTUAL_ENV := $(CURDIR)/$(VENV)
# Both the module that is tested and the checks see one interpreter, so cargo need not build PyO3 again for each.
export PYO3_PYTHON := $(CURDIR)/$(BIN)/python
unexport PYTHONHOME

.PHONY: run
run: build ## Backtest and write out/report.html (DATA=file PRESET=name OUT=folder ARGS="more options")
	@$(BIN)/clustercore backtest $(if $(DATA),"$(DATA)") $(if $(PRESET),--preset "$(PRESET)") --out "$(OUT)" $(ARGS)

.PHONY: build
build: $(STAMPS)/module ## Create .venv, install packages, compile the module into it

.PHONY: test
test: test-rust test-python ## Run every test: Rust, Python, docstrings, documents, examples (ARGS="-k name")

.PHONY: test-rust
test-rust:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run --locked --no-tests=pass $(CORE_CRATES) && $(CARGO) test --locked --doc $(CORE_CRATES); \
	else \
	  $(CARGO) test --locked $(CORE_CRATES); \
	fi

.PHONY: test-python
test-python: build
	@$(BIN)/pytest -n auto --maxprocesses 8 $(ARGS)

.PHONY: soak
soak: build ## Run the live tests in full: 50 mixtures of faults, kills at 200 moments, five sessions
	@CLUSTERCORE_SOAK=1 $(BIN)/pytest tests/live -n auto --maxprocesses 8 -o timeout=1800 $(ARGS)

.PHONY: lint
lint: lint-rust lint-python lint-repository ## Run every static check; each fails on its first finding

.PHONY: lint-rust
lint-rust: fmt-check clippy rustdoc

.PHONY: fmt-check
fmt-check:
	$(CARGO) fmt --all --check

.PHONY: clippy
clippy: | $(STAMPS)/dev
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

.PHONY: rustdoc
rustdoc: | $(STAMPS)/dev
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --workspace --no-deps

.PHONY: lint-python
lint-python: stubtest ruff mypy imports

.PHONY: stubtest
stubtest: build
	$(BIN)/python -m mypy.stubtest clustercore._core --mypy-config-file pyproject.toml --allowlist tools/stubtest_allowlist.txt

.PHONY: ruff
ruff: | $(STAMPS)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

.PHONY: mypy
mypy: build
	$(BIN)/mypy

.PHONY: imports
imports: build
	$(BIN)/lint-imports

.PHONY: lint-repository
lint-repository: | $(STAMPS)/dev
	$(BIN)/python tools/secret_scan.py
	$(BIN)/python tools/third_party_licenses.py --check

.PHONY: ci
ci: ## Run what the continuous integration runs, in its order
	.ci/run

.PHONY: bench
bench: build $(STAMPS)/bench ## Measure beside the peers and print one table (ARGS="-k step"); out/benchmarks.json
	@$(BIN)/pytest benches --benchmark-enable --benchmark-quiet -q -p no:xdist -p no:cacheprovider \
	  -W ignore -o timeout=0 -o python_files="bench_*.py" $(ARGS)
	@if [ -z "$(ARGS)" ]; then $(CARGO) bench --locked -p clustercore-core; fi

.PHONY: performance
performance: bench ## Measure, then write docs/performance.md
	@$(BIN)/python tools/make_performance_page.py

.PHONY: wheel
wheel: | $(STAMPS)/dev ## Build a manylinux wheel and a source distribution into dist/, and check both
	@rm -rf dist
	@$(BIN)/python tools/build_wheel.py
	@$(BIN)/python tools/check_wheel.py

.PHONY: format
format: | $(STAMPS)/dev ## Format Rust and Python, apply ruff's safe corrections
	$(CARGO) fmt --all
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

.PHONY: licenses
licenses: | $(STAMPS)/dev ## Write THIRD_PARTY_LICENSES.md again, after a change of Cargo.lock
	$(BIN)/python tools/third_party_licenses.py

.PHONY: lock
lock: $(BIN)/python ## Pin the development packages again, after a change of pyproject.toml (ARGS=--upgrade)
	@$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header $(ARGS) \
	  pyproject.toml --group check --output-file requirements-dev.txt
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header $(ARGS) \
	  --group bench --constraints requirements-dev.txt --output-file requirements-bench.txt

.PHONY: clean
clean: ## Remove everything that was built
	rm -rf $(VENV) target dist out .benchmarks .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find python -name '*.so' -delete
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## Show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(BIN)/python:
	@tools/setup.sh create "$(PYTHON)" $(VENV)

$(STAMPS)/dev: requirements-dev.txt | $(BIN)/python
	@tools/setup.sh install $(VENV) $<
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/bench: requirements-bench.txt $(STAMPS)/dev
	@tools/setup.sh install $(VENV) $<
	@touch $@

$(STAMPS)/module: $(RUST_FILES) Cargo.toml Cargo.lock pyproject.toml $(STAMPS)/dev
	@command -v $(CARGO) >/dev/null || { echo "cargo was not found: install a Rust toolchain (1.88 or later)" >&2; exit 1; }
	PIP_QUIET=1 $(BIN)/maturin develop --release --locked
	@touch $@
