#!/usr/bin/env python3
"""Writes exact_sums.json: sums and means of floats, rounded once from exact fractions.

Usage: exact_sum_goldens.py > crates/hydromesh-core/tests-data/exact_sums.json
Needs only the standard library. The seed is fixed, so the file is reproducible.
"""
import json
import random
import struct
from fractions import Fraction


def bits(value):
    return f"{struct.unpack('<Q', struct.pack('<d', value))[0]:016x}"


def nearest(fraction):
    # Division of two integers is correctly rounded in Python; beyond the range it raises.
    try:
        return fraction.numerator / fraction.denominator
    except OverflowError:
        return float("inf") if fraction > 0 else float("-inf")


def case(values):
    total = sum((Fraction(value) for value in values), Fraction(0))
    return {
        "values": [bits(value) for value in values],
        "sum": bits(nearest(total)),
        "mean": bits(nearest(total / len(values))),
    }


def main():
    source = random.Random(20260803)
    cases = []
    for size in (1, 2, 3, 7, 20):
        for low, high in ((-1074, 1023), (-1074, -1000), (960, 1023), (-30, 30)):
            for _ in range(8):
                values = []
                while len(values) < size:
                    value = source.uniform(-2, 2) * 2.0 ** source.randint(low, high)
                    if abs(value) < float("inf"):
                        values.append(value)
                cases.append(case(values))
    print(json.dumps(cases, separators=(",", ":")))


main()
