# Every command of the project; continuous integration calls the same ones.
# Needs make and Python 3.11 or later, nothing else: each target sets up what it uses in .venv.
#
#   make setup      .venv with what the others use
#   make demo       the main job, from nothing: users, base, search, registry, answers, report
#   make test       the tests that need no GPU
#   make test-long  kills, soaks and big runs
#   make check      ruff and mypy
#   make fix        let ruff repair what it can
#   make bench      a search and its comparison: DATA=... BASE=... [OUT=...]
#   make bench-train  what trials cost against Tune with PEFT, and in packs: DATA="... ..." BASE=... [OUT=...]
#   make bench-search  what each sampler reaches in so many trials: [OUT=...] [RECORDED=...]
#   make clean      remove what these targets made
#
# Another Python: make test PYTHON=/path/to/python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
CODE := cluster models search serve examples benchmarks milpa.py
DEMO := demo
RECORDED ?= benchmarks/recorded-chatter.csv.gz

# Nothing is told to anybody, and for demo and tests nothing is downloaded but packages.
demo test test-long: export HF_HUB_OFFLINE := 1
demo test test-long: export HF_DATASETS_OFFLINE := 1
export RAY_USAGE_STATS_ENABLED := 0
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Threads that spin while they wait take the cores from whatever else runs on them.
export OMP_WAIT_POLICY := PASSIVE

.PHONY: setup demo test test-long check fix bench bench-train bench-search clean
.DEFAULT_GOAL := test

setup: $(INSTALLED)

# The stamp makes this run again only when what is to be installed changes.
$(INSTALLED): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Milpa needs Python 3.11 or later, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1)." \
	    "Name another one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 2; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -c constraints.txt setuptools
	$(BIN)/python -m pip install -c constraints.txt --no-build-isolation -e '.[dev]'
	@touch $@

demo: $(INSTALLED)
	$(BIN)/python -m examples.demo --out $(DEMO)

# One thread a process: the tests start several, and two cores are all that is asked for.
test test-long: export OMP_NUM_THREADS := 1

# Two processes, each with whole files: what a file sets up once is set up once.
test: $(INSTALLED)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations=10

test-long: $(INSTALLED)
	$(BIN)/python -m pytest -q -m long --timeout=10800 --durations=10

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict $(CODE)

fix: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(INSTALLED)
	@test -n '$(DATA)' -a -n '$(BASE)' || { \
	  echo "make bench needs data and a base: make bench DATA=... BASE=... OUT=..." >&2; exit 2; }
	$(BIN)/python -m benchmarks.real_users --data '$(DATA)' --base '$(BASE)' --out '$(or $(OUT),runs/bench)'

bench-train: $(INSTALLED)
	@test -n '$(DATA)' -a -n '$(BASE)' || { \
	  echo "make bench-train needs data and a base: make bench-train DATA=... BASE=..." >&2; exit 2; }
	$(BIN)/python -m benchmarks.training --data $(DATA) --examples 4 --base '$(BASE)' \
	  --out '$(or $(OUT),runs/bench-train)'
	$(BIN)/python -m benchmarks.pack_sizes --data '$(firstword $(DATA))' --base '$(BASE)'

# Goes on where it was stopped. One thread a process: each process searches on its own.
bench-search: export OMP_NUM_THREADS := 1

bench-search: $(INSTALLED)
	$(BIN)/python -m benchmarks.samplers --limit-hours 6 --recorded '$(RECORDED)' \
	  --out '$(or $(OUT),runs/bench-search)'

clean:
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
