# Everything from nothing, with Python >= 3.11, pip and make: `make demo`, `make test`.

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format docs hostile faults clean

VENV  := .venv
BIN   := $(VENV)/bin
READY := $(VENV)/.ready
ARGS  ?=

# The first Python here that is new enough; `make setup PYTHON=/path/to/python` names another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && exit; done; echo python3)

help:  ## what can be made
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F'|' '{ printf "%-12s %s\n", $$1, $$2 }'

setup: $(READY)  ## the virtual environment .venv, with all that the project and its tests need

demo: $(READY)  ## four concepts learned one after another on the embedded base: out/demo
	$(BIN)/stamina demo --out out/demo

# A process for each core, one thread each: two threads that wait for each other are slower than two processes.
test: lint  ## lint, types and tests; `make test ARGS="-k laws"` passes ARGS to pytest
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile $(ARGS)

lint: $(READY)  ## ruff and pyright
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright

format: $(READY)  ## put the source in ruff's form
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY)  ## the documentation as a site: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

hostile: $(READY)  ## bad input of every kind by every way in: benchmarks/hostile/results.json
	$(BIN)/python -m benchmarks.hostile --out benchmarks/hostile/results.json $(ARGS)

faults: $(READY)  ## kills, full disks, two writers, damaged files: benchmarks/faults/results.json
	$(BIN)/python -m benchmarks.faults --out benchmarks/faults/results.json $(ARGS)

clean:  ## remove caches, builds and the demo; .venv stays (rm -rf .venv removes it)
	rm -rf build dist site out/demo .pytest_cache .ruff_cache .hypothesis
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# The tests of the web studio drive a real browser. Where this cannot install one they are skipped, with the reason.
BROWSER = if ! command -v chromium >/dev/null && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	{ apt-get install -y --no-install-recommends chromium || \
	  { apt-get update && apt-get install -y --no-install-recommends chromium; }; } >/dev/null 2>&1 || true; fi

# uv reads UV_FIND_LINKS where pip reads PIP_FIND_LINKS: where the latter is set, a CPU build of torch is found there.
# --compile-bytecode: where PYTHONDONTWRITEBYTECODE is set, imports would otherwise compile torch and diffusers each time.
# constraints.txt pins torch, since a range would take the newest and largest build.
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo 'Python >= 3.11 is needed; no $(PYTHON) was found. Name one: make PYTHON=/path/to/python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit(f"Python >= 3.11 is needed; $(PYTHON) is {v[0]}.{v[1]}. Name a newer one: make PYTHON=/path/to/python3.12")'
	@$(BIN)/python -c '' 2>/dev/null || $(PYTHON) -m venv --clear $(VENV) \
		|| { echo 'No virtual environment could be made (on Debian and Ubuntu: apt install python3-venv).' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	UV_FIND_LINKS="$${PIP_FIND_LINKS:-}" $(BIN)/uv pip install --python $(VENV) --compile-bytecode -c constraints.txt -e '.[dev,ui]'
	@$(BROWSER)
	@touch $@
