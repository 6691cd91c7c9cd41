#!/usr/bin/env python3
"""Reads every published table of a state folder with software that is not ours, and compares.

    scripts/oracles/compare_tables.py BINARY STATE_FOLDER

For each port: the rows that the ledger speaks of (`hydromesh show`), those that our own reader finds (`hydromesh query`),
and those that deltalake (or DuckDB, where its extension is installed) and pyiceberg find; and per partition and per column, what is not null.
Prints a line per table and `N passed, M failed`. Needs: pip install deltalake "pyiceberg[pyarrow]"
"""

import json
import pathlib
import subprocess
import sys

import read_tables


def ask(binary, state, *words):
    ran = subprocess.run([binary, *words, "--state", state, "--format", "json"], stdout=subprocess.PIPE, check=True)
    return json.loads(ran.stdout)


def compare(binary, state, lake, port):
    """Yields what does not agree about a port; first, what was read."""
    name = port["port"]
    found = read_tables.describe(lake / name, None)
    yield f"{name}: {found['format']}, {found['reader']} finds {found['rows']} rows in {len(found['partitions'])} partitions"
    wrong_format = port["format"] != found["format"]
    if wrong_format:
        yield f"the ledger says {port['format']}"
    if port["rows"] is not None and port["rows"] != found["rows"]:
        yield f"the ledger speaks of {port['rows']} rows"
    columns = sorted(found["non_null"])
    counts = ", ".join(f'COUNT("{column}") AS "{column}"' for column in columns)
    ours = ask(binary, state, "query", f'SELECT COUNT(*) AS "#", {counts} FROM "{name}"')[0]
    if ours.pop("#") != found["rows"]:
        yield f"our reader finds {ours} rows"
    for column in columns:
        if ours[column] != found["non_null"][column]:
            yield f"{column}: our reader finds {ours[column]} values, {found['reader']} {found['non_null'][column]}"
    if found["partitions"] and port["partitions"] != len(found["partitions"]):
        yield f"the ledger speaks of {port['partitions']} partitions"


def main():
    binary, state = (pathlib.Path(word).resolve() for word in sys.argv[1:])
    passed = failed = 0
    for product in ask(binary, state, "list")["products"]:
        for port in ask(binary, state, "show", product["product"])["ports"]:
            if port["table_version"] is None:
                continue
            told, *wrong = compare(binary, state, state / "lake", port)
            print(told, *wrong, sep="\n  ")
            passed, failed = passed + (not wrong), failed + bool(wrong)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    read_tables.leave(main())
