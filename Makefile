# `make help` lists the targets. All set-up goes below target/.

CARGO ?= cargo
PYTHON ?= python3
HAVE_PYTHON := $(shell command -v $(PYTHON) 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help demo demo-rust demo-python test test-rust test-python test-all lint sanitize bench \
	cross-check msrv wheel doc

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: demo-rust demo-python ## See synchronous code wait inside a running event loop

demo-rust:
	$(CARGO) run --quiet --release --example gzip_csv

test: test-rust test-python ## Run all tests: Rust, and Python on this machine's python3

test-rust:
	$(CARGO) test --all-features
	$(CARGO) test --no-default-features --lib --test fiber --test pool

doc: ## Build the Rust documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features

sanitize: ## Run the Rust tests under AddressSanitizer (needs a nightly toolchain)
	.ci/sanitize

cross-check: ## Check that the crate compiles for other platforms
	.ci/cross-check

msrv: ## Check that the crate builds with the oldest Rust it promises
	.ci/msrv

bench: ## Run the Rust benchmarks, each against its peers
	$(CARGO) bench

lint: ## rustfmt, clippy, documentation
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features
