# Token Sidecar. `make run` and `make test` are the two commands; the rest is for those who change it.
# Needs Python 3.11 with venv and pip, make and git. No root.
PYTHON ?= python3
CLAIMS ?=
UV     := .uv/bin/uv
BIN    := .venv/bin
SOURCES := .ci sidecar clients/python/tokensidecar clients/conformance tests
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export PATH := $(CURDIR)/.venv/bin:$(CURDIR)/.uv/bin:$(PATH)

.PHONY: run run-gateway test test-all soak fuzz check format bench generate release setup setup-dev clean

# A running sidecar, shown at work: CLAIMS=file.json for your own claims.
run: setup
	@$(BIN)/tokensidecar demo --serve $(if $(CLAIMS),--claims $(CLAIMS))

# A language model that clients reach only with an encrypted token: Envoy and nginx ask a sidecar, and curl lines to try.
run-gateway: setup-dev
	@$(BIN)/python deploy/gateway/run.py

# Every test whose tools are there; the rest is printed as NOT RUN. In JOBS processes, a file to each: tests mostly wait.
JOBS ?= 4
test: setup-dev
	@$(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

# The same, and what takes longer: each failpoint a hundred times over, a thousand rounds of each race, two pods under podman (root).
test-all: setup-dev
	@TOKENSIDECAR_TEST_ALL=true $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile
	@$(BIN)/python deploy/podman/prove || [ $$? -eq 2 ]

# A simulation of fifty sidecars, ten thousand times; then real ones under faults, MINUTES on each store that remembers tokens.
MINUTES ?= 30
soak: setup-dev
	@$(BIN)/python -m tests.model --runs 10000
	@$(BIN)/python -m tests.history --store sqlite --seconds $$(($(MINUTES) * 60))
	@$(BIN)/python -m tests.history --store postgres --seconds $$(($(MINUTES) * 60))

# Bad inputs of every kind, by coverage; SECONDS for each of nine targets.
SECONDS ?= 60
fuzz: setup-dev
	@$(UV) run --quiet --no-sync --with atheris python -m tests.fuzz --seconds $(SECONDS)

# Format, lint, types, imports.
check: setup-dev
	@$(BIN)/ruff format --check $(SOURCES)
	@$(BIN)/ruff check $(SOURCES)
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: setup-dev
	@$(BIN)/ruff format $(SOURCES)
	@$(BIN)/ruff check --fix $(SOURCES)

# Figures, into tests/bench/.
bench: setup-dev
	@$(BIN)/python -m tests.bench
	@$(BIN)/python -m tests.bench.fleet

# The Python stubs, from proto/.
generate: setup-dev
	@proto/generate.sh

# What is published, into dist/: checked, built, listed, with checksums. TESTS=1: tested too. Signing: .github/CONTRIBUTING.md.
release: setup-dev
	@.ci/release

# Locked dependencies; without the development ones where that is enough.
setup: $(UV)
	@$(UV) sync --quiet --frozen --no-dev --inexact --python $(PYTHON)

setup-dev: $(UV)
	@$(UV) sync --quiet --frozen --python $(PYTHON)

$(UV):
	@command -v $(PYTHON) >/dev/null || { echo "Token Sidecar needs Python 3.11 or newer, and there is no $(PYTHON): install it (Debian: apt install python3 python3-venv), or name another one, as in make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Token Sidecar needs Python 3.11 or newer, and " + sys.executable + " is " + sys.version.split()[0] + ": name another one, as in make PYTHON=python3.12")'
	@echo "Setting up .venv (once)"
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

clean:
	@rm -rf .venv .uv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
