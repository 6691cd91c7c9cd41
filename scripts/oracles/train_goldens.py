"""What scipy and scikit-learn say about scores and about one fitted model; writes src/train/goldens.json.

Needs: pip install numpy scipy scikit-learn
"""

import json
import pathlib

import numpy as np
from scipy.stats import mannwhitneyu
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score
from sklearn.preprocessing import StandardScaler

random = np.random.default_rng(20_261_101)


def scored(rows, decimals):
    labels = random.random(rows) < 0.35
    labels[0], labels[1] = True, False
    scores = np.round(np.clip(0.5 + 0.2 * random.standard_normal(rows) + 0.15 * labels, 0, 1), decimals)
    u = mannwhitneyu(scores[labels], scores[~labels]).statistic
    auc = u / (labels.sum() * (~labels).sum())
    assert abs(auc - roc_auc_score(labels, scores)) < 1e-12
    return {
        "scores": scores.tolist(),
        "labels": labels.tolist(),
        "auc": auc,
        "log_loss": log_loss(labels, np.clip(scores, 1e-15, 1 - 1e-15)),
        "brier": brier_score_loss(labels, scores),
        "positive_rate": labels.mean(),
    }


def fitted(rows):
    features = np.column_stack(
        [random.poisson(7, rows), random.gamma(2, 20, rows), random.standard_normal(rows)]
    ).astype(float)
    odds = 1.1 - 0.3 * features[:, 0] + 0.02 * features[:, 1]
    labels = random.random(rows) < 1 / (1 + np.exp(-odds))
    cut = rows * 3 // 4
    scaler = StandardScaler().fit(features[:cut])
    model = LogisticRegression(C=1.0, tol=1e-12, max_iter=10_000)
    model.fit(scaler.transform(features[:cut]), labels[:cut])
    scores = model.predict_proba(scaler.transform(features[cut:]))[:, 1]
    return {
        "features": features.tolist(),
        "labels": labels.tolist(),
        "means": scaler.mean_.tolist(),
        "scales": scaler.scale_.tolist(),
        "weights": model.coef_[0].tolist(),
        "intercept": model.intercept_[0],
        "auc": roc_auc_score(labels[cut:], scores),
    }


goldens = {
    "scored": [scored(rows, decimals) for rows, decimals in [(12, 1), (50, 1), (200, 2), (300, 6)]],
    "fitted": fitted(400),
}
path = pathlib.Path(__file__).parents[2] / "src/train/goldens.json"
path.write_text(json.dumps(goldens) + "\n")
