# Two commands are the contract: `make run` and `make test`.
PYTHON ?= python3
PORT ?= 8700
VENV := .venv
BIN := $(VENV)/bin
# pip compiles one file after another, tests of scikit-learn included, for longer than all the rest takes.
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary --no-compile
COMPILE := $(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true
DJADE := $(BIN)/djade --target-version 5.2
TARGET ?= examples/workflows/example_flows.py

.PHONY: run install test coverage test-fast test-others test-postgres test-sdk lint types types-js format docs bench chaos soak lock clean

install: $(VENV)/.run  ## what the server needs, into .venv

run: $(VENV)/.run
	@PERFECT_HOME="$(PERFECT_HOME)" exec $(BIN)/python manage.py serve --port $(PORT) --worker $(TARGET)

# ------------------------------------------------------------------------------------------------------------ checks
test: $(VENV)/.dev  ## everything, on this Python; what cannot run here is named, and CI=true makes that a failure
	$(BIN)/python -m pytest -n 2 tests/rules tests/wire tests/sdk tests/server tests/examples tests/test_*.py
	$(BIN)/python -m pytest -n 3 --dist loadfile -p no:randomly tests/chaos tests/modes tests/servers tests/worker tests/journeys tests/browser

# From Python 3.12 on it costs little (sys.monitoring), on 3.11 nearly as much as the tests: so it is not part of `make test`.
coverage: export COVERAGE_CORE = $(shell $(BIN)/python -c 'import sys; print("ctrace" if sys.version_info < (3, 12) else "sysmon")')
coverage: $(VENV)/.dev  ## the first half of the tests, with the floor that pyproject.toml has
	$(BIN)/python -m pytest -n 2 --cov --cov-report=term tests/rules tests/wire tests/sdk tests/server

test-others: $(VENV)/.dev  ## the SDK's tests on the other Pythons from 3.8 to 3.13
	$(BIN)/python tests/interpreters.py --others

test-postgres: export TESTS_DATABASE_URL = $(or $(TESTS_POSTGRES_URL),postgres://$(shell id -un)@127.0.0.1:5432/postgres)
test-postgres: $(VENV)/.dev  ## what uses the database, and the journeys, on PostgreSQL at TESTS_POSTGRES_URL
	$(BIN)/python -m pytest -n 2 tests/server
	$(BIN)/python -m pytest -n 3 --dist loadfile -p no:randomly tests/journeys

test-fast: $(VENV)/.dev  ## pure and server tests only
	$(BIN)/python -m pytest -n 2 tests/rules tests/wire tests/sdk tests/server tests/test_*.py

test-sdk: $(VENV)/.dev  ## the SDK's tests on every Python from 3.8 to 3.13 that is here
	$(BIN)/python tests/interpreters.py

lint: $(VENV)/.dev
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/lint-imports --no-logo
	find perfect_site/templates -name '*.html' -exec $(DJADE) --check {} +

format: $(VENV)/.dev
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .
	find perfect_site/templates -name '*.html' -exec $(DJADE) {} +

types: $(VENV)/.dev types-js
	$(BIN)/python -m mypy

types-js:  ## the types of the pages' scripts, where TypeScript is there; CI=true makes its absence a failure
	@if command -v tsc >/dev/null; then tsc --project jsconfig.json; \
	else echo "The scripts' types are not checked: no tsc here (apt-get install node-typescript)."; [ "$(CI)" != true ]; fi

docs: $(VENV)/.dev  ## the documentation as a site, in site/; a broken link is a failure
	$(BIN)/python -m mkdocs build --strict --quiet

bench: $(VENV)/.dev  ## the promised numbers on this machine; `make bench WRITE=1` keeps them in docs/benchmarks.md
	$(BIN)/python tests/bench/bench.py $(if $(WRITE),--write)

chaos: $(VENV)/.dev  ## break a real installation for so long: `make chaos MINUTES=10 SEED=7 RATE=2.5 [DATABASE=postgres]`
	$(BIN)/python -m tests.chaos --minutes $(or $(MINUTES),10) --seed $(or $(SEED),7) --database $(or $(DATABASE),sqlite) --rate $(or $(RATE),2.5)

soak: $(VENV)/.dev  ## so many runs a second for so long; memory, files and threads must stay flat
	$(BIN)/python -m tests.chaos.soak --minutes $(or $(MINUTES),30) --rate $(or $(RATE),10)

# ------------------------------------------------------------------------------------------------------- environment
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Perfect needs Python 3.11 or newer, this is %s; try: make run PYTHON=python3.12" % sys.version.split()[0])'
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.run: requirements.lock client_sdk/pyproject.toml | $(BIN)/python
	@echo "Installing into $(VENV) …"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-deps --no-build-isolation -e client_sdk  # it needs nothing, and what builds it is in the lock
	@$(COMPILE)
	@touch $@

$(VENV)/.dev: requirements-dev.txt requirements-postgres.txt $(VENV)/.run
	@$(PIP) -r requirements-dev.txt
	@touch $@

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --custom-compile-command "make lock"
lock: $(VENV)/.dev  ## requirements.lock anew: the newest versions in the ranges, for every Python from 3.11 on
	@grep -hv '^-' requirements*.txt examples/requirements.txt | $(LOCK) --upgrade --output-file $(VENV)/tested.txt -
	@grep -hv '^-' requirements.txt requirements-build.txt examples/requirements.txt \
	    | $(LOCK) --upgrade --generate-hashes --constraint $(VENV)/tested.txt --output-file requirements.lock -

clean:
	rm -rf $(VENV) .venvs site .mypy_cache .ruff_cache .pytest_cache
