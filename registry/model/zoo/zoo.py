"""Trains models with the XGBoost and the LightGBM of this Python, and writes what they say of rows.

    pip install xgboost==2.1.4 lightgbm==4.6.0 scipy
    python registry/model/zoo/zoo.py OUT            # 10,000 rows a model
    python registry/model/zoo/zoo.py OUT --small    # the models and rows of testdata/zoo, some with --only a,b

OUT/<library>-<version>-<case>.meta.json describes a case: its model files; its rows (a file of OUT), inputs and outputs;
or, for a model that must be refused, a part of the message. OUT/<...>.f64 holds, as little-endian float64, margins and
scores of all rows, and of the first `explained` rows per output the Shapley values with their bias last (XGBoost's
pred_contribs, LightGBM's pred_contrib), then, for XGBoost, the same of approx_contribs. OUT/rows-<...>.f64 holds the rows.
TestZoo in package model reads all of it.
"""

import argparse
import json
import pathlib

import numpy as np

INPUTS = ["normal", "gaps", "zeros", "whole", "skewed", "city", "kind"]
CATEGORIES = [5, 6]  # city has many codes, kind few
OUTSIDE = 60  # a code that training never sees


def make(n, seed):
    """Rows of seven inputs, and a signal that depends on all of them."""
    r = np.random.default_rng(seed)
    x = np.empty((n, 7))
    x[:, 0] = r.normal(size=n)
    x[:, 1] = np.where(r.random(n) < 0.2, np.nan, r.normal(size=n))
    x[:, 2] = np.where(r.random(n) < 0.5, 0, r.normal(size=n))
    x[:, 3] = r.integers(0, 9, n)
    x[:, 4] = np.exp(2 * r.normal(size=n))
    x[:, 5] = np.where(r.random(n) < 0.05, np.nan, r.integers(0, 50, n))
    x[:, 6] = r.integers(0, 3, n)
    signal = (x[:, 0] + np.where(np.isnan(x[:, 1]), 1, x[:, 1] ** 2) + (x[:, 2] == 0) * x[:, 0] + np.sin(x[:, 3])
              + np.log(x[:, 4]) / 3 + np.nan_to_num(x[:, 5]) % 7 / 3 + (x[:, 6] == 1) + r.normal(size=n) / 2)
    return x, signal


def probes(n, train):
    """Rows to score: like those of training, with every kind of number that a walk gets wrong."""
    x, _ = make(n, 7)
    r = np.random.default_rng(8)
    odd = np.array([np.nan, 0.0, -0.0, 1e-35, 2e-35, -2e-35, np.float32(1e-35), -np.float32(1e-35), 1e30, -1e30, 0.1, 5.0])
    for column in range(5):
        at = r.random(n) < 0.1
        x[at, column] = r.choice(odd, at.sum())
        at = r.random(n) < 0.2  # the very numbers that thresholds lie between
        x[at, column] = r.choice(train[:, column], at.sum())
    for column in CATEGORIES:
        at = r.random(n) < 0.1
        x[at, column] = r.choice([np.nan, OUTSIDE, 49, 0, 31, 32], at.sum())
    x[0], x[1] = np.nan, 0
    return x


class Zoo:
    def __init__(self, out, small, only):
        self.out, self.small, self.only = pathlib.Path(out), small, only
        self.out.mkdir(parents=True, exist_ok=True)
        self.x, self.signal = make(400 if small else 3000, 1)
        self.rows = probes(60 if small else 10_000, self.x)
        self.explained = 12 if small else 60
        self.trees = 4 if small else 25
        self.weights = np.random.default_rng(3).random(len(self.x)) + 0.1
        self.label = {
            "late": (self.signal > np.median(self.signal)).astype(int), "value": self.signal * 100, "class": np.digitize(self.signal, [1, 3]),
            "count": np.random.default_rng(4).poisson(np.exp(self.signal / 4)), "amount": np.exp(self.signal / 2) + 0.01,
            "grade": np.digitize(self.signal, [0, 1, 2, 3]), "share": 1 / (1 + np.exp(-self.signal)),
        }
        self.groups = np.full(len(self.x) // 20, 20)
        self.write("rows-%d.f64" % len(self.rows), self.rows)

    def wants(self, case):
        return not self.only or case in self.only.split(",")

    def write(self, name, *arrays):
        with open(self.out / name, "wb") as f:
            for a in arrays:
                f.write(np.ascontiguousarray(a, dtype="<f8").tobytes())

    def describe(self, name, **meta):
        (self.out / f"{name}.meta.json").write_text(json.dumps(meta) + "\n")

    def case(self, name, files, inputs, margins, scores, *contributions):
        outputs = 1 if margins.ndim == 1 else margins.shape[1]
        self.describe(name, files=files, rows="rows-%d.f64" % len(self.rows), count=len(self.rows), inputs=inputs, outputs=outputs,
                      explained=self.explained, scored=scores is not None, approximated=len(contributions) > 1)
        self.write(f"{name}.f64", margins, *([] if scores is None else [scores]), *contributions)

    def refuse(self, name, files, message):
        self.describe(name, files=files, refused=message)


def xgboost_cases(zoo):
    import xgboost as xgb

    version = "xgboost-" + ".".join(xgb.__version__.split(".")[:2])
    major = int(xgb.__version__.split(".")[0])
    types = ["float"] * 5 + ["c"] * 2

    def matrix(x, label=None, categories=False, **more):
        if categories:
            more |= {"feature_types": types, "enable_categorical": True}
        return xgb.DMatrix(x, label, feature_names=INPUTS, **more)

    def save(name, booster, binary=True):
        files = [f"{name}.json", f"{name}.ubj"] if binary else [f"{name}.json"]
        for f in files:
            booster.save_model(zoo.out / f)
        return files

    def train(case, label, categories=False, weights=None, groups=None, trees=None, evals=None, **params):
        data = matrix(zoo.x, zoo.label[label], categories, weight=weights)
        if groups is not None:
            data.set_group(groups)
        more = {"evals": [(data, "train")], "early_stopping_rounds": 2, "verbose_eval": False} if evals else {}
        params = {"max_depth": 3 if zoo.small else 6, "eta": 0.3, "seed": 1, "nthread": 1, "tree_method": "hist"} | params
        return xgb.train(params, data, trees or zoo.trees, **more)

    def good(case, label, categories=False, **params):
        if not zoo.wants(case):
            return
        name = f"{version}-{case}"
        booster = train(case, label, categories, **params)
        rows = matrix(zoo.rows, categories=categories)
        all_trees = {"iteration_range": (0, booster.num_boosted_rounds())}
        margins = booster.predict(rows, output_margin=True, **all_trees)
        scores = booster.predict(rows, **all_trees)
        few = matrix(zoo.rows[: zoo.explained], categories=categories)
        shapley = booster.predict(few, pred_contribs=True, **all_trees)
        approximate = booster.predict(few, pred_contribs=True, approx_contribs=True, **all_trees)
        if params.get("objective") == "multi:softmax":
            scores = None  # the class alone
        zoo.case(name, save(name, booster, not zoo.small or case in ("binary", "categories", "classes")), INPUTS, margins, scores, shapley, approximate)

    def bad(case, message, label="late", **params):
        if not zoo.wants(case):
            return
        name = f"{version}-{case}"
        zoo.refuse(name, save(name, train(case, label, trees=2, **params)), message)

    good("binary", "late", objective="binary:logistic")
    good("classes", "class", objective="multi:softprob", num_class=3)
    good("poisson", "count", objective="count:poisson")
    good("ranking", "grade", objective="rank:ndcg", groups=zoo.groups)
    good("categories", "late", True, objective="binary:logistic", max_cat_to_onehot=4)
    good("regression", "value", objective="reg:squarederror")
    bad("dart", '"dart"', objective="binary:logistic", booster="dart", rate_drop=0.3)
    bad("linear", '"gblinear" is not gbtree', objective="binary:logistic", booster="gblinear", tree_method="auto")
    if version == "xgboost-3.4":
        bad("dropout", "dropped trees", objective="binary:logistic", rate_drop=0.3)
    if major > 1:
        zoo.label["pair"] = np.column_stack([zoo.label["value"], zoo.label["share"]])
        bad("targets", "num_target", "pair", objective="reg:squarederror")
        bad("vectors", "num_target", "pair", objective="reg:squarederror", multi_strategy="multi_output_tree")
    if zoo.small:
        return
    bad("cox", '"survival:cox" is not scored', "amount", objective="survival:cox")
    bad("hinge", '"binary:hinge" is not scored', objective="binary:hinge")
    good("weights", "late", objective="binary:logistic", weights=zoo.weights, scale_pos_weight=2)
    good("base", "late", objective="binary:logistic", base_score=0.2)
    good("rare", "late", objective="binary:logistic", base_score=1e-7)
    good("share", "share", objective="reg:logistic")
    good("logitraw", "late", objective="binary:logitraw")
    good("pruned", "late", objective="binary:logistic", tree_method="exact", gamma=3)
    good("deep", "value", objective="reg:squarederror", grow_policy="lossguide", max_leaves=200, max_depth=0, min_child_weight=0)
    good("parallel", "late", objective="binary:logistic", num_parallel_tree=5, subsample=0.6, colsample_bynode=0.6)
    good("early", "late", objective="binary:logistic", eval_metric="auc", evals=True, eta=1)
    good("softmax", "class", objective="multi:softmax", num_class=3, weights=zoo.weights)
    good("categorical_classes", "class", True, objective="multi:softprob", num_class=3, max_cat_to_onehot=60)
    good("categorical_regression", "value", True, objective="reg:squarederror", max_cat_threshold=8)
    good("absolute", "value", objective="reg:absoluteerror")
    good("huber", "value", objective="reg:pseudohubererror", huber_slope=5)
    good("squaredlog", "amount", objective="reg:squaredlogerror")
    good("gamma", "amount", objective="reg:gamma")
    good("tweedie", "amount", objective="reg:tweedie", tweedie_variance_power=1.3)
    good("pairwise", "grade", objective="rank:pairwise", groups=zoo.groups)
    good("map", "late", objective="rank:map", groups=zoo.groups)
    good("constant", "late", objective="binary:logistic", min_child_weight=1e9)
    if version == "xgboost-3.4":
        zoo.label["certain"] = np.ones(len(zoo.x))
        good("certain", "certain", objective="binary:logistic")
        good("expectile", "value", objective="reg:expectileerror", expectile_alpha=0.9)
    if major > 1:
        good("quantile", "value", objective="reg:quantileerror", quantile_alpha=0.9)
        good("unbiased", "grade", objective="rank:ndcg", groups=zoo.groups, lambdarank_unbiased=True)


def lightgbm_cases(zoo):
    import lightgbm as lgb

    version = "lightgbm-" + ".".join(lgb.__version__.split(".")[:2])

    def save(name, booster):
        """The model's text with but one of its parameters."""
        head, tail = booster.model_to_string().split("parameters:\n")
        kept = [line for line in tail.split("\n") if line.startswith("[boosting:")]
        text = head + "parameters:\n" + "\n".join(kept) + "\n\nend of parameters\n\npandas_categorical:null\n"
        (zoo.out / f"{name}.txt").write_text(text)
        return [f"{name}.txt"]

    def train(label, categories=False, weights=None, groups=None, trees=None, **params):
        data = lgb.Dataset(zoo.x, zoo.label[label], feature_name=INPUTS, categorical_feature=CATEGORIES if categories else [],
                           weight=weights, group=groups, params={"verbose": -1})
        params = {"verbose": -1, "num_leaves": 6 if zoo.small else 31, "learning_rate": 0.2, "seed": 1, "num_threads": 1} | params
        return lgb.train(params, data, trees or zoo.trees)

    def good(case, label, categories=False, **params):
        if not zoo.wants(case):
            return
        name = f"{version}-{case}"
        booster = train(label, categories, **params)
        margins, scores = booster.predict(zoo.rows, raw_score=True), booster.predict(zoo.rows)
        shapley = booster.predict(zoo.rows[: zoo.explained], pred_contrib=True)
        if params.get("boosting") == "rf":  # its raw score is the sum, of whose mean the score is made
            margins, shapley = margins / booster.current_iteration(), shapley / booster.current_iteration()
        zoo.case(name, save(name, booster), INPUTS, margins, scores, shapley)

    def bad(case, message, label="late", **params):
        if not zoo.wants(case):
            return
        name = f"{version}-{case}"
        zoo.refuse(name, save(name, train(label, trees=2, **params)), message)

    good("binary", "late", objective="binary", sigmoid=0.7)
    good("categories", "late", True, objective="binary", min_data_per_group=5, cat_smooth=1, cat_l2=1)
    good("classes", "class", objective="multiclass", num_class=3)
    good("one_versus_all", "class", objective="multiclassova", num_class=3, sigmoid=1.3)
    good("poisson", "count", objective="poisson")
    good("ranking", "grade", objective="lambdarank", groups=zoo.groups)
    good("zero_as_missing", "value", objective="regression", zero_as_missing=True)
    good("forest", "late", objective="binary", boosting="rf", bagging_freq=1, bagging_fraction=0.6)
    bad("dart", 'boosting: "dart"', objective="binary", boosting="dart")
    bad("linear", "linear leaves (is_linear=1)", "value", objective="regression", linear_tree=True)
    if zoo.small:
        return
    if version >= "lightgbm-4":
        bad("custom", "objective: is missing", "value", objective=squared)
    good("regression", "value", objective="regression")
    good("no_missing", "value", objective="regression", use_missing=False)
    good("root", "amount", objective="regression", reg_sqrt=True)
    for objective in ("regression_l1", "huber", "fair", "quantile", "mape"):
        good(objective, "value", objective=objective)
    good("gamma", "amount", objective="gamma")
    good("tweedie", "amount", objective="tweedie", tweedie_variance_power=1.3)
    good("cross_entropy", "share", objective="cross_entropy")
    good("cross_entropy_lambda", "share", objective="cross_entropy_lambda")
    good("xendcg", "grade", objective="rank_xendcg", groups=zoo.groups)
    good("weights", "late", objective="binary", weights=zoo.weights, is_unbalance=True)
    good("deep", "value", objective="regression", num_leaves=300, min_data_in_leaf=1, min_sum_hessian_in_leaf=0)
    good("categorical_classes", "class", True, objective="multiclass", num_class=3, min_data_per_group=5, cat_smooth=1, cat_l2=1, max_cat_to_onehot=2)
    good("categorical_no_missing", "value", True, objective="regression", use_missing=False, min_data_per_group=5)
    good("categorical_zero", "value", True, objective="regression", zero_as_missing=True, min_data_per_group=5)
    good("forest_classes", "class", objective="multiclass", num_class=3, boosting="rf", bagging_freq=1, bagging_fraction=0.6)
    good("forest_regression", "value", objective="regression", boosting="rf", bagging_freq=1, bagging_fraction=0.6)
    good("extra_trees", "late", objective="binary", extra_trees=True)
    good("goss", "late", objective="binary", **({"boosting": "goss"} if version < "lightgbm-4" else {"data_sample_strategy": "goss"}))
    good("monotone", "late", objective="binary", monotone_constraints=[1, 0, 0, -1, 0, 0, 0])
    good("one_leaf", "late", objective="binary", min_data_in_leaf=len(zoo.x) - 10)


def squared(predicted, data):
    """Gradient and hessian of half the squared error."""
    return predicted - data.get_label(), np.ones(len(predicted))


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("out")
    args.add_argument("--small", action="store_true")
    args.add_argument("--only", default="", help="names of cases, with commas between")
    args = args.parse_args()
    zoo = Zoo(args.out, args.small, args.only)
    xgboost_cases(zoo)
    lightgbm_cases(zoo)


if __name__ == "__main__":
    main()
