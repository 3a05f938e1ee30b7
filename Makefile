# Everything is installed into this folder's own environments, .venv and .venv-proto; downloads are kept in pip's and the user's cache.
PYTHON =
PY = .venv/bin/python
STUBS = clients/python/headrace/v1
TAG = $(shell git describe --tags --abbrev=0 2>/dev/null)

.PHONY: help demo test test-slow simulate crash lint proto lock clean

help:
	@echo 'make demo [SERVE=1] [FAKE=1]  a real small model and the service on this machine; one answer, streamed'
	@echo 'make test                     the tests, and a smoke test on the real model'
	@echo 'make test-slow                the tests that take longer'
	@echo 'make simulate [SEEDS=10000]   races on a virtual clock, by seeds; [SEED=S] one of them, with its story'
	@echo 'make crash [KILLS=N] [SEED=S] kills the service 200 times and proves that nothing is lost'
	@echo 'make lint                     every check of the code and of the contract'
	@echo 'make proto                    the Python stubs, from the proto files'
	@echo 'make lock                     requirements/*.txt, from pyproject.toml (needs uv)'
	@echo 'make clean                    removes the environments and all caches of this folder'

.venv/.ready: pyproject.toml requirements/dev.txt tools/setup.sh tools/install.py
	@PYTHON='$(PYTHON)' sh tools/setup.sh .venv requirements/dev.txt --editable
	@touch $@

.venv-proto/.ready: requirements/proto.txt tools/setup.sh tools/install.py
	@PYTHON='$(PYTHON)' sh tools/setup.sh .venv-proto requirements/proto.txt
	@touch $@

demo: .venv/.ready
	@.venv/bin/headrace demo $(if $(FAKE),--fake) $(if $(SERVE),--serve)

test: .venv/.ready
	@$(PY) tools/model.py
	@$(PY) -m pytest -q -m 'not slow' -n auto --maxprocesses 4 --dist worksteal

test-slow: .venv/.ready .venv-proto/.ready
	@$(PY) -m pytest -q -m slow

crash: .venv/.ready
	@$(PY) tests/crash/crash.py $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

simulate: .venv/.ready
	@$(PY) tests/engine/races.py $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

lint: .venv/.ready .venv-proto/.ready
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	.venv/bin/buf lint
	.venv/bin/buf format --diff --exit-code
	$(if $(TAG),.venv/bin/buf breaking --against '.git#tag=$(TAG)',@echo 'buf breaking: there is no tag yet to compare with')
	.venv-proto/bin/python tools/proto.py --check

proto: .venv-proto/.ready
	@.venv-proto/bin/python tools/proto.py
	@git status --short $(STUBS)

lock:
	@sh tools/lock.sh

clean:
	rm -rf .venv .venv-proto .mypy_cache .ruff_cache .pytest_cache .hypothesis
