#!/usr/bin/env bash
# Mutation tests (cargo-mutants) of the code that decides who may do what. CONTRIBUTING.md has the
# counts, and the reasons for those that survive.
#
#   scripts/mutants.sh pure [ARGUMENTS]   policy/form and policy/rights, in a package of their own
#   scripts/mutants.sh path [ARGUMENTS]   access/permit and access/bearer, in a copy of the tree
#
# The pure files need nothing else of the crate, and alone they build far sooner.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v cargo-mutants >/dev/null || {
    echo "this needs cargo-mutants: cargo install --locked cargo-mutants" >&2
    exit 1
}
part=${1:?pure or path}
shift
work=${MUTANTS_WORK:-target/mutants}/$part

case $part in
pure)
    rm -rf "$work/src" "$work/tests"
    mkdir -p "$work/src/policy" "$work/tests"
    cp -r src/policy/form src/policy/form.rs src/policy/rights src/policy/rights.rs "$work/src/policy/"
    cp -r tests/form_reader.rs tests/form_model "$work/tests/"
    cp Cargo.lock "$work/"
    printf '//! What a user may do.\npub mod policy;\n' >"$work/src/lib.rs"
    printf 'pub mod form;\npub mod rights;\n' >"$work/src/policy/mod.rs"
    {
        printf '[package]\nname = "syncgate"\nversion = "0.0.0"\nedition = "2024"\n\n[workspace]\n\n'
        printf '[dependencies]\n'
        grep -E '^(http|memchr|serde|serde_json|simdutf8|thiserror|toml) = ' Cargo.toml
        printf '\n[dev-dependencies]\n'
        grep -E '^proptest = ' Cargo.toml
        # Without debug information a mutant builds in half the time.
        printf '\n[profile.dev]\nopt-level = 1\ndebug = false\n'
    } >"$work/Cargo.toml"
    cd "$work"
    # The same cases in every run, so that a mutant does not live or die by chance; and the first that
    # fails is enough.
    export PROPTEST_RNG_SEED=1 PROPTEST_MAX_SHRINK_ITERS=0 RUST_BACKTRACE=0
    exec cargo mutants --in-place --timeout 30 --output . "$@"
    ;;
path)
    mkdir -p "$work/tree/target"
    # Only what has changed is built again.
    tar -c --exclude ./target --exclude ./.git --exclude node_modules . | tar -x -C "$work/tree"
    cd "$work/tree"
    export RUST_BACKTRACE=0
    exec cargo mutants --in-place --timeout 120 --output .. --cargo-arg=--lib \
        --file src/access/permit.rs --file src/access/bearer.rs "$@" -- access::
    ;;
*)
    echo "pure or path, not $part" >&2
    exit 64
    ;;
esac
