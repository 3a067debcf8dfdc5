# Everything a developer runs. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

# The first of these that runs and is new enough; name another with `make test PYTHON=...`.
PYTHON ?= $(shell for p in python3.11 python3.12 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
PYTHON312 ?= $(shell for p in python3.12 $(HOME)/.pyenv/versions/3.12*/bin/python python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null && echo $$p && break; done)

VENV := .venv
VENV312 := .venv312
BIN := $(VENV)/bin
BIN312 := $(VENV312)/bin
WORKERS ?= 2

# One thread a worker: the workers already fill the cores. A file goes to one worker, which makes what
# its tests share, and compiles, once.
ONE_THREAD := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
SHARED_OUT := -n $(WORKERS) --dist loadfile

# Of some 30,000 files that are installed few are ever imported: those are compiled then, once.
INSTALL := install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE

# Half the time of the tests in JAX is compiling. This takes a third of it less, and is known to the
# jaxlib of constraints.txt; the tests on Python 3.12 are compiled as users compile.
QUICK_XLA := XLA_FLAGS="--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"

.PHONY: help setup demo test lint format unit docs pages pictures serve test-jax312 bench-gpu release extras clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.stamp  ## make .venv from constraints.txt

# torch comes first and pinned, so that the resolver never looks at another build of it.
$(VENV)/.stamp: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 found: make ... PYTHON=/path/to/python" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) -c constraints.txt torch
	$(BIN)/pip $(INSTALL) -c constraints.txt -e '.[all,dev]'
	touch $@

demo: $(VENV)/.stamp  ## train, sample and explain test digits in both backends
	$(BIN)/ppl-bif demo

test: $(VENV)/.stamp  ## everything that must hold before a commit
	$(MAKE) -j3 lint unit docs

lint: $(VENV)/.stamp  ## style, types, import layers and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.stamp  ## rewrite the sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit: $(VENV)/.stamp  ## tests and doctests
	$(ONE_THREAD) $(QUICK_XLA) $(BIN)/pytest $(SHARED_OUT)

docs: $(VENV)/.stamp  ## build the site strictly, running the tutorials that changed
	$(ONE_THREAD) $(QUICK_XLA) NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

pages: $(VENV)/.stamp  ## build the site into .cache/pages without running tutorials
	TUTORIALS=unrun NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --site-dir .cache/pages

pictures: pages  ## picture every page as a phone and a desktop show it, and check them
	$(BIN)/python docs/pictures.py .cache/pages .cache/pictures

serve: $(VENV)/.stamp  ## show the site while writing it, without running tutorials
	TUTORIALS=unrun NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve

$(VENV312)/.stamp: pyproject.toml constraints-312.txt
	@test -n "$(PYTHON312)" || { echo "no Python 3.12 found: make $@ PYTHON312=/path/to/python" >&2; exit 1; }
	$(PYTHON312) -m venv $(VENV312)
	$(BIN312)/pip $(INSTALL) -c constraints-312.txt -e '.[numpyro,plots,demo,test]'
	touch $@

# What holds kernels and estimators against truth, runs that are killed or spread out, and networks:
# ArviZ has no part in it, and one Python is enough.
ONCE := test_kernels test_stationary test_nuts test_damped_limit test_coverage test_calibration \
	test_copula test_covariance test_shrinkage test_noise test_absurd test_packing test_precision \
	test_faults test_fuzz test_cluster test_costs test_evaluation test_models test_gpt \
	test_bench_gpu test_bench_search numpyro/test_large numpyro/test_sharded numpyro/test_network \
	numpyro/test_blackjax numpyro/test_cost test_contract test_sites test_weights test_trajectory \
	test_site test_wheel test_readme \
	test_streaming test_reweighting test_jackknifing test_susceptibilities test_similarity test_bench_damped \
	test_locality test_resume test_refining test_experiment

test-jax312: $(VENV312)/.stamp  ## the JAX part on Python 3.12 and ArviZ 1.x, without torch
	$(BIN312)/python -c 'import importlib.util as u, sys; sys.exit(u.find_spec("torch") and "torch is installed in $(VENV312)")'
	$(ONE_THREAD) $(BIN312)/pytest $(SHARED_OUT) $(ONCE:%=--ignore=tests/%.py)

# JAX with CUDA comes beside what the other targets have; without it the row in JAX fails, and says so.
JAX_CUDA ?= jax[cuda12]

bench-gpu: $(VENV)/.stamp  ## measure the GPU table on the GPU there is
	$(BIN)/python -c 'import torch, sys; sys.exit(not torch.cuda.is_available() and "PyTorch sees no GPU here")'
	$(BIN)/pip $(INSTALL) -c constraints.txt '$(JAX_CUDA)' || echo "no JAX with CUDA" >&2
	$(BIN)/python -m benchmarks.speed.gpu

release: $(VENV)/.stamp  ## build the source distribution and the wheel into dist
	$(BIN)/python -m build --outdir dist .

extras: $(VENV)/.stamp  ## install the wheel with each extra in an empty environment, and use it
	rm -rf .cache/extras && mkdir -p .cache/extras
	$(BIN)/python -m build --wheel --outdir .cache/extras . > /dev/null
	$(BIN)/python -m tests.extras .cache/extras/*.whl constraints.txt .cache/extras

clean:  ## remove what the other targets made
	rm -rf $(VENV) $(VENV312) .cache site build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
