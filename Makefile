# Everything needs only Python 3.11 or newer: the first target that runs makes .venv from requirements.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check format alerts prove bench bench-check docs lock clean

run: $(READY)  ## the sidecar in front of simulated upstreams
	@$(BIN)/octet demo

test: $(READY)  ## the whole test suite
	@$(BIN)/pytest -n 3 --dist loadfile

check: $(READY)  ## style and types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(READY)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

alerts:  ## the alert rules: form, unit tests, and where alerts go (needs promtool and amtool)
	@promtool check rules --lint=all --lint-fatal deploy/prometheus/rules/*.yml
	@promtool test rules deploy/prometheus/tests/*.yml
	@amtool check-config deploy/alertmanager/alertmanager.yml

prove: $(READY)  ## what takes time: times and scale
	@$(BIN)/pytest -o python_files='prove_*.py' -o timeout=600 -s tests/prove

bench: $(READY)  ## CPU, latency and memory beside references, on two cores; PEERS="--peer NAME=URL" measures others too
	@$(BIN)/python -m tests.bench $(PEERS)

bench-check: $(READY)  ## the ratios that matter, against tests/bench/budget.json
	@$(BIN)/python -m tests.bench --quick --check

docs: $(READY)  ## what is generated: tables of docs/{upstreams,resilience,metrics}.md, and the dashboard
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m grafana.build

lock: $(READY)  ## requirements.txt anew: versions and hashes, for every platform
	@$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-header --no-annotate --no-emit-index-url --upgrade --quiet --output-file requirements.txt

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Octet needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)
