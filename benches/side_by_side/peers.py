"""The peers: how each is configured, started and asked for its version."""

import http.client
import json
import os
import shutil
import ssl
import subprocess
import threading
import time
from pathlib import Path

import processes
from install import LUA_MODULE, find, say

HERE = Path(__file__).parent
TEMPLATES = HERE / "peers"


class Peer:
    """One proxy. `prepare` writes its files and returns the command that starts it."""

    name = ""
    program = ""
    shows = ""
    environment = {}
    # How long a server may take to respond.
    timeout = "120s"

    def __init__(self, bench):
        self.bench = bench
        self.run = bench.work / "run" / self.name
        self.process = None
        self.port = None
        self.token = bench.tokens[0]

    def missing(self):
        """Why the peer cannot run here, or None."""
        return None if find(self.program, self.bench.venv) else f"no {self.program}"

    def version(self):
        raise NotImplementedError

    def prepare(self):
        raise NotImplementedError

    def start(self):
        shutil.rmtree(self.run, ignore_errors=True)
        self.run.mkdir(parents=True)
        self.port = processes.free_port()
        command = self.bench.pinning.proxy(self.prepare())
        with open(self.run / "log", "a") as log:
            self.process = processes.start(command, log, self.environment)
        processes.wait_for_port(self.port, self.process, self.name, self.run / "log")
        self.started()

    def started(self):
        pass

    def stop(self):
        if self.process:
            processes.end(self.process)
            self.process = None

    def before_run(self):
        """Called before each measurement."""

    def after_run(self, figures):
        """Called with the figures of each measurement."""

    def path(self):
        return find(self.program, self.bench.venv)

    def fill(self, template, target, **more):
        """Writes a template with its @names@ replaced."""
        bench = self.bench
        names = {
            "port": self.port,
            "upstream": bench.upstream_port,
            "run": self.run,
            "peers": self.run,
            "certificate": bench.work / "server.pem",
            "key": bench.work / "server.key",
            "pem": bench.work / "both.pem",
            "tokens": bench.work / "tokens.txt",
            "tokens_nginx": bench.work / "tokens.map",
            "token": self.token,
            "servers": self.servers(),
            "timeout": self.timeout,
            **more,
        }
        text = (TEMPLATES / template).read_text()
        for name, value in names.items():
            text = text.replace(f"@{name}@", str(value))
        (self.run / target).write_text(text)
        return self.run / target

    def servers(self):
        """The lines of its configuration that name the servers."""
        return ""

    def say_version(self, *arguments):
        done = subprocess.run(
            [self.path(), *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        return done.stdout.strip().splitlines()[0]


class Nginx(Peer):
    name = "nginx"
    program = "nginx"
    shows = "static `map` of 10,000 tokens"
    template = "nginx-map.conf"

    def version(self):
        return self.say_version("-v").rpartition("/")[2]

    def servers(self):
        return f"server 127.0.0.1:{self.bench.upstream_port};"

    def prepare(self):
        for part in ("nginx-common.inc", "nginx-keepalive.inc"):
            self.fill(part, part)
        config = self.fill(self.template, "nginx.conf")
        return [self.path(), "-p", f"{self.run}/", "-c", config, "-e", self.run / "error.log"]


class NginxLua(Nginx):
    name = "nginx-lua"
    shows = "`lua_shared_dict` of 10,000 tokens"
    template = "nginx-lua.conf"

    def missing(self):
        return super().missing() or (None if LUA_MODULE.exists() else "no Lua module")

    def prepare(self):
        modules = self.run / "modules"
        modules.symlink_to(LUA_MODULE.parent)
        return super().prepare()


class HAProxy(Peer):
    name = "haproxy"
    program = "haproxy"
    shows = "`-m str -f` file of 10,000 tokens"

    def version(self):
        return self.say_version("-v").split()[2].partition("-")[0]

    def servers(self):
        return f"    server one 127.0.0.1:{self.bench.upstream_port} pool-max-conn 512"

    def prepare(self):
        return [self.path(), "-db", "-f", self.fill("haproxy.cfg", "haproxy.cfg")]


class Caddy(Peer):
    name = "caddy"
    program = "caddy"
    shows = "header matcher with one token, a lower bound"
    environment = {"GOMAXPROCS": "1"}

    def version(self):
        return self.say_version("version").split()[0].lstrip("v")

    def prepare(self):
        self.environment = {
            **Caddy.environment,
            "XDG_DATA_HOME": str(self.run),
            "XDG_CONFIG_HOME": str(self.run),
        }
        config = self.fill("Caddyfile", "Caddyfile", caddy_curves="x25519mlkem768 x25519")
        return [self.path(), "run", "--adapter", "caddyfile", "--config", config]


class Envoy(Peer):
    name = "envoy"
    program = "envoy"
    shows = "`api_key_auth` with 10,000 credentials"

    def server(self):
        """The port of the server, and what of the cluster's settings is about TLS."""
        return self.bench.upstream_port, ""

    def version(self):
        return self.say_version("--version").split("/")[-4]

    def prepare(self):
        tokens = enumerate(self.bench.tokens)
        keys = json.dumps([{"key": token, "client": f"c{n}"} for n, token in tokens])
        port, secured = self.server()
        names = {"envoy_credentials": keys, "server": port, "secured": secured}
        config = self.fill("envoy.json", "envoy.json", **names)
        return [
            *(self.path(), "--concurrency", "1", "--disable-hot-restart"),
            *("--log-level", "error", "-c", config),
        ]


class Pingora(Peer):
    name = "pingora"
    shows = "`request_filter`: base64, SHA-256, `HashMap` of 10,000"

    def path(self):
        return self.bench.work / "build-pingora/release/pingora-peer"

    def missing(self):
        return None if self.path().exists() else "not built"

    def version(self):
        lock = (self.bench.root / "benches/pingora/Cargo.lock").read_text()
        return lock.partition('name = "pingora"\nversion = "')[2].partition('"')[0]

    def prepare(self):
        work = self.bench.work
        files = (work / "server.pem", work / "server.key", work / "tokens.txt")
        return [self.path(), self.port, self.bench.upstream_port, *files]


class Syncgate(Peer):
    name = "syncgate"
    shows = "access records on"
    access = "true"
    allow = '"*"'
    lifetime = "24h"
    store = 'store = "memory"'
    more_users = 0
    more_routes = 0
    more = ""

    def path(self):
        return self.bench.syncgate

    def missing(self):
        return None if self.path() and self.path().exists() else "not built"

    def version(self):
        commit = subprocess.run(
            ["git", "-C", str(self.bench.root), "describe", "--always", "--dirty"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ).stdout.strip()
        return f"{self.say_version('--version').split()[-1]} ({commit})"

    def url(self):
        return f"http://127.0.0.1:{self.bench.upstream_port}"

    def servers(self):
        return f'url = "{self.url()}"'

    def prepare(self):
        password = "correct horse battery staple"
        hashed = subprocess.run(
            [self.path(), "hash", "--password-stdin"],
            input=password,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout.strip()
        users = self.run / "users.toml"
        users.touch(mode=0o600)
        names = ["bench", *(f"user-{number}" for number in range(self.more_users))]
        user = f'password = "{hashed}"\nallow = {self.allow}\n'
        users.write_text("".join(f"[users.{name}]\n{user}" for name in names))
        self.password = password
        paths = [f"/api/Other{number}" for number in range(self.more_routes)]
        if paths:
            paths.append("/api/SyncData")
        config = self.fill(
            *("syncgate.toml", "syncgate.toml"),
            access=self.access,
            lifetime=self.lifetime,
            store=self.store,
            more=self.more + "".join(f'\n[[routes]]\npath = "{path}"\n' for path in paths),
        )
        return [self.path(), "run", "--config", config]

    def started(self):
        """Fills the token table by real logins, as many as the time allows."""
        self.logins, self.stopped_by = 0, None
        deadline = time.monotonic() + self.bench.login_seconds
        threads = [threading.Thread(target=self.log_in, args=(deadline,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.logins == 0:
            raise RuntimeError(f"{self.name}: no login worked: {self.stopped_by}")
        why = f", then {self.stopped_by}" if self.stopped_by else ""
        say(f"{self.name} holds {self.logins} tokens from real logins{why}")
        self.shows = f"{type(self).shows}, {self.logins:,} tokens from real logins"

    def log_in(self, deadline, most=None):
        most = most or len(self.bench.tokens)
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=context)
        body = json.dumps({"username": "bench", "password": self.password})
        headers = {"Content-Type": "application/json"}
        while time.monotonic() < deadline and self.logins < most:
            connection.request("POST", "/api/getToken", body, headers)
            reply = connection.getresponse()
            text = reply.read()
            if reply.status != 200:
                self.stopped_by = f"{reply.status} {text.decode(errors='replace')}"
                break
            self.token = json.loads(text)["token"]["accesstoken"]
            self.logins += 1
        connection.close()

    def before_run(self):
        # Access records of a run fill hundreds of megabytes.
        os.truncate(self.run / "log", 0)

    def after_run(self, figures):
        """Records that were lost would make the others look cheap, so they count as errors."""
        if self.access != "true" or "done" not in figures:
            return
        time.sleep(0.5)
        with open(self.run / "log", "rb") as log:
            blocks = iter(lambda: log.read(1 << 20), b"")
            records = sum(block.count(b"\n") for block in blocks)
        if records < figures["done"]:
            lost = figures["done"] - records
            say(f"{self.name}: {lost} access records of {figures['done']} are missing")
            figures["errors"] = figures.get("errors", 0) + lost


class SyncgatePlain(Syncgate):
    name = "syncgate-plain"
    shows = "syncgate as `cargo build --profile production` makes it, without PGO"

    def path(self):
        return self.bench.plain_syncgate


class SyncgateEarlier(Syncgate):
    """An earlier build, which does not know the newest settings. `of` makes one for a binary."""

    shows = "an earlier build"
    binary = None

    @classmethod
    def of(cls, binary):
        return type(cls.__name__, (cls,), {"name": binary.name, "binary": binary.resolve()})

    def path(self):
        return self.binary

    def prepare(self):
        command = super().prepare()
        if subprocess.run([self.path(), "check", *command[2:]], capture_output=True).returncode:
            config = self.run / "syncgate.toml"
            config.write_text(config.read_text().replace("\nallow_root = true", ""))
        return command


class SyncgateQuiet(Syncgate):
    name = "syncgate-quiet"
    shows = "syncgate with access records off"
    access = "false"


class SyncgateUnix(Syncgate):
    name = "syncgate-unix"
    shows = "syncgate with a Unix-socket upstream"

    def url(self):
        return f"unix:{self.bench.work / 'upstream.sock'}"


class SyncgateServers(Syncgate):
    name = "syncgate-servers"
    shows = "two servers with health checks"

    def servers(self):
        ports = (self.bench.upstream_port, self.bench.second_port)
        servers = ", ".join(f'{{ url = "http://127.0.0.1:{port}" }}' for port in ports)
        return f'servers = [{servers}]\ncheck.path = "/"\ncheck.interval = "500ms"'


class SyncgateToTls(Syncgate):
    name = "syncgate-to-tls"
    shows = "the upstream over TLS, its certificate verified; access records on"

    def servers(self):
        certificate = self.bench.work / "upstream.pem"
        url = f'url = "https://127.0.0.1:{self.bench.tls_port}"'
        return f'{url}\ntls.ca_file = "{certificate}"'


class HAProxyToTls(HAProxy):
    name = "haproxy-to-tls"
    shows = "the upstream over TLS, its certificate verified"

    def servers(self):
        server = f"    server one 127.0.0.1:{self.bench.tls_port} pool-max-conn 512"
        certificate = self.bench.work / "upstream.pem"
        name = "sni str(localhost) verifyhost localhost"
        return f"{server} ssl verify required ca-file {certificate} {name}"


class NginxToTls(Nginx):
    name = "nginx-to-tls"
    shows = "the upstream over TLS, its certificate verified"

    def servers(self):
        return f"server 127.0.0.1:{self.bench.tls_port};"

    def prepare(self):
        command = super().prepare()
        config = self.run / "nginx.conf"
        secure = "\n    ".join(
            [
                "http {",
                "proxy_ssl_verify on;",
                "proxy_ssl_name localhost;",
                "proxy_ssl_protocols TLSv1.3;",
                f"proxy_ssl_trusted_certificate {self.bench.work / 'upstream.pem'};",
            ]
        )
        text = config.read_text().replace("http://backend", "https://backend")
        config.write_text(text.replace("http {", secure, 1))
        return command


class EnvoyToTls(Envoy):
    name = "envoy-to-tls"
    shows = "the upstream over TLS, its certificate verified"

    def server(self):
        context = {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
            ".UpstreamTlsContext",
            "sni": "localhost",
            "common_tls_context": {
                "tls_params": {"tls_maximum_protocol_version": "TLSv1_3"},
                "validation_context": {
                    "trusted_ca": {"filename": str(self.bench.work / "upstream.pem")},
                    "match_typed_subject_alt_names": [
                        {"san_type": "DNS", "matcher": {"exact": "localhost"}}
                    ],
                },
            },
        }
        socket = {"name": "tls", "typed_config": context}
        return self.bench.tls_port, f'"transport_socket": {json.dumps(socket)},'


class TwoServers:
    """A peer with two servers of its own, of which one may be killed or stopped."""

    timeout = "1s"

    def start_servers(self):
        self.ports = [processes.free_port() for _ in range(2)]
        self.backends = [self.start_server(port) for port in self.ports]

    def start_server(self, port):
        command = [self.bench.programs / "upstream", "--tcp", f"127.0.0.1:{port}"]
        log = self.run / f"upstream-{port}.log"
        with open(log, "w") as output:
            backend = processes.start(self.bench.pinning.load(command), output)
        processes.wait_for_port(port, backend, "upstream", log)
        return backend

    def stop(self):
        super().stop()
        for backend in getattr(self, "backends", []):
            processes.end(backend)
        self.backends = []


class SyncgateFailover(TwoServers, Syncgate):
    name = "syncgate-failover"
    shows = "checks every 500 ms, 2 that fail take a server down; ejection at its defaults"

    def prepare(self):
        self.start_servers()
        return super().prepare()

    def servers(self):
        servers = ", ".join(f'{{ url = "http://127.0.0.1:{port}" }}' for port in self.ports)
        checks = 'check = { path = "/", interval = "500ms", jitter = "0s", timeout = "500ms", fall = 2 }'
        return f'servers = [{servers}]\nresponse_timeout = "{self.timeout}"\n{checks}'


class HAProxyFailover(TwoServers, HAProxy):
    name = "haproxy-failover"
    shows = "checks every 500 ms, 2 that fail take a server down; redispatch"

    def prepare(self):
        self.start_servers()
        return super().prepare()

    def servers(self):
        check = "check inter 500ms fall 2 rise 2 pool-max-conn 512"
        lines = [f"    server s{port} 127.0.0.1:{port} {check}" for port in self.ports]
        options = ["option httpchk GET /", "balance leastconn", "option redispatch 1"]
        options += ["timeout check 500ms"]
        return "\n".join([*(f"    {option}" for option in options), *lines])


class NginxFailover(TwoServers, Nginx):
    name = "nginx-failover"
    shows = "one failure takes a server away for 10 s (its defaults)"

    def prepare(self):
        self.start_servers()
        return super().prepare()

    def servers(self):
        return "\n        ".join(f"server 127.0.0.1:{port};" for port in self.ports)


class SyncgateRoutes(Syncgate):
    name = "syncgate-routes"
    shows = "rights by route and method, the body unread"
    allow = """[
  { route = "/api/SyncData", methods = ["POST"] },
  { route = "/api/SyncVoucher", methods = ["POST"] },
]"""


class SyncgateForms(Syncgate):
    name = "syncgate-forms"
    shows = "rights by form, every body read to its end"
    allow = """[
  { route = "/api/SyncData", methods = ["POST"], forms = ["setCustomer", "bench", "get*"] },
  { route = "/api/SyncVoucher", methods = ["POST"], forms = ["setCustomer", "bench", "get*"] },
]"""


class SyncgateDurable(Syncgate):
    name = "syncgate-durable"
    shows = "tokens kept in a file too"
    store = 'store = "durable"'


class SyncgateShared(Syncgate):
    """Its server has a processor's leftovers: a request whose token is known asks nothing of it."""

    name = "syncgate-shared"
    shows = "tokens kept on a Redis server"

    def missing(self):
        return super().missing() or (None if shutil.which("redis-server") else "no redis-server")

    def prepare(self):
        port = processes.free_port()
        self.store = f'store = "shared"\nshared = {{ servers = ["127.0.0.1:{port}"] }}'
        command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--save", ""]
        command += ["--dir", self.run]
        with open(self.run / "redis.log", "w") as log:
            self.redis = processes.start(self.bench.pinning.background(command), log)
        processes.wait_for_port(port, self.redis, "redis-server", self.run / "redis.log")
        return super().prepare()

    def stop(self):
        super().stop()
        if self.redis:
            processes.end(self.redis)
            self.redis = None

    redis = None


class SyncgateFlooded(Syncgate):
    """One that strangers have at meanwhile."""

    def flood(self, seconds):
        """The command that does so, for so long."""
        raise NotImplementedError

    def slowly(self, *how):
        url = f"https://127.0.0.1:{self.port}/api/SyncData"
        return ["slowhttptest", *how, "-c", "300", "-r", "300", "-t", "POST", "-u", url]

    def h2load(self, seconds, token):
        return [
            *("h2load", "-c30", "-m16", "-t1", f"-D{seconds}", "-d", self.bench.body_file),
            *("-H", f"authorization: {token}", "-H", "content-type: application/json"),
            f"https://127.0.0.1:{self.port}/api/SyncData",
        ]


class SyncgateSlowHeads(SyncgateFlooded):
    name = "slow-heads"
    shows = "beside 300 connections of slowhttptest -H"

    def flood(self, seconds):
        return self.slowly("-H", "-i", "1", "-x", "24", "-l", seconds)


class SyncgateSlowBodies(SyncgateFlooded):
    name = "slow-bodies"
    shows = "beside 300 connections of slowhttptest -B"

    def flood(self, seconds):
        return self.slowly("-B", "-i", "1", "-s", "8192", "-x", "10", "-l", seconds)


class SyncgateSlowReads(SyncgateFlooded):
    name = "slow-reads"
    shows = "beside 300 connections of slowhttptest -X"

    def flood(self, seconds):
        return self.slowly("-X", "-w", "10", "-y", "20", "-n", "1", "-z", "5", "-l", seconds)


class SyncgateUnknownTokens(SyncgateFlooded):
    name = "unknown-tokens"
    shows = "beside h2load without a token: 30 connections of 16 streams"

    def flood(self, seconds):
        return self.h2load(seconds, self.bench.unknown_token)


class SyncgateBusyUser(SyncgateFlooded):
    name = "busy-user"
    shows = "beside h2load with a token: 30 connections of 16 streams"

    def flood(self, seconds):
        return self.h2load(seconds, self.token)


class SyncgateUncached(Syncgate):
    """Every login costs a hash: what many users who log in once cost."""

    name = "syncgate-uncached"
    shows = "syncgate that hashes a password for every login"
    more = '\n[login]\ncache = "0s"\n'


class SyncgateLogins(SyncgateUncached, SyncgateFlooded):
    """More clients than may wait for a hash, so that some are sent away at once, and come again."""

    name = "login-flood"
    shows = "beside 80 connections of wrk that log in without a pause, a hash for each"

    def flood(self, seconds):
        url = f"https://127.0.0.1:{self.port}/api/getToken"
        script = self.bench.here / "login.lua"
        environment = f"BENCH_PASSWORD={self.password}"
        return ["env", environment, "wrk", "-t1", "-c80", f"-d{seconds}s", "-s", script, url]


class Argon2(Peer):
    """The password hash alone, on the proxy's core: what no login without a cache is cheaper than."""

    name = "argon2"
    shows = "the function alone, m=19456, t=2, p=1"

    def missing(self):
        return None

    def version(self):
        lock = (self.bench.root / "benches/load/Cargo.lock").read_text()
        return lock.partition('name = "argon2"\nversion = "')[2].partition('"')[0]

    def start(self):
        """Nothing to start: it runs when it is measured."""


class Direct(Peer):
    """No proxy at all: an upstream with TLS of its own, on the proxy's core."""

    name = "direct"
    shows = "the upstream's own TLS, no proxy"

    def missing(self):
        return None

    def version(self):
        return "-"

    def prepare(self):
        work = self.bench.work
        return [
            *(self.bench.programs / "upstream", "--tls", f"127.0.0.1:{self.port}"),
            *("--certificate", work / "server.pem", "--key", work / "server.key"),
        ]


ALL = [
    *(Syncgate, SyncgatePlain, Nginx, NginxLua, HAProxy, Pingora, Envoy, Caddy),
    *(SyncgateQuiet, SyncgateUnix, SyncgateRoutes, SyncgateForms, Direct),
    *(SyncgateDurable, SyncgateShared),
    *(SyncgateSlowHeads, SyncgateSlowBodies, SyncgateSlowReads),
    *(SyncgateUnknownTokens, SyncgateBusyUser),
    *(SyncgateUncached, SyncgateLogins, Argon2),
    *(SyncgateServers, SyncgateToTls, HAProxyToTls, NginxToTls, EnvoyToTls),
    *(SyncgateFailover, HAProxyFailover, NginxFailover),
]
BY_NAME = {peer.name: peer for peer in ALL}
