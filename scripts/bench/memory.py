#!/usr/bin/env python3
"""Memory of `hydromesh up` on the example mesh: resident once all is deployed, backfilled and idle, and its peak until then.

    scripts/bench/memory.py --binary PATH [--rounds 3]

Each round is a new process on an empty state folder. Resident memory is VmRSS of the one process that there is, the median of five looks
ten seconds after it came to rest; the peak is VmHWM.
"""

import argparse
import time

from common import CACHE, load, median, row, say
from live import Controller


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    idle, peak, start = [], [], []
    for number in range(1, args.rounds + 1):
        with Controller(args.binary, CACHE / "memory") as controller:
            start.append(controller.settle())
            looks = []
            for _ in range(5):
                time.sleep(2)
                looks.append(controller.memory_mib())
            idle.append(median([it["VmRSS"] for it in looks]))
            peak.append(looks[-1]["VmHWM"])
            say(
                f"memory: round {number}: at rest after {start[-1]:.0f} s; resident {idle[-1]:.0f} MiB "
                f"(anonymous {looks[-1]['RssAnon']:.0f}, files {looks[-1]['RssFile']:.0f}), peak {peak[-1]:.0f} MiB; {load()}"
            )
    row("up on the example, idle: resident", idle, "MiB", promised="< 400 MB", limit=400e6 / 2**20)
    row("up on the example, first backfill: peak resident", peak, "MiB", promised="< 400 MB", limit=400e6 / 2**20)
    row("up on the example: from start to all published", start, "s")


if __name__ == "__main__":
    main()
