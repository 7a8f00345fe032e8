# Wrappers only: the README gives the pip equivalents of every target.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Where pip finds torch. On Linux, PyPI's torch brings gigabytes of CUDA; for the CPU build use
#   make lab TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The browser of the tests: an installed Chromium or Chrome, else one is installed. `make test
# BROWSER=/path/to/chrome` names one; an empty BROWSER= keeps apt-get from being run.
ifeq ($(origin BROWSER),command line)
export LOX_KIT_BROWSER := $(BROWSER)
endif
PYTEST := $(BIN)/python -m pytest
IN_TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: lab demo figures test test-slow test-inner test-oldest test-kills test-panels browser
.PHONY: release install clean
lab: install
	$(BIN)/lox lab

demo: install
	$(BIN)/lox demo $(ARGS)

# The paper's figures, and ours, of the sandbox's seeds 0 and 1; what is computed is kept.
figures: install
	$(BIN)/lox figures --workers 2 $(ARGS)

test: install browser
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(PYTEST) -m "not slow and not browser" $(IN_TWO)
	$(PYTEST) -m "not slow and browser"

test-slow: install test-inner
	$(PYTEST) -m "slow and not browser" $(IN_TWO)

# What rests on the inner parts of transformers and peft, with the oldest of both that are allowed.
INNER := $(VENV)/inner
test-inner: install
	rm -rf $(INNER)
	$(PIP) --no-deps --target $(INNER) transformers==5.20.0 peft==0.20.0
	PYTHONPATH=$(INNER) $(PYTEST) tests/test_places.py tests/test_adapter.py tests/test_quantised.py \
		tests/test_smol_source.py

# The unit tests on the oldest versions of everything that pyproject.toml allows, in an environment
# of its own; on Linux torch's are of several gigabytes. Old ones bring packages that are not pinned.
OLDEST := $(VENV)/oldest
test-oldest: install
	$(PIP) uv
	$(BIN)/uv venv --clear --python $(BIN)/python $(OLDEST)
	$(BIN)/uv pip install --python $(OLDEST) --resolution lowest-direct -e ".[dev]"
	$(OLDEST)/bin/python -m pytest -m "not slow and not browser" $(IN_TWO) \
		--deselect tests/test_packaging.py::test_whatever_comes_along_is_pinned_too

# Hundreds of kills and faults, thousands of bad inputs, an hour of panels.
test-kills: install
	LOX_KIT_KILLS=8 LOX_KIT_FAULTS=10 LOX_KIT_SECONDS=3600 HYPOTHESIS_PROFILE=long \
		$(PYTEST) tests/faults $(IN_TWO)

# All browser tests, in the order in which one builds on another.
test-panels: install browser
	$(PYTEST) -m browser

browser: install
	$(BIN)/python tests/browser/chromium.py

# Wheel and source in dist/, checked; `twine upload dist/*` publishes them.
release: install
	rm -rf dist
	$(PIP) build twine
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch -c constraints.txt $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(PIP) -e ".[dev]" -c constraints.txt
	touch $@

clean:
	rm -rf $(VENV)
