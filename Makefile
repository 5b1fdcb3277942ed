# The two commands of mmrec are `make demo` and `make test`; python3 (3.11 or newer) and make are all they need.
SHELL := /bin/bash
VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
export HF_HUB_OFFLINE := 1

.PHONY: demo test test-all lint install lock clean

demo: $(STAMP)  ## make a small world of media and run the whole job on it
	$(PYTHON) -m mmrec demo

test: $(STAMP)  ## all tests but the slow ones
	$(PYTHON) -m pytest -q -m "not slow"

test-all: $(STAMP)  ## every test
	$(PYTHON) -m pytest -q

lint: $(STAMP)  ## layout, types, and the direction of dependencies
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright
	$(VENV)/bin/lint-imports

install: $(STAMP)

# uv installs the lock file in well under a minute; pip alone would resolve the same hashes, several times slower.
$(STAMP): requirements.lock pyproject.toml
	python3 -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "mmrec needs python3 3.11 or newer; this is " + sys.version.split()[0])'
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check uv
	$(VENV)/bin/uv pip install --quiet --compile-bytecode --python $(PYTHON) --require-hashes --requirement requirements.lock
	$(VENV)/bin/uv pip install --quiet --python $(PYTHON) --no-deps --no-build-isolation --editable .
	touch $(STAMP)

lock:  ## resolve pyproject.toml again
	$(VENV)/bin/uv pip compile --quiet pyproject.toml --group pinned --group dev --generate-hashes --universal \
		--python-version 3.11 --no-emit-index-url --no-annotate --no-header --output-file requirements.lock

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache
