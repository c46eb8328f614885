"""Trains a LightGBM and an XGBoost model on a data frame with categories of texts, and writes what they say of some rows of it.

    pip install xgboost==3.4.0 lightgbm==4.6.0 pandas
    python registry/model/zoo/names.py registry/model/testdata/names

OUT/<library>.csv has the rows, with texts, and the scores in the column score. TestCategoryNames in package model reads them.
"""

import pathlib
import sys

import lightgbm
import numpy as np
import pandas as pd
import xgboost

out = pathlib.Path(sys.argv[1])
r = np.random.default_rng(1)
n = 600
frame = pd.DataFrame({
    "carrier": pd.Categorical(r.choice(["UA", "AA", "Ünder", "B6"], n)),
    "distance": np.round(r.random(n) * 100, 3),
    "haul": pd.Categorical(r.choice(["long", "short"], n), categories=["short", "long"]),
})
late = ((frame.carrier == "AA") * 1.5 + (frame.haul == "short") + frame.distance / 50 + r.normal(size=n) / 3 > 1.8).astype(int)
frame.loc[::17, "carrier"] = None


def write(name, scores):
    frame.assign(score=scores).head(60).to_csv(out / f"{name}.csv", index=False)


forest = lightgbm.train({"objective": "binary", "num_leaves": 7, "min_data_per_group": 5, "cat_smooth": 1, "max_cat_to_onehot": 1, "verbose": -1,
                         "num_threads": 1}, lightgbm.Dataset(frame, late), 8)
forest.save_model(out / "lightgbm.txt")
write("lightgbm", forest.predict(frame))

matrix = xgboost.DMatrix(frame, late, enable_categorical=True)
booster = xgboost.train({"objective": "binary:logistic", "max_depth": 3, "tree_method": "hist", "max_cat_to_onehot": 1, "nthread": 1}, matrix, 8)
for suffix in "json", "ubj":
    booster.save_model(out / f"xgboost.{suffix}")
write("xgboost", booster.predict(matrix))
