# Every target but fresh and gpu makes .venv first; nothing outside this folder is touched.
PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
BIN := $(VENV)/bin
PIP_SHOWN := $(BIN)/python -m pip install --disable-pip-version-check -c $(CONSTRAINTS)
PIP := $(PIP_SHOWN) --quiet

.DEFAULT_GOAL := help
EXPLORER := docs/explorer
MODEL ?= shapes
MINUTES ?= 30

.PHONY: help demo test test-all mutate fuzz release release-check lab fresh notebooks docs explorer browser-test map bench gpu lint format clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

demo: $(VENV)/.demo ## from nothing to outputs/demo/report.html; says beforehand how long it takes
	$(BIN)/tensormask-edu demo --output outputs/demo

test: $(VENV)/.dev ## the tests, CPU only; ends with the checks that did not run and why
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not long"

test-all: $(VENV)/.dev ## the long tests as well
	$(BIN)/python -m pytest -n auto --dist loadfile

mutate: $(VENV)/.dev ## small faults put into the core, one at a time: does a test notice? An hour
	$(BIN)/python tests/mutation/run.py

fuzz: $(VENV)/.dev ## wrong files of every kind, for MINUTES=30: does one crash, hang or raise?
	$(BIN)/python tests/fuzz/run.py --minutes $(MINUTES)

release-check: $(VENV)/.dev ## wheel and sdist in clean environments, newest and oldest pins; 6 GB at a time
	$(BIN)/python tests/packaging/run.py $(CHECK)

release: $(VENV)/.dev ## VERSION=x.y.z: date the notes, build, commit, tag; DRY=--dry says it only
	$(BIN)/python .ci/release.py $(VERSION) $(DRY)

lab: $(VENV)/.learn ## JupyterLab on copies of the lessons, in work; LAB=... goes to Jupyter
	@$(BIN)/python notebooks/lab.py $(LAB)

fresh: ## an untouched copy of a lesson, yours kept beside it: make fresh LESSON=04
	@$(PYTHON) notebooks/lab.py --fresh "$(LESSON)"

notebooks: $(VENV)/.learn ## run every lesson in full and store its outputs
	$(BIN)/python notebooks/build.py

docs: $(VENV)/.docs ## the site, into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

explorer: $(VENV)/.demo $(EXPLORER)/node_modules/.installed ## TensorMask live in the browser, into docs/explorer/built; needs node
	mkdir -p $(EXPLORER)/built
	$(BIN)/tensormask-export onnx $(MODEL) $(EXPLORER)/built/model.onnx --inner logits aligned
	node $(EXPLORER)/build.mjs $(EXPLORER)/built/model.onnx

browser-test: $(VENV)/.dev $(VENV)/.learn explorer docs ## explorer, site and lessons in a headless Chromium
	$(BIN)/python -m pytest tests/test_live_page.py tests/test_site.py tests/test_lab.py

map: $(VENV)/.dev ## rewrite the README's tree and docs/reading.md from the docstrings
	$(BIN)/python docs/make_map.py

bench: $(VENV)/.dev ## time the operators, into benchmarks/results
	$(BIN)/python benchmarks/ops.py --json benchmarks/results/ops-cpu.json

gpu: ## checks and times that need a GPU, nine minutes, by PYTHON as it is; GPU=--rehearse without one
	$(PYTHON) benchmarks/gpu $(GPU)

lint: $(VENV)/.dev ## style, floors, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy

format: $(VENV)/.dev ## rewrite in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove what make made, data and results included
	rm -rf $(EXPLORER)/node_modules $(EXPLORER)/built
	rm -rf $(VENV) build dist outputs docs/_build .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

# One stamp per set of extras: reinstalled when the project's metadata or the pins change.
$(VENV)/.base: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..."; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.base
	@echo "installing into $(VENV) (torch is large: a minute or two)"
	$(PIP) -e '.[export,rtx]'
	touch $@

$(VENV)/.dev: $(VENV)/.base
	@echo "installing into $(VENV) (torch is large: a minute or two)"
	$(PIP) -e '.[dev,export,rtx,cuda]'
	touch $@

# npm writes into this folder alone; the lock file names versions and hashes, no addresses.
$(EXPLORER)/node_modules/.installed: $(EXPLORER)/package-lock.json
	npm ci --prefix $(EXPLORER) --ignore-scripts --no-audit --no-fund
	touch $@

$(VENV)/.learn: $(VENV)/.base
	@echo "installing into $(VENV): JupyterLab, and PyTorch with the CUDA libraries that it"
	@echo "brings along: 5.8 GB on the disk when done. It takes some minutes."
	$(PIP_SHOWN) -e '.[learn]'
	touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) -e '.[docs]'
	touch $@
