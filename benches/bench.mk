# make bench [SCENARIOS="small reject"] [PEERS="syncgate nginx haproxy"] [ROUNDS=3] [SECONDS=4]
# measures syncgate and its peers side by side; benches/README.md says how.
ROUNDS ?= 3
SECONDS ?= 4
PINGORA ?= 1
RT ?= auto

.PHONY: bench bench-quick bench-growth bench-check

bench:
	python3 benches/side_by_side/bench.py --scenarios "$(SCENARIOS)" --peers "$(PEERS)" \
	    --rounds $(ROUNDS) --seconds $(SECONDS) --pingora $(PINGORA) --real-time $(RT) $(BENCH_ARGS)

# The first figure, in about a minute once everything is built.
bench-quick:
	$(MAKE) bench SCENARIOS=small PEERS="syncgate nginx haproxy"

# How costs grow: make bench-growth [AXES="tokens sweep"]
bench-growth:
	python3 benches/side_by_side/growth.py --axes "$(AXES)" --rounds $(ROUNDS) \
	    --seconds $(SECONDS) --real-time $(RT) $(BENCH_ARGS)

# Format, lints and tests of the bench's own programs.
bench-check: export CARGO_TARGET_DIR = $(CURDIR)/target/bench/build
bench-check:
	cd benches/load && cargo fmt --check
	cd benches/load && cargo clippy --quiet --locked --all-targets -- -D warnings
	cd benches/load && cargo test --quiet --locked
	python3 benches/scale/model.py --test
