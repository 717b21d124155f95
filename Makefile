# The short ways in. Each makes .venv with tox in it if need be; tox does the rest, see tox.ini.
# ARGS goes to the tool: make scenario ARGS="--max-nodes 1k"

PYTHON ?= python3
ARGS ?=
tox := .venv/bin/tox
python_min := 3.11
# pyenv hides from tox what it has installed, unless it is chosen there.
pyenv := $(wildcard $(HOME)/.pyenv/versions/3.1[123].*/bin/python3)
discover := $(if $(pyenv),--discover $(pyenv))

.DEFAULT_GOAL := help
.PHONY: help test pythons lowest test-kind kind-image scenario bench lint typecheck audit clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

test: $(tox) ## run all tests of kilonode itself
	@$(tox) run -e unit,integration -- $(ARGS)

pythons: $(tox) ## run the unit tests on each supported Python that is installed
	@$(tox) run -e py311,py312,py313 --skip-missing-interpreters true $(discover) -- $(ARGS)

lowest: $(tox) ## run the unit tests with the lowest versions of the dependencies
	@$(tox) run -e lowest $(discover) -- $(ARGS)

test-kind: $(tox) ## run the tests of kind's clusters alone
	@$(tox) run -e integration -- -k kind $(ARGS)

scenario: $(tox) ## measure real nodes, such as: make scenario ARGS="--max-nodes 1k"
	@$(tox) run -e scenario -- $(ARGS)

bench: $(tox) ## measure the harness itself, such as: make bench ARGS="registration --rounds 5"
	@$(tox) run -e bench -- $(ARGS)

kind-image: $(tox) ## build a node image for --cluster kind where no registry can be reached
	@$(tox) run -e kind-image

lint: $(tox) ## check style and the direction of imports
	@$(tox) run -e lint -- $(ARGS)

typecheck: $(tox) ## check types
	@$(tox) run -e typecheck -- $(ARGS)

audit: $(tox) ## ask what is known against the dependencies
	@$(tox) run -e audit -- $(ARGS)

clean: $(tox) ## remove what earlier runs left on this machine, kept clusters too
	@$(tox) run -e clean

$(tox): .venv/bin/pip
	@echo "installing tox into .venv"
	@.venv/bin/pip install --quiet --disable-pip-version-check 'tox>=4.24'
	@touch $@

# Not phony and without an age: an existing .venv is used as it is, whoever made it.
.venv/bin/pip:
	@command -v $(PYTHON) >/dev/null || { \
	  echo "error: there is no $(PYTHON). Remedy: install Python $(python_min) or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 3; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < tuple(map(int, "$(python_min)".split("."))))' || { \
	  echo "error: $$($(PYTHON) --version) is too old. Remedy: install Python $(python_min) or newer, or name it: make PYTHON=/path/to/python3" >&2; exit 3; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(MAKE) --no-print-directory python3-venv
	@echo "making .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.PHONY: python3-venv
python3-venv:
	@test "$$(id -u)" = 0 && command -v apt-get >/dev/null || { \
	  echo "error: $(PYTHON) has no venv module. Remedy: sudo apt-get install python3-venv" >&2; exit 3; }
	@echo "installing the Debian package python3-venv"
	@export DEBIAN_FRONTEND=noninteractive; \
	  install="apt-get install --yes --no-install-recommends python3-venv"; \
	  $$install >/dev/null 2>&1 || { apt-get update >/dev/null && $$install >/dev/null; }
