#!/usr/bin/env python3
"""Writes band.json: what scipy and numpy say about the range of usual numbers.

Usage: band_goldens.py > crates/hydromesh-core/tests-data/band.json
Needs `pip install scipy`. The seed is fixed; the committed file was made with scipy 1.17.
"""
import json

import numpy as np
from scipy import stats

RNG = np.random.default_rng(20261130)
LEAST_ALIKE, LEAST_IN_ALL = 4, 12


def band(earlier, season, rows, width, slack):
    """Rows are compared as ln(1 + x), shares of `rows` rows as they are."""
    seasons = sorted({s for s, _ in earlier})
    scaled = np.array([np.log1p(x) if rows is None else x for _, x in earlier], dtype=float)
    of = np.array([s for s, _ in earlier], dtype=int)
    alike = int((of == season).sum())
    centers = {s: np.median(scaled[of == s]) for s in seasons if (of == s).sum() >= LEAST_ALIKE}
    pooled = np.concatenate([np.empty(0)] + [
        (scaled[of == s] - center) * np.sqrt((of == s).sum() / ((of == s).sum() - 1)) for s, center in centers.items()
    ])
    if alike < LEAST_ALIKE and len(seasons) > 1:
        return alike, LEAST_ALIKE, None
    if len(pooled) < LEAST_IN_ALL or alike < LEAST_ALIKE:
        return max(len(pooled), alike), LEAST_IN_ALL, None
    if rows == 0:
        return alike, LEAST_ALIKE, None
    middle = centers[season]
    # Deviations from the known center 0: each season's own median is taken off already.
    spread = stats.median_abs_deviation(pooled, center=lambda x, axis: np.zeros(()), scale="normal")
    half = width * spread * np.sqrt(1 + np.pi / 2 / alike)
    if rows is None:
        half = max(half, width / np.sqrt(1 + np.expm1(middle)), np.log1p(slack / 100))
        low, high = np.expm1(middle - half), np.expm1(middle + half)
        return alike, LEAST_ALIKE, [float(np.ceil(max(low, 0))), float(np.expm1(middle)), float(np.floor(high))]
    p = (middle * rows + 2) / (rows + 4)
    half = max(half, width * stats.binom.std(rows, p) / rows, slack / 100)
    return alike, LEAST_ALIKE, [float(max(middle - half, 0)), float(middle), float(min(middle + half, 1))]


def case(name, earlier, season, rows=None, width=5.0, slack=25.0):
    earlier = [(int(s), float(x)) for s, x in earlier]
    alike, needed, usual = band(earlier, season, rows, width, slack)
    return {"name": name, "rule": {"width": width, "slack": slack}, "earlier": earlier, "season": season, "rows": rows,
            "alike": alike, "needed": needed, "usual": usual}


def cases():
    found = [case("nothing", [], 0), case("nothing, shares", [], 0, rows=10)]
    for n in (3, 11, 12, 13, 30):
        found.append(case(f"{n} alike", [(0, x) for x in RNG.poisson(800, n)], 0))
    for weeks in (3, 4, 5, 12):
        for spread in (0.0, 0.1, 0.6):
            level = np.array([1, 1, 1, 1, 1.2, 0.1, 0.08]) * 5000
            days = [(d % 7, round(level[d % 7] * np.exp(spread * RNG.normal()))) for d in range(7 * weeks)]
            for season in (0, 5):
                found.append(case(f"{weeks} weeks of spread {spread}, day {season}", days, season))
    few = [(n % 7, x) for n, x in enumerate(RNG.poisson(2.5, 56))]
    found.append(case("a handful of rows", few, 2))
    found.append(case("a handful of rows, narrow", few, 2, width=1.0, slack=0.0))
    wild = [(n % 7, 1000 if n % 9 else 10**6) for n in range(70)]
    found.append(case("wild numbers", wild, 3))
    for share, rows in ((0.0, 1000), (0.0, 10), (0.02, 40), (0.3, 5000), (0.99, 200), (1.0, 7), (0.1, 0)):
        nulls = [(n % 7, RNG.binomial(500, share) / 500) for n in range(56)]
        found.append(case(f"share {share} of {rows}", nulls, 1, rows=rows, slack=5.0))
        found.append(case(f"share {share} of {rows}, narrow", nulls, 1, rows=rows, width=3.0, slack=0.5))
    found.append(case("another season", [(n % 2, 100 + n) for n in range(40)], 7))
    return found


if __name__ == "__main__":
    print("[" + ",\n".join(json.dumps(it) for it in cases()) + "]")
