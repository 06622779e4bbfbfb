# `make quickstart` and `make test` need only Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CONSTRAINTS := .ci/constraints-py$(if $(filter 3.11,$(VERSION)),311,312).txt
# Not quiet: the first installation takes minutes.
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint $(CONSTRAINTS)
JOBS ?= 2
CUDA ?= cuda13

.PHONY: quickstart test test-slow test-redis test-browser test-wheel test-parity test-tpu test-gpu lint types contracts check bench results clean help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

quickstart: $(VENV)/.installed ## set up, then the whole pipeline on the bundled mini-world (about ten minutes)
	$(BIN)/mmsearch quickstart

test: $(VENV)/.installed-test ## every test that needs neither torch nor an accelerator
	$(BIN)/python -m pytest -n $(JOBS) --dist worksteal tests

test-slow: $(VENV)/.installed-test ## tests that take minutes: whole commands, kills, every kind of mesh
	$(BIN)/python -m pytest -m slow -n $(JOBS) --dist worksteal tests

test-redis: $(VENV)/.installed-test ## several search servers over one Redis (installed by apt-get where it is missing)
	command -v redis-server > /dev/null || (apt-get update -qq && apt-get install -y -qq redis-server)
	$(BIN)/python -m pytest -m redis tests/tools_server

test-browser: $(VENV)/.installed-test ## the report in headless Chromium (installed by apt-get where it is missing, for root)
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || command -v google-chrome >/dev/null || \
	  { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core >/dev/null; } || \
	  { echo "test-browser needs Chromium: apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest -m browser tests

test-wheel: ## builds the wheel, installs it into a new environment, runs commands from an empty folder
	.ci/test_wheel.sh $(PYTHON)

test-parity: $(VENV)/.installed-parity ## numerical parity with transformers' torch model
	$(BIN)/python -m pytest -s --override-ini="addopts=-q" tests/parity

test-tpu: $(VENV)/.installed-tpu ## programs for TPUs, compiled ahead of time on this machine (no TPU needed)
	JAX_PLATFORMS=cpu TPU_SKIP_MDS_QUERY=1 ALLOW_MULTIPLE_LIBTPU_LOAD=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup --override-ini="addopts=-q" tests/tpu

test-gpu: $(VENV)/.installed-cuda ## attention and the policy on a GPU (CUDA=cuda12 for older drivers)
	XLA_PYTHON_CLIENT_PREALLOCATE=false $(BIN)/python -m pytest -n $(JOBS) --override-ini="addopts=-q --import-mode=importlib" tests/gpu

lint: $(VENV)/.installed-test ## ruff: lint and format
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: $(VENV)/.installed-test ## pyright on the packages
	$(BIN)/pyright

contracts: $(VENV)/.installed-test ## import contracts: imports run one way
	$(BIN)/lint-imports

check: lint types contracts ## lint, types and contracts

bench: $(VENV)/.installed-parity runs/quickstart/quickstart.json ## all benchmarks, also of peers: writes docs/performance.md (two hours)
	$(BIN)/python -m benchmarks.performance

runs/quickstart/quickstart.json: | $(VENV)/.installed
	$(BIN)/mmsearch quickstart

results: $(VENV)/.installed ## the quickstart with three seeds, written to docs/results.md
	$(BIN)/python -m benchmarks.results

clean: ## removes the environment and all runs
	rm -rf $(VENV) runs

# One environment per Python version: another PYTHON creates it again.
$(VENV)/.python$(VERSION):
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mmsearch-jax needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS) $(VENV)/.python$(VERSION)
	$(INSTALL) --editable '.[tools]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --editable '.[test]'
	@touch $@

$(VENV)/.installed-tpu: $(VENV)/.installed-test
	$(INSTALL) --editable '.[plan]'
	@touch $@

$(VENV)/.installed-cuda: $(VENV)/.installed-test
	$(INSTALL) --editable '.[$(CUDA)]'
	@touch $@

$(VENV)/.installed-parity: $(VENV)/.installed-test
	$(INSTALL) --editable '.[parity]'
	@touch $@
