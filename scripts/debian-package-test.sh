#!/usr/bin/env bash
# Installs, uses, upgrades, removes and purges the Debian package of a program, in a copy of this system that is
# dropped afterwards (an overlay) with a network of its own; checks the unit; and makes the container's root
# directory and runs the program in it. As root. Usage: debian-package-test.sh PROGRAM
set -euo pipefail

cd "$(dirname "$0")/.."
program=$(realpath "$1")

say() { echo "package: $*"; }
fail() {
    say "$*"
    exit 1
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for version in 1 2; do
    scripts/debian-package.sh "$program" "$work/$version" "0.1.0-$version" --fast >/dev/null
done
cp examples/container/backend.py "$work/"
examples/container/rootfs.sh "$program" "$work/image"
cat >"$work/inside.sh" <<'INSIDE'
set -euo pipefail
say() { echo "package: $*"; }
fail() {
    say "$*"
    exit 1
}
until_true() {
    for _ in $(seq 300); do
        if "$@" &>/dev/null; then return; fi
        sleep 0.1
    done
    fail "waited in vain for: $*"
}
as_service() { runuser -u syncgate -- "$@"; }
# Package managers of this system may be at work; what is installed here is nobody's.
rm -f /var/lib/dpkg/lock*
export DEBIAN_FRONTEND=noninteractive HOME=/root

ip link set lo up
dpkg --install /package/1/*.deb | tee /package/installed
grep -q 'syncgate init --service' /package/installed || fail "nothing says what to do next"
[[ $(stat -c '%U %a' /etc/syncgate) == "syncgate 700" ]] || fail "/etc/syncgate is open to others"
man --where syncgate >/dev/null || test -e /usr/share/man/man1/syncgate.1.gz || fail "no manual page"
bash -c '. /usr/share/bash-completion/completions/syncgate && complete -p syncgate' >/dev/null
logrotate --debug /etc/logrotate.d/syncgate
if syncgate init --service --yes 2>/dev/null; then fail "root may write files that the service cannot read"; fi
systemd-analyze verify --man=no /usr/lib/systemd/system/syncgate.service /usr/lib/systemd/system/syncgate.socket
systemd-analyze security --offline=true --threshold=20 --no-pager /usr/lib/systemd/system/syncgate.service | tail -1

# What systemd does before it starts the program.
install -d -m 0700 -o syncgate -g syncgate /run/syncgate
as_service syncgate init --service --upstream http://127.0.0.1:8080 --user till --generate >/package/init
password=$(sed -n 's/^The password of till, shown this once: //p' /package/init)
as_service syncgate check --config /etc/syncgate/config.toml
python3 /package/backend.py &>/dev/null &
backend=$!
(cd /var/lib/syncgate && exec runuser -u syncgate -- syncgate run --config /etc/syncgate/config.toml) 2>/package/log &
until_true as_service syncgate healthcheck --config /etc/syncgate/config.toml
post() {
    curl --silent --show-error --max-time 20 --cacert /etc/syncgate/certs/server.pem --request POST "$@"
}
token=$(post https://localhost:8443/api/getToken --json "{\"username\":\"till\",\"password\":\"$password\"}" |
    sed 's/.*"accesstoken": *"\([^"]*\)".*/\1/')
works() {
    post https://localhost:8443/api/SyncData --header "Authorization: Bearer $token" --json '{"a":1}' | grep -q '"success": true'
}
# The backend may not be there yet.
until_true works
serving() { pgrep --uid syncgate --full '^(/usr/bin/)?syncgate run'; }

before=$(serving | sort)
dpkg --install /package/2/*.deb
works || fail "a token did not survive the upgrade of the package"
gone() { ! kill -0 $before; }
until_true gone
[[ -n $(serving) ]] || fail "nothing runs after the upgrade"
works || fail "a token did not survive the end of the old program"
say "upgraded while it ran: process $(echo $before) to $(serving | tr '\n' ' ')"

dpkg --remove syncgate
test ! -e /usr/bin/syncgate || fail "the program is still there"
test -e /etc/syncgate/users.toml || fail "the removal took the accounts"
kill -TERM $(serving)
over() { ! serving; }
until_true over
kill $backend
dpkg --purge syncgate
for path in /etc/syncgate /var/lib/syncgate /var/log/syncgate /usr/share/doc/syncgate; do
    test ! -e $path || fail "a purge leaves $path"
done
if getent passwd syncgate; then fail "a purge leaves the user"; fi
say "installed, used, upgraded, removed, purged"
INSIDE
cat >"$work/outside.sh" <<'OUTSIDE'
set -euo pipefail
work=$1
mount -t tmpfs tmpfs "$work/layers"
mkdir "$work/layers/upper" "$work/layers/work"
mount -t overlay overlay -o "lowerdir=/,upperdir=$work/layers/upper,workdir=$work/layers/work" "$work/root"
mkdir -p "$work/root/package"
mount --bind "$work" "$work/root/package"
mount -t proc proc "$work/root/proc"
mount --rbind /dev "$work/root/dev"
mount -t tmpfs tmpfs "$work/root/run"
mount -t tmpfs tmpfs "$work/root/tmp"
chroot "$work/root" bash /package/inside.sh
OUTSIDE
mkdir "$work/layers" "$work/root"
# The processes in it end with it.
unshare --mount --net --pid --fork --kill-child bash "$work/outside.sh" "$work"

# The container: no shell, another user, and nothing that can be written.
unshare --mount --pid --fork --kill-child bash -c '
    set -euo pipefail
    mount --bind "$1/image" "$1/image" && mount -o remount,bind,ro "$1/image"
    chroot --userspec=65532:65532 "$1/image" /usr/bin/syncgate --version
    ! chroot --userspec=65532:65532 "$1/image" /usr/bin/syncgate init --directory /etc/syncgate --yes 2>/dev/null
' bash "$work"
say "the container's root directory is $(du -sh "$work/image" | cut -f1)"
