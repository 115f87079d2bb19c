#!/bin/sh
# Makes the root directory of the image: the program, the libraries that it is linked to, the system's root
# certificates, and nothing else; no shell. Usage: rootfs.sh PROGRAM DIRECTORY
set -eu

program=$1
root=$2
mkdir -p "$root/usr/bin" "$root/etc/ssl/certs" "$root/etc/syncgate" "$root/run/syncgate" "$root/var/lib/syncgate"
cp "$program" "$root/usr/bin/syncgate"
# The libraries where the loader looks for them, the loader itself, and what looks up names.
for library in $(ldd "$program" | grep -o '/[^ ]*') $(ldconfig -p | grep -o '/[^ ]*/libnss_\(dns\|files\)\.so\.2'); do
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
echo 'syncgate:x:65532:65532::/var/lib/syncgate:/nonexistent' >"$root/etc/passwd"
echo 'syncgate:x:65532:' >"$root/etc/group"
chown 65532:65532 "$root/run/syncgate" "$root/var/lib/syncgate"
chmod 700 "$root/run/syncgate" "$root/var/lib/syncgate"
