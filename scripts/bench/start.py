#!/usr/bin/env python3
"""Start: how long `hydromesh --help` takes. What an editor, a hook or a shell completion waits for each time.

    scripts/bench/start.py --binary PATH [--rounds 40] [--dbt PATH]
"""

import argparse

from common import check_code, clean_env, load, row, say, show, weigh


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--dbt", help="dbt to measure beside it")
    args = parser.parse_args()
    env = clean_env(DO_NOT_TRACK="1")
    say(f"start: {load()}")
    ours, theirs = [], []
    weigh([args.binary, "--help"], env=env)
    for _ in range(args.rounds):
        weighed = weigh([args.binary, "--help"], env=env)
        check_code(weighed, "hydromesh --help")
        ours.append(weighed.wall_s * 1000)
    if args.dbt:
        # Its own --version asks a registry for news; --help does not, and is the same question.
        weigh([args.dbt, "--help"], env=env)
        for _ in range(5):
            weighed = weigh([args.dbt, "--help"], env=env)
            check_code(weighed, "dbt --help")
            theirs.append(weighed.wall_s * 1000)
    say(f"start: {show(ours, 1)} ms; {load()}")
    row("start: hydromesh --help", ours, "ms", promised="< 50 ms", limit=50, peer="dbt --help", peer_values=theirs)


if __name__ == "__main__":
    main()
