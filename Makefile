# Two commands for a fresh clone: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo predict test coverage check format bench clean

$(INSTALLED): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	touch $@

# Simulated radiographs through everything, offline; ends with the place of an HTML report.
demo: $(INSTALLED)
	$(BIN)/xrv demo $(if $(OUT),--out-dir $(OUT))

# The main job: findings of the radiographs in a file or folder.
predict: $(INSTALLED)
	@test -n "$(IMAGES)" || { echo "say which: make predict IMAGES=path/to/radiographs"; exit 2; }
	$(BIN)/xrv predict $(IMAGES)

# Fixtures that write checkpoints belong to one file, so a file stays on one worker. A worker a core
# leaves no core for further threads.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile $(ARGS)

# The same suite with branch coverage; slower, and where lines are missing is printed.
coverage: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile --cov --cov-report=term-missing:skip-covered

# Everything that CI asks for besides the tests.
check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Against 1.5.7, which needs an environment of its own: make bench BASELINE=path/to/its/python
bench: $(INSTALLED)
	@test -n "$(BASELINE)" || { echo "say where 1.5.7 is: make bench BASELINE=env/bin/python"; exit 2; }
	$(BIN)/python -m benchmarks --baseline-python $(BASELINE)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache dist
