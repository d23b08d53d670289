# Everything is a target: `make help` lists them. Virtual environments are made as needed.
SHELL := bash
PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
LAB := PYTHONPATH=tests $(BIN)/python -m lab

.DEFAULT_GOAL := help
.PHONY: help demo demo-down test test-unit test-server test-apiserver test-vllm test-e2e check format \
	generate lock serve lab-up lab-down lab-gpus packages images clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: .venv/done packages ## The main job, end to end, on a real cluster on this machine (needs root)
	PYTHONPATH=tests $(BIN)/python -m lab.demo

demo-down: lab-down ## End the demo's cluster

test: check test-server test-apiserver test-vllm test-e2e ## Every test (needs root)

check: .venv/done ## Format, lint, types, import layers, unit tests; under a minute
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=operator:server $(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q tests/unit

test-server: .venv/done ## The server's HTTP contract, with a small in-process engine
	$(BIN)/pytest -q -m "not vllm" tests/server

test-vllm: .venv-vllm/done ## The server with vLLM itself, on CPU
	.venv-vllm/bin/python -m pytest -q -m vllm tests/server

test-apiserver: .venv/done packages ## The operator against a real kube-apiserver and etcd
	$(BIN)/pytest -q tests/apiserver

test-e2e: .venv/done packages ## The chart and both images on a real cluster (LAB=existing: that of KUBECONFIG)
	$(BIN)/pytest -q tests/e2e

format: .venv/done ## Format the code
	$(BIN)/ruff check --fix -q .
	$(BIN)/ruff format .

serve: .venv-vllm/done build/tiny-reranker ## The server alone with the small model, on 127.0.0.1:8080 (PORT=)
	PYTHONPATH=server .venv-vllm/bin/python -m rerank_server --model build/tiny-reranker --port $(PORT)

lab-up: .venv/done ## Start a single-node Kubernetes on this machine (needs root)
	$(LAB) up

lab-down: .venv/done ## End it and leave nothing behind but the cache
	$(LAB) down

lab-gpus: .venv/done ## Let the lab's node claim accelerators (COUNT=)
	$(LAB) gpus $(or $(COUNT),1)

packages: .venv/done ## Install the Debian packages that the lab needs
	@[ "$$LAB" = existing ] || $(LAB) packages

build/tiny-reranker: .venv/done models/make_tiny.py
	$(BIN)/python models/make_tiny.py $@

.venv/done: requirements/uv.txt requirements/dev.txt
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install -q --require-hashes -r requirements/uv.txt
	$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements/dev.txt
	touch $@

.venv-vllm/done: .venv/done requirements/server-cpu.txt requirements/server-test.txt
	$(BIN)/uv venv -q --clear --python $(PYTHON) .venv-vllm
	$(BIN)/uv pip install --python .venv-vllm --no-deps --require-hashes \
		-r requirements/server-cpu.txt -r requirements/server-test.txt
	touch $@

clean: ## Delete what the targets made in this checkout
	rm -rf .venv .venv-vllm build .mypy_cache .pytest_cache .ruff_cache
