# What people type. Everything a target needs besides these lines is in scripts/ and .ci/.
#
# One profile (dev) and one feature set for demo and test, and one target folder outside the clone: what one of them
# compiled, the other finds compiled.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

export CARGO_TARGET_DIR ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/hydromesh/target
# rustup adds its folder to login shells only.
export PATH := $(PATH):$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

# Options for the target's command: make demo ARGS="--once --format json"
ARGS ?=

.PHONY: help demo test sim crash bench lint fmt deny ci

help: ## Print this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-6s %s\n' "$$name" "$$what"; done
	@printf '\n  Options go in ARGS: make demo ARGS="--once --format json"; make test ARGS="store::"\n'

demo: ## Play the whole story on the example mesh; needs no server, no Java, no Python
	@scripts/setup.sh demo </dev/null >&2
	@cargo build -p hydromesh --bin hydromesh >&2
	@cargo run --quiet -p hydromesh --bin hydromesh -- demo $(ARGS)

test: ## Run all tests of the workspace
	@scripts/setup.sh test </dev/null >&2
	cargo test --workspace -- $(ARGS)

# Ten million turns take five minutes on two cores.
SEEDS ?= 0..5000

sim: ## Play the control plane in random worlds full of faults; SEEDS="0..5000" or one seed
	HYDROMESH_SIM_SEEDS="$(SEEDS)" cargo test --release -p hydromesh-core --lib -- --nocapture hunt

crash: ## Kill a controller at every named point and refuse its writes, and compare the tables with an undisturbed run
	@scripts/setup.sh test </dev/null >&2
	HYDROMESH_CRASH_POINTS=all cargo test --workspace --test it -- --nocapture crash::points crash::disk crash::power

bench: ## Measure in the release profile; ARGS=start (check, memory, lookups, react, loop) for one figure
	@scripts/setup.sh bench </dev/null >&2
	@cargo build --release -p hydromesh --bin hydromesh --example durable_loop >&2
	@scripts/bench/run.sh $(ARGS)

lint: ## Check formatting, clippy and, where cargo-deny is installed, dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@if cargo deny --version >/dev/null 2>&1; then $(MAKE) deny; else \
	    echo "lint: skipped dependencies, because cargo-deny is not installed (cargo install cargo-deny --locked)" >&2; fi

fmt: ## Format all code
	cargo fmt --all

deny: ## Check licences, sources and banned crates with cargo-deny
	cargo deny --workspace check --hide-inclusion-graph bans licenses sources

ci: ## Run what CI runs, with its budget of minutes per stage
	@.ci/run
