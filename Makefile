# Each target sets up .venv if it is missing, so either works alone on a fresh machine.
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
EXTRAS := dev,trees,zoo,report,transformers,accelerate,lightning,peft,trl,docs
ARGS ?=
# Tests mostly run one Python thread each, so each processor takes some of them.
JOBS ?= auto

.PHONY: train test lint docs clean

$(READY): pyproject.toml setup.py constraints.txt $(wildcard src/outsize/native/*.c src/outsize/native/*.h)
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "setting up $(VENV) (once; some minutes, torch is large)"
	@$(PIP) install --quiet --constraint constraints.txt torch
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@touch $@

train: $(READY)
	$(VENV)/bin/outsize train $(ARGS)

lint: $(READY)
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

ifeq ($(strip $(ARGS)),)
test: lint
	$(VENV)/bin/python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist worksteal
else
test: $(READY)
	$(VENV)/bin/python -m pytest $(ARGS)
endif

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

clean:
	rm -rf $(VENV) build dist site .mypy_cache .pytest_cache .ruff_cache src/*.egg-info src/outsize/native/*.so
