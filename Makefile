# Everything is installed into this folder's own environments, .venv and .venv-proto; downloads are kept in pip's and the user's cache.
PYTHON =
PY = .venv/bin/python
TAG = $(shell git describe --tags --abbrev=0 2>/dev/null)
# What the contract must not break: the last release, or, until there is one, the committed image.
RELEASED = $(if $(TAG),.git\#tag=$(TAG),proto/image.binpb)

.PHONY: help demo test test-slow simulate crash lint proto proto-check proto-image test-clients bench soak growth lock clean

help:
	@echo 'make demo [SERVE=1] [FAKE=1]  a real small model and the service on this machine; one answer, streamed'
	@echo 'make test                     the tests, and a smoke test on the real model'
	@echo 'make test-slow                the tests that take longer'
	@echo 'make simulate [SEEDS=10000]   races on a virtual clock, by seeds; [SEED=S] one of them, with its story'
	@echo 'make crash [KILLS=N] [SEED=S] kills the service 200 times and proves that nothing is lost'
	@echo 'make bench [QUICK=1]          the speed of the service beside others, in one table; [PEERS=all] Portkey and LiteLLM too'
	@echo 'make growth [QUICK=1]         what a request costs as streams, rows, conversations and answers grow'
	@echo 'make soak [REQUESTS=200000]   whether memory stays flat, with cancels and faults'
	@echo 'make lint                     every check of the code and of the contract'
	@echo 'make proto                    the stubs of every client whose toolchain is here, from the proto files'
	@echo 'make proto-check              whether they are fresh'
	@echo 'make test-clients             the clients in every language whose toolchain is here, against the real service'
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
	@$(PY) -m pytest -q -m 'not slow' -n $$($(PY) -c 'import os; print(min(4, 1 + (os.cpu_count() or 1)))') --dist worksteal

test-slow: .venv/.ready .venv-proto/.ready
	@$(PY) -m pytest -q -m slow

test-clients: .venv/.ready
	@$(PY) tools/clients.py

crash: .venv/.ready
	@$(PY) tests/crash/crash.py $(if $(KILLS),--kills $(KILLS)) $(if $(SEED),--seed $(SEED))

simulate: .venv/.ready
	@$(PY) tests/engine/races.py $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),10000))

bench: .venv/.ready
	@$(PY) bench/run.py $(if $(QUICK),--quick) $(if $(PEERS),--peers $(PEERS))

growth: .venv/.ready
	@$(PY) bench/growth.py $(if $(QUICK),--quick)

soak: .venv/.ready
	@$(PY) bench/soak.py $(if $(REQUESTS),--requests $(REQUESTS))

lint: .venv/.ready .venv-proto/.ready
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	.venv/bin/buf lint
	.venv/bin/buf format --diff --exit-code
	.venv/bin/buf breaking --against '$(RELEASED)'
	.venv-proto/bin/python tools/proto.py --check $(if $(CI),,python)

proto: .venv-proto/.ready
	@.venv-proto/bin/python tools/proto.py
	@git status --short clients

proto-check: .venv-proto/.ready
	@.venv-proto/bin/python tools/proto.py --check

# Until the first release: what the contract is compared with from now on.
proto-image: .venv/.ready
	.venv/bin/buf build --exclude-source-info --output proto/image.binpb

lock:
	@sh tools/lock.sh

clean:
	rm -rf .venv .venv-proto .tools clients/*/node_modules clients/*/target .mypy_cache .ruff_cache .pytest_cache .hypothesis
