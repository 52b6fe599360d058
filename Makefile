# `make help` lists the targets. All set-up goes below target/.

CARGO ?= cargo
export CARGO

.DEFAULT_GOAL := help
.PHONY: help demo demo-rust demo-python test test-rust test-python test-all lint \
	lint-rust lint-python lint-all sanitize bench bench-rust bench-python \
	cross-check test-platforms msrv wheel wheels fallback-wheel doc docs bench-report figures

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1 \t\2/p' $(MAKEFILE_LIST) | expand -t 24

demo: ## See synchronous code wait inside a running event loop
	.ci/demo

demo-rust:
	.ci/demo rust

demo-python:
	.ci/demo python

test: ## Run all tests: Rust, and Python on this machine's python3
	.ci/test

test-rust: ## Run the Rust tests alone
	.ci/test rust

test-python: ## Run the Python tests alone, on this machine's python3
	.ci/test python

test-all: ## What takes long: slow tests, every CPython, random order, bare machines (hours)
	.ci/run slow

wheel: ## Build the Python package's wheels, with and without the native module, and sdist into target/wheels
	.ci/python/wheel
	.ci/python/fallback-wheel

fallback-wheel: ## Build the wheel without the native module (py3-none-any) into target/wheels
	.ci/python/fallback-wheel

wheels: ## Build and check wheels of every supported CPython: manylinux, musllinux; try those that run here
	.ci/python/wheels
	.ci/python/cross-wheels

doc: ## Build the Rust documentation
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features

docs: ## Build the documentation site into target/site
	.ci/docs

sanitize: ## Run the Rust tests under AddressSanitizer (needs a nightly toolchain)
	.ci/sanitize

test-platforms: ## Run the tests of other platforms, as far as this machine can: musl; Windows by Wine
	.ci/platforms/run
	.ci/platforms/table

cross-check: ## Check that the crate compiles for other platforms
	.ci/cross-check

msrv: ## Run the crate's tests with the oldest Rust it promises
	.ci/msrv

bench: bench-rust bench-python ## Run the benchmarks, each against its peers

# Without `dump`, with which each wait takes some ns more.
bench-rust:
	$(CARGO) bench --features "$$(sed -n '/^\[features\]/,/^\[dep/s/^\([a-z0-9-]*\) = .*/\1/p' Cargo.toml | \
		grep -v -e '^default$$' -e '^dump$$' | paste -sd,)"

bench-report: ## Run the benchmarks quickly, and draw target/bench-report/index.html
	.ci/python/bench --report

figures: ## Put the figures of docs/figures (bench-report's, with --keep) into README and the other documents
	python3 benches/report/figures.py

bench-python:
	.ci/python/bench

lint: lint-rust lint-python lint-all ## All lints: rustfmt, clippy, docs; ruff, mypy, stubtest; spelling, dependencies, workflows

# What concerns both halves.
lint-all:
	.ci/spelling
	.ci/dependencies
	.ci/workflows

lint-python:
	.ci/python/lint

lint-rust:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --all-features -- -D warnings
	$(CARGO) clippy --no-default-features --lib -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --all-features
