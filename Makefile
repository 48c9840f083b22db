SHELL := /bin/bash -o pipefail
PYTHON ?= python3.11
BIN := .venv/bin
STORE := .hagane/store

.PHONY: help check fix test test-unit test-runs test-matrix test-crash test-races test-hostile test-registries test-lm-eval test-truth test-images test-cluster test-wheel targets packing bench-checkpoint bench-plan bench-export bench-adam bench-memory bench-data bench-time bench-start bench-neighbour bench-templates bench-train bench-layers bench-published lint golden docs lock demo demo-model \
  store-stop compile clean images images-accept images-cuda push

help:  ## Show what there is to make
	@awk 'BEGIN {FS = ":.*## "} /^## / {print "\n" substr($$0, 4)} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

## Run
demo: .venv/laptop  ## Tune a small model from start to end on this machine; about ten minutes
	$(BIN)/python -m laptop.demo
demo-model: .venv/laptop  ## Make the demo's small model alone, in .hagane/models; under a minute
	$(BIN)/python -m laptop.demo_model
store-stop:  ## Stop the demo's S3 server; what it holds stays in .hagane/store
	$(BIN)/python -m laptop.store stop $(STORE)
compile: .venv/laptop  ## Write the pipeline for a cluster to build/finetune.yaml
	$(BIN)/hagane compile build/finetune.yaml

bench-checkpoint: .venv/laptop  ## Print what a checkpoint costs, beside doing it in line and beside other upload programs
	$(BIN)/python -m laptop.demo_model
	$(BIN)/python -m laptop.store start $(STORE)
	$(BIN)/python -m benchmarks.checkpoint

## Images
images: .venv/dev  ## Build every image but CUDA's, by docker or podman; sizes, contents, vulnerabilities (offline: AUDIT=--accept-not-audited)
	$(BIN)/python -m images.build && $(BIN)/python -m images.table && $(BIN)/python -m images.sbom && $(BIN)/python -m images.audit $(AUDIT)
images-cuda: .venv/dev  ## Build the training image for GPUs: 6 GB, a quarter of an hour
	$(BIN)/python -m images.build train-cuda && $(BIN)/python -m images.table
images-accept: .venv/dev  ## Make today's sizes the bounds
	$(BIN)/python -m images.table --accept
push: .venv/dev  ## Push the images to REGISTRY=…, and write their digests to images/images.yaml
	$(BIN)/python -m images.push $(REGISTRY)

## Develop
test: .venv/dev test-unit  ## Run all tests but the slow suites below
	$(BIN)/pytest -n 2 --dist loadfile tests/integration
test-unit: .venv/dev  ## Run the fast tests alone, a process per core
	$(BIN)/pytest -n auto tests/contracts tests/unit
test-runs: .venv/dev  ## Run the pipeline once for each kind of run, some killed, and as the KFP UI runs it; five minutes
	$(BIN)/pytest -n 2 --dist loadfile tests/runs
test-matrix: .venv/dev  ## Compare trainings with plain torch, export each architecture, spoil a run in 48 ways; three quarters of an hour
	$(BIN)/pytest tests/matrix
test-crash: .venv/dev  ## Kill training and uploads at every write, break network, disk and files; half an hour
	$(BIN)/pytest tests/crash --least-kills 200
test-races: .venv/dev  ## Start a run twice, at twenty moments of the first, on a folder and on S3; print who stopped; ten minutes
	$(BIN)/pytest tests/crash/test_two_starts.py -rP
test-hostile: .venv/dev  ## Read 10,000 damaged specs, and what else comes from outside; two minutes
	$(BIN)/pytest tests/unit/shared/test_hostile_input.py --hostile-cases 10000
test-registries: .venv/dev  ## Publish to MLflow's server, to a Model Registry's schema and to a stand-in for the hub; some minutes
	$(BIN)/pip install --quiet --upgrade --target build/registries mlflow==3.17.2 model-registry==0.3.18
	PYTHONPATH=$(CURDIR)/build/registries $(BIN)/pytest tests/integration/registries
test-lm-eval: .venv/dev  ## Measure a tiny model by tasks of the real lm-evaluation-harness; two minutes
	mkdir -p build && $(BIN)/pip list --format=freeze | grep -v ^hagane > build/held.txt
	$(BIN)/pip install --quiet --upgrade --target build/lm_eval -c build/held.txt lm_eval==0.4.13
	PYTHONPATH=$(CURDIR)/build/lm_eval $(BIN)/pytest tests/integration/lm_eval
test-cluster: .venv/dev  ## Train, kill, drain, cut off and cancel in the cluster of KUBECONFIG, one made for tests that has the images
	$(BIN)/pytest tests/cluster
test-images: .venv/dev  ## Open each built image, and run the pipeline through them; five minutes
	$(BIN)/pytest tests/images
test-wheel: .venv/dev  ## Build the wheel, install it without torch far from here, plan with it; a minute, needs a package index
	$(BIN)/pytest tests/package
test-truth: .venv/dev  ## Compare plans with real training and every architecture; some minutes
	$(BIN)/pytest tests/truth
targets: .venv/dev  ## Write docs/targets.md: what LoRA targets each architecture gets; three minutes
	$(BIN)/python -m tests.truth.targets_table
packing: .venv/dev  ## Write docs/packing.md: which model types keep conversations of a row apart; a minute
	$(BIN)/python -m tests.truth.packing_table
bench-plan: .venv/dev  ## Time and memory of planning a 70B model, beside DeepSpeed's and accelerate's estimators
	$(BIN)/python -m benchmarks.plan_speed
bench-memory: .venv/dev  ## Train small models and set their peak memory beside the plan; half an hour
	$(BIN)/python -m benchmarks.memory_truth
bench-export: .venv/dev  ## Export a full model of 1.1 B parameters: memory and seconds beside DeepSpeed's zero_to_fp32; 14 GB of disk
	$(BIN)/python -m benchmarks.export_full
bench-adam: .venv/dev  ## Time AdamW on the host, DeepSpeed's compiled one beside torch's; needs g++; some minutes
	DS_ACCELERATOR=cpu $(BIN)/python -W ignore -m benchmarks.cpu_adam --parameters 50e6 --steps 40
bench-published: .venv/dev  ## Compare the plan's time of a step with runs on GPUs that others published
	$(BIN)/python -m benchmarks.published_speed
bench-time: .venv/dev  ## Train small models and set the time of a step beside the plan; a quarter of an hour
	$(BIN)/python -m benchmarks.time_truth
bench-train: .venv/dev  ## Speed and memory of training beside a plain script of transformers, PEFT and DeepSpeed; half an hour
	HF_HUB_OFFLINE=1 $(BIN)/python -W ignore -m benchmarks.train_peers
bench-layers: .venv/dev  ## Speed and memory of a step with hagane's output layer and attention, beside the model's own; half an hour
	$(BIN)/python -W ignore -m benchmarks.own_layers
bench-neighbour: .venv/dev  ## Time a step beside other work on the machine, by how its threads wait for each other; a minute
	HF_HUB_OFFLINE=1 $(BIN)/python -m benchmarks.busy_neighbour
bench-start: .venv/dev  ## Time from torchrun to the first step, by part, with 1 and 2 processes; five minutes
	HF_HUB_OFFLINE=1 $(BIN)/python -W ignore -m benchmarks.start_up
bench-data: .venv/dev  ## Memory and speed of prepare_dataset for 20 and 200 MB of chats, beside the tokenizer alone; some minutes
	$(BIN)/python -m benchmarks.data_memory
	$(BIN)/python -W ignore -m benchmarks.data_peers
bench-templates: .venv/dev  ## What it costs that chat templates are rendered within limits; a minute
	$(BIN)/python -m benchmarks.bounded_templates
check: .venv/dev lint test golden  ## What CI runs: lint, types, import rules, tests, generated files
lint: .venv/dev  ## Style, types, and who may import whom
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/basedpyright && $(BIN)/lint-imports
golden: .venv/dev  ## Make generated files again and fail when one differs
	$(BIN)/python -m tests.regenerate_golden && git diff --exit-code -- tests/golden README.md docs
docs: build/docs-env/made  ## Build the site of docs/ into build/site, and fail on a broken link; no network once its environment is there
	NO_MKDOCS_2_WARNING=1 build/docs-env/bin/mkdocs build --strict --quiet
fix: .venv/dev  ## Fix what ruff can fix
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
lock: .venv/dev  ## Resolve the lock files from pyproject.toml
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh
build/docs-env/made: requirements/docs.txt requirements/pip.txt
	$(PYTHON) -m venv build/docs-env
	build/docs-env/bin/pip install --quiet --no-deps --require-hashes -r requirements/pip.txt
	build/docs-env/bin/pip install --quiet --no-deps --require-hashes -r requirements/docs.txt
	@touch $@
clean:  ## Remove the environment, all runs and what was built
	rm -rf .venv .hagane build

# An environment is as its lock file says. torch is the one without CUDA where pip is offered it, and else PyPI's with its libraries.
.venv/%: requirements/%.txt requirements/torch-cpu.txt requirements/torch-cuda.txt requirements/pip.txt requirements/build.txt pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/pip.txt
	PIP_BUILD_CONSTRAINT=requirements/build.txt DS_BUILD_OPS=0 $(BIN)/pip install --quiet --no-deps --require-hashes -r $<
	$(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/torch-cpu.txt 2> /dev/null \
	  || $(BIN)/pip install --quiet --no-deps --require-hashes -r requirements/torch$(if $(filter Linux,$(shell uname -s)),-cuda).txt
	PIP_BUILD_CONSTRAINT=requirements/build.txt $(BIN)/pip install --quiet --no-deps -e .
	@touch .venv/laptop $@
