# make reproduce   the original experiment, in full          make test        every test
# make smoke       the same graph at toy size                make benchmark   speed and memory
# make report      a study as a site to read                 make lab         JupyterLab: the notebooks, the explorer
# make verify      every published number and figure, from the committed tables; some networks trained again
# make paper       the whole companion: hours; then make publish STUDY=paper: the published results
# PROFILE=slurm    with reproduce, paper or smoke: on a cluster, as profiles/slurm/config.yaml says
# Everything needs only a python3 (3.11 or newer, with venv) and installs into .venv by itself.

SHELL := /bin/bash
.DELETE_ON_ERROR:
PYTHON ?= python3
CONFIG ?= config/original.yaml
STUDY ?= $(shell sed -n 's/^study: *//p' $(CONFIG) 2>&-)
DATASET ?= MNIST
PROFILE ?= default
RESULTS := $(or $(MODVAR_RESULTS),results)
export PATH := $(CURDIR)/.venv/bin:$(PATH)
$(if $(wildcard profiles/$(PROFILE)/config.yaml),,$(error PROFILE: got '$(PROFILE)'; allowed: $(notdir $(wildcard profiles/*))))
$(if $(wildcard $(CONFIG)),,$(error CONFIG: got '$(CONFIG)'; allowed: $(wildcard config/*.yaml), or a file of yours))
LOCAL := $(filter default,$(PROFILE))
# the terminal to draw progress bars on, if there is one and jobs run on this machine
export MODVAR_TTY := $(if $(LOCAL),$(shell test -t 2 && readlink /proc/self/fd/2))

.PHONY: reproduce paper smoke test report lab verify benchmark publish reference data lock setup

reproduce: setup
	@echo "Study $(STUDY) from $(CONFIG): finished runs are kept, the rest is trained. Logs, tables and the report: $(RESULTS)/$(STUDY)/"
	@$(if $(LOCAL),,echo "Jobs go to Slurm as profiles/$(PROFILE)/config.yaml says. What they print: $(RESULTS)/$(STUDY)/slurm/")
	@mkdir -p $(RESULTS) && exec 9> $(RESULTS)/.$(notdir $(STUDY)).lock && \
	{ flock --nonblock 9 || { echo "Another make works on this study; waiting for it"; flock 9; }; } && \
	snakemake --workflow-profile profiles/$(PROFILE) $(if $(LOCAL),,--slurm-logdir $(RESULTS)/$(STUDY)/slurm) --configfile $(CONFIG) 9>&-
	@echo && cat $(RESULTS)/$(STUDY)/headline.md && echo
	@echo "Look at  $(RESULTS)/$(STUDY)/report/index.html  the report: figures, notebooks, every network"
	@echo "         $(RESULTS)/$(STUDY)/*.csv              the tables;  figures/;  runs/  every network;  notebooks/  as executed"
	@echo "Explore  make lab, then 09_explore.ipynb with study = \"$(STUDY)\""

# resumes where it was stopped
paper:
	@$(MAKE) --no-print-directory reproduce CONFIG=config/paper.yaml

smoke:
	@$(MAKE) --no-print-directory reproduce CONFIG=config/smoke.yaml

test: setup
	@MODVAR_TTY= pytest --numprocesses auto --maxprocesses 4 --no-loadscope-reorder

report: setup
	@python -m modvar_lib.report $(STUDY)

lab: setup
	@cd notebooks && jupyter lab $(LAB)

verify: setup
	@python -m modvar_lib.verify

# skorch is one of the peers; the project itself does not need it
benchmark: setup
	@uv pip install --quiet skorch
	@python benchmarks/benchmark.py $(if $(OUT),--out $(OUT))

publish: setup
	@python -m modvar_lib.publish $(STUDY)

# the executed notebooks that the tests compare with: run after a change to a notebook, read the difference, commit it
reference: setup
	@python tests/reference/make.py

data: setup
	@python -m modvar_lib.data $(DATASET)

# exact versions of everything, without addresses. CUDA libraries are left to torch, which pins them itself, so that
# UV_TORCH_BACKEND=cpu can do without them.
lock: setup
	@uv pip compile pyproject.toml --upgrade --universal --python-version 3.11 --no-header --no-annotate --quiet \
	| grep -vE '^(nvidia-|cuda-|triton)' > requirements.lock.new && mv requirements.lock.new requirements.lock
	@echo "made requirements.lock; read git diff requirements.lock, then make test"

setup: .venv/ready

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 11)' 2>/dev/null || \
	{ echo "python: $(PYTHON) is $$($(PYTHON) --version 2>&1); allowed: Python 3.11 or newer with its venv module (PYTHON=/path/to/python3)"; exit 1; }
	@echo "Setting up .venv: about 190 packages, 3.1 GB to download, 6.4 GB on disk; 2.5 GB of the download is CUDA."
	@echo "Without a GPU: UV_TORCH_BACKEND=cpu make ... fetches a CPU build of torch from PyTorch's own index instead."
	@$(PYTHON) -m venv .venv
	@pip install --quiet --disable-pip-version-check uv
	@uv pip install --quiet --compile-bytecode --requirements requirements.lock
	@uv pip install --quiet --no-deps --editable .
	@touch $@
