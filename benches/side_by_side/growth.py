#!/usr/bin/env python3
"""How the cost of a request grows with connections, tokens, users and routes, and what a request
notices of a sweep of all tokens. Writes the plots and the tables that benches/RESULTS.md shows.

    make bench-growth                         # everything
    make bench-growth AXES="tokens sweep"     # some of it
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path

import bench as driver
import peers
import plot
import processes
import report
import scenarios

AXES = {
    "connections": [1, 10, 100, 1_000, 10_000],
    "tokens": [10, 1_000, 100_000, 1_000_000, 5_000_000],
    "users": [10, 100, 1_000, 10_000, 100_000],
    "routes": [1, 10, 50, 100, 200],
}
# Requests per second over all connections that are open.
RATE = 4_000
TITLES = {name: f"Processor time per request by {name}" for name in AXES}
TITLES["connections"] += f": {RATE:,} requests/s over all of them"
# Seconds that tokens live which are to be swept: longer than it takes to make them all.
LIFETIME = 240
# Whose tokens fill the table.
OWNERS = 500


class Grown(peers.Syncgate):
    """A gateway with as much of something as is asked for."""

    name = "syncgate-grown"

    def __init__(self, bench, axis=None, value=0):
        self.axis, self.value = axis, value
        if axis == "users":
            self.more_users = value - 1
        elif axis == "routes":
            self.more_routes = value - 1
        elif axis in ("tokens", "sweep"):
            self.more_users = OWNERS
        if axis == "sweep":
            self.lifetime = f"{LIFETIME}s"
        super().__init__(bench)

    def started(self):
        self.logins, self.stopped_by = 0, None
        if self.axis in ("tokens", "sweep"):
            self.fill_table(self.value)
        self.log_in_once()

    def log_in_once(self):
        """The newest token is the one that requests are made with."""
        self.log_in(time.monotonic() + 5, self.logins + 1)
        if self.stopped_by:
            raise RuntimeError(f"no login worked: {self.stopped_by}")

    def fill_table(self, wanted):
        """A few by hand, many by wrk, which overshoots a little."""
        if wanted <= 1_000:
            self.log_in(time.monotonic() + 30, wanted - 1)
            return
        rate = 2_000
        while self.logins < wanted:
            left = wanted - self.logins
            seconds = max(1, min(10, left // rate))
            command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", self.bench.here / "login.lua"]
            command.append(f"https://127.0.0.1:{self.port}/api/getToken")
            environment = {
                "BENCH_USERS": str(OWNERS),
                "BENCH_PASSWORD": self.password,
                "OPENSSL_CONF": str(self.bench.work / "openssl.cnf"),
            }
            text = self.bench.run_generator(self.bench.pinning.load(command), environment)
            figures = processes.last_json(text, command)
            if figures["bad_status"]:
                raise RuntimeError(f"logins were refused: {figures}")
            self.logins += figures["done"]
            rate = max(rate, figures["done"] // seconds)
            # Access records of so many logins fill the disk.
            self.before_run()
        driver.say(f"{self.logins:,} tokens")


class Growth:
    def __init__(self, bench, rounds):
        self.bench, self.rounds = bench, rounds

    def along(self, axis):
        """[(value, microseconds, spread in percent)]"""
        points = []
        for value in AXES[axis]:
            if axis == "connections":
                value = min(value, self.bench.idle_connections)
            peer = Grown(self.bench, axis, value)
            peer.start()
            try:
                figure = self.cost_of_open if axis == "connections" else self.cost
                connections = value if axis == "connections" else 64
                cost = [figure(peer, connections) for _ in range(self.rounds)]
            finally:
                peer.stop()
            middle = statistics.median(cost)
            spread = (max(cost) - min(cost)) / 2 / middle * 100
            shown = peer.logins if axis == "tokens" else value
            driver.say(f"{axis} {shown:,}: {middle:.1f} us +- {spread:.1f} %")
            points.append((shown, middle, spread))
        return points

    def cost(self, peer, connections):
        peer.before_run()
        figures = scenarios.Small(self.bench).wrk(peer, connections=connections)
        peer.after_run(figures)
        if figures["errors"]:
            raise RuntimeError(f"{figures['errors']} errors: {figures}")
        return figures["cpu"]

    def cost_of_open(self, peer, connections):
        """The same load however many connections are open: what a longer run costs more than a
        shorter one, so that the handshakes do not count."""
        runs = []
        for seconds in (self.bench.seconds, 3 * self.bench.seconds):
            peer.before_run()
            options = {"rate": RATE, "connections": connections, "seconds": seconds}
            figures = scenarios.Small(self.bench).own(peer, "requests", **options)
            peer.after_run(figures)
            if figures["errors"]:
                raise RuntimeError(f"{figures['errors']} errors: {figures}")
            runs.append((figures["done"], figures["cpu"] * figures["done"]))
        (few, short), (many, long) = runs
        return (long - short) / (many - few)

    def sweep(self):
        """Latencies in two spans of one minute each, without and with the end of all tokens: every
        minute has its sweep, but only one of them has something to forget. The gateway has no
        real-time priority, in which its threads of low priority would take turns with the others."""
        peer = Grown(self.bench, "sweep", AXES["tokens"][-1])
        peer.start()
        processes.give_ordinary_priority(peer.process.pid)
        try:
            begun = time.monotonic()
            options = {"rate": 500, "connections": 16, "seconds": 65, "warmup": 1}
            self.bench.seconds = 65
            idle = scenarios.Small(self.bench).own(peer, "requests", **options)
            before = processes.pss(peer.process.pid)
            # The first were made as long before the last as the making took, and end as long before.
            left = LIFETIME - 115 - (time.monotonic() - begun)
            driver.say(f"{peer.logins:,} tokens; {left:.0f} s until the first of them end")
            time.sleep(max(0, left))
            peer.log_in_once()
            swept = scenarios.Small(self.bench).own(peer, "requests", **{**options, "seconds": 125})
            after = processes.pss(peer.process.pid)
        finally:
            peer.stop()
        return [("nothing to forget", idle, before), (f"{peer.logins:,} tokens end", swept, after)]


def table(axis, points):
    lines = [f"| {axis} | CPU µs per request | ± % |", "| --- | --- | --- |"]
    lines += [f"| {value:,} | {cost:.1f} | {spread:.1f} |" for value, cost, spread in points]
    return "\n".join([*lines, "", f"![{TITLES[axis]}](growth/{axis}.svg)"])


def sweep_table(rows):
    names = ("p50", "p90", "p99", "p999", "max")
    lines = [f"| | {' | '.join(f'{name} µs' for name in names)} | memory MB |"]
    lines.append("| --- " * (len(names) + 2) + "|")
    for what, figures, memory in rows:
        cells = [f"{figures[name]:,.0f}" for name in names]
        lines.append(f"| {what} | {' | '.join(cells)} | {memory / 1e6:,.0f} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--axes", default="", help=f"of: {' '.join(AXES)} sweep; default all")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--results", type=Path)
    own, rest = parser.parse_known_args()
    sys.argv = [sys.argv[0], *rest]
    options = driver.arguments()
    axes = driver.chosen(own.axes, [*AXES, "sweep"], "axis")
    processes.clean_up_on_exit()
    bench = driver.Bench(options)
    bench.allow_files()
    driver.prepare(bench, options, ["syncgate"])
    bench.start_upstream()
    growth = Growth(bench, own.rounds)
    plots = bench.root / "benches/growth"
    plots.mkdir(exist_ok=True)
    results = own.results or bench.root / "benches/RESULTS.md"
    for axis in axes:
        if axis == "sweep":
            rows = growth.sweep()
            title = "What a request notices of a sweep: 500 requests/s (Poisson)"
            body = sweep_table(rows)
            when = driver.conditions(bench, "one run each, of 65 s and of 125 s", ordinary_proxy=True)
        else:
            points = growth.along(axis)
            svg = plot.line(TITLES[axis], axis, "µs", [(x, y) for x, y, _ in points])
            (plots / f"{axis}.svg").write_text(svg)
            title, body = TITLES[axis], table(axis, points)
            rounds = f"medians of {own.rounds} rounds of {bench.seconds} s"
            when = driver.conditions(bench, rounds)
        body = f"{when}\n\n{body}"
        print(f"\n{title}\n\n{body}\n", flush=True)
        raw = bench.work / f"growth-{axis}.json"
        raw.write_text(json.dumps(rows if axis == "sweep" else points))
        report.write(results, [(f"growth-{axis}", title, body)])


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    main()
