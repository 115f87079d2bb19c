#!/usr/bin/env bash
# Prints from the kept output of `cargo test` what of it tells why it failed: the tests that failed with what they
# panicked with, the compiler's errors, and cargo's own last words.
# usage: scripts/failures.sh OUTPUT
set -euo pipefail

echo
echo "What failed, from $1:"
grep -nE -A 3 '^test .* \.\.\. FAILED|panicked at|^error(\[E[0-9]+\])?:' "$1" | grep -vE '^[0-9]+-(\{|test .* \.\.\. ok)' | cut -c 1-400 | tail -n 150
