"""Scores the same rows with XGBoost, LightGBM and Millrace, and prints CPU microseconds a row as JSON lines.

    pip install xgboost==3.4.1 lightgbm==4.7.0 scipy
    python bench/forest/scoring.py

200 trees of depth 6 over 30 inputs, 3% of them missing; 10,000 distinct rows; one thread. Each number is the least of
several runs, taken in turns, so that others on the machine weigh on all alike. Exit status 1 when Millrace takes more
than 2 us a row by itself, more than half of XGBoost's batch time, or allocates; or when a score is off by more than 1e-6.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import lightgbm
import numpy as np
import xgboost

HERE = pathlib.Path(__file__).resolve().parent
ROWS, INPUTS, TREES, TURNS = 10_000, 30, 200, 5


def data(n=50_000):
    r = np.random.default_rng(1)
    x = r.normal(size=(n, INPUTS)).astype(np.float32)
    signal = x[:, 0] + x[:, 1] * x[:, 2] + np.sin(3 * x[:, 3]) + x[:, 4:20] @ r.normal(size=16) * 0.3 + r.normal(size=n)
    x[r.random(x.shape) < 0.03] = np.nan
    return x, (signal > 0).astype(int)


def least(work, runs=5, prepare=lambda: None):
    """Least CPU time of a row, in microseconds, without what comes before."""
    best = float("inf")
    for _ in range(runs):
        prepared = prepare()
        began = time.process_time()
        work(prepared)
        best = min(best, time.process_time() - began)
    return best * 1e6 / ROWS


def millrace(binary, folder, model):
    printed = subprocess.run([binary, "-model", folder / model, "-rows", folder / "rows.f64", "-scores", folder / "scores.f64", "-runs", "10"],
                             check=True, stdout=subprocess.PIPE).stdout
    return json.loads(printed), np.fromfile(folder / "scores.f64")


def main():
    x, y = data()
    rows = x[:ROWS]
    trees = xgboost.train({"objective": "binary:logistic", "max_depth": 6, "eta": 0.1, "tree_method": "hist", "nthread": 2}, xgboost.DMatrix(x, y), TREES)
    light = lightgbm.train({"objective": "binary", "num_leaves": 63, "max_depth": 6, "learning_rate": 0.1, "verbose": -1, "num_threads": 2},
                           lightgbm.Dataset(x, y), TREES)
    trees.set_param({"nthread": 1})

    def matrix():  # XGBoost keeps what it has once predicted for one
        return xgboost.DMatrix(rows, nthread=1)

    wanted = {"xgboost.ubj": trees.predict(matrix()), "lightgbm.txt": light.predict(rows, num_threads=1)}
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        binary = folder / "scoring"
        subprocess.run(["go", "build", "-o", binary, "./bench/forest/scoring"], cwd=HERE.parent.parent, check=True)
        trees.save_model(folder / "xgboost.ubj")
        light.save_model(folder / "lightgbm.txt")
        rows.astype("<f8").tofile(folder / "rows.f64")
        theirs, ours = {}, {}

        def keep(into, name, value):
            into[name] = min(value, into.get(name, float("inf")))

        for _ in range(TURNS):
            keep(theirs, "xgboost predict", least(trees.predict, prepare=matrix))
            keep(theirs, "xgboost inplace_predict", least(lambda _: trees.inplace_predict(rows)))
            keep(theirs, "lightgbm predict", least(lambda _: light.predict(rows, num_threads=1), 2))
            for model, want in wanted.items():
                numbers, scores = millrace(binary, folder, model)
                assert np.abs(scores - want).max() < 1e-6, model
                for name, value in numbers.items():
                    keep(ours, f"{model} {name}", value)
    best = min(theirs["xgboost predict"], theirs["xgboost inplace_predict"])
    worst = max(v for k, v in ours.items() if k.endswith(" one"))
    allocates = max(v for k, v in ours.items() if k.endswith(" allocations"))
    ratio = ours["xgboost.ubj batch"] / best
    ok = worst <= 2 and ratio <= 0.5 and allocates == 0
    for name, value in theirs.items():
        print(json.dumps({"scorer": name, "cpu_us_per_row": round(value, 2)}))
    for name, value in ours.items():
        if not name.endswith(" allocations"):
            print(json.dumps({"scorer": "millrace " + name, "cpu_us_per_row": round(value, 2)}))
    print(json.dumps({"what": "comparison", "xgboost": xgboost.__version__, "lightgbm": lightgbm.__version__, "batch_ratio": round(ratio, 2),
                      "one_row_us": round(worst, 2), "allocations_per_row": allocates, "load": round(os.getloadavg()[0], 1), "ok": ok}))
    sys.exit(0 if ok else 1)


if __name__ == "__main__":
    main()
