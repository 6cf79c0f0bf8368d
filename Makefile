# Token Sidecar. `make run` and `make test` are the two commands; the rest is for those who change it.
# Needs Python 3.11 with venv and pip, make and git.
PYTHON ?= python3
UV     := .uv/bin/uv
BIN    := .venv/bin
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export PATH := $(CURDIR)/.uv/bin:$(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup setup-dev generate

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"Token Sidecar needs Python 3.11 or newer; {sys.executable} is {sys.version.split()[0]}. Name another one: make PYTHON=python3.12 ...")'
	@$(PYTHON) -m venv .uv
	@.uv/bin/pip install --quiet --disable-pip-version-check uv==0.13.9

# Locked dependencies; without the development ones if that is enough.
setup: $(UV)
	@$(UV) sync --quiet --frozen --no-dev --inexact --python $(PYTHON)

setup-dev: $(UV)
	@$(UV) sync --quiet --frozen --python $(PYTHON)

generate: setup-dev
	proto/generate.sh
