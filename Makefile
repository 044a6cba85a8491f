# Privyseal. `make demo` runs the main job, `make test` the tests; both work on
# a fresh clone and install what they need.

GO        ?= go
BIN       := bin/privyseal
FUZZTIME  ?= 10m
BENCHTIME ?= 1s
PKGS      ?= ./...

.PHONY: all deps build demo test race vet lint fuzz soak bench unit clean

all: build

deps: ## install the Debian packages that are missing
	@sh scripts/deps.sh

build: deps ## build bin/privyseal and bin/conformance
	$(GO) build -o bin/ ./cmd/...

demo: build ## the main job, on throw-away software devices
	$(BIN) demo

test: deps vet ## every test
	$(GO) test -timeout 20m $(PKGS)

race: deps ## every test under the race detector
	$(GO) test -race -timeout 60m $(PKGS)

vet: deps
	$(GO) vet $(PKGS)

lint: ## staticcheck, as pinned in scripts/lint.sh
	@sh scripts/lint.sh $(PKGS)

fuzz: deps ## every fuzz target for FUZZTIME each
	@GO="$(GO)" FUZZTIME="$(FUZZTIME)" sh scripts/fuzz.sh

soak: deps ## long runs: leaks and drift
	$(GO) test -tags soak -run Soak -timeout 120m -v ./...

bench: deps ## the figures of docs/performance.md, as ratios in one run
	$(GO) test -run '^$$' -bench . -benchtime $(BENCHTIME) -timeout 120m $(PKGS)

unit: build ## the systemd unit and the pages for operators, in a throw-away machine; needs root
	@sh scripts/unit/machine.sh

clean:
	rm -rf bin
