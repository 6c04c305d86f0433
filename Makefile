# Two commands are the contract: `make demo` and `make test` do all their own set-up with Python 3.11 or 3.12.
PYTHON := $(shell for p in python3.12 python3.11 python3 $$HOME/.pyenv/versions/3.12*/bin/python $$HOME/.pyenv/versions/3.11*/bin/python; do \
	command -v $$p >/dev/null 2>&1 && $$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
READY := $(VENV)/ready

SEED := 1

.PHONY: demo dev test lint bench chaos clean

demo: $(READY)
	$(VENV)/bin/tieout demo --dir build/demo

dev: $(READY)
	$(VENV)/bin/tieout dev --dir build/dev

test: $(READY)
	$(VENV)/bin/python -m pytest -n 2

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

bench: $(READY)
	$(VENV)/bin/python -m benchmarks

chaos: $(READY)
	TIEOUT_KILLS=50 TIEOUT_SEED=$(SEED) $(VENV)/bin/python -m pytest tests/flow/test_kill.py -v
	TIEOUT_KILLS=60 TIEOUT_SEED=$(SEED) $(VENV)/bin/python -m pytest tests/kafka/test_invoicing.py tests/flow/test_invoicing_kill.py tests/flow/test_document_flow.py -m kill -v
	$(VENV)/bin/python -m tests.chaos --seed $(SEED) --kills 100 --broker-faults 5
	$(VENV)/bin/python -m tests.chaos.bugs

clean:
	rm -rf $(VENV) build

$(READY): pyproject.toml
	@test -n "$(PYTHON)" || { echo "tieout needs Python 3.11 or 3.12 on the PATH; install one and run make again" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)
