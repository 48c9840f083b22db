SHELL := /bin/bash -o pipefail
PYTHON ?= python3.11
BIN := .venv/bin
STORE := .hagane/store

.PHONY: help check fix test test-truth targets bench-plan bench-memory lint golden lock demo store-stop compile clean

help:  ## Show what there is to make
	@awk 'BEGIN {FS = ":.*## "} /^## / {print "\n" substr($$0, 4)} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Run
demo: .venv/laptop  ## Tune a small model from start to end on this machine; about ten minutes
	$(BIN)/python -m laptop.demo_model
	$(BIN)/python -m laptop.store start $(STORE)
	$(BIN)/hagane --env-file $(STORE)/env run specs/demo.yaml
store-stop:  ## Stop the demo's S3 server; what it holds stays in .hagane/store
	$(BIN)/python -m laptop.store stop $(STORE)
compile: .venv/laptop  ## Write the pipeline for a cluster to build/finetune.yaml
	$(BIN)/hagane compile build/finetune.yaml

## Develop
test: .venv/dev  ## Run all tests
	$(BIN)/pytest
test-truth: .venv/dev  ## Hold plans against real training and every architecture; some minutes
	$(BIN)/pytest -m truth tests/truth
targets: .venv/dev  ## Write docs/targets.md: what LoRA targets each architecture gets; three minutes
	$(BIN)/python -m tests.truth.targets_table
bench-plan: .venv/dev  ## Time and memory of planning a 70B model, beside DeepSpeed's and accelerate's estimators
	$(BIN)/python -m benchmarks.plan_speed
bench-memory: .venv/dev  ## Train small models and set their peak memory beside the plan; half an hour
	$(BIN)/python -m benchmarks.memory_truth
check: .venv/dev lint test golden  ## What CI runs: lint, types, import rules, tests, generated files
lint: .venv/dev  ## Style, types, and who may import whom
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright && $(BIN)/lint-imports
golden: .venv/dev  ## Make generated files again and fail when one differs
	$(BIN)/python -m tests.regenerate_golden && git diff --exit-code -- tests/golden README.md docs
fix: .venv/dev  ## Mend what ruff can mend
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
lock: .venv/dev  ## Resolve the lock files from pyproject.toml
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh
clean:  ## Remove the environment, all runs and what was built
	rm -rf .venv .hagane build

# An environment is as its lock file says, torch first: pip takes the wheel that fits the machine.
.venv/%: requirements/%.txt requirements/torch.txt pyproject.toml
	$(PYTHON) -m venv .venv
	DS_BUILD_OPS=0 $(BIN)/pip install --quiet --no-deps --require-hashes -r $<
	$(BIN)/pip install --quiet -r requirements/torch.txt
	$(BIN)/pip install --quiet --no-deps -e .
	@touch .venv/laptop $@
