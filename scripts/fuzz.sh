#!/usr/bin/env bash
# Builds every fuzz target with libFuzzer on the stable toolchain and runs each for some seconds from
# its committed seeds, two at a time. Usage: fuzz.sh BUILD_DIRECTORY SECONDS [TARGET...]
# The flags are those of "cargo fuzz build --sanitizer none", which needs no nightly compiler.
set -euo pipefail

cd "$(dirname "$0")/.."
build=$(realpath -m "$1")
seconds=$2
host=$(rustc --print host-tuple)
shift 2

export RUSTFLAGS="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1 \
-Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"
cargo fmt --check --manifest-path fuzz/Cargo.toml
# With --target the flags leave build scripts and macros alone.
cargo build --release --manifest-path fuzz/Cargo.toml --locked --bins \
    --target "$host" --target-dir "$build"

run() {
    local name=$1
    # As every Rust program does by itself, but not one whose main is libFuzzer's.
    trap '' PIPE
    local corpus=$build/corpus/$name seeds=fuzz/seeds/$name log=$build/$name.log
    mkdir -p "$corpus" "$build/artifacts"
    if [[ ! -d $seeds ]]; then
        echo "fuzz: $name has no seeds in $seeds" >&2
        return 1
    fi
    if ! "$build/$host/release/$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 \
        -artifact_prefix="$build/artifacts/$name-" "$corpus" "$seeds" &>"$log"; then
        cat "$log" >&2
        echo "fuzz: $name failed" >&2
        return 1
    fi
    echo "fuzz: $name for $seconds s: $(tail -n 1 "$log")"
}
export -f run
export build seconds host

targets=("$@")
if ((!${#targets[@]})); then
    for source in fuzz/fuzz_targets/*.rs; do
        targets+=("$(basename "$source" .rs)")
    done
fi
printf '%s\n' "${targets[@]}" | xargs -P 2 -I '{}' bash -c 'run {}'
