"""Writes golden.json: the statistics of this package by numpy, scipy and scikit-learn. Run: python golden.py > golden.json"""
import json
import numpy as np
from scipy.spatial.distance import jensenshannon
from scipy.stats import chi2, entropy, f
from sklearn.metrics import roc_auc_score

rng = np.random.default_rng(20010101)
out = {"distances": [], "performance": [], "quantiles": []}
for groups in (2, 4, 10, 10, 16):
    p, q = rng.dirichlet(np.full(groups, 2.0)), rng.dirichlet(np.full(groups, 2.0))
    out["distances"].append({"baseline": p.tolist(), "live": q.tolist(),
                             "psi": float(entropy(p, q) + entropy(q, p)), "jensen_shannon": float(jensenshannon(p, q, base=2))})
p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.0, 0.75])
out["distances"].append({"baseline": p.tolist(), "live": q.tolist(), "psi": None, "jensen_shannon": float(jensenshannon(p, q, base=2))})
for rows, decimals in ((37, 6), (500, 6), (503, 1)):
    scores = np.round(rng.beta(2, 5, rows), decimals)
    labels = (rng.random(rows) < scores ** 0.8).astype(float)
    order = np.argsort(scores, kind="stable")
    ece = sum(len(b) / rows * abs(scores[b].mean() - labels[b].mean()) for b in np.array_split(order, 10))
    out["performance"].append({"scores": scores.tolist(), "labels": labels.tolist(),
                               "auc": float(roc_auc_score(labels, scores)), "calibration_error": float(ece)})
for d1, d2, alpha in ((9, 171, 0.05 / 21), (1, 9.5, 0.01), (2.5, 30, 0.001)):
    out["quantiles"].append({"d1": d1, "d2": d2, "alpha": alpha, "f": float(f.ppf(1 - alpha, d1, d2)), "chi2": float(chi2.ppf(1 - alpha, d1))})
print(json.dumps(out, indent=1))
