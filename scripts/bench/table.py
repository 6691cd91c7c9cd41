#!/usr/bin/env python3
"""Prints the closing table from the rows that the figures wrote.

    scripts/bench/table.py ROWS_FILE
"""

import json
import sys
from pathlib import Path
from statistics import median


def number(value):
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def span(values, unit):
    return f"{number(median(values))} {unit} ({number(min(values))}-{number(max(values))})"


def main():
    rows = [json.loads(line) for line in Path(sys.argv[1]).read_text().splitlines()]
    heads = ["figure", "promised", "measured: median (min-max)", "kept", "peer: median (min-max)", "peer / ours"]
    lines = [heads]
    for it in rows:
        if not it["values"]:
            continue
        middle, theirs = median(it["values"]), it["peer_values"]
        kept = "" if it["limit"] is None else "yes" if middle < it["limit"] else "NO"
        lines.append(
            [
                it["figure"] + (f" [{it['note']}]" if it["note"] else ""), it["promised"] or "-", span(it["values"], it["unit"]), kept or "-",
                f"{it['peer']}: {span(theirs, it['unit'])}" if theirs else "-", f"{median(theirs) / middle:.1f}x" if theirs and middle else "-",
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    for index, line in enumerate(lines):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |")
        if index == 0:
            print("| " + " | ".join("-" * width for width in widths) + " |")


if __name__ == "__main__":
    main()
