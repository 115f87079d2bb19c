#!/usr/bin/env bash
# Makes the Debian package of a built program: target/debian/syncgate_*.deb, or OUT.
# Usage: debian-package.sh PROGRAM [OUT [VERSION [OPTIONS of cargo deb]]]
#
#     make release && scripts/debian-package.sh target/optimized/syncgate
set -euo pipefail

cd "$(dirname "$0")/.."
program=$(realpath "$1")
out=$(realpath -m "${2:-target/debian}")
version=${3:-}

# cargo-deb takes the program and the rest from a target directory.
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
assets=$stage/release/assets
mkdir -p "$assets" "$out"
cp "$program" "$stage/release/syncgate"
"$program" man >"$assets/syncgate.1"
"$program" completions bash >"$assets/syncgate"
"$program" completions zsh >"$assets/_syncgate"
"$program" completions fish >"$assets/syncgate.fish"
scripts/third-party.py "$assets/third-party.txt" "$assets/sbom.cdx.json"
CARGO_TARGET_DIR=$stage cargo deb --locked --no-build --quiet --output "$out/" \
    ${version:+--deb-version "$version"} "${@:4}"
ls "$out"/syncgate_*.deb
