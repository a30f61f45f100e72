# Two commands matter: `make run` and `make test`. Both work from a bare clone on a machine with Python 3.11+ and make.

# Another interpreter: make test PYTHON=/path/to/python3.13
PYTHON ?=
VENV := .venv
PY := $(VENV)/bin/python
# More arguments for pytest: make test PYTEST="-x -k gate"
PYTEST ?=
# Most tests wait more than they compute: four at a time, also on two cores, and whoever is done takes tests of others.
SHARED := -m "not alone" -n 4 --dist worksteal
# What measures time wants the machine for itself and runs afterwards, alone. Either half may have nothing to run.
NONE_IS_WELL := || [ $$? -eq 5 ]

.DEFAULT_GOAL := help
.PHONY: help run test coverage lint conformance bench bench-sql proofs limits-proof chaos clean

help: ## Print this help
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/installed-run ## Start an MCP server, the proxy in front of it, call a tool, and keep serving
	@$(PY) examples/run_demo.py

test: lint ## Check style and types, then run every test
	@$(PY) -m pytest $(SHARED) $(PYTEST) $(NONE_IS_WELL)
	@$(PY) -m pytest -m alone $(PYTEST) $(NONE_IS_WELL)

coverage: $(VENV)/installed-dev ## Run the tests that take no figures, and show the lines that none of them reaches
	@$(PY) -m pytest $(SHARED) --cov --cov-report=term:skip-covered $(PYTEST)

lint: $(VENV)/installed-dev ## Check style and types only
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m mypy

conformance: $(VENV)/installed-dev ## Run the official conformance suite, direct against proxied (needs npm)
	@$(PY) -m tests.conformance.run

bench: $(VENV)/installed-dev ## Measure CPU per call beside a bare aiohttp pass-through; writes benchmarks/README.md
	@$(PY) -m benchmarks.bench

bench-sql: $(VENV)/installed-dev ## Measure what each index of the database is worth, on a million rows (needs a minute or two)
	@$(PY) -m benchmarks.bench_sql

proofs: $(VENV)/installed-dev ## Run the slow proofs: latency, streams, reloads, drains, revocation, outages, isolation (needs half an hour)
	@$(PY) -m tests.proofs.run

limits-proof: $(VENV)/installed-dev ## Run the proof of the limits: exactness, fairness, outages of Redis, cost (ten minutes)
	@$(PY) -m tests.limits.run

chaos: $(VENV)/installed-dev ## Break everything around the proxy, and measure what it does about it (half an hour or more)
	@$(PY) -m tests.chaos.run

clean: ## Remove the virtual environment and everything generated
	rm -rf $(VENV) .run .mcp-manager build dist .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
	  tests/conformance/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- the virtual environment: made once, and again when pyproject.toml changes ---------------------------------------

$(PY):
	@set -e; chosen="$(PYTHON)"; \
	new_enough() { "$$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }; \
	if [ -z "$$chosen" ]; then \
	  for candidate in python3.14 python3.13 python3.12 python3.11 python3 python; do \
	    if new_enough $$candidate; then chosen=$$candidate; break; fi; \
	  done; \
	fi; \
	if [ -z "$$chosen" ] || ! new_enough "$$chosen"; then \
	  echo "Python 3.11 or newer is needed and was not found. Install it (Debian: apt-get install python3 python3-venv)," \
	    "or name one: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$chosen" -c 'import ensurepip, venv' 2>/dev/null; then \
	  echo "$$chosen has no venv module. Install it (Debian and Ubuntu: apt-get install python3-venv)," \
	    "or name another interpreter: make PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$chosen" --version)"; \
	"$$chosen" -m venv $(VENV)

$(VENV)/installed-run: pyproject.toml | $(PY)
	@echo "Installing the proxy and its example (once; a minute or so)"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[embedded,example]'
	@touch $@

$(VENV)/installed-dev: pyproject.toml | $(PY)
	@echo "Installing the proxy and the development tools (once; a minute or so)"
	@$(PY) -m pip install -qq --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/installed-run
