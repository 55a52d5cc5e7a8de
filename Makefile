# Two commands for a fresh clone: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What runs the package, and what checks it: the second is 1.4 GB larger.
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
# An index with the CPU build of torch (pytorch.org/get-started names it) saves 4 GB on Linux.
TORCH_INDEX ?=

.PHONY: demo predict test lowest coverage check docs format wheel bench clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH_INDEX),$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) torch torchvision)

# Triton compiles for NVIDIA GPUs: where there is none, torch never loads its 0.9 GB.
$(RUN): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dicom]"
	command -v nvidia-smi >/dev/null || $(BIN)/python -m pip uninstall --quiet --yes triton
	touch $@

$(DEV): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $(RUN) $@

# Runs everything on simulated radiographs, offline, and prints where the HTML report is.
demo: $(RUN)
	$(BIN)/xrv demo $(if $(OUT),--out-dir $(OUT))

# The main job: the findings of the radiographs in a file or folder.
predict: $(RUN)
	@test -n "$(IMAGES)" || { echo "say which: make predict IMAGES=path/to/radiographs"; exit 2; }
	$(BIN)/xrv predict $(IMAGES)

# Fixtures that write checkpoints belong to one test file, so a file stays on one worker. One worker
# per core leaves no core for further threads.
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

# The core with the lowest versions that pyproject.toml declares, in an environment of its own (with
# those of the encoders among its models and of the Hub); those of all extras must at least be
# installable together. Old packages use what newer ones beneath them deprecate, so
# that such warnings are no errors here.
CORE := $(addprefix tests/unit/,remote inputs images transforms weights models runs test_files.py \
	test_masks.py test_measures.py test_tables.py datasets/test_custom.py) tests/e2e/test_predict.py
lowest:
	test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	$(PYTHON) tools/lowest_versions.py dicom models zero-shot hub > .venv-lowest/lowest.txt
	$(PYTHON) tools/lowest_versions.py all > .venv-lowest/all.txt
	.venv-lowest/bin/python -m pip install --quiet --dry-run --ignore-installed \
		$(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) -r .venv-lowest/all.txt
	.venv-lowest/bin/python -m pip install --quiet $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) \
		-r .venv-lowest/lowest.txt pytest hypothesis pytest-timeout pytest-xdist
	.venv-lowest/bin/python -m pip install --quiet --no-deps --editable .
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -W ignore::DeprecationWarning $(CORE) $(ARGS)

# The same suite with branch coverage; slower, and where lines are missing is printed.
coverage: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov --cov-report=term-missing:skip-covered

# Everything that CI asks for besides the tests.
check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The site in docs/_build/html: a warning is an error, notebooks are run, every link of every page leads somewhere.
docs: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -j auto -W --keep-going -q -b html docs docs/_build/html
	$(BIN)/python tools/check_site.py docs/_build/html

# What is published: wheel and sdist, and the wheel alone tried in an environment of its own, offline.
wheel: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build twine
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tools/release.py again dist
	$(BIN)/python tools/release.py try dist $(if $(TORCH_INDEX),--torch-index $(TORCH_INDEX))

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Against 1.5.7, which needs an environment of its own: make bench BASELINE=path/to/its/python
bench: $(DEV)
	@test -n "$(BASELINE)" || { echo "say where 1.5.7 is: make bench BASELINE=env/bin/python"; exit 2; }
	$(BIN)/python -m benchmarks --baseline-python $(BASELINE)

clean:
	rm -rf $(VENV) .venv-lowest .mypy_cache .ruff_cache .pytest_cache dist
