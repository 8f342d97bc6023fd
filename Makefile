# make help        this text
# make smoke       everything once, at toy size: 3 minutes
# make reproduce   the original experiment in full: 10 minutes; CONFIG=my.yaml: a study of your own
# make paper       the published study; trains only what is new in config/paper.yaml
# make book        a study as a site to read; STUDY=paper: the published one
# make lab         JupyterLab, with the notebooks and the explorer
# make verify      derives every published table and figure again
# make test        the tests; make test-all: the slow ones too
# make benchmark   speed and memory
# make reference   makes the executed notebooks that the tests compare with again
# make data        downloads a data set: DATASET=FashionMNIST
# make lock        brings requirements.lock up to date
# make setup       makes .venv alone, for work without make
# PROFILE=slurm    runs smoke, reproduce or paper on a cluster
# All you need is python3 (3.11 or newer, with venv). Each command installs the rest into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euc
.DELETE_ON_ERROR:
PYTHON ?= python3
CONFIG ?= config/original.yaml
PROFILE ?= default
DATASET ?= MNIST
# Taken as text: recipes read them as quoted shell variables, and neither make nor a shell expands what is in them
override CONFIG := $(value CONFIG)
override PROFILE := $(value PROFILE)
override DATASET := $(value DATASET)
override STUDY := $(value STUDY)
export PROFILE DATASET STUDY
export MODVAR_CONFIG := $(CONFIG)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# Where packages come from (indexes, proxies, certificates) is the user's; where they go, and which, is said here
export TORCH_BACKEND := $(value UV_TORCH_BACKEND)
unexport VIRTUAL_ENV CONDA_PREFIX UV_PYTHON UV_SYSTEM_PYTHON UV_TARGET UV_PREFIX UV_PROJECT UV_PROJECT_ENVIRONMENT
unexport UV_WORKING_DIR UV_CONSTRAINT UV_OVERRIDE UV_EXCLUDE UV_BUILD_CONSTRAINT UV_NO_EDITABLE UV_REQUIRE_HASHES
unexport UV_NO_VERIFY_HASHES UV_TORCH_BACKEND PIP_TARGET PIP_PREFIX PIP_ROOT PIP_USER PIP_PYTHON PIP_CONSTRAINT
unexport PIP_REQUIREMENT PIP_DRY_RUN PIP_NO_DEPS
install = .venv/bin/uv pip install --quiet --python .venv/bin/python --constraint .venv/requirements.lock
ready = $(addprefix .venv/ready-,$(1))

.PHONY: help reproduce paper smoke book test test-all verify lab benchmark reference data lock setup

help:
	@sed -n '/^$$/q;s/^# //p' Makefile

paper: export MODVAR_CONFIG := config/paper.yaml
smoke: export MODVAR_CONFIG := config/smoke.yaml
reproduce paper smoke: $(call ready,run book) $(if $(filter default,$(PROFILE)),,$(call ready,cluster))
	@profile="profiles/$$PROFILE"; \
	test -f "$$profile/config.yaml" || { echo "PROFILE: got '$$PROFILE'; allowed:" $$(cd profiles && echo *); exit 1; }; \
	folder="$$(python -m modvar_lib.config "$$MODVAR_CONFIG")"; study="$$(basename "$$folder")"; results="$$(dirname "$$folder")"; slurm=(); \
	echo "Study $$study from $$MODVAR_CONFIG: groups whose tables are there are kept, the others trained. Everything goes to $$folder/"; \
	test "$$PROFILE" = default || slurm=(--slurm-logdir "$$folder/slurm"); \
	mkdir -p "$$results"; exec 9>> "$$results/.$$study.lock"; \
	flock --nonblock 9 || { echo "Another make works on this study; waiting for it"; flock 9; }; \
	snakemake --workflow-profile "$$profile" "$${slurm[@]}" 9>&-; \
	if test -f "$$folder/headline.md"; then echo; cat "$$folder/headline.md"; echo; fi; \
	echo "Look at  $$folder/book/index.html   the study as a site: notebooks, figures, reference"; \
	echo "         $$folder/groups/ and *.csv  the tables;  notebooks/  as executed;  runs/  every network trained here"

book: $(call ready,run book)
	@test "$$STUDY" || folder="$$(python -m modvar_lib.config "$$MODVAR_CONFIG")"; \
	python book/build.py "$${STUDY:-$${folder##*/}}"

test: $(call ready,run test)
	@pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder -m "not slow"

test-all: $(call ready,run test)
	@pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

verify: $(call ready,run test)
	@pytest -m "not slow" tests/test_published.py

lab: $(call ready,run lab)
	@cd notebooks && jupyter lab $(LAB)

benchmark: $(call ready,run benchmark)
	@python benchmarks/benchmark.py $(if $(OUT),--out $(OUT))

# the executed notebooks that the tests compare with: run after a change to a notebook, read the difference, commit it
reference: $(call ready,run test)
	@python tests/reference/make.py

data: $(call ready,run)
	@python -m modvar_lib.data "$$DATASET"

setup: $(call ready,run book lab)

# Exact versions of everything, uv included, with hashes and without addresses; what setuptools it says goes to pyproject.toml.
lock: $(call ready,run)
	@.venv/bin/uv pip compile pyproject.toml --all-extras --group setup --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --quiet --output-file requirements.lock
	@echo "made requirements.lock; read git diff requirements.lock, then make test"

# torch as it comes for Linux brings 2.5 GB of CUDA. Where there is no NVIDIA driver, the build without it is fetched from
# PyTorch's own index (the version of requirements.lock, 0.2 GB); where that index cannot be reached, torch as it comes.
# UV_TORCH_BACKEND=cpu, cu130, ... decides instead. Builds of that index have hashes and CUDA libraries that the lock does
# not know: they alone are not verified.
.venv/ready-run: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	{ echo "python: $(PYTHON) is $$($(PYTHON) --version 2>&1); allowed: Python 3.11 or newer with its venv module (PYTHON=/path/to/python3)"; exit 1; }
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes \
	--requirement <(awk '/^[^ ]/ {on = /^uv==/} on' requirements.lock)
	@echo "Setting up .venv: about 140 packages, 1.7 GB on disk, or 6.3 GB with CUDA (2.5 GB more to download)"
	@cp requirements.lock .venv/requirements.lock
	@torch() { $(install) --no-deps --no-verify-hashes --torch-backend "$$1" torch torchvision && \
	awk '/^[^ ]/ {on = !/^(nvidia|cuda|triton)/} on' requirements.lock > .venv/requirements.lock; }; \
	if test "$$TORCH_BACKEND"; then torch "$$TORCH_BACKEND"; \
	elif test "$$(uname)" = Linux && ! command -v nvidia-smi > /dev/null; then \
	UV_HTTP_RETRIES=0 UV_HTTP_TIMEOUT=20 torch cpu 2> /dev/null || \
	echo "PyTorch's index cannot be reached: torch comes with CUDA, which this machine does not need"; fi
	@$(install) --compile-bytecode --build-constraint requirements.lock --editable .
	@.venv/bin/python -Ic 'from importlib.metadata import version; version("modvar")' 2> /dev/null || \
	{ echo "uv: it installed elsewhere than .venv; allowed: a uv.toml without target, prefix and system"; exit 1; }
	@mkdir -p .venv/etc/ipython && echo 'c.IPKernelApp.log_level = "ERROR"' > .venv/etc/ipython/ipython_kernel_config.py
	@touch $@

.venv/ready-%: .venv/ready-run
	@$(install) --compile-bytecode --build-constraint requirements.lock --editable '.[$*]'
	@touch $@
