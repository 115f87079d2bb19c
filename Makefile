# make test is what CI runs and all that CI runs.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:

target := $(or $(CARGO_TARGET_DIR),target)
output := $(abspath $(target))/test-output.log
export PATH := $(abspath $(target))/tools/bin:$(PATH)
# How long each fuzz target runs, in seconds.
FUZZ_SECONDS ?= 20

.PHONY: test tools lint suite doc deny fuzz secrets release clean

# The suite comes after the quick checks, and the search for secrets in what it printed comes last.
test: tools lint doc deny fuzz bench-check suite secrets

# Installs what the tests need and this machine lacks.
tools:
	@scripts/install-test-tools.sh $(target)

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	cargo clippy --locked --test no_secrets -- -D warnings
	cargo clippy --locked --workspace --all-targets --no-default-features -- -D warnings

doc:
	RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps

deny:
	cargo deny --locked check bans licenses sources

fuzz:
	scripts/fuzz.sh $(target)/fuzz $(FUZZ_SECONDS)

# With everything that passing tests print, for the search for secrets. What failed is told once more at the end, since
# the output of the binaries that follow would bury it.
suite:
	cargo test --locked --no-fail-fast -- --show-output 2>&1 | tee $(output) || { scripts/failures.sh $(output); exit 1; }

secrets:
	SYNCGATE_TEST_OUTPUT=$(output) cargo test --locked --test no_secrets

# The program for production, optimized by a profile of itself at work: target/optimized/syncgate.
release:
	scripts/release.sh $(target)

clean:
	cargo clean
	rm -rf examples/clients/node-axios/node_modules tests/dashboard/browser/node_modules fuzz/target fuzz/corpus fuzz/artifacts

-include benches/bench.mk
