# `make demo` trains on real data and shows what was learned; `make test` runs the tests, `make coverage` says which lines they reach,
# `make test-slow` runs those that take many minutes.
# Each makes .venv and installs into it when that was not done yet, or when the lists of packages have changed.
# Tests keep what Python compiles, even where the environment says not to: they start many processes that import everything.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
INSTALLED := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(VENV)/bin/python -m pytest

.PHONY: install demo test test-slow coverage lint

install: $(INSTALLED)

$(INSTALLED): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=/path/to/python" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --quiet -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(VENV)/bin/python -m benchmarks.demo.run

test: $(INSTALLED)
	$(PYTEST) -m "not slow" -n 2 --dist loadfile --durations=10

test-slow: $(INSTALLED)
	$(PYTEST) -m slow -n 2 --dist loadfile --durations=0

coverage: $(INSTALLED)
	$(PYTEST) -m "not slow" -n 2 --dist loadfile --cov --cov-report=term

lint: $(INSTALLED)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
