#!/usr/bin/env bash
# Installs what the tests need and this machine lacks: Debian packages, the libraries of the example
# clients, a TLS scanner, validators of the examples, cargo-deny and cargo-deb. Does nothing where all is there. Usage: install-test-tools.sh TARGET_DIRECTORY
set -euo pipefail

cd "$(dirname "$0")/.."
target=$(realpath -m "$1")
cargo_deny=0.20.2
cargo_deb=3.8.0
sslyze=6.3.1

say() { echo "install-test-tools: $*"; }

as_root() {
    if [[ $(id -u) == 0 ]]; then "$@"; else sudo "$@"; fi
}

# Debian packages, each with how to tell that it is not needed.
missing=()
need() {
    local package=$1
    shift
    "$@" &>/dev/null || missing+=("$package")
}
need build-essential command -v cc
need build-essential command -v c++
need curl command -v curl
need jq command -v jq
need nodejs command -v node
need npm command -v npm
need python3-venv python3 -c 'import ensurepip, venv'
need php-cli command -v php
need php-curl php -r 'exit(extension_loaded("curl") ? 0 : 1);'
need mono-mcs command -v mcs
need mono-runtime command -v mono
need libmono-system-runtime-serialization4.0-cil \
    test -e /usr/lib/mono/4.5/System.Runtime.Serialization.dll
need libmono-system-numerics4.0-cil test -e /usr/lib/mono/4.5/System.Numerics.dll
need libmono-system-xml-linq4.0-cil test -e /usr/lib/mono/4.5/System.Xml.Linq.dll
need testssl.sh command -v testssl
need slowhttptest command -v slowhttptest
need nghttp2-client command -v h2load
need haproxy command -v haproxy
need faketime command -v faketime
need redis-server command -v redis-server
need redis-tools command -v redis-cli
need prometheus command -v promtool
need dpkg-dev command -v dpkg-shlibdeps
need logrotate test -x /usr/sbin/logrotate
need man-db command -v man
need iproute2 command -v ip
need chromium command -v chromium
if ((${#missing[@]})); then
    say "Debian packages: ${missing[*]}"
    if ! command -v apt-get >/dev/null; then
        say "there is no apt-get here; please install what these packages hold, then try again"
        exit 1
    fi
    as_root apt-get update -qq
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends \
        -o DPkg::Lock::Timeout=300 "${missing[@]}" >/dev/null
    # The tests start servers of their own; those that the packages start are in nobody's way, but for
    # nothing.
    for service in redis-server haproxy prometheus; do
        if [[ " ${missing[*]} " == *" $service "* ]]; then
            as_root systemctl disable --now "$service" &>/dev/null || true
        fi
    done
fi

clients=examples/clients
if [[ ! -d $clients/node-axios/node_modules/axios ]]; then
    say "npm: the libraries of $clients/node-axios"
    npm install --prefix "$clients/node-axios" --no-audit --no-fund --loglevel=error
fi

browser=tests/dashboard/browser
if ! cmp --silent "$browser/package.json" "$browser/node_modules/package.json"; then
    say "npm: what drives Chromium, into $browser"
    npm install --prefix "$browser" --no-audit --no-fund --no-package-lock --loglevel=error
    cp "$browser/package.json" "$browser/node_modules/package.json"
fi

# A copy of the requirements marks a finished installation, and a changed one an outdated.
venv=$target/clients-venv
requirements=$clients/python-requests/requirements.txt
if ! cmp --silent "$requirements" "$venv/requirements.txt"; then
    say "pip: the libraries of $clients/python-requests, into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$requirements"
    cp "$requirements" "$venv/requirements.txt"
fi

venv=$target/scanners-venv
if [[ ! -e $venv/sslyze-$sslyze ]]; then
    say "pip: sslyze $sslyze, into $venv"
    python3 -m venv "$venv"
    "$venv/bin/pip" install --quiet --disable-pip-version-check "sslyze==$sslyze"
    touch "$venv/sslyze-$sslyze"
fi

venv=$target/schemas-venv
validators="check-jsonschema==0.39.0 kubernetes-validate==1.37.0"
if [[ $(cat "$venv/validators" 2>/dev/null) != "$validators" ]]; then
    say "pip: $validators, into $venv"
    python3 -m venv "$venv"
    # shellcheck disable=SC2086
    "$venv/bin/pip" install --quiet --disable-pip-version-check $validators
    echo "$validators" >"$venv/validators"
fi

# They run for seconds, and take minutes to build with optimization.
cargo_tool() {
    local crate=$1 version=$2
    if cargo "${crate#cargo-}" --version &>/dev/null; then return; fi
    say "cargo: $crate $version, into $target/tools"
    CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
        CARGO_PROFILE_RELEASE_OPT_LEVEL=0 \
        cargo install --locked --quiet --root "$target/tools" --target-dir "$target/tools/build" "$crate@$version"
    rm -rf "$target/tools/build"
}
cargo_tool cargo-deny "$cargo_deny"
cargo_tool cargo-deb "$cargo_deb"
