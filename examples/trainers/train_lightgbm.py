"""A trainer for Millrace: fits LightGBM on the rows of a job. docs/training.md describes the job.

    models:
      late:
        train:
          candidates:
            - gbdt
            - {name: lightgbm, command: [python3, train_lightgbm.py], params: {num_leaves: 63}}

Needs lightgbm, numpy and pyarrow. params are LightGBM's own, over the ones below.
"""
import json
import pathlib
import sys

import lightgbm
import numpy as np
import pyarrow.feather

path = pathlib.Path(sys.argv[1])
job, folder = json.loads(path.read_text()), path.parent
names = [i["name"] for i in job["inputs"]]


def rows(part):
    """The inputs, NaN where they are missing, the labels, and what the rows count for: None where all count alike."""
    table = pyarrow.feather.read_table(folder / job[part]["path"], memory_map=False)
    weights = table[job["weight"]].to_numpy() if "weight" in job else None
    return np.column_stack([table[n].to_numpy() for n in names]), table[job["label"]].to_numpy(), weights


train, train_labels, train_weights = rows("train")
valid, valid_labels, valid_weights = rows("valid")
categories = [i["name"] for i in job["inputs"] if i["categorical"]]
data = lightgbm.Dataset(train, train_labels, weight=train_weights, feature_name=names, categorical_feature=categories)
params = {
    "objective": job["objective"],
    "num_iterations": 1000,
    "early_stopping_round": 50,
    "learning_rate": 0.05,
    "monotone_constraints": [i["monotone"] for i in job["inputs"]],
    "seed": job["seed"],
    "deterministic": True,  # the same rows give the same model
    "force_row_wise": True,
    "verbose": -1,
} | ({"num_class": len(job["classes"])} if "classes" in job else {}) | job["params"]
booster = lightgbm.train(params, data, valid_sets=[data.create_valid(valid, valid_labels, weight=valid_weights)])

out = folder / job["out"]
booster.save_model(out / "model.txt", num_iteration=booster.best_iteration)
# Not needed, but Millrace then checks that it scores these rows alike.
scores = booster.predict(valid, num_iteration=booster.best_iteration)
scores = scores.max(axis=1) if "classes" in job else scores  # of several classes, the highest
(out / "valid_scores.json").write_text(json.dumps(scores.tolist()))
print(f"{len(train)} rows, {booster.best_iteration} trees, scores {booster.best_score}")
