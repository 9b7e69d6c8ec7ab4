# make demo   the whole pipeline on a small real model; ends with the report's path
# make test   the whole test suite, formatting and lint included
# make env    only the environment, .venv
# make lock   work out the exact versions again (needs uv)

PYTHON ?= python3
BIN := .venv/bin
LOCK := envs/requirements.lock
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test env lock schema

demo: env
	@snakemake --cores all
	@echo
	@echo "Report: $(CURDIR)/results/demo/report/index.html"

test: env
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules
	@snakemake --lint
	@python -m pytest

env: .venv/complete

# The environment counts as made when every package of the lock is in; a half-made one is made again.
.venv/complete: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	@touch $@

# CUDA's own packages are left out: torch names them exactly, and its CPU build needs none of them.
lock:
	uv pip compile --quiet --universal --python-version 3.11 --no-header --no-annotate envs/requirements.in \
		| grep -v -E '^(nvidia-|cuda-|triton)' | sed -E 's/^(torch==[0-9.]+).*/\1/' | uniq > $(LOCK)

schema:
	@python workflow_scripts/write_config_schema.py
