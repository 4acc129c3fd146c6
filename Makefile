# make demo    what an image looks like to the embedded GPT-J: a table and a figure
# make test    the tests, after the same installation
# make fuzz    broken files for every reader, for an hour (MINUTES=60, ARGS="--only images --seed 7")
# VENV=… and PYTHON=… choose where and with what.

PYTHON ?= python3
VENV ?= .venv
BUILD := build
MINUTES ?= 60
ARGS ?=
RUN := $(VENV)/bin/python
PIP := $(RUN) -m pip --disable-pip-version-check --quiet

# Everything that these targets run is on disk: a lookup on a model hub would be a mistake
export HF_HUB_OFFLINE := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: help demo test fuzz lint format typecheck notebooks suite clean
help:
	@sed -n '/^# make/s/^# //p' Makefile

demo: $(VENV)/installed
	@mkdir -p $(BUILD)
	@$(RUN) -m limber_interp.nearest_tokens --figure $(BUILD)/nearest_tokens.png
	@echo "Figure: $(BUILD)/nearest_tokens.png"

test: $(VENV)/installed-dev demo
	$(RUN) -m pytest

# An input that is neither read nor refused in one line is kept in $(BUILD)/fuzz, and the status is not 0
fuzz: $(VENV)/installed-dev
	OMP_NUM_THREADS=1 $(RUN) -m experiments.reliability.fuzz --minutes $(MINUTES) --found $(BUILD)/fuzz $(ARGS)

lint: $(VENV)/installed-dev
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .

format: $(VENV)/installed-dev
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

typecheck: $(VENV)/installed-dev
	$(RUN) -m mypy

notebooks: $(VENV)/installed-dev
	$(RUN) -m pytest --nbmake notebooks

# Remakes the embedded suite from scratch, stage by stage; a stage that is done is not done again
suite: $(VENV)/installed-dev
	$(RUN) -m experiments.emoji_world.suite

clean:
	rm -rf $(BUILD) $(VENV)

# A stamp is newer than setup.cfg once its installation is complete, so a second run installs nothing
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "Python >= 3.10 is needed, found: $$($(PYTHON) --version). Name another: make PYTHON=python3.12 …" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
		|| { echo "python -m venv failed (on Debian and Ubuntu: apt-get install python3-venv)" >&2; rm -rf $(VENV); exit 1; }

$(VENV)/installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	@echo "Installing into $(VENV) (some minutes, once)"
	@$(PIP) install --editable .
	@touch $@

$(VENV)/installed-dev: setup.cfg pyproject.toml | $(VENV)/installed
	@$(PIP) install --editable '.[dev]'
	@touch $@
