"""What is measured. Each scenario measures one peer once and returns a dict of figures."""

import json
import re
import signal
import subprocess
import time

import processes

FULL = ["syncgate", "syncgate-plain", "nginx", "nginx-lua", "haproxy", "pingora", "envoy", "caddy"]
CPU = [("CPU µs", "cpu"), ("user", "user"), ("system", "system")]
RATE = [("requests/s", "rate"), ("proxy busy %", "busy")]


class Scenario:
    """`key` is the figure that ratios and spread are made of; lower is better."""

    name = title = ""
    key = "cpu"
    peers = FULL
    columns = CPU + RATE
    ratios = [("syncgate ÷ it", "cpu")]
    # Whom the others are compared with.
    ours = "syncgate"
    targets = {}
    # Whether the proxy has ordinary priority whatever the others have.
    ordinary_proxy = False
    # At most.
    rounds = 99

    def __init__(self, bench):
        self.bench = bench

    def measure(self, peer):
        raise NotImplementedError

    def finish(self, medians):
        """Adds figures that need more than one peer."""

    def wrk(self, peer, **how):
        """One wrk run; processor time of the peer per request."""
        path = how.get("path", "/api/SyncData")
        command = [
            *("wrk", "-t1", f"-c{how['connections']}", f"-d{how.get('seconds', self.bench.seconds)}s"),
            *("-s", self.bench.here / "post.lua", f"https://127.0.0.1:{peer.port}{path}"),
        ]
        environment = {
            "BENCH_TOKEN": how.get("token", peer.token),
            "BENCH_PATH": path,
            "BENCH_BODY": str(how.get("body", 1024)),
            "BENCH_ROWS": "1" if how.get("rows") else "0",
        }
        figures = self.generator(peer, command, environment)
        figures["errors"] = figures["bad_status"] + figures["socket_errors"]
        return figures

    def posts(self, peer, **options):
        """One closed loop of our own generator over 64 connections: it asks for more than wrk can,
        so that the proxies are busy all the time."""
        return self.own(peer, "requests", connections=64, **options)

    def own(self, peer, program, **options):
        """One run of a generator of ours."""
        command = [self.bench.programs / program, "--connect", f"127.0.0.1:{peer.port}"]
        for name, value in {"token": peer.token, "seconds": self.bench.seconds, **options}.items():
            command += [f"--{name.replace('_', '-')}", str(value)]
        return self.generator(peer, command, {})

    def generator(self, peer, command, environment):
        command = self.bench.pinning.load(command)
        environment = {"OPENSSL_CONF": str(self.bench.work / "openssl.cnf"), **environment}
        before = processes.cpu(peer.process.pid)
        begin = time.monotonic()
        text = self.bench.run_generator(command, environment)
        wall = time.monotonic() - begin
        after = processes.cpu(peer.process.pid)
        figures = processes.last_json(text, command)
        return per_request(figures, before, after, wall)


def per_request(figures, before, after, wall):
    user, system = after[0] - before[0], after[1] - before[1]
    done = max(figures["done"], 1)
    figures["user"], figures["system"] = user / done * 1e6, system / done * 1e6
    figures["cpu"] = figures["user"] + figures["system"]
    figures["busy"] = (user + system) / wall * 100
    if "seconds" in figures:
        figures["rate"] = figures["done"] / figures["seconds"]
    return figures


class Small(Scenario):
    name = "small"
    title = "POST of 1 KiB, 120-byte answer, HTTP/1.1, 64 kept connections"
    targets = {
        "haproxy": (0.88, 0.80),
        "nginx": (0.88, 0.78),
        "nginx-lua": (0.75, 0.66),
        "pingora": (0.45, 0.40),
        "envoy": (0.28, 0.25),
        "caddy": (0.18, 0.15),
    }

    def measure(self, peer):
        return self.posts(peer)


class Reject(Scenario):
    name = "reject"
    title = "POST of 1 KiB with an unknown token, 401 on kept connections, 64 of them"
    targets = {"haproxy": (0.82, 0.73), "nginx": (0.92, 0.80)}

    def measure(self, peer):
        return self.posts(peer, token=self.bench.unknown_token, expect=401)


class Upload(Scenario):
    columns = [("CPU µs per MiB", "cpu"), ("user", "user"), ("system", "system"), ("MiB/s", "rate")]
    columns += [("proxy busy %", "busy")]
    size = connections = 0

    def measure(self, peer):
        path = "/api/SyncVoucher"
        figures = self.wrk(peer, connections=self.connections, body=self.size, path=path)
        mebibytes = self.size / 2**20
        for key in ("cpu", "user", "system"):
            figures[key] /= mebibytes
        figures["rate"] *= mebibytes
        return figures


class Upload64K(Upload):
    name = "upload64k"
    title = "Upload of 64 KiB, 32 connections"
    size, connections = 64 * 2**10, 32


class Upload8M(Upload):
    name = "upload8m"
    title = "Upload of 8 MiB, 8 connections (nginx with request buffering off)"
    size, connections = 8 * 2**20, 8
    targets = {"haproxy": (0.80, 0.65), "nginx": (0.95, 0.82)}


class Handshake(Scenario):
    name = "handshake"
    title = "Full handshakes, P-256 and X25519: a new connection and one 401 each"
    targets = {"haproxy": (0.45, 0.36), "pingora": (0.85, 0.75)}
    columns = CPU + [("handshakes/s", "rate"), ("proxy busy %", "busy")]
    options = {}

    def measure(self, peer):
        return self.own(peer, "handshakes", **{**self.options, "token": self.bench.unknown_token})


class Resumption(Handshake):
    name = "resumption"
    title = "Resumed handshakes: tickets offered again"
    columns = Handshake.columns + [("resumed %", "resumed_share")]
    options = {"resumption": "true"}
    targets = {}

    def measure(self, peer):
        figures = super().measure(peer)
        figures["resumed_share"] = figures["resumed"] / max(figures["done"], 1) * 100
        return figures


class PostQuantum(Handshake):
    name = "pq"
    title = "Full handshakes with X25519MLKEM768, where the peer has it"
    peers = ["syncgate", "syncgate-plain", "pingora", "envoy", "caddy"]
    columns = Handshake.columns + [("X25519MLKEM768 %", "post_quantum_share")]
    options = {"post_quantum": "true"}
    targets = {}

    def measure(self, peer):
        figures = super().measure(peer)
        figures["post_quantum_share"] = figures["post_quantum"] / max(figures["done"], 1) * 100
        return figures


class H2(Scenario):
    name = "h2"
    title = "HTTP/2, POST of 1 KiB, 32 connections of 16 streams"
    targets = {"haproxy": (1.05, 0.92), "nginx": (0.75, 0.66)}

    def measure(self, peer):
        command = [
            *("h2load", "-c32", "-m16", "-t1", f"-D{self.bench.seconds}", "-d", self.bench.body_file),
            *("-H", f"authorization: {peer.token}", "-H", "content-type: application/json"),
            f"https://127.0.0.1:{peer.port}/api/SyncData",
        ]
        command = self.bench.pinning.load(command)
        environment = {"OPENSSL_CONF": str(self.bench.work / "openssl.cnf")}
        before = processes.cpu(peer.process.pid)
        begin = time.monotonic()
        text = self.bench.run_generator(command, environment)
        wall = time.monotonic() - begin
        after = processes.cpu(peer.process.pid)
        done = re.search(r"(\d+) done, (\d+) succeeded, (\d+) failed, (\d+) errored", text)
        codes = re.search(r"status codes: \d+ 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", text)
        if not done or not codes or "Application protocol: h2" not in text:
            raise RuntimeError(f"h2load spoke no h2 with {peer.name}:\n{text[-1500:]}")
        failed = int(done[3]) + sum(map(int, codes.groups()))
        figures = {"done": int(done[1]), "errors": failed, "seconds": float(self.bench.seconds)}
        return per_request(figures, before, after, wall)


class Idle(Scenario):
    name = "idle"
    title = "Memory of idle TLS connections, after one request each"
    key = "kilobytes"
    columns = [("kB per connection", "kilobytes"), ("base MB", "base")]
    ratios = [("syncgate ÷ it", "kilobytes")]
    # Each has a fresh process, and takes its time.
    rounds = 1

    def measure(self, peer):
        """On a fresh process: memory once grown is rarely given back."""
        peer.stop()
        peer.start()
        self.own(peer, "requests", seconds=1, warmup=0)
        base = processes.pss(peer.process.pid)
        count = self.bench.idle_connections
        command = [self.bench.programs / "idle", "--connect", f"127.0.0.1:{peer.port}"]
        command += ["--token", peer.token, "--connections", count]
        command = self.bench.pinning.load(command)
        with open(peer.run / "idle.log", "w") as log:
            holder = processes.start(
                command, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            opened = holder.stdout.readline()
            if not opened:
                processes.end(holder)
                raise RuntimeError((peer.run / "idle.log").read_text())
            # Time for whatever a peer does with connections that went idle.
            time.sleep(self.bench.idle_seconds)
            grown = processes.pss(peer.process.pid)
            holder.stdin.close()
            closed = json.loads(holder.stdout.readline())["closed"]
            holder.wait(20)
            processes.end(holder)
        return {
            "kilobytes": (grown - base) / count / 1000,
            "base": base / 1e6,
            "errors": json.loads(opened)["errors"] + closed,
        }


class Latency(Scenario):
    name = "latency"
    title = "One connection, closed loop: p50, and what the proxy adds to direct TLS"
    key = "added"
    peers = [*FULL, "direct"]
    columns = [("p50 µs", "p50"), ("added p50 µs", "added"), ("p99 µs", "p99"), ("CPU µs", "cpu")]
    ratios = [("syncgate's added p50 ÷ its", "added")]
    targets = {"nginx": (1.0, 0.80)}

    def measure(self, peer):
        return self.own(peer, "requests", connections=1)

    def finish(self, medians):
        direct = medians.pop("direct", None)
        for figures in medians.values():
            figures["added"] = figures["p50"] - direct["p50"] if direct else float("nan")


class OpenLoop(Scenario):
    key = "p50"
    share = 0.0
    peers = ["syncgate", "nginx", "nginx-lua", "haproxy", "pingora", "envoy"]
    columns = [(f"{name} µs", name) for name in ("p50", "p90", "p99", "p999")]
    columns += [("CPU µs", "cpu"), ("requests/s", "rate")]
    ratios = [("p50: syncgate ÷ it", "p50"), ("p90", "p90"), ("p99", "p99")]

    def measure(self, peer):
        rate = self.share * self.bench.capacity()
        figures = self.own(peer, "requests", rate=rate, connections=64)
        figures["errors"] += figures["unsent"]
        return figures


class Open25(OpenLoop):
    name = "open25"
    title = "Open loop (Poisson), 25 % of HAProxy's capacity, 64 connections"
    share = 0.25
    targets = {"haproxy": (0.90, 0.80)}


class Open60(OpenLoop):
    name = "open60"
    title = "Open loop (Poisson), 60 % of HAProxy's capacity, 64 connections"
    share = 0.60
    # The others serve less than that.
    peers = ["syncgate", "nginx", "nginx-lua", "haproxy"]


class Syscalls(Scenario):
    name = "syscalls"
    title = "System calls per forwarded request, under strace"
    key = "data"
    columns = [("data calls", "data"), ("all calls", "all")]
    ratios = []
    targets = {"syncgate": (4.2, 4.0)}
    DATA = re.compile(r"^(read|write|readv|writev|recv|recvfrom|recvmsg|send|sendto|sendmsg)$")

    def measure(self, peer):
        table = peer.run / "strace.txt"
        pids = [part for pid in processes.tree(peer.process.pid) for part in ("-p", str(pid))]
        command = ["strace", "-f", "-c", "-U", "name,calls", "-o", table, *pids]
        with open(peer.run / "strace.log", "w") as log:
            tracer = processes.start([*map(str, command)], log)
            time.sleep(0.5)
            figures = self.wrk(peer, connections=64, seconds=2)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
            processes.end(tracer)
        calls = {}
        for line in table.read_text().splitlines():
            name, _, count = line.strip().rpartition(" ")
            if count.isdigit():
                calls[name.strip()] = int(count)
        calls.pop("total", None)
        data = sum(count for name, count in calls.items() if self.DATA.match(name))
        figures["data"] = data / figures["done"]
        figures["all"] = sum(calls.values()) / figures["done"]
        figures["calls"] = calls
        return figures


class Access(Scenario):
    name = "access"
    title = "What access records cost, and what a Unix-socket upstream saves (1 KiB POST)"
    peers = ["syncgate", "syncgate-quiet", "syncgate-unix"]
    targets = {"syncgate-quiet": (1.08, 1.03)}

    def measure(self, peer):
        return self.posts(peer)


class Rights(Scenario):
    """What it costs that a right depends on the form in the body. Its ratio is the other way round:
    `syncgate`, whose user may do everything, is what the others are measured by."""

    name = "rights"
    title = "What rights cost: POST of 1 KiB in rows, by rights = *, by route, by form"
    peers = ["syncgate", "syncgate-routes", "syncgate-forms"]
    columns = [("CPU µs", "cpu"), ("user", "user"), ("system", "system")]
    columns += [("served/s of CPU", "served")]
    ratios = [("it ÷ syncgate", "served")]
    targets = {"syncgate-routes": (1.02, 1.01), "syncgate-forms": (1.08, 1.04)}
    size, connections = 1024, 64

    def measure(self, peer):
        path = "/api/SyncVoucher"
        how = {"connections": self.connections, "body": self.size, "path": path, "rows": True}
        figures = self.wrk(peer, **how)
        figures["served"] = 1e6 / figures["cpu"] if figures["cpu"] else 0.0
        return figures


class Rights8M(Rights):
    name = "rights8m"
    title = "What rights cost: POST of 8 MiB in rows, by rights = *, by route, by form"
    targets = {"syncgate-routes": (1.02, 1.01), "syncgate-forms": (2.0, 1.4)}
    size, connections = 8 * 2**20, 8


class Stores(Scenario):
    name = "stores"
    title = "What a store costs a request whose token is known (1 KiB POST)"
    peers = ["syncgate", "syncgate-durable", "syncgate-shared"]
    columns = [("CPU µs", "cpu"), ("user", "user"), ("system", "system")]
    columns += [("served/s of CPU", "served")]
    ratios = [("it ÷ syncgate", "served")]
    targets = {"syncgate-durable": (1.02, 1.01), "syncgate-shared": (1.02, 1.01)}

    def measure(self, peer):
        figures = self.posts(peer)
        # Ratios are made the other way round.
        figures["served"] = 1e6 / figures["cpu"]
        return figures


class Servers(Scenario):
    name = "servers"
    title = "What two servers with health checks cost a request (1 KiB POST)"
    peers = ["syncgate", "syncgate-servers"]
    columns = [("CPU µs", "cpu"), ("user", "user"), ("system", "system")]
    columns += [("served/s of CPU", "served")]
    ratios = [("it ÷ syncgate", "served")]

    def measure(self, peer):
        figures = self.posts(peer)
        # Ratios are made the other way round.
        figures["served"] = 1e6 / figures["cpu"]
        return figures


class ToTls(Scenario):
    name = "to-tls"
    title = "POST of 1 KiB to an upstream over TLS 1.3, verified, 64 kept connections"
    ours = "syncgate-to-tls"
    peers = [ours, "nginx-to-tls", "haproxy-to-tls", "envoy-to-tls"]
    ratios = [("syncgate ÷ it", "cpu")]
    targets = {"haproxy-to-tls": (0.9, 0.8)}

    def measure(self, peer):
        return self.posts(peer)


class Failover(Scenario):
    """One of two servers fails three seconds after the load has begun, and comes back four seconds
    later. `errors` are responses other than 200 and broken connections; `recovery` is the time from the
    failure to the last of them."""

    name = "failover"
    title = "One of two servers is killed and started again: 500 requests/s (Poisson), 64 connections"
    key = "recovery"
    ours = "syncgate-failover"
    peers = [ours, "nginx-failover", "haproxy-failover"]
    columns = [("failed", "failed"), ("of", "sent"), ("recovery s", "recovery")]
    columns += [("p50 µs", "p50"), ("p99 µs", "p99"), ("max µs", "max")]
    ratios = []

    def measure(self, peer):
        # It must have come back from the time before.
        time.sleep(12)
        command = [self.bench.programs / "requests", "--connect", f"127.0.0.1:{peer.port}"]
        options = {"token": peer.token, "rate": 500, "seconds": 11, "warmup": 1}
        for name, value in options.items():
            command += [f"--{name}", str(value)]
        with open(peer.run / "load.log", "w") as log:
            command = self.bench.pinning.load(command)
            load = processes.start(command, log, stdout=subprocess.PIPE)
            load.stdout.readline()
            time.sleep(3)
            self.fail(peer)
            time.sleep(4)
            self.revive(peer)
            text, _ = load.communicate(timeout=60)
            processes.end(load)
        figures = processes.last_json(text, list(map(str, command)))
        last = figures.pop("last_error")
        figures.pop("first_error")
        figures["recovery"] = max(last - 3, 0) if last else 0.0
        figures["failed"] = figures.pop("errors") + figures["unsent"]
        return figures

    def fail(self, peer):
        processes.end(peer.backends[0])

    def revive(self, peer):
        peer.backends[0] = peer.start_server(peer.ports[0])


class Hang(Failover):
    name = "hang"
    title = "One of two servers hangs for 4 s: 500 requests/s (Poisson), 64 connections"

    def fail(self, peer):
        peer.backends[0].send_signal(signal.SIGSTOP)

    def revive(self, peer):
        peer.backends[0].send_signal(signal.SIGCONT)


class Floods(Scenario):
    """How long an honest client waits beside others that mean no good, or ask for all there is.
    The others have the load's processor only when the honest client and the upstream do not. The
    proxy has no real-time priority: a flood makes it use all of its processor, and the kernel stops
    a real-time process that does so for a twentieth of each second."""

    name = "floods"
    ordinary_proxy = True
    title = "What an honest client notices of floods: 200 requests/s (Poisson), 8 connections"
    key = "p99"
    flooded = ["slow-heads", "slow-bodies", "slow-reads", "unknown-tokens", "busy-user"]
    peers = ["syncgate", *flooded]
    columns = [(f"{name} µs", name) for name in ("p50", "p90", "p99", "p999")]
    ratios = [("p99: it ÷ syncgate", "ease")]
    targets = {name: (2.0, 1.5) for name in flooded}

    def honest(self):
        return {"rate": 200, "connections": 8}

    def measure(self, peer):
        flood = None
        processes.give_ordinary_priority(peer.process.pid)
        with open(peer.run / "flood.log", "w") as log:
            if hasattr(peer, "flood"):
                command = map(str, peer.flood(self.bench.seconds + 6))
                flood = processes.start(self.bench.pinning.background(command), log)
                time.sleep(2)
            try:
                figures = self.own(peer, "requests", **self.honest())
            finally:
                if flood:
                    early = flood.poll() is not None
                    processes.end(flood)
        figures["errors"] += figures["unsent"] + (flood is not None and early)
        # Ratios are made the other way round.
        figures["ease"] = 1e6 / figures["p99"]
        return figures


class LoginFlood(Floods):
    """Requests whose token is known beside logins without end. More of them than this, and the load's
    processor is what they wait for."""

    name = "login-flood"
    title = "Forwarding beside a flood of logins (Poisson), 60 % of HAProxy's capacity, 64 connections"
    flooded = ["login-flood"]
    peers = ["syncgate", *flooded]
    columns = [*Floods.columns, ("CPU µs", "cpu"), ("requests/s", "rate")]
    targets = {"login-flood": (1.3, 1.1)}

    def honest(self):
        return {"rate": 0.6 * self.bench.capacity(), "connections": 64}


class Logins(Scenario):
    """`argon2` is the function alone, on the proxy's core and by itself there."""

    name = "logins"
    title = "Logins over 8 kept connections: hashed, known from a moment ago, and the hash alone"
    peers = ["syncgate-uncached", "syncgate", "argon2"]
    columns = CPU + [("logins/s", "rate"), ("logins/s of CPU", "served")]
    ratios = []

    def measure(self, peer):
        if peer.name == "argon2":
            figures = self.alone()
        else:
            script = self.bench.here / "login.lua"
            command = ["wrk", "-t1", "-c8", f"-d{self.bench.seconds}s", "-s", script]
            command.append(f"https://127.0.0.1:{peer.port}/api/getToken")
            figures = self.generator(peer, command, {"BENCH_PASSWORD": peer.password})
            figures["errors"] = figures["bad_status"] + figures["socket_errors"]
        figures["served"] = 1e6 / figures["cpu"]
        return figures

    def alone(self):
        command = [self.bench.programs / "hashes", "--seconds", self.bench.seconds]
        command = self.bench.pinning.proxy(command)
        figures = processes.last_json(self.bench.run_generator(command, {}), command)
        return per_request(figures, (0, 0), (figures["seconds"], 0), figures["seconds"])


class Profile(Scenario):
    name = "profile"
    title = "Where the time goes (1 KiB POST), from perf"
    ratios = []
    # The first that matches a line of `object|symbol` takes its share.
    GROUPS = [
        ("kernel", r"\[kernel|\[k\]"),
        ("AEAD, hashes, CRC", r"ring_core|gcm|sha256|sha512|crc32|aes_|chacha|ghash"),
        ("allocator", r"\bmi_|_mi_|malloc|cfree|__rdl|alloc::alloc"),
        ("memory copies, C library, vdso", r"libc|\[vdso\]|vdso|mem(move|cpy|set|cmp)"),
        ("access records", r"observe|serde_json|tracing"),
        ("syncgate", r"syncgate::|syncgate_early"),
        ("rustls", r"rustls"),
        ("hyper", r"hyper"),
        ("tokio", r"tokio|mio"),
        ("http, httparse, bytes", r"\bhttp|httparse|bytes"),
        ("the rest", r""),
    ]

    def measure(self, peer):
        data = self.bench.work / f"profile-{peer.name}.data"
        # A buffer that holds the whole run, so that perf need not run beside the load.
        record = ["perf", "record", "-q", "-e", "cpu-clock", "-F", "2999", "-m", "16M"]
        record += ["-o", data, "-p", peer.process.pid]
        with open(peer.run / "perf.log", "w") as log:
            tracer = processes.start([*map(str, record)], log)
            time.sleep(2)
            figures = self.wrk(peer, connections=64)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(30)
            processes.end(tracer)
        report = ["perf", "report", "-i", str(data), "--no-children", "--stdio"]
        report += ["--sort", "dso,symbol", "-t", "|"]
        done = subprocess.run(report, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        shares, lines = dict.fromkeys((name for name, _ in self.GROUPS), 0.0), []
        for line in done.stdout.splitlines():
            share, _, place = line.strip().partition("%")
            place = place.strip(" |").rpartition("|")[0]
            if line.startswith("#") or not place:
                continue
            group = next(name for name, pattern in self.GROUPS if re.search(pattern, place))
            shares[group] += float(share)
            lines.append(f"{float(share):6.2f}  {group:32}  {' '.join(place.split())}\n")
        (self.bench.work / f"profile-{peer.name}.txt").write_text("".join(lines))
        for group, share in shares.items():
            micros = share / 100 * figures["cpu"]
            print(f"  {peer.name:16} {share:5.1f} %  {micros:5.2f} µs  {group}")
        return figures


ALL = [
    *(Small, Reject, Upload64K, Upload8M, Handshake, Resumption, PostQuantum, H2, Idle),
    *(Latency, Open25, Open60, Syscalls, Access, Rights, Rights8M, Stores, Floods),
    *(LoginFlood, Logins, Servers, ToTls, Failover, Hang),
]
# Only when asked for: a profile is no figure.
BY_NAME = {scenario.name: scenario for scenario in [*ALL, Profile]}
