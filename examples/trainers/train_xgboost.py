"""A trainer for Millrace: fits XGBoost on the rows of a job. docs/training.md describes the job.

    models:
      late:
        train:
          candidates:
            - gbdt
            - {name: xgboost, command: [python3, train_xgboost.py], params: {max_depth: 4, rounds: 300}}

Needs xgboost, numpy and pyarrow. params are XGBoost's own, over the ones below; rounds is the most trees.
"""
import json
import pathlib
import sys

import numpy as np
import pyarrow.feather
import xgboost

path = pathlib.Path(sys.argv[1])
job, folder = json.loads(path.read_text()), path.parent
names = [i["name"] for i in job["inputs"]]
types = ["c" if i["categorical"] else "q" for i in job["inputs"]]


def rows(part):
    """The inputs, NaN where they are missing, with the labels, and what the rows count for where they do not count alike."""
    table = pyarrow.feather.read_table(folder / job[part]["path"], memory_map=False)
    matrix = np.column_stack([table[n].to_numpy() for n in names])
    weights = table[job["weight"]].to_numpy() if "weight" in job else None
    return xgboost.DMatrix(matrix, table[job["label"]].to_numpy(), weight=weights, feature_names=names, feature_types=types, enable_categorical=True)


train, valid = rows("train"), rows("valid")
objective, metric = {
    "binary": ("binary:logistic", "logloss"),
    "regression": ("reg:squarederror", "rmse"),
    "poisson": ("count:poisson", "poisson-nloglik"),
    "multiclass": ("multi:softprob", "mlogloss"),
}[job["objective"]]
params = {
    "objective": objective,
    "eval_metric": metric,
    "tree_method": "hist",
    "learning_rate": 0.05,
    "monotone_constraints": tuple(i["monotone"] for i in job["inputs"]),
    "seed": job["seed"],
} | ({"num_class": len(job["classes"])} if "classes" in job else {}) | job["params"]
rounds = params.pop("rounds", 1000)
booster = xgboost.train(params, train, rounds, evals=[(valid, "valid")], early_stopping_rounds=50, verbose_eval=False)
best = booster[: booster.best_iteration + 1]

out = folder / job["out"]
best.save_model(out / "model.ubj")
# Not needed, but Millrace then checks that it scores these rows alike.
scores = best.predict(valid)
scores = scores.max(axis=1) if "classes" in job else scores  # of several classes, the highest
(out / "valid_scores.json").write_text(json.dumps(scores.tolist()))
print(f"{train.num_row()} rows, {booster.best_iteration + 1} trees, {metric} {booster.best_score:.5f}")
