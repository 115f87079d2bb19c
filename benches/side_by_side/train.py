"""Makes a gateway that was built with counters serve the loads of the benches, for the profile that
a release is optimized by. See scripts/release.sh.

    train.py --syncgate BINARY --counts DIRECTORY
"""

import argparse
import os
import sys
from pathlib import Path

import bench as driver
import peers
import processes
import scenarios
from install import say

# Counts are written when the program ends, which it may not do where it is confined.
# The template ends within [process].
UNCONFINED = "confine = false\n"


class Trained(peers.Syncgate):
    name = "trained"
    more = UNCONFINED


class TrainedForms(peers.SyncgateForms):
    name = "trained-forms"
    more = UNCONFINED


# What the gateway is for, each for as long: forwarding and refusing over both protocols, handshakes, bodies of all
# sizes, rights by form.
LOADS = {
    Trained: [
        *(scenarios.Small, scenarios.Reject, scenarios.H2, scenarios.Handshake),
        *(scenarios.Resumption, scenarios.Upload64K, scenarios.Upload8M),
    ],
    TrainedForms: [scenarios.Rights, scenarios.Rights8M],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--counts", type=Path, required=True)
    own, rest = parser.parse_known_args()
    sys.argv = [sys.argv[0], "--real-time", "0", "--seconds", "2", "--login-seconds", "1", *rest]
    options = driver.arguments()
    processes.clean_up_on_exit()
    bench = driver.Bench(options)
    driver.prepare(bench, options, ["syncgate"])
    bench.start_upstream()
    for kind, loads in LOADS.items():
        peer = kind(bench)
        peer.environment = {"LLVM_PROFILE_FILE": str(own.counts / "served-%p.profraw")}
        peer.start()
        for load in loads:
            figures = load(bench).measure(peer)
            if figures.get("errors"):
                sys.exit(f"train: {load.name}: {figures['errors']} errors")
            say(f"{peer.name}: {load.name}: {figures['done']:,} requests")
        # As long as it takes to write the counts.
        processes.end(peer.process, patience=30)
    # Those of `syncgate hash`, which makes the accounts, are there in any case.
    served = [path for path in own.counts.glob("served-*.profraw") if path.stat().st_size]
    if len(served) < len(LOADS):
        sys.exit(f"train: no counts in {own.counts}; is this a program that counts?")


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent)
    main()
