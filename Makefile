# `make help` lists what there is. Everything that is needed is installed into the checkout: .venv and node_modules.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 7130
ARGS ?=
MINUTES ?= 10
SECONDS ?= 60
TARGET ?=
# Workers for the tests: they wait more than they compute.
WORKERS ?= 4
# What the tests need of Node.
JS := tests/e2e/js/node_modules clients/js/dist examples/orders-node/node_modules examples/react-orders/dist \
	benchmarks/peers/node/node_modules

# What `make bench` measures: all rows, or ROW="P1 P3"; how often each.
ROW ?= all
REPEAT ?= 5
# All rows are the published results; some are nobody's but yours.
RESULTS := benchmarks/results
MEASURED := $(RESULTS)/$(if $(filter all,$(ROW)),latest,some).jsonl

# What pyproject.toml names in these extras and groups, in the versions of requirements.lock, checked against its hashes. The
# build tools are among them, and pip: older ones want a requirement itself to be pinned.
UV ?= uv
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check
INSTALL := $(BIN)/python -c "$$LOCKED"
define LOCKED
import subprocess, sys, tomllib
read = tomllib.load(open('pyproject.toml', 'rb'))
parts = read['project']['optional-dependencies'] | read['dependency-groups']
needed = [*read['project']['dependencies'], *(each for name in sys.argv[1:] for each in parts[name])]
pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
sys.exit(subprocess.call([*pip, 'install', '--constraint', 'requirements.lock', *needed]))
endef
export LOCKED

.DEFAULT_GOAL := help
.PHONY: help dev test quick check bench soak fuzz format lock clean

help: ## List these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

dev: $(VENV)/.run ## Start a database, a demo and the server (PORT=7130, ARGS="--demo-traffic")
	@$(BIN)/insforge-realtime dev --port $(PORT) $(ARGS)

test: $(VENV)/.dev $(JS) ## Run the whole test suite (ARGS="-k name", SOAK_SECONDS=120)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

quick: $(VENV)/.dev ## Run unit tests, and those of SQL on the newest PostgreSQL, in a minute (ARGS="-k name")
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" tests/unit tests/pg $(ARGS)

check: $(VENV)/.dev clients/js/dist ## Lint, formats, types, the direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd clients/js && npm run --silent check

bench: $(VENV)/.bench benchmarks/peers/node/node_modules ## Measure ours and the peers, three quarters of an hour (ROW="P1 P3", REPEAT=5, ARGS="--quick")
	@mkdir -p $(RESULTS)
	@$(BIN)/python -m benchmarks.run $(ROW) --repeat $(REPEAT) --output $(MEASURED) $(ARGS); status=$$?; \
	$(BIN)/python -m benchmarks.report $(MEASURED) $(if $(filter all,$(ROW)),--folder $(RESULTS)) && exit $$status

soak: $(VENV)/.dev ## Mixed traffic of 2 000 clients: is memory flat, is latency? (MINUTES=10)
	@$(BIN)/python -m benchmarks.soak --minutes $(MINUTES) $(ARGS)

fuzz: $(VENV)/.fuzz ## Feed every reader of strangers' bytes what it does not expect (SECONDS=60, TARGET="frames http")
	@PYTHONPATH=tests:. $(BIN)/python -m fuzz $(TARGET) --seconds $(SECONDS)

format: $(VENV)/.dev clients/js/node_modules ## Put the code into its format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@cd clients/js && npm run --silent format

lock: ## Renew requirements.lock, the newest of everything that pyproject.toml allows (needs uv)
	@$(UV) --no-config export --quiet --format requirements-txt --all-extras --all-groups \
		--no-emit-project --no-annotate --no-header --output-file requirements.lock
	@rm uv.lock

clean: ## Remove all that was installed or built here (not the data in .realtime)
	@rm -rf $(VENV) $(JS) */*/node_modules tests/artifacts .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests benchmarks -name __pycache__ -prune -exec rm -rf {} +

# What both halves need; and, on top of it, what their developers need.
$(VENV)/.run: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 …"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) …"
	@sed -n '/^pip==/,/[^\\]$$/p' requirements.lock | $(PIP) install --requirement /dev/stdin
	@$(INSTALL) server client embedded build
	@$(PIP) install --no-build-isolation --no-deps --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run
	@$(INSTALL) dev
	@touch $@

$(VENV)/.bench: $(VENV)/.run
	@$(INSTALL) bench
	@touch $@

$(VENV)/.fuzz: $(VENV)/.dev
	@$(INSTALL) fuzz
	@touch $@

%/node_modules: %/package-lock.json
	@cd $* && npm ci --silent --no-audit --no-fund
	@touch $@

clients/js/dist: clients/js/node_modules clients/js/package.json clients/js/tsup.config.ts $(shell find clients/js/src -type f)
	@cd clients/js && npm run --silent build -- --silent
	@touch $@

examples/react-orders/dist: examples/react-orders/node_modules clients/js/dist $(wildcard examples/react-orders/*.* examples/react-orders/src/*)
	@cd examples/react-orders && npm run --silent build -- --logLevel warn
	@touch $@
