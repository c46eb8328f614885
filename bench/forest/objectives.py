#!/usr/bin/env python3
"""Compares the built-in forest with LightGBM on objectives other than a yes or no, and with weights of rows, at like settings: the error on
held-out rows, CPU seconds of training.

    pip install lightgbm==4.6.0 numpy scikit-learn
    python bench/forest/objectives.py

The data sets come with scikit-learn, or are drawn by it. Small ones are cross-validated, with several seeds. The two take turns, and of the
rounds the one with the least CPU counts for each. A JSON line is printed for each set; the status is 1 when a bound is missed: an error at most
0.2% above LightGBM's, or an area under the curve at most 0.002 below, at most 1.5 times its CPU, and scores within 1e-9 of what LightGBM makes
of the same model file.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # else LightGBM's threads burn CPU while they wait for each other

import lightgbm
import numpy as np
from sklearn.datasets import load_diabetes, load_digits, load_wine, make_classification, make_friedman1
from sklearn.metrics import accuracy_score, log_loss, mean_absolute_error, mean_poisson_deviance, mean_squared_error, roc_auc_score
from sklearn.model_selection import KFold

HERE = pathlib.Path(__file__).resolve().parent
SHARE, AUC_BOUND, CPU_BOUND = 0.002, 0.002, 1.5


def folds(x, repeats):
    return [s for seed in range(repeats) for s in KFold(5, shuffle=True, random_state=seed).split(x)]


def sets():
    """Name, objective, inputs, labels, weights or None, splits, trees."""
    random = np.random.default_rng(1)
    x, y = load_diabetes(return_X_y=True)
    yield "diabetes", "regression", x, y, None, folds(x, 10), 30
    x, y = make_friedman1(120_000, 12, noise=1.0, random_state=1)
    x[random.random(x.shape) < 0.05] = np.nan
    yield "friedman", "regression", x, y, None, [(np.arange(80_000), np.arange(80_000, 120_000))], 200
    x, y = make_friedman1(120_000, 12, random_state=2)
    yield "friedman_counts", "poisson", x, random.poisson(np.exp(y / 10)).astype(float), None, [(np.arange(80_000), np.arange(80_000, 120_000))], 200
    x, y = load_wine(return_X_y=True)
    yield "wine", "multiclass", x, y.astype(float), None, folds(x, 10), 20
    x, y = load_digits(return_X_y=True)
    yield "digits", "multiclass", x, y.astype(float), None, folds(x, 2), 60
    x, y = make_classification(90_000, 30, n_informative=12, n_classes=5, n_clusters_per_class=2, flip_y=0.05, class_sep=0.7, random_state=3)
    yield "classification_5", "multiclass", x, y.astype(float), None, [(np.arange(60_000), np.arange(60_000, 90_000))], 60
    x, y = make_classification(150_000, 40, n_informative=15, n_redundant=10, flip_y=0.05, class_sep=0.5, weights=[0.9], random_state=1)
    yield "weighted", "binary", x, y.astype(float), random.exponential(1, len(y)) * np.where(y == 1, 5, 1), [(np.arange(100_000), np.arange(100_000, 150_000))], 200
    x, y = make_friedman1(75_000, 12, noise=2.0, random_state=4)
    yield "friedman_weighted", "regression", x, y, random.exponential(1, len(y)), folds(x, 1), 200


def measure(objective, y, scores, w):
    """The error, or the area under the curve with a minus, that the bound is of; and what else is told."""
    if objective == "regression":
        return {"rmse": mean_squared_error(y, scores, sample_weight=w) ** 0.5, "mae": mean_absolute_error(y, scores, sample_weight=w)}
    if objective == "poisson":
        return {"poisson_deviance": mean_poisson_deviance(y, scores, sample_weight=w), "rmse": mean_squared_error(y, scores, sample_weight=w) ** 0.5}
    if objective == "multiclass":
        classes = range(scores.shape[1])
        macro = np.mean([roc_auc_score(y == c, scores[:, c], sample_weight=w) for c in classes])
        return {"macro_auc": macro, "log_loss": log_loss(y, scores, labels=classes, sample_weight=w), "accuracy": accuracy_score(y, scores.argmax(1), sample_weight=w)}
    return {"auc": roc_auc_score(y, scores, sample_weight=w), "log_loss": log_loss(y, scores, sample_weight=w)}


def theirs(objective, x, y, w, train, held, trees):
    params = {"objective": objective, "num_leaves": 31, "learning_rate": 0.1, "verbose": -1, "num_threads": 1, "seed": 1}
    if objective == "multiclass":
        params["num_class"] = int(y.max()) + 1
    rows, labels, weights = np.ascontiguousarray(x[train]), y[train], None if w is None else w[train]
    cpu = time.process_time()
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels, weight=weights), trees)
    return time.process_time() - cpu, booster.predict(x[held])


def ours(binary, objective, x, y, w, train, held, trees):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        classes = [f"c{i}" for i in range(int(y.max()) + 1)] if objective == "multiclass" else None
        (folder / "meta.json").write_text(json.dumps({"Names": [f"x{i}" for i in range(x.shape[1])], "Objective": objective, "Classes": classes,
                                                      "Weighted": w is not None, "Train": len(train), "Test": len(held)}))
        columns = np.column_stack([x, y] if w is None else [x, y, w])
        for name, rows in [("train", train), ("test", held)]:
            np.asfortranarray(columns[rows]).T.tofile(folder / f"{name}.f64")
        out = subprocess.run([binary, "-dir", folder, "-trees", str(trees), "-leaves", "31"], check=True, stdout=subprocess.PIPE, text=True,
                             env=os.environ | {"GOMAXPROCS": "1"}).stdout
        scores = np.fromfile(folder / "ours.f64")[len(held):].reshape(len(held), -1)
        if objective != "multiclass":
            scores = scores[:, 0]
        difference = np.abs(lightgbm.Booster(model_file=folder / "ours.txt").predict(x[held]) - scores).max()
        return json.loads(out)["train_cpu_seconds"], scores, float(difference)


def run(binary, name, objective, x, y, w, splits, trees, rounds):
    cpus, measured, difference = np.zeros((2, rounds)), [[], []], 0.0
    for turn in range(rounds):
        measured = [[], []]
        for train, held in splits:
            held_weights = None if w is None else w[held]
            for who, (cpu, scores, *off) in enumerate([theirs(objective, x, y, w, train, held, trees), ours(binary, objective, x, y, w, train, held, trees)]):
                cpus[who, turn] += cpu
                measured[who].append(measure(objective, y[held], scores, held_weights))
                difference = max([difference, *off])
    a, b = ({m: float(np.mean([split[m] for split in all])) for m in all[0]} for all in measured)
    lead = next(iter(a))
    close = b[lead] >= a[lead] - AUC_BOUND if lead.endswith("auc") else b[lead] <= a[lead] * (1 + SHARE)
    c, d = cpus.min(axis=1)
    ok = close and d <= CPU_BOUND * c and difference <= 1e-9 * max(1, np.abs(y).max())
    print(json.dumps({"set": name, "objective": objective, "weighted": w is not None, "train_rows": len(splits[0][0]), "columns": x.shape[1], "fits": len(splits), "trees": trees,
                      "lightgbm": {m: round(v, 5) for m, v in a.items()}, "millrace": {m: round(v, 5) for m, v in b.items()}, "cpu_seconds_lightgbm": round(c, 3),
                      "cpu_seconds_millrace": round(d, 3), "cpu_ratio": round(d / c, 2), "max_score_difference_in_lightgbm": difference, "ok": bool(ok)}), flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of sets, with commas between")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        binary = pathlib.Path(folder) / "forest"
        subprocess.run(["go", "build", "-o", binary, "."], cwd=HERE, check=True)
        only = args.only.split(",") if args.only else None
        results = [run(binary, *s, args.rounds) for s in sets() if not only or s[0] in only]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
