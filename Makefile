# What people and CI run.  Everything lives in .venv, made from the lock files in requirements/.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := .venv-clients
JOBS ?= 2

.PHONY: help integrity run demo test check format lint types bench profile memory lock clean real-parts autobahn

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.runtime ## serve config/local.yaml: simulated providers and a simulated exchange, no key, no network
	$(BIN)/seawall serve config/local.yaml

demo: $(VENV)/.runtime ## the gateway over simulated providers, one broken every few seconds
	$(BIN)/seawall demo

test: $(VENV)/.dev ## every test, JOBS at a time; those that need Node or others' clients say so and skip where absent
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: format-check lint types test ## what CI runs

format: $(VENV)/.dev ## rewrite the sources in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

format-check: $(VENV)/.dev
	$(BIN)/ruff format --check .

lint: $(VENV)/.dev ## ruff, with a reason on every exception
	$(BIN)/ruff check .

types: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

bench: $(VENV)/.bench ## Seawall beside nginx, HAProxy and Envoy in one run; then events to ten thousand sockets
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.fanout

profile: $(VENV)/.dev ## where a request's time goes
	$(BIN)/python -m benchmarks.profile

memory: $(VENV)/.dev ## a million calls with faults: is memory flat?
	$(BIN)/python -m benchmarks.memory

integrity: $(VENV)/.dev ## 100,000 calls under each fault that answers what is not true, 100,000 orders, 100,000 odd requests
	SEAWALL_CALLS=100000 $(BIN)/python -m pytest -q -s tests/scenarios/test_wrong_answers.py \
		tests/scenarios/test_order_safety.py tests/scenarios/test_forwarding.py

real-parts: $(CLIENTS)/.done ## what the tests with real nodes and clients need: Node packages, and exchange clients for Python
	cd tests/real && npm ci --ignore-scripts --no-audit --no-fund

$(CLIENTS)/.done: requirements/clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/clients.txt
	@touch $@

autobahn: ## the Autobahn WebSocket test suite, where there is a Python 2.7 for it (else its tests say so and skip)
	@$(PYTHON) tests/autobahn/install.py

COMPILE = $(BIN)/uv pip compile -q --upgrade --generate-hashes --no-emit-index-url --python-version 3.11 --custom-compile-command "make lock"

lock: $(VENV)/.dev ## make the lock files anew; the widest set decides the versions of all
	$(BIN)/python -m pip install -q uv
	$(COMPILE) --extra test --extra check --extra clients pyproject.toml -o requirements/dev.txt
	$(COMPILE) -c requirements/dev.txt pyproject.toml -o requirements/runtime.txt
	$(COMPILE) -c requirements/dev.txt requirements/build.in -o requirements/build.txt
	$(COMPILE) -c requirements/dev.txt --extra bench pyproject.toml -o requirements/bench.txt
	$(COMPILE) requirements/clients.in -o requirements/clients.txt

clean: ## remove what was built
	rm -rf $(VENV) $(CLIENTS) .venv-autobahn .mypy_cache .ruff_cache .pytest_cache .hypothesis dist

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Seawall needs Python 3.11 or newer; set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make a virtual environment. On Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(VENV)/.runtime: requirements/runtime.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/runtime.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/build.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@touch $@

$(VENV)/.bench: requirements/bench.txt $(VENV)/.dev
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@
