# Two commands are all a newcomer needs: `make demo` and `make test`. `make` alone lists the rest.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
#: pytest processes: two cores and tests that mostly wait for servers
JOBS ?= 4
#: further arguments for pytest, the benchmark or the soak
ARGS ?=

BIN := .venv/bin
ENV := .venv/.installed
CELERY57 := .venv-celery57/.installed
PEERS := .venv-peers/.installed

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(ENV) ## start a worker with no server at all, call tasks, then do a real job with it
	@scripts/demo.sh

.PHONY: test
test: ## every test, on real servers (ARGS='-k retry'; SERVICES=none leaves out what needs a server)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target env celery57 services
	$(BIN)/pytest -q -n $(JOBS) --dist worksteal $(ARGS)

.PHONY: check
check: $(ENV) ## lint, types and the budgets of tests/budgets; no server needed
	$(BIN)/ruff check src tests benchmarks scripts
	$(BIN)/mypy src benchmarks scripts
	$(BIN)/pytest -q tests/budgets --ignore tests/budgets/test_static.py

.PHONY: bench
bench: $(ENV) $(CELERY57) services ## compare with Celery 5.7.0, into docs/performance.md (ARGS='--workload drain-redis --pairs 3')
	@ended=0; $(BIN)/python benchmarks/compare.py $(ARGS) || ended=$$?; $(BIN)/python benchmarks/report.py; exit $$ended

.PHONY: bench-all
bench-all: $(PEERS) ## the same with eight more task queues, and how costs grow; an hour or two
	@$(MAKE) --no-print-directory bench ARGS='--family celery --family canvas --family peers --family shape $(ARGS)'

.PHONY: soak
soak: $(ENV) services ## faults in full size, workflows, then an hour of work, while servers and workers are killed (ARGS='--minutes 5')
	FULL_SIZE=1 $(BIN)/pytest -q -s -o timeout=600 tests/system/test_faults.py tests/system/test_network.py tests/system/test_bounds.py tests/system/test_shutdown.py
	WORKFLOWS=1000 FIRE=120 $(BIN)/pytest -q -s tests/system/test_workflows.py tests/system/test_chord_faults.py -k 'random or fire'
	$(BIN)/python benchmarks/soak.py $(ARGS)

.PHONY: env
env: $(ENV) ## .venv with Celeriac and the tools; made again when pyproject.toml changes

$(ENV): pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo 'Celeriac needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11'; exit 1; }
	@echo 'Installing Celeriac and its tools into .venv ...'
	@[ -x $(BIN)/python ] || "$(PYTHON)" -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check 'pip>=25.1'
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable . --group dev
	@touch $@

.PHONY: celery57
celery57: $(CELERY57) ## .venv-celery57 with Celery 5.7.0, for tests/interop and the benchmark

$(CELERY57): scripts/celery57.txt
	@echo 'Installing Celery 5.7.0 into .venv-celery57 ...'
	@[ -x .venv-celery57/bin/python ] || "$(PYTHON)" -m venv .venv-celery57
	@.venv-celery57/bin/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: peers
peers: $(PEERS) ## .venv-peers with the other task queues of the benchmark

$(PEERS): scripts/peers.txt
	@echo 'Installing the peers of the benchmark into .venv-peers ...'
	@[ -x .venv-peers/bin/python ] || "$(PYTHON)" -m venv .venv-peers
	@.venv-peers/bin/python -m pip install -qq --disable-pip-version-check 'pip>=25.1'
	@.venv-peers/bin/python -m pip install -qq --disable-pip-version-check --requirement $<
	@touch $@

.PHONY: services
services: ## make Redis, RabbitMQ, PostgreSQL and MariaDB answer on loopback
	@"$(PYTHON)" scripts/services.py

.PHONY: clean
clean: ## remove environments, caches and what the demo left
	rm -rf .venv .venv-celery57 .venv-peers .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	rm -f examples/*/celery.sqlite*
	find src tests benchmarks scripts -name __pycache__ -type d -prune -exec rm -rf {} +
