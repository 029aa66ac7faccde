# Two commands on a fresh machine: `make study` (train, fit, predict, report) and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= study
PRESET ?= laptop
WHEELS_PYTHON ?= 3.12
PIP := $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check
CONSTRAINTS := -c constraints/tested.txt
SOURCES := scaling_sim backends
# What machines with PyTorch, SciPy, Numba and pandas tend to lack.
WHEELS := msgspec emcee arviz arviz-base arviz-stats h5netcdf xarray-einstats

.PHONY: study test statistical kernels lint docs bench wheelhouse clean
.DEFAULT_GOAL := study

$(VENV)/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "Python 3.11 or later is needed; name one with: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || \
	  { echo "Python cannot make virtual environments here. Run: sudo apt-get install -y python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints/tested.txt
	$(PIP) $(CONSTRAINTS) -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) $(CONSTRAINTS) -e ".[test,lint,torch,tokenizers]"
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(PIP) $(CONSTRAINTS) -e ".[docs]"
	@touch $@

study: $(VENV)/.installed  ## train a family, fit the laws, predict, write the report
	$(VENV)/bin/scaling-sim study $(PRESET) --out $(OUT)

test: $(VENV)/.installed-test  ## every test that fits into 15 minutes on 2 cores
	SCALING_SIM_REQUIRE_BACKENDS=numba,torch $(VENV)/bin/python -m pytest -q -n 2 --dist loadfile -m "not slow and not gpu" --durations=15

statistical: $(VENV)/.installed-test  ## the long statistical suite, against NumPyro's NUTS too
	$(PIP) $(CONSTRAINTS) -e ".[reference]"
	$(VENV)/bin/python -m pytest -q -n 2 --dist load --maxschedchunk 1 -m "(slow or statistical) and not gpu" --durations=25

kernels: $(VENV)/.installed-test  ## every Triton kernel compiled for a Hopper card; none is needed
	$(PIP) --no-deps --upgrade --target .triton triton==3.6.0
	PYTHONPATH=.triton $(VENV)/bin/python -m pytest -q -n 2 tests/backends/test_torch_hopper.py

lint: $(VENV)/.installed-test  ## style, types, import rules
	$(VENV)/bin/ruff check $(SOURCES) tests benchmarks
	$(VENV)/bin/ruff format --check $(SOURCES) tests benchmarks
	$(VENV)/bin/mypy
	PYTHONPATH=.:backends $(VENV)/bin/lint-imports

docs: $(VENV)/.installed-docs  ## docs/_build/html/index.html, warnings are errors
	$(VENV)/bin/sphinx-build -W --keep-going -b html docs docs/_build/html

bench: $(VENV)/.installed-test  ## the CPU benchmark, ours beside PyTorch eager
	$(VENV)/bin/python benchmarks/bench_numba.py

wheelhouse: $(VENV)/bin/python  ## our wheel and what a GPU machine of WHEELS_PYTHON lacks, in .wheelhouse/
	rm -rf .wheelhouse
	$(VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir .wheelhouse .
	$(VENV)/bin/python -m pip download --quiet $(CONSTRAINTS) --no-deps --only-binary=:all: \
	  --python-version $(WHEELS_PYTHON) --implementation cp \
	  --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 --platform manylinux_2_28_x86_64 \
	  -d .wheelhouse $(WHEELS)

clean:
	rm -rf $(VENV) .wheelhouse .triton docs/_build .pytest_cache .mypy_cache .ruff_cache
