#!/usr/bin/env python3
"""Writes drift.json: what scipy and numpy say about the drift statistics.

Usage: drift_goldens.py > crates/hydromesh-core/tests-data/drift.json
Needs `pip install scipy`. The seed is fixed; the committed file was made with scipy 1.17.
"""
import json
import warnings

import numpy as np
from scipy import special, stats

warnings.simplefilter("ignore")
RNG = np.random.default_rng(20260803)


def ks_cases():
    cases = []
    shapes = [(1, 1), (2, 3), (5, 5), (7, 30), (40, 25), (100, 60), (200, 200), (300, 150)]
    for n, m in shapes:
        for shift in (0.0, 0.4, 1.5):
            a = np.round(RNG.normal(size=n), 4)
            b = np.round(RNG.normal(loc=shift, size=m), 4)
            exact = stats.ks_2samp(a, b, method="exact")
            limit = stats.kstwobign.sf(np.sqrt(n * m / (n + m)) * exact.statistic)
            cases.append({"a": a.tolist(), "b": b.tolist(), "statistic": float(exact.statistic),
                          "exact": float(exact.pvalue), "limit": float(limit)})
    a, b = RNG.integers(0, 4, 50).astype(float), RNG.integers(0, 5, 40).astype(float)
    exact = stats.ks_2samp(a, b, method="exact")
    cases.append({"a": a.tolist(), "b": b.tolist(), "statistic": float(exact.statistic),
                  "exact": float(exact.pvalue),
                  "limit": float(stats.kstwobign.sf(np.sqrt(50 * 40 / 90) * exact.statistic))})
    return cases


def psi_cases():
    cases = []
    for n, m, shift, scale in [(50, 50, 0, 1), (500, 100, 0, 1), (500, 100, 0.5, 1), (300, 300, 0, 2)]:
        for transform in (lambda x: x, np.floor, np.maximum):
            reference, current = RNG.normal(size=n), RNG.normal(shift, scale, size=m)
            if transform is np.maximum:
                reference, current = np.maximum(reference, 0), np.maximum(current, 0)
            else:
                reference, current = transform(reference), transform(current)
            reference, current = np.round(reference, 4), np.round(current, 4)
            edges = np.unique(np.quantile(reference, np.arange(1, 10) / 10))
            bins = len(edges) + 1
            # Right-closed bins: (-inf, e1], (e1, e2], ..., (e_last, inf).
            counts = [np.bincount(np.searchsorted(edges, x, side="left"), minlength=bins) for x in (reference, current)]
            p, q = [(c + 0.5) / (c.sum() + 0.5 * bins) for c in counts]
            psi = float(np.sum((q - p) * np.log(q / p)))
            weight = 1 / n + 1 / m
            cases.append({"reference": reference.tolist(), "current": current.tolist(), "edges": edges.tolist(),
                          "psi": psi, "p": float(stats.chi2.sf(psi / weight, bins - 1))})
    return cases


def chi_cases():
    cases = []
    for weights in ([0.5, 0.3, 0.2], [0.4, 0.3, 0.2, 0.08, 0.02], [0.9, 0.1]):
        for n, m, tilt in [(200, 100, 0.0), (1000, 400, 0.1), (5000, 5000, 0.02)]:
            reference = RNG.multinomial(n, weights)
            moved = np.array(weights) * (1 + tilt * np.arange(len(weights)))
            current = RNG.multinomial(m, moved / moved.sum())
            table = np.array([reference, current])
            expected = stats.contingency.expected_freq(table)
            rare = (expected < 5).any(axis=0)
            if rare.any():
                table = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
            result = stats.chi2_contingency(table, correction=False)
            distance = 0.5 * np.abs(table[0] / n - table[1] / m).sum()
            names = [chr(ord("a") + i) for i in range(len(weights))]
            cases.append({"reference": dict(zip(names, map(int, reference))),
                          "current": dict(zip(names, map(int, current))),
                          "statistic": float(result.statistic), "p": float(result.pvalue),
                          "distance": float(distance)})
    return cases


def null_cases():
    cases = []
    for a, n, b, m in [(0, 100, 5, 80), (3, 500, 9, 60), (40, 1000, 90, 900), (0, 50, 0, 70), (10, 10, 3, 9),
                       (200, 2000, 199, 2000), (1, 10000, 30, 300)]:
        table = np.array([[a, n - a], [b, m - b]])
        row = {"a": a, "n": n, "b": b, "m": m, "fisher": float(stats.fisher_exact(table).pvalue)}
        if (table.sum(axis=0) > 0).all():
            row["chi"] = float(stats.chi2_contingency(table, correction=False).pvalue)
            row["least_expected"] = float(stats.contingency.expected_freq(table).min())
        cases.append(row)
    return cases


def special_cases():
    return {
        "gamma_q": [[a, x, float(special.gammaincc(a, x))]
                    for a in (0.5, 1, 4.5, 10, 50, 500) for x in (1e-3, 0.1, 1, 4, 9.5, 30, 60, 480, 600)],
        "ln_gamma": [[x, float(special.gammaln(x))] for x in (0.1, 0.5, 1, 1.5, 2, 3.7, 10, 100.5, 1e4, 1e6)],
        "kolmogorov": [[x, float(special.kolmogorov(x))] for x in (0.0, 0.1, 0.3, 0.5, 0.9, 1.0, 1.2, 1.36, 2, 3, 5)],
    }


def multiple_cases():
    cases = []
    for size in (1, 2, 5, 20):
        p = np.round(RNG.uniform(size=size) ** 3, 6)
        p[0] = min(p[0], 0.001)
        cases.append({"p": p.tolist(), "adjusted": stats.false_discovery_control(p).tolist()})
    cases.append({"p": [0.01, 0.04, 0.03, 0.005, 0.04],
                  "adjusted": stats.false_discovery_control([0.01, 0.04, 0.03, 0.005, 0.04]).tolist()})
    return cases


def main():
    print(json.dumps({"ks": ks_cases(), "psi": psi_cases(), "chi": chi_cases(), "nulls": null_cases(),
                      "special": special_cases(), "multiple": multiple_cases()}, separators=(",", ":")))


main()
