# Two commands do all the set-up: `make demo` and `make test`. Neither needs root, a container or a compiler.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The oldest generator that serves: its stubs import on protobuf 5, 6 and 7 (docs/decisions/0002-stubs-from-an-old-generator.md).
PROTO_TOOLS := grpcio-tools==1.62.3 setuptools==79.0.1

.DEFAULT_GOAL := help
.PHONY: help demo test lint type format proto bench compiled sim chaos clean

# With COMPILED=1 the tests and benchmarks run on the compiled core.
ifdef COMPILED
CORE := .compiled/.done
export PYTHONPATH := $(CURDIR)/.compiled
endif

help: ## Show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-8s %s\n", $$1, $$2}'

demo: $(VENV)/.demo ## Watch an online shop's order service survive real failures (about two minutes)
	@$(BIN)/python -m deploy.demo $(DEMO)

test: $(VENV)/.test $(CORE) ## Run the tests, on a real etcd
	$(BIN)/python -m pytest -n 3 --dist loadfile $(TESTS)

lint: $(VENV)/.test type ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

type: $(VENV)/.test ## Check types (mypy, strict)
	$(BIN)/mypy

format: $(VENV)/.test ## Put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench $(CORE) ## Run the benchmarks, each beside its reference (make bench BENCH=fanout COMPILED=1)
	$(BIN)/python -m tests.bench $(BENCH)

compiled: .compiled/.done ## Build a wheel with the core as a C extension (needs a C compiler)

sim: $(VENV)/.test ## Compare policies under load and faults in virtual time (make sim SIM="storm --seed 7")
	$(BIN)/python -m tests.sim $(SIM)

chaos: $(VENV)/.test ## Run the slow failure tests: random kills, long outages (make chaos SEED=7)
	$(BIN)/python -m pytest tests/chaos --timeout 900 $(if $(SEED),--seed $(SEED))

proto: .venv-proto/.done ## Generate the stubs from proto/ (needs Python 3.11 or 3.12)
	.venv-proto/bin/python -m grpc_tools.protoc -Iproto --python_out=clients/python --pyi_out=clients/python \
	  --grpc_python_out=clients/python proto/trimtab/v1/*.proto
	rm clients/python/trimtab/v1/types_pb2_grpc.py
	.venv-proto/bin/python -m grpc_tools.protoc -Icontrolplane/store/etcd=proto/etcd --python_out=. --pyi_out=. \
	  controlplane/store/etcd/rpc.proto

clean: ## Remove what was built and what the demo left
	rm -rf $(VENV) .venv-proto .trimtab .compiled dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Trimtab needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "Setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing the control plane, the SDK and the demo (once) ..."
	@$(PIP) install -c constraints.txt -e '.[demo]'
	@touch $@

# Beside the environment: older protobufs, to prove that the stubs import on them, and an independent etcd client.
$(VENV)/.test: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "Installing what the tests need (once) ..."
	@$(PIP) install -c constraints.txt -e '.[test,demo]'
	@for major in 5 6; do $(PIP) install --upgrade --no-deps --target $(VENV)/protobuf-$$major "protobuf==$$major.*"; done
	@$(PIP) install --upgrade --no-deps --target $(VENV)/witness etcd3==0.12.0 protobuf==3.20.3
	@touch $@

$(VENV)/.bench: $(VENV)/.test
	@echo "Installing what the benchmarks compare with (once) ..."
	@$(PIP) install -c constraints.txt -e '.[bench]'
	@touch $@

# Only the SDK of the wheel is kept, and shadows the sources: whatever of them changes asks for another one.
.compiled/.done: $(VENV)/.test pyproject.toml $(shell find clients/python/trimtab -name '*.py')
	@echo "Compiling the core (some minutes) ..."
	@rm -rf .compiled dist
	@$(PIP) install -c constraints.txt build
	@PYTHONPATH= HATCH_BUILD_HOOKS_ENABLE=1 PIP_CONSTRAINT=$(CURDIR)/constraints.txt $(BIN)/python -m build --outdir dist . >/dev/null
	@$(PIP) install --no-deps --target .compiled dist/trimtab-*.whl
	@rm -r .compiled/controlplane
	@touch $@

.venv-proto/.done:
	$(PYTHON) -m venv .venv-proto
	.venv-proto/bin/python -m pip --disable-pip-version-check --quiet install $(PROTO_TOOLS)
	@touch $@
