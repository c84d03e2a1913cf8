# Every command of this repository. CI calls these targets and nothing else.
SHELL := bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

PYTHON ?= python3
PY := .venv/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet
BUF := .venv/bin/buf

# Arguments of `run`, and of `test`, `simulate`, `mutants`, `fuzz` and the benches.
ARGS ?=
# Processes that `test` and `mutants` use. Two are stable on small machines; raise it on a large one.
JOBS ?= 2
SEEDS ?= 300
SEED ?=
SECONDS_MAX ?= 60

PROTO_SOURCES := $(sort $(shell find proto/lockstep -name '*.proto'))
PROTO_SERVICES := $(filter %_service.proto,$(PROTO_SOURCES))
# KEDA's, whose package is not ours: its code gets a place below ours all the same.
KEDA_PROTO := -Ilockstep/externalscaler=proto/externalscaler proto/externalscaler/externalscaler.proto
OPERATOR_PACKAGE := $(if $(wildcard operator/lockstep_operator),-p lockstep_operator)

# protoc into the directory $(1): messages from all files, stubs of services only where services are.
define generate
PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iproto \
  --python_out=$(1) --mypy_out=quiet:$(1) $(PROTO_SOURCES) && \
PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m grpc_tools.protoc -Iproto \
  --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(PROTO_SERVICES) && \
PATH="$(CURDIR)/.venv/bin:$$PATH" $(PY) -m grpc_tools.protoc --python_out=$(1) --mypy_out=quiet:$(1) \
  --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) $(KEDA_PROTO)
endef

.PHONY: help
help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS='…' go to run, test, simulate, mutants, fuzz and the benches; JOBS=$(JOBS) to test and mutants; SEEDS=$(SEEDS) or SEED=… to simulate and simulate-cluster;"
	@echo "  SECONDS_MAX=$(SECONDS_MAX) and SEED=… to fuzz; IMAGE=$(IMAGE) to image, kind-up, minikube-up and test-kube."

# --- environment ---------------------------------------------------------------------------------

.PHONY: setup
setup: .venv/.installed-dev ## Create .venv with all that development needs; does nothing when up to date

$(PY):
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) on PATH. Install Python 3.11 or later, or name one: make setup PYTHON=/path/to/python" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = ".".join(map(str, sys.version_info[:2])); sys.exit(0 if sys.version_info >= (3, 11) else f"Lockstep needs Python 3.11 or later, $(PYTHON) is {v}. Name another: make setup PYTHON=python3.12")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "$(PYTHON) cannot make a virtual environment. On Debian and Ubuntu, install the package python3-venv." >&2; exit 1; }

.venv/.installed-run: pyproject.toml constraints.txt | $(PY)
	@echo "Installing what Lockstep needs to run into .venv"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(PY)
	@echo "Installing what development needs into .venv"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed-run

.PHONY: run
run: .venv/.installed-run ## Run a broker here: front end and owner in one process (ARGS='--help')
	@.venv/bin/lockstep serve $(ARGS)

.PHONY: clean
clean: ## Remove .venv, caches and build results; keeps data
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .cache services/*.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# --- checks: make check --------------------------------------------------------------------------

.PHONY: check
check: lint types imports proto-check proto-breaking tidy ## All checks that need no running broker

.PHONY: fmt
fmt: setup ## Format the code and repair what ruff can repair
	@.venv/bin/ruff check --fix-only --quiet .
	@.venv/bin/ruff format .

.PHONY: lint
lint: setup ## Format and lint rules (ruff)
	@.venv/bin/ruff format --check .
	@.venv/bin/ruff check .

.PHONY: types
types: setup ## Types (mypy, strict; pyproject.toml names the tests that are not there yet)
	@.venv/bin/mypy -p lockstep -p tests -p bench -p examples -p docs -p helm.monitoring $(OPERATOR_PACKAGE)

.PHONY: imports
imports: setup ## The floors of the architecture (import-linter)
	@.venv/bin/lint-imports --no-logo

.PHONY: tidy
tidy: setup ## Sizes, names, purity, tracked files (tests/tidy)
	@$(PY) -m pytest -q tests/tidy

.PHONY: proto-check
proto-check: setup ## Prove that the generated code is what the protos say
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && \
	$(call generate,"$$fresh") && \
	for package in v1 internal externalscaler; do \
	  diff -ru -x __init__.py -x __pycache__ services/lockstep/$$package "$$fresh"/lockstep/$$package || stale=yes; \
	done && \
	if [ -n "$${stale:-}" ]; then echo "Generated code is stale: run 'make proto' and commit the result." >&2; exit 1; fi && \
	echo "Generated code is fresh."

.PHONY: proto-breaking
proto-breaking: setup ## Lint the protos and prove that lockstep.v1 breaks no earlier promise (buf)
	@$(BUF) lint proto
	@$(BUF) breaking proto --against proto/baseline.binpb --exclude-path proto/lockstep/internal || \
	  { echo "lockstep.v1 would break its callers; the rule is above proto-baseline in the Makefile." >&2; exit 1; }
	@echo "lockstep.v1 keeps its promises."

# --- protos --------------------------------------------------------------------------------------

.PHONY: proto
proto: setup ## Generate code from the protos
	@$(call generate,services)

# The baseline is what callers were promised. Renew it
#   - with every release, so that what was added becomes a promise too;
#   - before the first release, for a breaking change that the commit message justifies;
#   - after that, never to silence `make proto-breaking`: add a field or a call instead, or a lockstep.v2.
.PHONY: proto-baseline
proto-baseline: setup ## Renew the promise that proto-breaking compares with; read the rule in the Makefile first
	@$(BUF) build proto --path proto/lockstep/v1 --exclude-source-info -o proto/baseline.binpb

# --- documentation -------------------------------------------------------------------------------

.PHONY: monitoring
monitoring: setup ## Make the rules and dashboards of the chart from helm/monitoring
	@$(PY) -m helm.monitoring

.PHONY: docs
docs: setup ## Make the API reference from the docstrings: build/api/index.html
	@$(PY) -W error -m docs.reference build/api
	@echo "Written: build/api/index.html"

# --- tests ---------------------------------------------------------------------------------------

.PHONY: kube-apiserver
kube-apiserver: setup ## Build the Kubernetes API server that tests run: some 4 minutes, once (KUBEBUILDER_ASSETS=… has one)
	@$(PY) -m tests.kube.program

.PHONY: promtool
promtool: setup ## Build the tool that tests the alerts: some 3 minutes, once
	@$(PY) -m tests.monitoring.promtool

.PHONY: test
test: setup kube-apiserver promtool ## All tests that need no cluster (ARGS='-k word', JOBS=4)
	@$(PY) -m pytest tests --ignore=tests/tidy -m "not integration and not e2e and not faults" \
	  -n $(JOBS) --dist worksteal --durations=10 $(ARGS)

.PHONY: test-faults
test-faults: setup ## Let parts of a cluster fail under load and judge what its clients saw (ARGS='-k etcd', or '--collect-only -qq' to list)
	@$(PY) -m pytest tests/faults -v $(ARGS)

.PHONY: simulate
simulate: setup ## Run the broker against simulated failures (SEEDS=300, or SEED=17 for one seed again)
	@$(PY) -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

.PHONY: simulate-cluster
simulate-cluster: setup ## Run a cluster with etcd and front ends against simulated failures (SEEDS=300, or SEED=17)
	@$(PY) -m tests.simcluster $(if $(SEED),--seed $(SEED),--seeds $(SEEDS)) $(ARGS)

.PHONY: mutants
mutants: setup ## Take guards out one at a time and see which test notices (ARGS="--only 'ttl-*'", or --list)
	@$(PY) -m tests.mutation --jobs $(JOBS) $(ARGS)

.PHONY: bench
bench: setup ## Measure a message's whole life against a broker on this machine
	@$(PY) -m bench.lifecycle $(ARGS)

.PHONY: fuzz
fuzz: setup ## Call the public API with all that is wrong (SECONDS_MAX=60, SEED=17, ARGS=--process)
	@GRPC_VERBOSITY=NONE $(PY) -m tests.fuzz --seconds $(SECONDS_MAX) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: cluster
cluster: setup ## Run a whole cluster here: etcd, PostgreSQL, 3 owners, 2 front ends (ARGS='--owners 5')
	@$(PY) -m tests.cluster $(ARGS)

.PHONY: bench-scale
bench-scale: setup ## Measure what a million messages and 200,000 sessions cost (ARGS='--small')
	@$(PY) -m bench.scale $(ARGS)

.PHONY: bench-dead-letters
bench-dead-letters: setup ## Measure jobs on 60,000 dead letters (ARGS='--shapes plain --runs 1')
	@$(PY) -m bench.dead_letters $(ARGS)

.PHONY: bench-micro
bench-micro: setup ## Measure what a message costs on each floor (ARGS='core wire')
	@$(PY) -m bench.micro $(ARGS)

.PHONY: bench-cluster
bench-cluster: setup ## Measure the hop over a front end, and how long partitions are away (ARGS='--parts kills,moves')
	@GRPC_VERBOSITY=NONE $(PY) -m bench.cluster $(ARGS)

.PHONY: bench-stores
bench-stores: setup ## Measure commits to SQLite and PostgreSQL, with an old snapshot too (ARGS='--seconds 2')
	@$(PY) -m bench.stores $(ARGS)

.PHONY: bench-operator
bench-operator: setup kube-apiserver ## Measure the operator with 1,000 objects on a Kubernetes API server (ARGS='--parts singles,mass')
	@GRPC_VERBOSITY=NONE $(PY) -m bench.operator $(ARGS)

# --- Kubernetes ----------------------------------------------------------------------------------

# The image that is built and installed; another name for a registry of yours: make image IMAGE=registry.example/lockstep:1
IMAGE ?= lockstep:dev

.PHONY: image
image: ## Build the image with Docker or Podman (IMAGE=lockstep:dev)
	@helm/up.sh image $(IMAGE)

.PHONY: kind-up
kind-up: ## Build the image, load it into a kind cluster (made if there is none), install the chart
	@helm/up.sh kind $(IMAGE)

.PHONY: minikube-up
minikube-up: ## The same with minikube
	@helm/up.sh minikube $(IMAGE)

.PHONY: test-kube
test-kube: setup ## Install the chart on the cluster of the current kubeconfig and use it as users do (IMAGE=lockstep:dev, loaded already)
	@IMAGE=$(IMAGE) $(PY) -m pytest tests/kubernetes -v -x --timeout-method=thread $(ARGS)

# The charts carry copies, because a chart is packed alone. tests/helm proves them fresh.
.PHONY: crds
crds: ## Copy the custom resource definitions into the charts
	@for chart in helm/lockstep helm/lockstep-crds; do \
	  rm -rf $$chart/files/crds && mkdir -p $$chart/files/crds && cp operator/lockstep_operator/crds/*.yaml $$chart/files/crds/; done

.PHONY: reference
reference: setup ## Make docs/kubernetes-reference from the schemas of the chart's values and of our kinds
	@$(PY) -m docs.kubernetes_reference
