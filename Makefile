.DEFAULT_GOAL := help
GO ?= go
PKGS := ./...
KAFKA_UP ?= ../shared/bin/kafka-up

help: ## what can be made
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-14s %s\n", $$1, $$2}'

build: ## the program, at bin/millrace
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/millrace ./cmd/millrace

build-onnx: ## the program that also scores ONNX, at bin/millrace-onnx: needs a C compiler, and ONNX Runtime's shared library where it runs
	CGO_ENABLED=1 $(GO) build -tags onnx -trimpath -o bin/millrace-onnx ./cmd/millrace

test: ## every test, embedded: needs only Go
	$(GO) test $(PKGS)

race: ## the tests of everything concurrent, under the race detector
	$(GO) test -race ./internal/... ./schemas/... ./features/... ./streams/... ./serving/... ./monitor/... ./training/... ./registry/... ./console/...

e2e: ## the end-to-end suite; servers from MILLRACE_TEST_KAFKA and MILLRACE_TEST_REDIS, embedded without them (e2e/doc.go)
	$(GO) test -count=1 -timeout 20m ./e2e/...

chaos: ## the crash matrix: Kafka of three brokers (KAFKA_UP starts it), Redis servers of its own; CHAOS=-short takes its short part
	MILLRACE_KAFKA_UP=$(abspath $(KAFKA_UP)) $(GO) test -tags chaos -count=1 -timeout 60m -v -run '^TestChaos$$' $(CHAOS) ./e2e

bench: build ## flights on real Kafka and Redis (MILLRACE_TEST_KAFKA, MILLRACE_TEST_REDIS): throughput, freshness, scoring latency
	$(GO) run ./bench/flights -millrace bin/millrace

bench-dataset: build ## millrace dataset beside Polars, checked with DuckDB (pip install polars duckdb), FLIGHTS=path to flights-3m.parquet
	python3 bench/dataset/compare.py $(FLIGHTS)

bench-forest: ## the built-in forest beside LightGBM (pip install lightgbm numpy pandas pyarrow scikit-learn), FLIGHTS=path to flights-3m.parquet, fetched with npm without it
	python3 bench/forest/compare.py $(FLIGHTS)
	python3 bench/forest/suite.py $(FLIGHTS)

PYTHON ?= python3
SERVERS ?= millrace limit mlserver feast
SERVING_VENV ?= bin/serving-peers
comma := ,
space := $() $()
bench-serving: build ## a score and a fetch beside MLServer, Feast and net/http alone, each on one core: SERVERS; Kafka from MILLRACE_TEST_KAFKA, peers installed below SERVING_VENV, wrk and redis-server from the system
	$(foreach peer,$(filter-out millrace limit,$(SERVERS)),test -x $(SERVING_VENV)/$(peer)/bin/$(peer) || { $(PYTHON) -m venv $(SERVING_VENV)/$(peer) && $(SERVING_VENV)/$(peer)/bin/pip install -q -r bench/serving/$(peer).txt; } &&) true
	$(GO) build -o bin/bench-serving ./bench/serving
	bin/bench-serving -venv $(SERVING_VENV) -servers $(subst $(space),$(comma),$(strip $(SERVERS)))

PEERS ?= millrace flink
WORKLOADS ?= flights payments
EVENTS ?= 3000000
PEERS_DIR ?= ../shared/peers
bench-peers: build ## streaming features beside other engines on real Kafka and Redis: PEERS, WORKLOADS, EVENTS; BOOTSTRAP, REDIS_ADDR, DATA_DIR as in $(PEERS_DIR)/README.md
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/peers ./bench/peers
	mkdir -p bin/comparison && cp -r $(PEERS_DIR)/. bin/comparison/ && chmod -R u+w bin/comparison
	echo '{"millrace": {"run": ["$(abspath bin/peers)", "run"], "export": ["$(abspath bin/peers)", "export"]}}' > bin/comparison/millrace.json
	cd bin/comparison && export PEERS_FILE=$(abspath bin/comparison/millrace.json) MILLRACE=$(abspath bin/millrace) EVENTS=$(EVENTS) DISTINCT_TOL=0.05 && \
	  $(PYTHON) peers build && for w in $(WORKLOADS); do $(PYTHON) peers load $$w && for p in $(PEERS); do $(PYTHON) peers run $$p $$w; done; done

# The linter's shared cache answers for a file of the same content in another checkout, names it there and, once that is gone, finds no nolint comment in it: this checkout has its own.
lint: ## vet, gofmt and golangci-lint
	$(GO) vet -tags chaos $(PKGS)
	$(GO) vet -tags onnx ./registry/model/...
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo "gofmt would change these files: run gofmt -w on them"; exit 1; }
	GOLANGCI_LINT_CACHE=$(abspath bin/lint-cache) golangci-lint run

docs: ## checks that docs name only what exists
	$(GO) test ./docs/...

up: build ## all roles in one process on the flights project
	bin/millrace up --project examples/flights

demo: ## the whole loop on real flights, in about two minutes
	$(GO) run ./cmd/millrace demo

check: build test race lint ## what CI runs, without servers

.PHONY: help build test race e2e chaos bench bench-dataset bench-forest bench-serving bench-peers lint docs up demo check
