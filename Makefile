# Each target makes its own virtual environment when there is none and installs only what it needs.
# Another Python: make test PYTHON=python3.12      Another place: make test VENV=/tmp/venv

VENV   ?= .venv
PYTHON ?= $(firstword $(foreach p,python3 python3.14 python3.13 python3.12 python3.11,$(if $(shell \
            $p -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$p)) python3)
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Two test processes: the tests are light, and starting torch costs more than most of them.
JOBS   ?= 2

.PHONY: help demo test slow torture lint bench bench-quick docs clean
.DELETE_ON_ERROR:

help:
	@echo 'make demo   train on drawn faces for about two minutes, then look at demo/'
	@echo 'make test   the test suite          (make slow: the long checks too)'
	@echo 'make lint   ruff and mypy'
	@echo 'make torture  kill, starve and damage trainings: ten minutes (docs/reliability.md)'
	@echo 'make docs   check the links and examples in the documents, and run every command'
	@echo 'make bench  speed, side by side with two other libraries'
	@echo '            (make bench-quick: our own speed beside the last committed figures)'

demo: $(VENV)/.core
	$(BIN)/sfumato demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS)

slow: $(VENV)/.test
	$(BIN)/python -m pytest -n $(JOBS) --slow

torture: $(VENV)/.test
	$(BIN)/python -m pytest -n 0 --slow tests/crash

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.core
	$(BIN)/python scripts/check_docs.py
	$(BIN)/python scripts/run_commands.py

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/train_step.py
	$(BIN)/python benchmarks/sampling.py

bench-quick: $(VENV)/.core
	$(BIN)/python benchmarks/quick.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache

# A stamp a set of packages; a change of what is wanted installs again, and otherwise make has nothing to do.
$(VENV)/.core: EXTRA =
$(VENV)/.test: EXTRA = [test]
# Of another library's package only its networks are tested against: what it needs for training is not installed.
$(VENV)/.test: ALONE = denoising-diffusion-pytorch einops ema-pytorch
$(VENV)/.dev: EXTRA = [dev]
$(VENV)/.bench: EXTRA = [bench]

$(VENV)/.core $(VENV)/.test $(VENV)/.dev $(VENV)/.bench: pyproject.toml constraints.txt | $(BIN)/python
	@echo 'installing sfumato$(EXTRA) into $(VENV) (the first time takes some minutes)'
	@$(PIP) -e '.$(EXTRA)'
	@$(if $(ALONE),$(PIP) --no-deps $(ALONE))
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "sfumato needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1 | tail -n 1);" \
	       "name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'no virtual environment could be made; on Debian and Ubuntu: apt install python3-venv' >&2; exit 2; }
