# `make` explains itself. Everything goes into .venv; nothing else on the machine is touched.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help install demo test lint bench contracts forge verify mutants clean

PYTHON ?= python3
BIN := .venv/bin
NODE_MAJOR := $(shell node --version 2>/dev/null | sed -nE 's/^v([0-9]+).*/\1/p')
COMMA := ,
# The contract test rebuilds the Solidity sources; a machine without Node 20 gets one inside .venv.
DEV_EXTRAS := $(if $(shell [ "$(or $(NODE_MAJOR),0)" -ge 20 ] && echo yes),dev,dev$(COMMA)node)

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

install: .venv/.demo-installed ## set up .venv with everything that a node and the demo need

demo: .venv/.demo-installed ## a whole session on this machine: six peers, a chain, a report (about three minutes)
	@$(BIN)/learnae demo $(DEMO_ARGS)

test: .venv/.dev-installed .venv/.nodes-installed ## run the tests
	@$(BIN)/python -m pytest -q $(TEST_ARGS)

lint: .venv/.dev-installed ## ruff, mypy --strict, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(wildcard src benchmarks examples verification)
	@$(BIN)/lint-imports --no-cache | tail -n 12

bench: .venv/.dev-installed .venv/.nodes-installed ## run the benchmarks; BENCH="name ..." picks some
	@$(BIN)/python -m benchmarks $(BENCH)

contracts: .venv/.dev-installed ## rebuild the contract artefacts from their sources
	@$(BIN)/python -m learnae.contracts.build

verify: .venv/.provers-installed ## check the contracts: forge tests, invariants, coverage, proofs, slither
	@$(BIN)/python -m verification verify

forge: .venv/.nodes-installed ## test the contracts: units, fuzzing, 250 random runs of 128 calls with all invariants
	@$(BIN)/python -m verification forge

mutants: .venv/.nodes-installed ## put faults into the contracts; the tests must catch each one (fifteen minutes on two cores)
	@$(BIN)/python -m verification mutants

clean: ## remove .venv, caches and demo folders
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache learnae-demo* verification/node_modules verification/.venv
	@find src tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "learnae needs Python 3.11 or later; got %s. Set PYTHON=/path/to/python3.11" % sys.version.split()[0])'
	@echo "creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/.demo-installed: pyproject.toml constraints.txt tools/install.sh | .venv/bin/python
	@echo "installing learnae and what the demo needs (once, a few minutes at most)"
	@tools/install.sh demo
	@touch $@

.venv/.dev-installed: .venv/.demo-installed
	@echo "installing what the tests need"
	@tools/install.sh $(DEV_EXTRAS)
	@tools/mosquitto.sh
	@touch $@

.venv/.nodes-installed: verification/package-lock.json | .venv/.dev-installed
	@echo "installing the Ethereum nodes of the tests"
	@$(BIN)/python -m verification install nodes
	@touch $@

.venv/.provers-installed: verification/requirements.txt | .venv/.nodes-installed
	@echo "installing halmos and slither"
	@$(BIN)/python -m verification install provers
	@touch $@
