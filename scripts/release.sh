#!/usr/bin/env bash
# Builds the program for production: Cargo's profile `production`, optimized by a profile of the program
# at work (PGO). Builds once with counters, serves the loads of the benches, and builds once more with what
# was counted. Takes about ten minutes; the program is TARGET_DIRECTORY/optimized/syncgate.
# Usage: release.sh TARGET_DIRECTORY
set -euo pipefail

cd "$(dirname "$0")/.."
work=$(realpath -m "$1")/optimized
host=$(rustc --print host-tuple)
llvm=19 # Debian's; it reads the counts of newer compilers, too.

say() { echo "release: $*"; }

# llvm-profdata, of the toolchain where it has one.
find_profdata() {
    local candidate
    for candidate in "$(rustc --print sysroot)/lib/rustlib/$host/bin/llvm-profdata" \
        llvm-profdata-{25..19}; do
        if command -v "$candidate" >/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

build() {
    # With --target the flags leave build scripts and macros alone.
    RUSTFLAGS=$2 cargo build --profile production --locked --quiet --target "$host" --target-dir "$work/$1"
}

if ! find_profdata >/dev/null; then
    say "installing from Debian: llvm-$llvm"
    as_root=$([[ $(id -u) == 0 ]] || echo sudo)
    $as_root apt-get -qq update
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
        "llvm-$llvm" >/dev/null
fi
profdata=$(find_profdata)
counts=$work/counts
rm -rf "$counts"
say "building with counters"
build counting "-Cprofile-generate=$counts"
say "serving the loads of the benches"
python3 benches/side_by_side/train.py --counts "$counts" \
    --syncgate "$work/counting/$host/production/syncgate"
"$profdata" merge -o "$work/profile" "$counts"/*.profraw
rm -rf "$counts"
say "building with what was counted"
build release "-Cprofile-use=$work/profile"
cp "$work/release/$host/production/syncgate" "$work/syncgate"
say "done: ${work#"$PWD"/}/syncgate"
