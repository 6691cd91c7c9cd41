#!/usr/bin/env python3
"""The durable loop: steps that do nothing through the real control machine and the real ledger on disk, beside other orchestrators.

    scripts/bench/loop.py --binary PATH [--rounds 5] [--dagster PYTHON] [--prefect PYTHON] [--airflow PYTHON]

Ours is the example program `durable_loop`, which is built beside the binary (examples/durable_loop). Peers make the same graph of tasks
that do nothing (loop_peers.py), each in its usual local and durable set-up, and are given ten minutes. One that fails is named and left out.
"""

import argparse
import json
import os
import subprocess
from pathlib import Path

from common import CACHE, ROOT, clean_env, fail, fresh, load, median, quantile, row, say

FIGURES = ("graph", "graph-2", "chain", "backfill", "change", "idle")
# Where time is in proportion to the tasks, fewer of them say as much. Airflow's is not: each task's process reads the whole graph.
TASKS = {"dagster": 200, "prefect": 200, "airflow": 1000}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    for name in TASKS:
        parser.add_argument(f"--{name}")
    args = parser.parse_args()
    program = Path(args.binary).parent / "examples" / "durable_loop"
    if not program.exists():
        fail(f"{program} is not there: run make bench, or cargo build --release --example durable_loop")

    seen = {figure: [] for figure in FIGURES}
    for number in range(1, args.rounds + 1):
        for figure in FIGURES:
            seen[figure].append(ours(program, figure))
        say(f"loop: round {number}: {seen['graph'][-1]['seconds']:.3f} s for the graph; {load()}")
    peers = {name: peer(name, getattr(args, name)) for name in TASKS if getattr(args, name)}

    def each(figure, key):
        return [it[key] for it in seen[figure]]

    graph = each("graph", "seconds")
    row("loop: graph of 1,000 steps that do nothing, 64 at a time", graph, "s", promised="< 0.2 s", limit=0.2)
    for name, found in peers.items():
        if found:
            note = "" if found["tasks"] == 1000 else f"{found['tasks']} tasks, times {1000 // found['tasks']}"
            row("loop: the same beside " + found["how"], graph, "s", peer=name, peer_values=[found["seconds"] * 1000 / found["tasks"]], note=note)
    row("loop: the same, two at a time", each("graph-2", "seconds"), "s")
    row("loop: the same, CPU", each("graph", "cpu_seconds"), "s")
    gaps = each("chain", "gap_ms")
    row("loop: end of a step to the start of its reader, median", [median(it) for it in gaps], "ms", promised="< 1 ms", limit=1)
    row("loop: the same, p99", [quantile(it, 0.99) for it in gaps], "ms")
    row("loop: one small write of this disk alone, median", [median(it) for it in each("chain", "disk_ms")], "ms")
    row("loop: plan of 100,000 partitions, nothing published", each("backfill", "seconds"), "s", promised="< 2 s", limit=2)
    row("loop: the same, peak resident", each("backfill", "peak_mib"), "MiB", promised="< 500 MB", limit=500e6 / 2**20)
    row("loop: the same, all published by another query", each("change", "seconds"), "s", promised="< 2 s", limit=2)
    row("loop: the same, peak resident", each("change", "peak_mib"), "MiB", promised="< 500 MB", limit=500e6 / 2**20)
    row("loop: CPU of one publication while 100,000 are due", each("backfill", "cpu_ms_per_fact"), "ms")
    # Two ticks a second: 2.5 ms each are half a percent of a core.
    row("loop: idle tick of 10,000 products, CPU", each("idle", "tick_ms"), "ms", promised="< 2.5 ms", limit=2.5)
    row("loop: the same, a commit that changes nothing", each("idle", "reconcile_ms"), "ms", promised="< 200 ms", limit=200)
    row("loop: the same, a copy of the ledger for readers", each("idle", "copy_ms"), "ms")


def ours(program, figure):
    folder = fresh(CACHE / "loop" / figure)
    done = subprocess.run([program, figure, folder], env=clean_env(), capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        fail(f"durable_loop {figure}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def peer(name, python):
    folder, tasks = fresh(CACHE / "loop" / name), TASKS[name]
    script = ROOT / "scripts" / "bench" / "loop_peers.py"
    # Their programs are found beside their Python.
    env = clean_env(PATH=f"{Path(python).parent}:{os.environ['PATH']}", HOME=str(folder), DO_NOT_TRACK="1")
    child = subprocess.Popen(
        [python, script, name, str(folder), str(tasks)], env=env, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    try:
        out, words = child.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        say(f"loop: {name}: {tasks} tasks were not done in ten minutes; left out")
        stop(child)
        return None
    lines = [line for line in out.splitlines() if line.startswith('{"tasks"')]
    if child.returncode != 0 or not lines:
        say(f"loop: {name} failed and is left out: {(words.strip() or out.strip())[-2000:]}")
        return None
    found = json.loads(lines[-1])
    say(f"loop: {name}: {found['tasks']} tasks in {found['seconds']:.1f} s; {load()}")
    return found


def stop(child):
    # Asked first, so that it ends what it started itself.
    child.terminate()
    try:
        child.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()
