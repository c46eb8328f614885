"""Makes the golden files of this folder with LightGBM; the tests of package model read them.

    pip install lightgbm==4.6.0 numpy
    python registry/model/testdata/make.py

good/<name>.txt is a model as LightGBM wrote it (its list of parameters cut down to the booster), good/<name>.json has
rows with LightGBM's margins, scores, contribution bias, and Saabas contributions computed here from LightGBM's own dump
of the model. bad/<name>.txt is a model that must be refused; its first line, which the test takes off, is a part of the
message that it must be refused with.
"""

import json
import pathlib

import lightgbm
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
random = np.random.default_rng(20010101)


def rows(n=600):
    """Three columns: one whole, one with missing values, one with many zeros."""
    x = random.normal(size=(n, 3))
    x[random.random(n) < 0.2, 1] = np.nan
    x[random.random(n) < 0.5, 2] = 0
    signal = x[:, 0] + np.where(np.isnan(x[:, 1]), 1.5, x[:, 1] ** 2) + (x[:, 2] == 0) + random.normal(size=n)
    return x, signal


def train(x, y, trees, **params):
    categories = params.pop("categories", "auto")
    data = lightgbm.Dataset(x, y, feature_name=["whole", "gaps.mean_1h", "zeros"], categorical_feature=categories)
    return lightgbm.train({"verbose": -1, "num_leaves": 6, "learning_rate": 0.3, "seed": 1, "num_threads": 1} | params, data, trees)


def text(booster):
    """The model's text with but one of its parameters."""
    head, tail = booster.model_to_string().split("parameters:\n")
    kept = [line for line in tail.split("\n") if line.startswith("[boosting:")]
    return head + "parameters:\n" + "\n".join(kept) + "\n\nend of parameters\n\npandas_categorical:null\n"


def probes(x, booster):
    """Rows that meet every rule: as trained, missing everywhere, zeros, next to zero, and each threshold exactly."""
    probe = [list(r) for r in x[:12]] + [[np.nan] * 3, [0.0] * 3, [-0.0] * 3, [1e-35] * 3, [2e-35] * 3, [-2e-35] * 3,
                                         [np.inf] * 3, [-np.inf] * 3]
    for tree in booster.dump_model()["tree_info"][:3]:
        for node in splits(tree["tree_structure"]):
            at = node["threshold"]
            for value in (at, np.nextafter(at, np.inf), np.nan):
                row = list(x[20])
                row[node["split_feature"]] = value
                probe.append(row)
    return np.array(probe)


def splits(node):
    if "split_feature" in node:
        return [node] + splits(node["left_child"]) + splits(node["right_child"])
    return []


def mean(node):
    """Mean leaf value of the training rows below, and how many they are."""
    if "split_feature" not in node:
        return node["leaf_value"], node["leaf_count"]
    (a, n), (b, m) = mean(node["left_child"]), mean(node["right_child"])
    return (a * n + b * m) / (n + m), n + m


def goes_left(node, value):
    missing = node["missing_type"]
    if np.isnan(value) and missing != "NaN":
        value = 0.0
    if missing == "NaN" and np.isnan(value) or missing == "Zero" and abs(value) <= np.float64(np.float32(1e-35)):
        return node["default_left"]
    return value <= node["threshold"]


def saabas(booster, row):
    out = [0.0] * 3
    for tree in booster.dump_model()["tree_info"]:
        node = tree["tree_structure"]
        while "split_feature" in node:
            child = node["left_child"] if goes_left(node, row[node["split_feature"]]) else node["right_child"]
            out[node["split_feature"]] += mean(child)[0] - mean(node)[0]
            node = child
    return out


def number(value):
    """JSON has no NaN and no infinity."""
    return float(value) if np.isfinite(value) else str(float(value))


def good(name, booster, x, change=lambda t: t):
    probe = probes(x, booster)
    (HERE / "good").mkdir(exist_ok=True)
    (HERE / "good" / f"{name}.txt").write_text(change(text(booster)))
    golden = {
        "rows": [[number(v) for v in r] for r in probe],
        "margins": list(booster.predict(probe, raw_score=True)),
        "scores": list(booster.predict(probe)),
        "bias": float(booster.predict(probe[:1], pred_contrib=True)[0, -1]),
        "contributions": [saabas(booster, r) for r in probe],
    }
    (HERE / "good" / f"{name}.json").write_text(json.dumps(golden, indent=None).replace("], [", "],\n[") + "\n")


def bad(name, message, model):
    (HERE / "bad").mkdir(exist_ok=True)
    (HERE / "bad" / f"{name}.txt").write_text(message + "\n" + model)


def main():
    x, signal = rows()
    late = (signal > 1.5).astype(int)
    binary = train(x, late, 5, objective="binary", sigmoid=0.7)
    good("binary", binary, x)
    good("binary_v3", train(x, late, 2, objective="binary"), x, lambda t: t.replace("version=v4", "version=v3"))
    good("regression_zero_as_missing", train(x, signal, 4, objective="regression", zero_as_missing=True), x)
    good("one_leaf", train(x, late, 1, objective="binary", min_data_in_leaf=590), x)

    small = {"num_leaves": 3}
    plain = text(train(x, late, 2, objective="binary", **small))
    bad("dart", "boosting: \"dart\" is neither gbdt nor rf", text(train(x, late, 2, objective="binary", boosting="dart", **small)))
    bad("linear", "linear leaves (is_linear=1)", text(train(x, signal, 1, objective="regression", linear_tree=True, **small)))
    bad("version", "version: \"v5\"", plain.replace("version=v4", "version=v5"))
    bad("field", "field \"tree_magic\"", plain.replace("num_cat=0", "num_cat=0\ntree_magic=1"))


if __name__ == "__main__":
    main()
