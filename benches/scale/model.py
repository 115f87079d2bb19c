"""What many gateways with one shared token store need: nodes, cache hits, the store's load.

    python3 benches/scale/model.py                     # the deployment of docs/scale.md
    python3 benches/scale/model.py --gateways 4 --tokens 1000 --requests-per-second 50
    python3 benches/scale/model.py --test

All it knows of a gateway and of the store are the measured figures in `Measured`. Standard library only;
`check.py` holds its small end against real gateways and a real store.
"""

import argparse
import dataclasses
import math
import sys
import unittest


@dataclasses.dataclass(frozen=True)
class Measured:
    """Figures of one core, from benches/RESULTS.md and docs/scale.md; seconds and bytes."""

    forward: float
    """A forwarded request whose token the gateway knows."""
    ask: float
    """What it costs the gateway to ask the store for a token."""
    login: float
    """A login with its password hash."""
    invalidation: float
    """What one change in the store costs each gateway that listens."""
    store_read: float
    """What a read costs the store."""
    store_write: float
    """What an issue, renewal or revocation costs the store, without its pushes."""
    store_push: float
    """What it costs the store to tell one gateway of one change."""
    local_token: float
    """Memory of a token that a gateway knows."""
    stored_token: float
    """Memory of a token in the store, with its user's index."""


@dataclasses.dataclass(frozen=True)
class Demand:
    tokens: int
    """Live at once."""
    requests: float
    """Per second, in all."""
    lifetime: float
    """Of a token in seconds."""
    cached_logins: float = 0.0
    """Share of logins whose password was verified within the last minute by the same gateway."""
    homes: float | None = None
    """How many gateways a token's connections are spread over; all, unless the balancer is told
    otherwise."""
    revocations: float = 0.0
    """Per second."""


@dataclasses.dataclass(frozen=True)
class Result:
    gateways: int
    hit_ratio: float
    misses: float
    gateway_cores: float
    login_cores: float
    gateway_memory: float
    store_reads: float
    store_writes: float
    store_pushes: float
    store_cores: float
    store_memory: float


def touched(pairs, uses):
    """How many of `pairs` are hit at least once by `uses` draws, each as likely as the other:
    n (1 - (1 - 1/n)^u), the occupancy problem."""
    if pairs <= 0:
        return 0.0
    if pairs == 1:
        return 1.0 if uses > 0 else 0.0
    return pairs * -math.expm1(uses * math.log1p(-1 / pairs))


def misses_of_a_token(gateways, uses):
    """How often the store is asked for a token in its life: once by each gateway that it is presented
    to, but for the one that issued it, which knows it."""
    return touched(gateways, uses) * (gateways - 1) / gateways


def with_gateways(demand, measured, gateways):
    """The load of so many gateways."""
    homes = min(gateways, demand.homes or gateways)
    births = demand.tokens / demand.lifetime
    uses = demand.requests / demand.tokens * demand.lifetime
    misses = births * misses_of_a_token(homes, uses)
    changes = births + demand.revocations
    work = demand.requests * measured.forward + misses * measured.ask
    work += changes * gateways * measured.invalidation
    hashing = births * (1 - demand.cached_logins) * measured.login
    pushes = changes * gateways
    store = misses * measured.store_read + changes * measured.store_write
    store += pushes * measured.store_push
    known = demand.tokens * touched(homes, uses) / gateways
    return Result(
        gateways=gateways,
        hit_ratio=1 - misses / demand.requests if demand.requests else 1.0,
        misses=misses,
        gateway_cores=work,
        login_cores=hashing,
        gateway_memory=known * measured.local_token,
        store_reads=misses,
        store_writes=changes,
        store_pushes=pushes,
        store_cores=store,
        store_memory=demand.tokens * measured.stored_token,
    )


def plan(demand, measured, cores, load):
    """The smallest number of gateways of so many cores that are busy to `load` at the most. More
    gateways make more misses and pushes, so it is looked for from below."""
    gateways = 1
    while True:
        result = with_gateways(demand, measured, gateways)
        needed = (result.gateway_cores + result.login_cores) / (cores * load)
        if needed <= gateways:
            return result
        gateways = max(gateways + 1, math.floor(needed))


class Tests(unittest.TestCase):
    MEASURED = Measured(20e-6, 30e-6, 20e-3, 5e-6, 5e-6, 15e-6, 2e-6, 140, 400)

    def test_occupancy(self):
        self.assertEqual(touched(0, 5), 0)
        self.assertEqual(touched(1, 0), 0)
        self.assertEqual(touched(1, 5), 1)
        self.assertAlmostEqual(touched(2, 1), 1)
        self.assertAlmostEqual(touched(2, 2), 1.5)
        self.assertAlmostEqual(touched(10, 10_000), 10)

    def test_one_gateway_never_asks(self):
        result = with_gateways(Demand(1000, 100, 3600), self.MEASURED, 1)
        self.assertEqual((result.misses, result.hit_ratio), (0, 1))
        self.assertAlmostEqual(result.gateway_memory, 1000 * 140)

    def test_a_balancer_that_knows_its_clients_saves_misses_and_memory(self):
        spread = with_gateways(Demand(10**6, 10**4, 86400), self.MEASURED, 20)
        kept = with_gateways(Demand(10**6, 10**4, 86400, homes=2), self.MEASURED, 20)
        self.assertLess(kept.misses, spread.misses / 5)
        self.assertLess(kept.gateway_memory, spread.gateway_memory / 5)
        self.assertEqual(kept.store_memory, spread.store_memory)

    def test_a_plan_has_room_and_no_more_than_it_needs(self):
        demand = Demand(10**7, 10**6, 86400)
        result = plan(demand, self.MEASURED, cores=8, load=0.6)
        fewer = with_gateways(demand, self.MEASURED, result.gateways - 1)
        busy = result.gateway_cores + result.login_cores
        self.assertLessEqual(busy, result.gateways * 8 * 0.6)
        self.assertGreater(fewer.gateway_cores + fewer.login_cores, (result.gateways - 1) * 8 * 0.6)


def report(result, demand, cores):
    rows = [
        ("gateways", f"{result.gateways} of {cores} cores"),
        ("cores busy with requests", f"{result.gateway_cores:,.1f}"),
        ("cores busy with password hashes", f"{result.login_cores:,.1f}"),
        ("hit ratio", f"{result.hit_ratio:.4%}"),
        ("memory for tokens per gateway", f"{result.gateway_memory / 1e9:,.2f} GB"),
        ("reads of the store per second", f"{result.store_reads:,.0f}"),
        ("writes of the store per second", f"{result.store_writes:,.0f}"),
        ("pushes of the store per second", f"{result.store_pushes:,.0f}"),
        ("cores busy in the store", f"{result.store_cores:,.2f}"),
        ("memory of the store", f"{result.store_memory / 1e9:,.1f} GB"),
    ]
    homes = "all gateways" if demand.homes is None else f"{demand.homes:g} gateways each"
    print(f"{demand.tokens:,} tokens over {homes}, {demand.requests:,.0f} requests/s")
    for name, value in rows:
        print(f"  {name:34}{value:>20}")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--test", action="store_true", help="test the model itself")
    add("--tokens", type=int, default=100_000_000)
    add("--requests-per-second", type=float, default=1_000_000)
    add("--lifetime", type=float, default=86_400, help="of a token, in seconds")
    add("--homes", type=float, help="gateways that a token is presented to; default all")
    add("--cached-logins", type=float, default=0.0, help="share of logins without a hash")
    add("--revocations", type=float, default=10.0, help="per second")
    add("--gateways", type=int, help="so many, instead of as many as are needed")
    add("--cores", type=int, default=16, help="of a gateway")
    add("--load", type=float, default=0.6, help="how busy a core may be")
    return parser.parse_args()


def main():
    options = arguments()
    if options.test:
        unittest.main(argv=[sys.argv[0]])
    demand = Demand(
        tokens=options.tokens,
        requests=options.requests_per_second,
        lifetime=options.lifetime,
        cached_logins=options.cached_logins,
        homes=options.homes,
        revocations=options.revocations,
    )
    from measured import MEASURED

    if options.gateways:
        result = with_gateways(demand, MEASURED, options.gateways)
    else:
        result = plan(demand, MEASURED, options.cores, options.load)
    report(result, demand, options.cores)


if __name__ == "__main__":
    main()
