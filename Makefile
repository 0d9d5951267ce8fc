# DPME. `make help` lists the targets; each does its own set-up.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: bench bench-spine help setup demo test test-fast test-kafka test-clickhouse kafka-up kafka-down chaos lint picture clean

VENV := .venv
STAMP := $(VENV)/.stamp
BIN := $(VENV)/bin
BROKER ?= dev
SEED ?= 1
EVENTS ?= 3000
BROKERS ?= 1
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null && echo $$p && break; done)
HAVE_NPM := $(shell command -v npm)
HAVE_KAFKA := $(and $(shell command -v java),$(shell command -v mvn))
TESTS_WITHOUT_KAFKA := $(wildcard tests/unit tests/reference tests/properties tests/simulation tests/integration)

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with everything in it (again only when pyproject.toml or constraints.txt changed)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "setup: Python 3.11, 3.12 or 3.13 is needed: apt install python3 python3-venv" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	echo "setup: $(PYTHON) cannot make a virtual environment: apt install python3-venv" >&2; exit 2; }
	$(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: $(STAMP) ## the main job, live: a seeded world, margins, warnings, calls, liquidations
	$(BIN)/dpme demo

lint: $(STAMP) ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test-fast: $(STAMP) ## unit and reference tests only
	$(BIN)/python -m pytest $(wildcard tests/unit tests/reference) -m "not kafka and not clickhouse and not slow"

test: lint ## every test; on Kafka and ClickHouse too where Java and Maven, and npm, are there (CI=true: they must be)
	$(BIN)/python -m pytest $(TESTS_WITHOUT_KAFKA) -m "not kafka and not clickhouse"
ifneq ($(HAVE_NPM),)
	$(MAKE) --no-print-directory test-clickhouse
else
	@echo "NOT RUN: the tests on a ClickHouse engine: apt install --no-install-recommends npm && make test-clickhouse"
	@test "$$CI" != true
endif
ifneq ($(HAVE_KAFKA),)
	$(MAKE) --no-print-directory test-kafka
else
	@echo "NOT RUN: the tests on Apache Kafka (Java or Maven is missing)."
	@echo "To run them: apt install --no-install-recommends default-jre-headless maven && make test-kafka"
	@test "$$CI" != true
endif

test-kafka: $(STAMP) ## the same suites on Apache Kafka (needs Java and Maven)
	@test -n "$(HAVE_KAFKA)" || { \
	echo "test-kafka: Java or Maven is missing: apt install --no-install-recommends default-jre-headless maven" >&2; exit 2; }
	$(BIN)/python -m pytest tests -m kafka

test-clickhouse: $(STAMP) ## the store's tests on a real ClickHouse engine (npm fetches it once, 178 MB, to ~/.cache/dpme)
	@test -n "$(HAVE_NPM)" || { echo "test-clickhouse: npm is missing: apt install --no-install-recommends npm" >&2; exit 2; }
	$(BIN)/python -m pytest $(TESTS_WITHOUT_KAFKA) -m "clickhouse and not kafka"

kafka-up: ## Apache Kafka on 127.0.0.1:9092 (DPME_KAFKA_PORT), from its published jars
	@infra/kafka/kafka up

kafka-down: ## stop it
	@infra/kafka/kafka down

chaos: $(STAMP) ## every fault under load, outputs compared: BROKER=dev|kafka SEED=n EVENTS=n ACTS="kill:risk,..." (ACTS=list)
	$(BIN)/python -m tests.chaos --broker $(BROKER) --brokers $(BROKERS) --seed $(SEED) --events $(EVENTS) --reorgs $(if $(ACTS),--acts "$(ACTS)")

bench: $(STAMP) ## figures of the kernels beside their peers, in one run (pip install QuantLib for that peer)
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(BIN)/python -m tests.bench kernels

bench-spine: $(STAMP) ## throughput, latency and recovery of risk workers beside their peers: BROKER=kafka|dev (half an hour)
	$(BIN)/python -m tests.bench spine --broker $(if $(filter command,$(origin BROKER)),$(BROKER),kafka)

picture: $(STAMP) ## infra/docs/demo.svg, the picture in README (half a minute, on a quiet machine)
	$(BIN)/python infra/docs/make_demo_picture.py

clean: ## remove the environment, caches and broker data (not Kafka's jars)
	@infra/kafka/kafka clean || true
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .import_linter_cache .numba_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
