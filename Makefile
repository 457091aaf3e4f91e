# Needs Python >= 3.11 (with its venv module) and make; everything else is installed into .venv.
# Written for GNU make 3.81 and later, so that macOS's own make works.

VENV := .venv
OLDEST := .venv-oldest
RUN := $(VENV)/bin/python
CONFIG ?= 2dgs
# make demo ARGS="--workdir=DIR --config.KEY=VALUE" passes flags on; EXTRAS=cuda12 installs a GPU's jax.
ARGS ?=
EXTRAS ?=
PYTEST_ARGS ?= -n 2 --dist=loadfile -m "not slow and not gpu"
# What `make test-oldest` runs: kernels against their goldens, readers, commands, one small fit.
OLDEST_TESTS := tests/layering_test.py tests/math_test.py tests/projection_golden_test.py \
  tests/ops/rasterize/golden_test.py tests/io/ply_test.py tests/dataset tests/commands/console_test.py tests/runtime/checkpoints_test.py \
  tests/end_to_end_test.py::test_the_python_api_of_the_readme

comma := ,
# One stamp for each set of extras, so that asking for another set installs it.
INSTALLED := $(VENV)/.installed$(EXTRAS:%=-%)
TEST_INSTALLED := $(VENV)/.installed-test$(EXTRAS:%=-%)

.DEFAULT_GOAL := help
.PHONY: help demo test test-oldest test-slow test-gpu lint format clean

help:
	@echo 'make demo    the whole job on the built-in scene (ARGS="--workdir=DIR --config.KEY=VALUE")'
	@echo 'make test    lint, then the fast tests on the CPU'
	@echo 'make test-oldest    a few of them on Python 3.11 with every dependency at its lower bound'
	@echo 'make lint    ruff check, ruff format --check, mypy'
	@echo 'make format  what ruff can put right by itself, and the layout'
	@echo 'make test-slow, make test-gpu    the tests that `make test` leaves out'
	@echo 'make clean   removes .venv, caches and builds'
	@echo 'PYTHON=/path/to/python chooses the interpreter; EXTRAS=cuda12 (or cuda13) adds the GPU.'

demo: $(INSTALLED)
	$(RUN) -m jaxsplat_mouse.main --config=$(CONFIG) $(ARGS)

test: lint
	$(RUN) -m pytest $(PYTEST_ARGS)

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n 2 -m "not slow and not gpu" $(OLDEST_TESTS)

test-slow: $(TEST_INSTALLED)
	XLA_FLAGS= $(RUN) -m pytest -n 2 -m "slow and not gpu"

test-gpu: $(TEST_INSTALLED)
	JAX_PLATFORMS=cuda,cpu $(RUN) -m pytest -m gpu

lint: $(TEST_INSTALLED)
	$(RUN) -m ruff check --quiet .
	$(RUN) -m ruff format --quiet --check .
	$(RUN) -m mypy --no-error-summary

format: $(TEST_INSTALLED)
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

clean:
	rm -rf $(VENV) $(OLDEST) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- The environment -----------------------------------------------------------------------------

INSTALL = $(RUN) -m pip install --quiet --no-input --disable-pip-version-check --editable

# An environment that was left half made, or whose interpreter is gone, is made again.
ifneq ($(shell test -f $(VENV)/.created && $(RUN) -c "" 2>/dev/null && echo sound),sound)
.PHONY: $(VENV)/.created
endif

# `error` and not a failing command: make then prints the reason alone, on one line.
$(VENV)/.created:
	$(eval FOUND := $(shell .ci/find_python))
	$(if $(filter /%,$(firstword $(FOUND))),,$(error $(FOUND)))
	@echo 'Creating $(VENV) with $(FOUND)'
	@"$(FOUND)" -m venv --clear $(VENV)
	@touch $@

$(INSTALLED): $(VENV)/.created pyproject.toml
	@echo 'Installing the package into $(VENV) (once, and when pyproject.toml changes)'
	@$(INSTALL) '.$(EXTRAS:%=[%])'
	@touch $@

$(TEST_INSTALLED): $(VENV)/.created pyproject.toml
	@echo 'Installing the package and its tests into $(VENV) (once, and when pyproject.toml changes)'
	@$(INSTALL) '.[test$(EXTRAS:%=$(comma)%)]'
	@touch $@

$(OLDEST)/.installed: pyproject.toml .ci/find_python .ci/lower_bounds
	$(eval FOUND := $(shell .ci/find_python 3.11))
	$(if $(filter /%,$(firstword $(FOUND))),,$(error $(FOUND)))
	@echo 'Creating $(OLDEST) with $(FOUND)'
	@"$(FOUND)" -m venv --clear $(OLDEST)
	@$(OLDEST)/bin/python .ci/lower_bounds > $(OLDEST)/constraints.txt
	@$(OLDEST)/bin/python -m pip install --quiet --no-input --disable-pip-version-check \
	  --constraint $(OLDEST)/constraints.txt --editable . \
	  'pytest>=8.3' 'pytest-timeout>=2.3' 'pytest-xdist>=3.6'
	@touch $@
