# kdistill. `make` alone lists the targets. Everything goes through files of this checkout and pip;
# nothing outside it changes but the system packages that tools/system-packages installs.

PYTHON      ?= python3
VENV        := .venv
ORACLE_VENV := .venv-oracle
PYTEST_ARGS ?=

# What the compiled extension is made from, and what says which packages go into an environment.
C_SOURCES := setup.py pyproject.toml $(wildcard csrc/*.c csrc/*.h csrc/*.inc)
PIP       := -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test torture lint format docs site bench oracle clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/kdistill.stamp  ## distil a BERT student from a real teacher, in less than five minutes
	$(VENV)/bin/python examples/demo.py --output-dir build/demo

test: $(VENV)/test.stamp  ## run the test suite (all but the tests that need PyTorch)
	$(VENV)/bin/python -m pytest --ignore tests/oracle $(PYTEST_ARGS)

torture: $(VENV)/test.stamp  ## kill training runs hundreds of times and compare what they end with (ten minutes)
	$(VENV)/bin/python tests/torture.py --kills 300 --file-operations

oracle: $(ORACLE_VENV)/oracle.stamp  ## run the tests that compare with PyTorch and transformers
	$(ORACLE_VENV)/bin/python -m pytest tests/oracle $(PYTEST_ARGS)

lint: $(VENV)/lint.stamp  ## check style and types of C and Python
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/clang-format --dry-run -Werror csrc/*.[ch] csrc/*.inc

format: $(VENV)/lint.stamp  ## mend what lint finds, where a machine can
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i csrc/*.[ch] csrc/*.inc

docs: $(VENV)/kdistill.stamp  ## write docs/arguments.md anew from the code
	$(VENV)/bin/python tools/arguments_page.py

site: $(VENV)/docs.stamp  ## build the documentation's site into build/site; a warning or a broken link fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build

bench: $(ORACLE_VENV)/bench.stamp  ## measure speed and memory beside PyTorch, ONNX Runtime, OpenVINO (hours)
	$(ORACLE_VENV)/bin/python -m benchmarks

clean:  ## remove everything that make made
	rm -rf build dist kdistill.egg-info kdistill/*.so $(VENV) $(ORACLE_VENV)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp is younger than everything its environment was made from, so a second call does nothing.
%/bin/python:
	@sh tools/system-packages $(PYTHON)
	$(PYTHON) -m venv $*

$(VENV)/kdistill.stamp: $(C_SOURCES) | $(VENV)/bin/python
	@echo "Building kdistill and installing it into $(VENV)"
	@$(VENV)/bin/python $(PIP) install --editable .
	@touch $@

# kdistill is there by now: these add what its extra of that name lists.
$(VENV)/test.stamp $(VENV)/lint.stamp $(VENV)/docs.stamp: $(VENV)/%.stamp: $(VENV)/kdistill.stamp
	@echo "Installing what make $* needs into $(VENV)"
	@$(VENV)/bin/python $(PIP) install 'kdistill[$*]'
	@touch $@

# torch first: then transformers finds it there and pip does not choose another.
$(ORACLE_VENV)/oracle.stamp: $(C_SOURCES) | $(ORACLE_VENV)/bin/python
	@echo "Installing PyTorch, transformers and kdistill into $(ORACLE_VENV)"
	@$(ORACLE_VENV)/bin/python $(PIP) install torch==2.13.0
	@$(ORACLE_VENV)/bin/python $(PIP) install --editable .
	@$(ORACLE_VENV)/bin/python $(PIP) install 'kdistill[oracle]'
	@touch $@

$(ORACLE_VENV)/bench.stamp: $(ORACLE_VENV)/oracle.stamp
	@echo "Installing what make bench compares with into $(ORACLE_VENV)"
	@$(ORACLE_VENV)/bin/python $(PIP) install 'kdistill[bench]'
	@touch $@
