# kdistill. `make` alone lists the targets. Everything goes through files of this checkout and pip;
# nothing outside it changes but the system packages that tools/system-packages installs.

PYTHON      ?= python3
VENV        := .venv
ORACLE_VENV := .venv-oracle
TRANSFORMERS4_VENV := .venv-transformers4
SAGEMAKER_VENV := .venv-sagemaker
RAY_VENV    := .venv-ray
PYTEST_ARGS ?=

PYTHONS     ?= $(PYTHON)
FUZZ_SECONDS ?= 30

# A process of tests for each core. Neighbours run in one process, which makes what their module shares once; one that
# has nothing left takes tests from another. `PYTEST_ARGS="-n 0"` comes later and runs all in the first process.
PARALLEL := -n auto --dist worksteal

# The tests of the C core, which every build passes (`make test` runs them at every instruction-set level); those with
# threads; those short enough for valgrind, which is 50 times slower.
CORE_TESTS     := tests/core --ignore tests/core/test_isa_levels.py
THREAD_TESTS   := tests/core/test_pool.py tests/core/test_shared_items.py tests/whole/test_trainers_in_threads.py tests/distill/test_cache.py \
                  tests/whole/test_cache_crashes.py
MEMCHECK_TESTS := tests/core/test_layers.py tests/core/test_batch.py tests/core/test_losses.py
# On an emulated core, without what multiplies for seconds on a real one, and with those finite differences of whole models
# alone that tests/core/test_passes.py has.
ARM64_TESTS    := $(CORE_TESTS) -k "not large_model and not signal_is_answered_while and not real_sentences \
                  and not die_out and not (test_encoder and test_gradients) and not through_one and not through_all \
                  and not (finite_differences and sums)"
# Against programs that need transformers 4, or were a part of it.
TRANSFORMERS4_TESTS := tests/oracle/test_optimum.py tests/oracle/test_squad_evaluations.py \
                       tests/oracle/test_question_pipeline_transformers4.py
RAY_TESTS      := tests/cluster
SAGEMAKER_TESTS := $(wildcard tests/sagemaker_sdk tests/whole/test_sagemaker_notebook.py)
SMOKE_TESTS    := tests/system/test_threads.py tests/core/test_passes.py tests/train/test_trainer.py tests/cli/test_commands.py

# What the compiled extension is made from, and what says which packages go into an environment.
C_SOURCES := setup.py pyproject.toml $(wildcard csrc/*/*)
PIP       := -m pip --disable-pip-version-check -qq

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo notebooks notebook-test test torture lint format docs site wheel wheel-test smoke warnings portable arm64 asan tsan \
        memcheck coverage fuzz mutants bench oracle transformers4 sagemaker ray image clean

help:  ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22

demo: $(VENV)/kdistill.stamp  ## distil a BERT student from a real teacher, in less than five minutes
	$(VENV)/bin/python examples/demo.py --output-dir build/demo

notebooks: $(VENV)/notebook.stamp  ## run the notebooks without a network and write docs/notebooks/ (40 minutes)
	HF_HUB_OFFLINE=1 $(VENV)/bin/python tools/notebooks.py run

notebook-test: $(VENV)/test.stamp  ## run a small version of the notebook, as `make test` does among the rest
	$(VENV)/bin/python -m pytest $(PARALLEL) tests/whole/test_notebooks.py $(PYTEST_ARGS)

test: $(VENV)/test.stamp  ## run the test suite (all but the tests that need PyTorch)
	$(VENV)/bin/python -m pytest $(PARALLEL) --ignore tests/oracle $(PYTEST_ARGS)

torture: $(VENV)/test.stamp  ## kill training runs hundreds of times and compare what they end with (ten minutes)
	$(VENV)/bin/python tests/whole/torture.py --kills 300 --file-operations --interrupts 300

oracle: $(ORACLE_VENV)/oracle.stamp  ## run the tests that compare with PyTorch and transformers
	$(ORACLE_VENV)/bin/python -m pytest $(PARALLEL) tests/oracle $(PYTEST_ARGS)

transformers4: $(TRANSFORMERS4_VENV)/transformers4.stamp  ## run the tests that compare with optimum and others which need transformers 4
	$(TRANSFORMERS4_VENV)/bin/python -m pytest $(PARALLEL) $(TRANSFORMERS4_TESTS) $(PYTEST_ARGS)

sagemaker: $(SAGEMAKER_VENV)/sagemaker.stamp  ## run the tests that use the SageMaker SDK and the training toolkit
	$(SAGEMAKER_VENV)/bin/python -m pytest $(PARALLEL) $(SAGEMAKER_TESTS) $(PYTEST_ARGS)

ray: $(RAY_VENV)/ray.stamp  ## run the tests that use a cluster of Ray, which they start on this machine
	$(RAY_VENV)/bin/python -m pytest $(RAY_TESTS) $(PYTEST_ARGS)

image: $(VENV)/test.stamp  ## carry out the Dockerfile without Docker, measure what it installs, run a job in it (root)
	$(VENV)/bin/python tools/image.py

lint: $(VENV)/lint.stamp  ## check style and types of C and Python
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	$(VENV)/bin/stubtest kdistill._core
	$(VENV)/bin/clang-format --dry-run -Werror csrc/*/*.[ch] csrc/*/*.inc

format: $(VENV)/lint.stamp  ## mend what lint finds, where a machine can
	$(VENV)/bin/ruff check --fix
	$(VENV)/bin/ruff format
	$(VENV)/bin/clang-format -i csrc/*/*.[ch] csrc/*/*.inc

docs: $(VENV)/kdistill.stamp  ## write docs/arguments.md anew from the code
	$(VENV)/bin/python tools/arguments_page.py

wheel: $(VENV)/wheel.stamp  ## build and check sdist and abi3 wheel in dist/
	rm -rf build/wheel dist
	$(VENV)/bin/python -m build --outdir build/wheel
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" $(VENV)/bin/auditwheel repair --strip --wheel-dir dist build/wheel/kdistill-*.whl
	cp build/wheel/kdistill-*.tar.gz dist
	$(VENV)/bin/abi3audit --strict dist/kdistill-*.whl
	$(VENV)/bin/python tools/check_wheel.py dist/kdistill-*.whl

wheel-test:  ## pass the test suite from the wheel in dist/, in a clean environment of each of PYTHONS
	tools/test-wheel $(PYTHONS)

smoke:  ## run a few tests from the wheel in dist/
	PYTEST_ARGS="$(SMOKE_TESTS)" tools/test-wheel $(PYTHON)

warnings: $(VENV)/kdistill.stamp  ## compile with gcc and clang; a warning is an error
	tools/test-build $(VENV)/bin/python gcc
	tools/test-build $(VENV)/bin/python clang

portable: $(VENV)/test.stamp  ## test a build without kernels of one processor, as any processor has it
	tools/test-build $(VENV)/bin/python portable $(PARALLEL) $(CORE_TESTS) $(PYTEST_ARGS)

arm64: $(VENV)/wheel.stamp  ## build and check the wheel for arm64, and test the core of it under emulation
	@sh tools/system-packages $(PYTHON) qemu-aarch64-static=qemu-user-static aarch64-linux-gnu-gcc=gcc-aarch64-linux-gnu
	$(VENV)/bin/python tools/arm64.py $(ARM64_TESTS) $(PYTEST_ARGS)

asan: $(VENV)/test.stamp  ## test the core under AddressSanitizer and UndefinedBehaviorSanitizer
	tools/test-build $(VENV)/bin/python asan $(PARALLEL) $(CORE_TESTS) $(PYTEST_ARGS)

tsan: $(VENV)/test.stamp  ## test pool, trainers side by side and cache under ThreadSanitizer
	tools/test-build $(VENV)/bin/python tsan $(THREAD_TESTS) $(PYTEST_ARGS)

memcheck: $(VENV)/test.stamp  ## run a few tests of the core under valgrind
	tools/test-build $(VENV)/bin/python memcheck $(MEMCHECK_TESTS) $(PYTEST_ARGS)

coverage: $(VENV)/test.stamp $(VENV)/coverage.stamp  ## measure which lines of csrc the tests of the core run
	tools/test-build $(VENV)/bin/python coverage $(CORE_TESTS) $(PYTEST_ARGS)

fuzz: $(VENV)/test.stamp $(VENV)/fuzz.stamp  ## let atheris damage files for FUZZ_SECONDS a reader
	$(VENV)/bin/python tools/fuzz.py --seconds $(FUZZ_SECONDS)

mutants: $(VENV)/test.stamp  ## break the core in many places; the tests must notice each (hours)
	$(VENV)/bin/python tools/mutants.py
site: $(VENV)/docs.stamp  ## build the documentation's site into build/site; a warning, a broken link or a page that does not fit fails
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build
	$(VENV)/bin/python tools/check_site.py build/site

bench: $(ORACLE_VENV)/bench.stamp  ## measure speed and memory beside PyTorch, ONNX Runtime, OpenVINO (hours)
	$(ORACLE_VENV)/bin/python -m benchmarks

clean:  ## remove everything that make made
	rm -rf build dist kdistill.egg-info kdistill/*.so $(VENV) $(ORACLE_VENV) $(TRANSFORMERS4_VENV) $(SAGEMAKER_VENV) $(RAY_VENV)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# A stamp is younger than everything its environment was made from, so a second call does nothing.
%/bin/python:
	@sh tools/system-packages $(PYTHON)
	$(PYTHON) -m venv $*

$(VENV)/kdistill.stamp: $(C_SOURCES) | $(VENV)/bin/python
	@echo "Building kdistill and installing it into $(VENV)"
	@$(VENV)/bin/python $(PIP) install 'setuptools>=77' --editable .
	@touch $@

# setuptools stays there: tools/test-build and tools/mutants.py build with it.
# kdistill is there by now: these add what its extra of that name lists.
$(patsubst %,$(VENV)/%.stamp,test lint docs notebook wheel coverage fuzz): $(VENV)/%.stamp: $(VENV)/kdistill.stamp
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

# autotrain-advanced and tf-models-official pin, or bring, half a gigabyte that the files in question do not use.
$(TRANSFORMERS4_VENV)/transformers4.stamp: $(C_SOURCES) | $(TRANSFORMERS4_VENV)/bin/python
	@echo "Installing PyTorch, transformers 4, optimum and kdistill into $(TRANSFORMERS4_VENV)"
	@$(TRANSFORMERS4_VENV)/bin/python $(PIP) install torch==2.13.0
	@$(TRANSFORMERS4_VENV)/bin/python $(PIP) install --editable .
	@$(TRANSFORMERS4_VENV)/bin/python $(PIP) install 'kdistill[transformers4-test]'
	@$(TRANSFORMERS4_VENV)/bin/python $(PIP) install --no-deps autotrain-advanced==0.8.36 tf-models-official==2.20.0
	@touch $@

$(SAGEMAKER_VENV)/sagemaker.stamp: $(C_SOURCES) | $(SAGEMAKER_VENV)/bin/python
	@echo "Installing the SageMaker SDK, the training toolkit and kdistill into $(SAGEMAKER_VENV)"
	@$(SAGEMAKER_VENV)/bin/python $(PIP) install --editable .
	@$(SAGEMAKER_VENV)/bin/python $(PIP) install 'kdistill[sagemaker-test]'
	@touch $@

$(RAY_VENV)/ray.stamp: $(C_SOURCES) | $(RAY_VENV)/bin/python
	@echo "Installing Ray and kdistill into $(RAY_VENV)"
	@$(RAY_VENV)/bin/python $(PIP) install --editable .
	@$(RAY_VENV)/bin/python $(PIP) install 'kdistill[ray-test]'
	@touch $@

$(ORACLE_VENV)/bench.stamp: $(ORACLE_VENV)/oracle.stamp
	@echo "Installing what make bench compares with into $(ORACLE_VENV)"
	@$(ORACLE_VENV)/bin/python $(PIP) install 'kdistill[bench]'
	@touch $@
