"""Measures syncgate and its peers side by side on one processor core. See benches/README.md."""

import argparse
import base64
import json
import os
import platform
import resource
import secrets
import subprocess
import sys
import time
import zlib
from pathlib import Path

import install
import peers
import processes
import report
import scenarios
from install import say


class Bench:
    """The options, the material and the programs that every scenario uses."""

    def __init__(self, options):
        self.here = Path(__file__).resolve().parent
        self.root = self.here.parent.parent
        self.work = self.root / "target/bench"
        self.venv = self.work / "venv"
        self.seconds = options.seconds
        self.login_seconds = options.login_seconds
        self.idle_connections = options.idle_connections
        self.idle_seconds = options.idle_seconds
        real_time = options.real_time == "1" or (
            options.real_time == "auto" and processes.may_run_real_time()
        )
        self.pinning = processes.Pinning(options.proxy_cpu, options.load_cpu, real_time)
        self.syncgate = self.plain_syncgate = self.programs = None
        self.measured_capacity = None
        self.work.mkdir(parents=True, exist_ok=True)

    def allow_files(self):
        """Raises the limit of open files; fewer idle connections where it stays too low."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        if most < 20_000:
            self.idle_connections = min(self.idle_connections, (most - 200) // 2)
            say(f"only {most} open files allowed: {self.idle_connections} idle connections")

    def make_material(self):
        """Certificates, 10,000 tokens, and the generators' TLS settings."""
        if not (self.work / "both.pem").exists():
            pem = self.certify("server")
            (self.work / "both.pem").write_text("".join(path.read_text() for path in pem))
        if not (self.work / "upstream.pem").exists():
            # An authority's own, which OpenSSL makes by default, is no server's for rustls.
            self.certify("upstream", "-addext", "basicConstraints=critical,CA:FALSE")
        tokens = self.work / "tokens.txt"
        if not tokens.exists():
            tokens.write_text("".join(f"{token()}\n" for _ in range(10_000)))
        self.tokens = tokens.read_text().split()
        map_lines = (f'"{token}" bench;\n' for token in self.tokens)
        (self.work / "tokens.map").write_text("".join(map_lines))
        self.unknown_token = token()
        self.body_file = self.work / "body.json"
        self.body_file.write_text('{"form":"bench","pad":"' + "x" * (1024 - 25) + '"}')
        (self.work / "openssl.cnf").write_text(OPENSSL)

    def certify(self, name, *more):
        """Makes a self-signed P-256 certificate and its key."""
        certificate, key = self.work / f"{name}.pem", self.work / f"{name}.key"
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt"),
            *("ec_paramgen_curve:prime256v1", "-nodes", "-days", "30", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", *more),
            *("-keyout", str(key), "-out", str(certificate)),
        ]
        subprocess.run(command, check=True, capture_output=True)
        return certificate, key

    def start_upstream(self):
        self.upstream_port, self.second_port = processes.free_port(), processes.free_port()
        self.tls_port = processes.free_port()
        command = [
            *(self.programs / "upstream", "--tcp", f"127.0.0.1:{self.upstream_port}"),
            *("--tcp", f"127.0.0.1:{self.second_port}", "--tls", f"127.0.0.1:{self.tls_port}"),
            *("--certificate", self.work / "upstream.pem", "--key", self.work / "upstream.key"),
            *("--unix", self.work / "upstream.sock"),
        ]
        path = self.work / "upstream.log"
        with open(path, "w") as log:
            upstream = processes.start(self.pinning.load(command), log)
        processes.wait_for_port(self.upstream_port, upstream, "upstream", path)

    def run_generator(self, command, environment):
        with open(self.work / "generator.log", "w+") as log:
            process = processes.start(command, log, environment)
            try:
                process.wait(self.seconds * 3 + 30)
            finally:
                processes.end(process)
            log.seek(0)
            text = log.read()
        if process.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} failed:\n{text[-1500:]}")
        return text

    def capacity(self):
        """Requests per second that HAProxy (or the first peer) serves on its core: what the
        shares of the open loop are shares of."""
        if self.measured_capacity is None:
            peer = self.running.get("haproxy") or next(iter(self.running.values()))
            figures = scenarios.Small(self).measure(peer)
            self.measured_capacity = 1e6 / figures["cpu"]
            say(f"capacity of {peer.name}: {self.measured_capacity:,.0f} requests/s")
        return self.measured_capacity


def token():
    """A token as the gateway makes them: fixed start, 32 random bytes, CRC-32 of both."""
    body = base64.b64decode("SGT1") + secrets.token_bytes(32)
    return base64.b64encode(body + zlib.crc32(body).to_bytes(4, "big")).decode()


# wrk and h2load have no option for it: the same cipher and group for every peer.
OPENSSL = """\
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = TLS_AES_256_GCM_SHA384
Groups = X25519
"""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("--scenarios", default="", help=f"of: {' '.join(scenarios.BY_NAME)}; default all")
    add("--peers", default="", help=f"of: {' '.join(scenarios.FULL)}; default all")
    add("--rounds", type=int, default=3)
    add("--seconds", type=int, default=4, help="of one measurement")
    add("--login-seconds", type=float, default=5, help="time for logins that fill the table")
    add("--idle-connections", type=int, default=9000)
    add("--idle-seconds", type=float, default=15, help="wait before memory is read")
    add("--proxy-cpu", type=int, default=0)
    add("--load-cpu", type=int, default=1)
    add("--real-time", choices=["auto", "1", "0"], default="auto", help="chrt -r 1")
    add("--pingora", choices=["1", "0"], default="1", help="build the Pingora peer")
    add("--syncgate", type=Path, help="a binary to measure instead of building a release")
    add("--earlier", type=Path, nargs="*", default=[], help="binaries of earlier builds to compare with")
    add("--results", type=Path, help="the file to update; default benches/RESULTS.md")
    return parser.parse_args()


def add_earlier(binary):
    """Makes a binary a peer, in every scenario that compares whole programs."""
    peer = peers.SyncgateEarlier.of(binary)
    peers.BY_NAME[peer.name] = peer
    scenarios.FULL.append(peer.name)
    for scenario in scenarios.ALL:
        if "syncgate-plain" in scenario.peers and scenario.peers is not scenarios.FULL:
            scenario.peers.append(peer.name)


def chosen(words, known, what):
    names = words.split() or list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        sys.exit(f"bench: no such {what}: {' '.join(unknown)}; there are: {' '.join(known)}")
    return names


def prepare(bench, options, wanted):
    """Installs and builds; the peers that can run."""
    tools = ["wrk", "h2load", "openssl", "strace", "taskset"]
    builds_pingora = options.pingora == "1" and "pingora" in wanted
    if builds_pingora:
        tools.append("cmake")
    programs = {peers.BY_NAME[name].program for name in wanted}
    install.install([*tools, *sorted(programs.union(wanted) - {""})], bench.venv)
    bench.programs = install.cargo(
        "the generators", bench.root / "benches/load/Cargo.toml", bench.work / "build"
    )
    if not bench.programs:
        sys.exit("bench: the generators do not build")
    if builds_pingora:
        manifest = bench.root / "benches/pingora/Cargo.toml"
        install.cargo("the Pingora peer", manifest, bench.work / "build-pingora")
    if any(issubclass(peers.BY_NAME[name], peers.Syncgate) for name in wanted):
        bench.syncgate = options.syncgate or install.release(bench.root)
    if "syncgate-plain" in wanted:
        built = install.cargo(
            "syncgate", bench.root / "Cargo.toml", bench.root / "target", "production"
        )
        bench.plain_syncgate = built and built / "syncgate"
    bench.make_material()
    usable = {}
    for name in wanted:
        peer = peers.BY_NAME[name](bench)
        if reason := peer.missing():
            say(f"{name} is left out: {reason}")
        else:
            usable[name] = peer
    return usable


def measure(bench, scenario, running, rounds):
    """Every peer once a round, the order turned round each time."""
    runs = {name: [] for name in scenario.peers if name in running}
    for number in range(rounds):
        order = list(runs)
        for name in order if number % 2 == 0 else reversed(order):
            peer = running[name]
            try:
                peer.before_run()
                figures = scenario.measure(peer)
                peer.after_run(figures)
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                say(f"{scenario.name}: {name}: {error}")
                continue
            runs[name].append(figures)
            shown = figures.get(scenario.key, figures.get("p50", 0))
            errors = f", {figures['errors']} errors" if figures.get("errors") else ""
            say(f"{scenario.name} {number + 1}/{rounds} {name}: {shown:.1f}{errors}")
            if peer.process and peer.process.poll() is not None:
                sys.exit(f"bench: {name} ended by itself; see {peer.run}/log")
    return {name: figures for name, figures in runs.items() if figures}


def main():
    options = arguments()
    bench = Bench(options)
    for binary in options.earlier:
        add_earlier(binary)
    every = " ".join(scenario.name for scenario in scenarios.ALL)
    names = chosen(options.scenarios or every, scenarios.BY_NAME, "scenario")
    plan = [scenarios.BY_NAME[name](bench) for name in names]
    asked = chosen(options.peers, scenarios.FULL, "peer")
    if os.cpu_count() < 2:
        sys.exit("bench: two processors are needed: one for the proxy, one for the load")
    processes.clean_up_on_exit()
    bench.allow_files()
    extra = {name for scenario in plan for name in scenario.peers} - set(scenarios.FULL)
    usable = prepare(bench, options, [*asked, *sorted(extra)])
    bench.start_upstream()
    bench.running = {}
    for name, peer in usable.items():
        if any(name in scenario.peers for scenario in plan):
            try:
                peer.start()
                peer.version_text = peer.version()
                bench.running[name] = peer
            except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
                say(f"{name} is left out: {error}")
                peer.stop()
    warm_up(bench)

    results = {}
    sections = []
    for scenario in plan:
        count = min(options.rounds, scenario.rounds)
        runs = measure(bench, scenario, bench.running, count)
        if not runs:
            say(f"{scenario.name}: nothing measured")
            continue
        figures = report.medians(runs)
        scenario.finish(figures)
        results[scenario.name] = {"runs": runs, "medians": figures}
        rounds = f"medians of {count} rounds of {options.seconds} s"
        when = conditions(bench, rounds, scenario.ordinary_proxy)
        body = f"{when}\n\n{report.table(scenario, figures, runs, bench.running)}"
        print(f"\n{scenario.title}\n\n{body}\n", flush=True)
        sections.append((scenario.name, scenario.title, body))
        raw = bench.work / f"raw-{START}.json"
        raw.write_text(json.dumps({"options": str(options), "results": results}, indent=1))
        report.write(options.results or bench.root / "benches/RESULTS.md", sections)
    for peer in bench.running.values():
        peer.stop()


def warm_up(bench):
    for peer in bench.running.values():
        if peer.process and peer.name != "direct":
            scenarios.Small(bench).wrk(peer, connections=64, seconds=1)


def conditions(bench, rounds, ordinary_proxy=False):
    cpu = next(
        (line.partition(":")[2].strip() for line in open("/proc/cpuinfo") if "model name" in line),
        platform.machine(),
    )
    priority = "real-time priority" if bench.pinning.real_time else "ordinary priority"
    if bench.pinning.real_time and ordinary_proxy:
        priority += ", but for the gateway"
    date = time.strftime("%Y-%m-%d")
    return f"{date}, {cpu}, Linux {platform.release()}, {priority}; {rounds}."


START = time.strftime("%Y%m%d-%H%M%S")

if __name__ == "__main__":
    main()
