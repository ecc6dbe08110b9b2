# The developer's verbs. GOFLAGS, GOPROXY and the like are taken from the environment, as everywhere with Go.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help build dev test test-browser test-modules compatibility check units format lint bench bench-once bench-peers bench-scale fuzz faults compose-faults image packages clean FORCE

ARGS         ?=
FUZZTIME     ?= 60s
BENCHTIME    ?= 2s
COUNT        ?= 1
FAULT        ?=
ROWS         ?= 1000000
PEERS        ?= 8000
MODULES      ?=
TEST_TIMEOUT ?= 40m

# A program with the race detector waits for a second at its end, and the tests start hundreds.
export GORACE ?= atexit_sleep_ms=10

# The version is the nearest tag, else the commit, else nothing in particular: a tarball and a repository without commits build too.
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unversioned)
LDFLAGS  = -X main.buildVersion=$(VERSION)

# Hidden directories, such as the home of `chancery dev`, hold nothing of ours and may be closed to us.
GO_FILES = find . -path './.*' -prune -o -name '*.go' -print
TOOL     = go tool -modfile=tools/go.mod

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo
	@echo '  variables: ARGS="$(ARGS)" FUZZTIME=$(FUZZTIME) BENCHTIME=$(BENCHTIME) COUNT=$(COUNT) TEST_TIMEOUT=$(TEST_TIMEOUT)'

build: bin/chancery ## build bin/chancery

# Always asked: go itself knows what has changed.
bin/chancery: FORCE
	@mkdir -p $(@D)
	go build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/chancery

dev: packages ## install what is missing, build, run everything on this machine; ARGS=--once plays the main job and exits
	@$(MAKE) --no-print-directory build
	@bin/chancery dev $(ARGS)

packages:
	@scripts/install-packages

test: ## install what is missing, check format and vet, run every test with the race detector
	@scripts/install-packages --test
	@$(MAKE) --no-print-directory check
	go test -race -vet=off -timeout $(TEST_TIMEOUT) ./...

# Without Chromium, make test skips these; here it is installed.
test-browser: ## install Chromium where it is missing, and sign in to the console, approve and revoke in it
	@scripts/install-packages --browser
	CHANCERY_REQUIRE_BROWSER=1 go test -race -vet=off -run InABrowser -v ./cmd/chancery

test-modules: ## run the tests of tokens on other modules: NSS softokn, a software TPM, p11-kit; MODULES="nss tpm"
	@scripts/install-packages --modules
	scripts/test-modules $(MODULES)

compatibility: build ## write the table in docs/compatibility.md anew, from a probe of each module
	@scripts/install-packages --modules
	scripts/compatibility $(MODULES)

# vet is given -race so that it and the tests share what was compiled: on a cold cache this halves the wait.
check:
	@unformatted=$$($(GO_FILES) | xargs gofmt -l) && \
		if [ "$$unformatted" ]; then echo "not in gofmt's format (make format):"; echo "$$unformatted"; exit 1; fi
	go vet -race ./...

# gofmt has the last word, as in check: gofumpt brings a formatter of its own, which aligns a few lines otherwise.
format: ## write every Go file in gofumpt's format
	@$(GO_FILES) | xargs $(TOOL) gofumpt -w
	@$(GO_FILES) | xargs gofmt -w

units: ## check the systemd units, where systemd is installed
	@scripts/check-units

lint: check units ## gofumpt, vet, staticcheck, gosec, govulncheck, the systemd units
	@unformatted=$$($(GO_FILES) | xargs $(TOOL) gofumpt -l) && \
		if [ "$$unformatted" ]; then echo "not in gofumpt's format (make format):"; echo "$$unformatted"; exit 1; fi
	$(TOOL) staticcheck ./...
	scripts/gosec
	scripts/vulnerabilities

bench: packages ## measure the rooms, then issuance end to end with 1, 8 and 32 clients; BENCHTIME=2s
	@rooms=$$(scripts/functions-of Benchmark | cut -d ' ' -f 1 | sort -u | grep -vx ./cmd/chancery) && \
		go test -p 1 -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) $$rooms
	go test -run '^$$' -bench . -benchmem -benchtime $(BENCHTIME) ./cmd/chancery

# Benchmarks are programs that nothing else runs, so they rot. Small, and with what the tests have compiled.
bench-once: ## run every benchmark once, on little, with the race detector: not to measure, but to see that each still runs
	@scripts/install-packages --test
	go test -race -vet=off -short -run '^$$' -bench . -benchtime 1x $$(scripts/functions-of Benchmark | cut -d ' ' -f 1 | sort -u)

# Each is built by itself, from its module as it was published: none is a dependency of this one.
bench-peers: packages ## issue PEERS=8000 certificates each from CFSSL, step-ca and this authority, by turns in one run
	@mkdir -p bin/peers
	GOBIN=$(CURDIR)/bin/peers CGO_ENABLED=0 go install github.com/cloudflare/cfssl/cmd/cfssl@v1.6.5
	GOBIN=$(CURDIR)/bin/peers CGO_ENABLED=0 go install github.com/smallstep/certificates/cmd/step-ca@v0.30.2
	CHANCERY_PEERS=$(CURDIR)/bin/peers go test -run '^$$' -bench Peers -benchtime $(PEERS)x ./cmd/chancery

bench-scale: packages ## measure a database of ROWS certificates beside an empty one; ROWS=1000000
	ROWS=$(ROWS) go test -run '^$$' -bench BenchmarkScale -benchtime 1x -timeout 6h ./storage

fuzz: packages ## fuzz every fuzz target of every package, one after the other; FUZZTIME=60s each
	@targets=$$(scripts/functions-of Fuzz) && echo "$$targets" | while read -r dir target; do \
		echo "$$dir $$target"; \
		go test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 1x "$$dir" || exit 1; \
	done

# The table is printed, and with the results kept under bin/, also when a fault was not survived.
faults: ## have clients served while things go wrong, each of docs/faults.md COUNT=1 times, FAULT="disk full" alone; bin/faults.md has the table
	@scripts/install-packages --test
	@mkdir -p bin && rm -f bin/faults.jsonl
	@CHANCERY_FAULT_RESULTS=$(CURDIR)/bin/faults.jsonl go test -race -run '$(if $(FAULT),TestFaults//^$(FAULT)$$,Kill|Fault)' -count $(COUNT) -parallel 4 \
		-timeout $$((10 + 8 * $(COUNT)))m -v ./cmd/chancery; failed=$$?; \
		[ ! -s bin/faults.jsonl ] || scripts/fault-table bin/faults.jsonl | tee bin/faults.md; exit $$failed

compose-faults: ## kill each process of docker-compose.yml under load, and account for everything; needs a Docker engine; BUILD=no KEEP=yes
	scripts/compose-faults

image: ## build the container image
	docker build --build-arg VERSION=$(VERSION) --build-arg GOPROXY --build-arg GOFLAGS --tag chancery .

clean: ## remove what was built
	rm -rf bin

FORCE:
