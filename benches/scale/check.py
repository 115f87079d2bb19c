#!/usr/bin/env python3
"""Holds the small end of the model against real runs: 1, 2 and 4 gateways with one redis-server on this
machine. Measures how often the store is asked, and what asking, changes and tokens cost it and them.

    python3 benches/scale/check.py --syncgate target/optimized/syncgate

Standard library only; needs redis-server, and openssl for a certificate.
"""

import argparse
import http.client
import http.server
import json
import os
import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from model import touched

PASSWORD = "correct horse battery staple"
TICK = os.sysconf("SC_CLK_TCK")

CONFIG = """
[listen]
https = ["127.0.0.1:{port}"]
workers = 1

[tls]
certificates = [{{ certificate = "server.pem", key = "server.key" }}]

[upstream]
url = "http://127.0.0.1:{upstream}"

[accounts]
file = "users.toml"

[log]
access = false

[process]
allow_root = true

[limits]
connections_per_source = 1000

[tokens]
store = "shared"
per_user = 1000000

[tokens.shared]
servers = ["127.0.0.1:{redis}"]
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # An answer in one piece: the kernel holds a second one back.
    wbufsize = 65536

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


class Place:
    """A redis-server, an upstream and so many gateways, in a directory of their own."""

    def __init__(self, syncgate, gateways):
        self.directory = Path(tempfile.mkdtemp(prefix="syncgate-scale-"))
        self.processes = []
        self.redis_port, self.ports = free_port(), [free_port() for _ in range(gateways)]
        upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        self.upstream = upstream
        self.redis = self.start(
            *("redis-server", "--port", self.redis_port, "--bind", "127.0.0.1", "--save", ""),
            *("--dir", self.directory),
        )
        wait_for(self.redis_port)
        certificate(self.directory)
        run = [syncgate, "hash", "--password-stdin"]
        hashed = subprocess.run(run, input=PASSWORD, capture_output=True, text=True, check=True)
        users = self.directory / "users.toml"
        users.touch(mode=0o600)
        users.write_text(f'[users.scale]\npassword = "{hashed.stdout.strip()}"\nallow = "*"\n')
        self.gateways = []
        for number, port in enumerate(self.ports):
            config = self.directory / f"gateway-{number}.toml"
            values = {"port": port, "redis": self.redis_port, "upstream": upstream.server_port}
            config.write_text(CONFIG.format(**values))
            self.gateways.append(self.start(syncgate, "run", "--config", config))
        for port in self.ports:
            wait_for(port)
        self.clients = [Client(port) for port in self.ports]
        for client in self.clients:
            client.log_in()

    def start(self, *command):
        log = open(self.directory / "log", "a")
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def close(self):
        for process in reversed(self.processes):
            process.terminate()
        for process in self.processes:
            process.wait(20)
        self.upstream.shutdown()
        shutil.rmtree(self.directory)

    def info(self, section, key):
        with socket.create_connection(("127.0.0.1", self.redis_port)) as redis:
            redis.sendall(f"INFO {section}\r\n".encode())
            answer = b""
            length = None
            while length is None or len(answer) < length:
                answer += redis.recv(65536)
                head, found, _ = answer.partition(b"\r\n")
                if found and length is None:
                    length = len(head) + 4 + int(head[1:])
        for line in answer.decode().splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return value
        return "0"

    def asked(self):
        """How often the store was asked for a token."""
        calls = self.info("commandstats", "cmdstat_get")
        return int(calls.partition("calls=")[2].partition(",")[0] or 0)


class Client:
    def __init__(self, port):
        context = ssl._create_unverified_context()
        self.connection = http.client.HTTPSConnection("127.0.0.1", port, context=context)

    def post(self, path, body, token=None):
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = token
        self.connection.request("POST", path, body, headers)
        answer = self.connection.getresponse()
        text = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {text[:200]}")
        return text

    def log_in(self):
        body = json.dumps({"username": "scale", "password": PASSWORD})
        deadline = time.monotonic() + 20
        while True:
            try:
                return json.loads(self.post("/api/getToken", body))["token"]["accesstoken"]
            except RuntimeError:
                # The store may not be connected yet.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def use(self, token):
        self.post("/api/SyncData", "{}", token)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def certificate(directory):
    command = [
        *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
        *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
        *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
        *("-keyout", directory / "server.key", "-out", directory / "server.pem"),
    ]
    subprocess.run([*map(str, command)], check=True, capture_output=True)


def seconds(*processes):
    """Processor time of processes until now."""
    total = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICK


def measure(syncgate, gateways, tokens, requests):
    place = Place(syncgate, gateways)
    try:
        before, used = seconds(place.redis), int(place.info("memory", "used_memory"))
        working = seconds(*place.gateways)
        held = [place.clients[number % gateways].log_in() for number in range(tokens)]
        issue = (seconds(place.redis) - before) / tokens
        memory = (int(place.info("memory", "used_memory")) - used) / tokens
        logins = (seconds(*place.gateways) - working) / tokens
        asked, before, working = place.asked(), seconds(place.redis), seconds(*place.gateways)
        dice = random.Random(1)
        for _ in range(requests):
            dice.choice(place.clients).use(dice.choice(held))
        asked = place.asked() - asked
        pairs = tokens * gateways
        # Each pair of a token and a gateway is drawn alike; those of the issuer need no question.
        expected = touched(pairs, requests) * (gateways - 1) / gateways
        return {
            "gateways": gateways,
            "asked": asked,
            "expected": expected,
            "hit_ratio": 1 - asked / requests,
            "store_us_per_issue": issue * 1e6,
            "store_bytes_per_token": memory,
            "gateways_us_per_login": logins * 1e6,
            "store_us_per_question": (seconds(place.redis) - before) / max(asked, 1) * 1e6,
            "gateways_us_per_request": (seconds(*place.gateways) - working) / requests * 1e6,
        }
    finally:
        place.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--syncgate", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--gateways", type=int, nargs="*", default=[1, 2, 4])
    options = parser.parse_args()
    print("| gateways | questions asked | by the model | hit ratio |")
    print("| --- | --- | --- | --- |")
    rows = []
    for gateways in options.gateways:
        row = measure(options.syncgate.resolve(), gateways, options.tokens, options.requests)
        rows.append(row)
        print(
            f"| {gateways} | {row['asked']:,} | {row['expected']:,.0f} | {row['hit_ratio']:.1%} |",
            flush=True,
        )
    print()
    for row in rows:
        shown = {key: round(value, 1) for key, value in row.items() if "_" in key and "ratio" not in key}
        print(f"- {row['gateways']} gateways: {shown}")


if __name__ == "__main__":
    main()
