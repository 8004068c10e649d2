# Every development task; `make` alone lists them.

# Only for creating .venv, which has its own Python.
PYTHON ?= python3

# Byte code is written even if the environment disables it: otherwise each process would compile the whole source again.
python := PYTHONPATH=.:platform PYTHONDONTWRITEBYTECODE= .venv/bin/python
install := .venv/bin/python -m pip install -qq --disable-pip-version-check --no-input --require-hashes
lock := .venv/bin/python -m uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(if $(UPGRADE),--upgrade)

.DEFAULT_GOAL := help
.PHONY: help run demo test brokers browser check bench chaos lock
.SILENT:

help:  ## list the targets
	awk -F ' *## ' '/^[a-z]+:.*## / { sub(/:.*/, "", $$1); printf "  make %-7s  %s\n", $$1, $$2 }' Makefile

run: .venv/made-local  ## run a complete Nightdesk on this machine until Ctrl-C (PORT=… sets the port)
	exec env $(python) -m devstack run

demo: .venv/made-local  ## run one long job on an instance of its own, with two provider failures, and stop
	exec env $(python) -m devstack demo

# More than one process, because tests spend much of their time waiting; TESTS= takes arguments of pytest.
PROCESSES ?= 2

test: .venv/made-dev .venv/made-older-sdk  ## run all tests, on embedded servers (PROCESSES=4 on a larger machine)
	$(python) -m pytest -n $(PROCESSES) --dist worksteal $(TESTS)

brokers:  ## install Redis and RabbitMQ from Debian's packages, for the tests on every broker
	if command -v redis-server >/dev/null && test -x /usr/lib/rabbitmq/bin/rabbitmq-server; then \
		echo "redis-server and rabbitmq-server are installed." >&2; exit 0; fi; \
	command -v apt-get >/dev/null || { \
		echo "There is no apt-get here. Without redis-server and rabbitmq-server, tests on them are skipped." >&2; exit 1; }; \
	test `id -u` = 0 || sudo=sudo; \
	$$sudo apt-get update -qq && $$sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get install -y -qq --no-install-recommends redis-server rabbitmq-server

browser:  ## install Chromium from Debian's package, for the tests in a browser
	if command -v chromium || command -v chromium-browser || command -v google-chrome; then \
		echo "Chromium is installed."; exit 0; fi >&2; \
	command -v apt-get >/dev/null || { \
		echo "There is no apt-get here. Without chromium, tests in a browser are skipped." >&2; exit 1; }; \
	test `id -u` = 0 || sudo=sudo; \
	$$sudo apt-get update -qq && \
		$$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium

check: .venv/made-dev  ## check style, types and layers, as CI does
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	$(python) -m mypy
	$(python) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()'

bench: .venv/made-dev  ## measure speed, a table per suite (ONLY=suite runs one)
	$(python) -m tests.bench $(ONLY)

chaos: .venv/made-dev  ## kill and freeze a working instance, and count what is lost (SEED=… repeats a run, JOBS=…)
	$(python) -m tests.chaos $(if $(SEED),--seed $(SEED)) $(if $(JOBS),--jobs $(JOBS))

lock: .venv/made-dev  ## regenerate requirements/*.txt from pyproject.toml (UPGRADE=1 for newer versions)
	$(lock) pyproject.toml -o requirements/base.txt
	$(lock) pyproject.toml --extra local -c requirements/base.txt -o requirements/local.txt
	$(lock) pyproject.toml --extra local --extra dev -c requirements/local.txt -o requirements/dev.txt
	$(lock) --group older-sdk --no-deps -o requirements/older-sdk.txt

# The stamp files are written last, so that an interrupted step is repeated.

.venv/made-local: requirements/local.txt | .venv/made
	echo "Installing requirements/local.txt into .venv; the first time takes a minute." >&2
	$(install) -r requirements/local.txt
	touch $@

.venv/made-dev: requirements/dev.txt | .venv/made
	echo "Installing requirements/dev.txt into .venv; the first time takes a minute." >&2
	$(install) -r requirements/dev.txt
	touch $@ .venv/made-local

.venv/made-older-sdk: requirements/older-sdk.txt | .venv/made
	echo "Installing requirements/older-sdk.txt into .venv/older-sdk." >&2
	rm -rf .venv/older-sdk
	$(install) --no-deps --target .venv/older-sdk -r requirements/older-sdk.txt
	touch $@

.venv/made:
	command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON). Install Python 3.11 or later, or set its path: make PYTHON=/path/to/python …" >&2; exit 1; }
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Nightdesk needs Python 3.11 or later; $(PYTHON) is `$(PYTHON) --version 2>&1`." \
			"Use another: make PYTHON=python3.12 …" >&2; exit 1; }
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot create virtual environments: venv or pip is missing." \
			"On Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	echo "Creating .venv with `$(PYTHON) --version`." >&2
	$(PYTHON) -m venv .venv
	touch $@
