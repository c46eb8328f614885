#!/usr/bin/env python3
"""Compares the built-in forest with LightGBM on several data sets, at like settings: AUC on held-out rows, CPU seconds of training.

    pip install lightgbm==4.6.0 numpy pandas pyarrow scikit-learn
    python bench/forest/suite.py [flights-3m.parquet]

Flights are those of compare.py, once with the windows and once with airports and hours as categories; the other sets come with
scikit-learn. Small sets are cross-validated, since one split of them says little. The two take turns, and of the rounds the one
with the least CPU counts for each. A JSON line is printed for each set; the status is 1 when a bound is missed.
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
import pandas as pd
from sklearn.datasets import load_breast_cancer, load_digits, make_classification, make_hastie_10_2
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

import compare

AUC_BOUND, CPU_BOUND = 0.002, 1.5


def flights_sets(path):
    f = compare.flights(path)
    labels = (f["delay"] > compare.LATE).to_numpy(float)
    held = (f["date"] >= pd.Timestamp("2001-01-25")).to_numpy()
    split = [(np.flatnonzero(~held), np.flatnonzero(held))]
    windows = compare.feature_rows(f)
    yield "flights", np.column_stack(list(windows.values())), labels, [], split, 200
    codes = {c: pd.Categorical(f[c]).codes.astype(float) for c in ("origin", "destination")}
    plain = codes | {n: windows[n] for n in ("hour", "weekday", "distance")}
    yield "flights_categories", np.column_stack(list(plain.values())), labels, [0, 1, 2, 3], split, 100


def folds(x, y, n=5, repeats=1):
    return [s for seed in range(repeats) for s in StratifiedKFold(n, shuffle=True, random_state=seed).split(x, y)]


def other_sets():
    x, y = load_breast_cancer(return_X_y=True)
    yield "breast_cancer", x, y.astype(float), [], folds(x, y, repeats=5), 100
    x, y = load_digits(return_X_y=True)
    y = (y % 2).astype(float)
    yield "digits_odd", x, y, [], folds(x, y), 100
    x, y = make_hastie_10_2(120_000, random_state=1)
    yield "hastie_10_2", x, (y > 0).astype(float), [], [(np.arange(80_000), np.arange(80_000, 120_000))], 200
    x, y = make_classification(150_000, 40, n_informative=15, n_redundant=10, flip_y=0.05, class_sep=0.5, weights=[0.9], random_state=1)
    x[np.random.default_rng(1).random(x.shape) < 0.05] = np.nan
    yield "classification_40", x, y.astype(float), [], [(np.arange(100_000), np.arange(100_000, 150_000))], 200


def theirs(x, y, categories, train, held, trees):
    params = {"objective": "binary", "num_leaves": 31, "learning_rate": 0.1, "verbose": -1, "num_threads": 1, "seed": 1}
    rows, labels = np.ascontiguousarray(x[train]), y[train]
    cpu = time.process_time()
    booster = lightgbm.train(params, lightgbm.Dataset(rows, labels, categorical_feature=categories), trees)
    cpu = time.process_time() - cpu
    return cpu, booster.predict(x[held])


def ours(binary, x, y, categories, train, held, trees):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        names = [f"x{i}" for i in range(x.shape[1])]
        (folder / "meta.json").write_text(json.dumps({"Names": names, "Categorical": [i in categories for i in range(len(names))],
                                                      "Train": len(train), "Test": len(held)}))
        for name, rows in [("train", train), ("test", held)]:
            np.asfortranarray(np.column_stack([x[rows], y[rows]])).T.tofile(folder / f"{name}.f64")
        out = subprocess.run([binary, "-dir", folder, "-trees", str(trees), "-leaves", "31"], check=True, stdout=subprocess.PIPE, text=True).stdout
        scores = np.fromfile(folder / "ours.f64").reshape(2, -1)[1]
        difference = np.abs(lightgbm.Booster(model_file=folder / "ours.txt").predict(x[held]) - scores).max()
        return json.loads(out)["train_cpu_seconds"], scores, float(difference)


def run(binary, name, x, y, categories, splits, trees, rounds):
    cpus, aucs, difference = np.zeros((2, rounds)), np.zeros((2, len(splits))), 0.0
    for turn in range(rounds):
        for i, (train, held) in enumerate(splits):
            cpu, scores = theirs(x, y, categories, train, held, trees)
            cpus[0, turn] += cpu
            aucs[0, i] = roc_auc_score(y[held], scores)
            cpu, scores, off = ours(binary, x, y, categories, train, held, trees)
            cpus[1, turn] += cpu
            aucs[1, i] = roc_auc_score(y[held], scores)
            difference = max(difference, off)
    (a, b), (c, d) = aucs.mean(axis=1), cpus.min(axis=1)
    ok = b >= a - AUC_BOUND and d <= CPU_BOUND * c and difference <= 1e-9
    print(json.dumps({"set": name, "train_rows": len(splits[0][0]), "columns": x.shape[1], "categorical": len(categories), "fits": len(splits),
                      "trees": trees, "auc_lightgbm": round(a, 5), "auc_millrace": round(b, 5), "auc_difference": round(b - a, 5),
                      "cpu_seconds_lightgbm": round(c, 3), "cpu_seconds_millrace": round(d, 3), "cpu_ratio": round(d / c, 2),
                      "max_score_difference_in_lightgbm": difference, "ok": bool(ok)}), flush=True)
    return ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flights", nargs="?", type=pathlib.Path, help="flights-3m.parquet; fetched when not given")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="names of sets, with commas between")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        binary = folder / "forest"
        subprocess.run(["go", "build", "-o", binary, "."], cwd=compare.HERE, check=True)
        sets = list(other_sets())
        only = args.only.split(",") if args.only else None
        if not only or any(o.startswith("flights") for o in only):
            sets = list(flights_sets(args.flights or compare.fetch(folder))) + sets
        results = [run(binary, *s, args.rounds) for s in sets if not only or s[0] in only]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
