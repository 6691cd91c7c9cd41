#!/usr/bin/env python3
"""Check and plan of a mesh of 1,000 products: wall seconds and peak resident memory, from a folder and from a bare repository.

    scripts/bench/check.py --binary PATH [--rounds 9] [--products 1000] [--dbt PATH] [--sqlmesh PATH] [--peer-rounds 3]

The mesh is written by make_mesh.py. `plan` has nothing deployed yet: it is the largest plan that the mesh has. The clock of
the plan is fixed, so that it does not grow from day to day.

Peers read the same graph: dbt parses it anew (`--no-partial-parse`), SQLMesh explains its first plan with an empty cache. Neither
is the same work. dbt renders templates and knows no types; SQLMesh resolves columns, as `check` does.
"""

import argparse
import shutil
import subprocess
import sys

from common import CACHE, ROOT, bare, check_code, clean_env, fail, fresh, load, row, say, show, weigh

CLOCK = "2026-11-01T06:00:00Z"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--peer-rounds", type=int, default=3)
    parser.add_argument("--products", type=int, default=1000)
    parser.add_argument("--dbt")
    parser.add_argument("--sqlmesh")
    args = parser.parse_args()

    folder = CACHE / f"mesh-{args.products}"
    made = subprocess.run(
        [sys.executable, ROOT / "scripts" / "bench" / "make_mesh.py", fresh(folder), "--products", str(args.products), "--peers"],
        capture_output=True, text=True, check=True,
    )
    say(f"check: {made.stdout.strip()}")
    mesh, work = folder / "mesh", folder / "work"
    # A folder without git: what lies beside the files must not be read along.
    shutil.copytree(mesh, work)
    repository = bare(work, folder / "mesh.git")
    state = fresh(folder / "state")
    env = clean_env()

    first = subprocess.run([args.binary, "check", mesh], env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if first.returncode != 0:
        fail(f"the mesh does not check:\n{first.stdout[-3000:]}{first.stderr[-1000:]}")
    say(f"check: {first.stdout.strip().splitlines()[-1]}")

    plan = ["--env", "dev", "--state", state, "--clock", CLOCK]
    runs = {
        "check, folder": [args.binary, "check", mesh],
        "check, repository": [args.binary, "check", "--rev", "main", repository],
        "plan, folder": [args.binary, "plan", *plan, mesh],
        "plan, repository": [args.binary, "plan", *plan, "--rev", "main", repository],
        # No promise is made for it; it is what a pull request's pipeline runs.
        "plan --gate, repository": [args.binary, "plan", "--gate", *plan, "--rev", "main", repository],
    }
    weighed = {name: [] for name in runs}
    say(f"check: {args.rounds} rounds; {load()}")
    for _ in range(args.rounds):
        # Taken in turns: a busy minute of the machine then falls on all alike.
        for name, argv in runs.items():
            one = weigh([str(it) for it in argv], env=env)
            check_code(one, name)
            weighed[name].append(one)
    for name, values in weighed.items():
        say(f"check: {name}: {show([it.wall_s for it in values])} s wall, {show([it.cpu_s for it in values])} s CPU, "
            f"{show([it.rss_mib for it in values], 0)} MiB")
    say(f"check: {load()}")

    peers = {}
    if args.dbt:
        peers["dbt parse"] = measure_dbt(args, folder)
    if args.sqlmesh:
        peers["SQLMesh plan --explain"] = measure_sqlmesh(args, folder)

    for name, values in weighed.items():
        peer = "SQLMesh plan --explain" if name.startswith("plan") else "dbt parse"
        theirs = peers.get(peer, [])
        promised = "--gate" not in name
        row(
            f"{name}: wall", [it.wall_s for it in values], "s", promised="< 1 s" if promised else None, limit=1 if promised else None,
            peer=peer, peer_values=[it.wall_s for it in theirs],
        )
        row(f"{name}: CPU", [it.cpu_s for it in values], "s", peer=peer, peer_values=[it.cpu_s for it in theirs])
        row(
            f"{name}: peak resident", [it.rss_mib for it in values], "MiB", promised="< 300 MB" if promised else None,
            limit=300e6 / 2**20 if promised else None, peer=peer, peer_values=[it.rss_mib for it in theirs],
        )


def measure_dbt(args, folder):
    project = folder / "dbt"
    env = clean_env(DO_NOT_TRACK="1", DBT_SEND_ANONYMOUS_USAGE_STATS="false", DBT_PROFILES_DIR=str(project))
    values = []
    for _ in range(args.peer_rounds):
        one = weigh([args.dbt, "parse", "--no-partial-parse"], cwd=project, env=env)
        check_code(one, "dbt parse")
        values.append(one)
        say(f"check: dbt parse: {one.wall_s:.1f} s wall, {one.cpu_s:.1f} s CPU, {one.rss_mib:.0f} MiB; {load()}")
    return values


def measure_sqlmesh(args, folder):
    project = folder / "sqlmesh"
    env = clean_env(DO_NOT_TRACK="1", SQLMESH__DISABLE_ANONYMIZED_ANALYTICS="true")
    values = []
    for _ in range(args.peer_rounds):
        # Its caches and its state make the second time another question.
        for name in (".cache", "logs"):
            shutil.rmtree(project / name, ignore_errors=True)
        (project / "large.duckdb").unlink(missing_ok=True)
        one = weigh([args.sqlmesh, "plan", "--explain", "--no-prompts"], cwd=project, env=env)
        check_code(one, "sqlmesh plan")
        values.append(one)
        say(f"check: SQLMesh plan: {one.wall_s:.1f} s wall, {one.cpu_s:.1f} s CPU, {one.rss_mib:.0f} MiB; {load()}")
    return values


if __name__ == "__main__":
    main()
