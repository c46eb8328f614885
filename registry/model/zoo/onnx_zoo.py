"""Makes ONNX models with the converters that people use, and what ONNX Runtime's Python says of them, for TestONNX.

    pip install onnx onnxruntime skl2onnx onnxmltools scikit-learn lightgbm xgboost
    python registry/model/zoo/onnx_zoo.py OUT            # 10,000 rows a model
    python registry/model/zoo/onnx_zoo.py OUT --small    # the models and rows of testdata/onnx

OUT/<case>.meta.json describes a case: its rows (a file of OUT), inputs, task and outputs; or, for a model that must be refused, a part
of the message. OUT/<case>.f64 holds, as little-endian float64, the scores of all rows by calls of CALL rows, then those of the first `singles`
rows by a call each. Where a model has classes, all of their probabilities are scores; else it is one number.
"""

import argparse
import json
import pathlib

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

CALL = 4096  # rows of a call: onnx.MaxRows. ONNX Runtime's own last bit depends on how many rows a call has
INPUTS = ["normal", "gaps", "zeros", "whole", "skewed"]


def make(n, seed, gaps):
    """Rows of five inputs, and a signal that depends on all of them."""
    r = np.random.default_rng(seed)
    x = np.empty((n, 5))
    x[:, 0] = r.normal(size=n)
    x[:, 1] = np.where(r.random(n) < (0.2 if gaps else 0), np.nan, r.normal(size=n))
    x[:, 2] = np.where(r.random(n) < 0.5, 0, r.normal(size=n))
    x[:, 3] = r.integers(0, 9, n)
    x[:, 4] = np.exp(2 * r.normal(size=n))
    signal = x[:, 0] + np.nan_to_num(x[:, 1]) ** 2 + (x[:, 2] == 0) * x[:, 0] + np.sin(x[:, 3]) + np.log(x[:, 4]) / 3 + r.normal(size=n) / 2
    return x, signal


class Zoo:
    def __init__(self, out, small):
        self.out, self.small = pathlib.Path(out), small
        self.out.mkdir(parents=True, exist_ok=True)
        self.trees, self.depth = (3, 2) if small else (60, 6)
        self.data = {gaps: make(300 if small else 3000, 1, gaps) for gaps in (False, True)}
        self.rows = {gaps: make(50 if small else 10_000, 7, gaps)[0] for gaps in (False, True)}
        self.singles = 10 if small else 500
        for gaps, rows in self.rows.items():
            rows.astype("<f8").tofile(self.out / self.rows_file(gaps))

    def rows_file(self, gaps):
        return f"rows{'-gaps' if gaps else ''}.f64"

    def labels(self, gaps):
        signal = self.data[gaps][1]
        return {"late": (signal > np.median(signal)).astype(int), "value": signal * 100, "class": np.digitize(signal, [1, 3])}

    def refuse(self, name, model, message):
        content = model if isinstance(model, bytes) else model.SerializeToString()
        (self.out / f"{name}.onnx").write_bytes(content)
        (self.out / f"{name}.meta.json").write_text(json.dumps({"refused": message}) + "\n")

    def good(self, name, model, task, output, feed=None, gaps=False, inputs=None, unnamed=True, classes=None):
        """output picks the scores out of what a session gives."""
        content = model.SerializeToString()
        (self.out / f"{name}.onnx").write_bytes(content)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        first = session.get_inputs()[0]
        feed = feed or (lambda rows: {first.name: rows.astype(np.float64 if "double" in first.type else np.float32)})

        def score(rows):
            return np.asarray(output(session.run(None, feed(rows))), np.float64)

        rows = self.rows[gaps]
        scores = np.concatenate([score(rows[i : i + CALL]) for i in range(0, len(rows), CALL)])
        singles = [score(rows[i : i + 1]) for i in range(self.singles)]
        with open(self.out / f"{name}.f64", "wb") as f:
            for a in [scores, *singles]:
                f.write(np.ascontiguousarray(a, "<f8").tobytes())
        about = {"rows": self.rows_file(gaps), "count": len(rows), "singles": self.singles, "task": task, "unnamed": unnamed,
                 "inputs": inputs or [f"{first.name}_{i}" for i in range(rows.shape[1])], "outputs": classes or ["score"]}
        (self.out / f"{name}.meta.json").write_text(json.dumps(about) + "\n")


def positive(outputs):
    return outputs[1][:, 1]


def zipped(label):
    return lambda outputs: [row[label] for row in outputs[1]]


def all_zipped(labels):
    return lambda outputs: [[row[label] for label in labels] for row in outputs[1]]


def single(outputs):
    return outputs[0].reshape(-1)


def converted(zoo):
    import lightgbm
    import xgboost
    from onnxmltools import convert_lightgbm, convert_xgboost
    from onnxmltools.convert.common.data_types import FloatTensorType
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType
    from skl2onnx.common.data_types import FloatTensorType as SklearnFloats
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor, IsolationForest, RandomForestClassifier
    from sklearn.linear_model import LinearRegression, LogisticRegression
    from sklearn.neural_network import MLPClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    wide = [("rows", FloatTensorType([None, 5]))]
    x, gappy = zoo.data[False][0], zoo.data[True][0]
    plain, gaps = zoo.labels(False), zoo.labels(True)
    boosted = {"n_estimators": zoo.trees, "max_depth": zoo.depth, "n_jobs": 1}

    zoo.good("xgboost-binary", convert_xgboost(xgboost.XGBClassifier(**boosted).fit(gappy, gaps["late"]), initial_types=wide), "binary", positive, gaps=True)
    light = lightgbm.LGBMClassifier(verbose=-1, num_leaves=4 if zoo.small else 31, n_estimators=zoo.trees).fit(gappy, gaps["late"])
    zoo.good("lightgbm-binary", convert_lightgbm(light, initial_types=wide), "binary", zipped(1), gaps=True)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(x, plain["late"])
    zoo.good("sklearn-logistic", to_onnx(scaled, initial_types=[("rows", SklearnFloats([None, 5]))]), "binary", zipped(1))
    names = np.array(["early", "late", "never"])[plain["class"]]
    zoo.good("sklearn-classes", to_onnx(LogisticRegression(max_iter=1000).fit(x, names), initial_types=[("rows", SklearnFloats([None, 5]))]), "multiclass",
             all_zipped(["early", "late", "never"]), classes=["early", "late", "never"])

    # Inputs of their own, of several types: a column each.
    parts = ColumnTransformer([("numbers", StandardScaler(), [0, 1, 2, 4]), ("codes", OneHotEncoder(handle_unknown="ignore"), [3])])
    mixed = make_pipeline(parts, LogisticRegression(max_iter=1000)).fit(x, plain["late"])
    types = [(name, Int64TensorType([None, 1]) if name == "whole" else SklearnFloats([None, 1])) for name in INPUTS]
    columns = to_onnx(mixed, initial_types=types, options={"zipmap": False})
    zoo.good("sklearn-columns", columns, "binary", positive, inputs=INPUTS, unnamed=False, feed=lambda rows: {
        name: rows[:, i : i + 1].astype(np.int64 if name == "whole" else np.float32) for i, name in enumerate(INPUTS)})

    noted = to_onnx(LinearRegression().fit(x, plain["value"]), initial_types=[("rows", DoubleTensorType([None, 5]))])
    noted.metadata_props.add(key="millrace.inputs", value=json.dumps(INPUTS))
    zoo.good("sklearn-double", noted, "regression", single, inputs=INPUTS, unnamed=False)

    if zoo.small:
        return
    outliers = to_onnx(IsolationForest(n_estimators=3).fit(x), initial_types=[("rows", SklearnFloats([None, 5]))], target_opset={"": 17, "ai.onnx.ml": 3})
    zoo.refuse("sklearn-outliers", outliers, "runtime:nothing says what its 1 beside a label mean")
    zoo.good("xgboost-classes", convert_xgboost(xgboost.XGBClassifier(**boosted).fit(gappy, gaps["class"]), initial_types=wide), "multiclass",
             lambda outputs: outputs[1], gaps=True, classes=["0", "1", "2"])
    zoo.good("xgboost-regression", convert_xgboost(xgboost.XGBRegressor(**boosted).fit(gappy, gaps["value"]), initial_types=wide), "regression", single, gaps=True)
    light = lightgbm.LGBMClassifier(verbose=-1, n_estimators=zoo.trees).fit(gappy, gaps["class"])
    zoo.good("lightgbm-classes", convert_lightgbm(light, initial_types=wide), "multiclass", all_zipped([0, 1, 2]), gaps=True, classes=["0", "1", "2"])
    light = lightgbm.LGBMRegressor(verbose=-1, n_estimators=zoo.trees).fit(gappy, gaps["value"])
    zoo.good("lightgbm-regression", convert_lightgbm(light, initial_types=wide), "regression", single, gaps=True)
    for name, model in {
        "sklearn-boosting": GradientBoostingClassifier(n_estimators=zoo.trees), "sklearn-forest": RandomForestClassifier(n_estimators=zoo.trees, max_depth=8),
        "sklearn-network": make_pipeline(StandardScaler(), MLPClassifier((32, 16), max_iter=50)),
    }.items():
        zoo.good(name, to_onnx(model.fit(x, plain["late"]), initial_types=[("rows", SklearnFloats([None, 5]))], options={"zipmap": False}), "binary", positive)
    values = GradientBoostingRegressor(n_estimators=zoo.trees).fit(x, plain["value"])
    zoo.good("sklearn-boosted-values", to_onnx(values, initial_types=[("rows", SklearnFloats([None, 5]))]), "regression", single)


def graph(nodes, rows=None, outputs=None, initializers=(), opset=17, domains=()):
    """A model of few operators, made by hand."""
    rows = rows or [helper.make_tensor_value_info("rows", TensorProto.FLOAT, [None, 5])]
    outputs = outputs or [helper.make_tensor_value_info("score", TensorProto.FLOAT, [None, 1])]
    made = helper.make_graph(nodes, "made", rows, outputs, list(initializers))
    opsets = [helper.make_opsetid("", opset), *[helper.make_opsetid(d, 1) for d in domains]]
    return helper.make_model(made, opset_imports=opsets, ir_version=8)


def by_hand(zoo):
    node, info, floats = helper.make_node, helper.make_tensor_value_info, TensorProto.FLOAT
    weights = helper.make_tensor("weights", floats, [5, 1], [0.1, 0.2, 0.3, 0.4, 0.5])
    sums = [node("MatMul", ["rows", "weights"], ["sum"]), node("Sigmoid", ["sum"], ["score"])]

    probability = graph(sums, initializers=[weights])
    probability.metadata_props.add(key="millrace.task", value="binary")
    zoo.good("made-probability", probability, "binary", single)
    three = helper.make_tensor("weights", floats, [3, 1], [0.1, 0.2, 0.3])
    few = graph(sums, [info("rows", floats, [None, 3])], initializers=[three])
    few.metadata_props.add(key="millrace.task", value="binary")
    zoo.good("made-three", few, "binary", single, inputs=["rows_0", "rows_1", "rows_2"], feed=lambda rows: {"rows": rows[:, :3].astype(np.float32)})
    flat = [info(name, floats, [None]) for name in INPUTS[:2]]
    columns = graph([node("Sub", INPUTS[:2], ["score"])], flat, [info("score", floats, [None])])
    zoo.good("made-flat", columns, "regression", single, inputs=INPUTS[:2], unnamed=False, feed=lambda rows: {
        name: rows[:, i].astype(np.float32) for i, name in enumerate(INPUTS[:2])})

    zoo.refuse("wide", graph(sums, [info("rows", floats, [None, "columns"])], initializers=[weights]), "its second dimension is dynamic (columns)")
    zoo.refuse("batch", graph(sums, [info("rows", floats, [1, 5])], initializers=[weights]), "the input takes 1 rows")
    zoo.refuse("deep", graph(sums, [info("rows", floats, [None, 5, 5])], initializers=[weights]), "has 3 dimensions")
    zoo.refuse("texts", graph([node("Identity", ["rows"], ["score"])], [info("rows", TensorProto.STRING, [None, 5])]), "is of string")
    zoo.refuse("half", graph(sums, [info("rows", TensorProto.FLOAT16, [None, 5])], initializers=[weights]), "is of float16")
    zoo.refuse("domain", graph([node("Gelu", ["rows"], ["score"], domain="com.microsoft")], domains=["com.microsoft"]), 'domain "com.microsoft"')
    zoo.refuse("undeclared", graph([node("Scaler", ["rows"], ["score"], domain="ai.onnx.ml")]), 'domain "ai.onnx.ml"')
    zoo.refuse("random", graph([node("RandomNormalLike", ["rows"], ["score"])]), "RandomNormalLike: the operator draws random numbers")
    zoo.refuse("sized", graph([node("Tile", ["rows", "times"], ["score"])], initializers=[helper.make_tensor("times", TensorProto.INT64, [2], [1 << 40, 1])]),
               "Tile: the operator makes tensors of a size")
    body = helper.make_graph([node("Identity", ["weights"], ["out"])], "body", [], [info("out", floats, None)])
    branch = node("If", ["yes"], ["score"], then_branch=body, else_branch=body)
    zoo.refuse("branches", graph([branch], initializers=[weights, helper.make_tensor("yes", TensorProto.BOOL, [], [True])]), "If: the operator runs a graph of its own")
    outside = onnx.TensorProto(name="weights", data_type=floats, dims=[5, 1], data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="../../etc/passwd")
    zoo.refuse("outside", graph(sums, initializers=[outside]), "weights: its numbers are in another file")
    announced = onnx.TensorProto(name="weights", data_type=floats, dims=[1 << 40, 1 << 40])
    zoo.refuse("announced", graph(sums, initializers=[announced]), "announces more numbers")
    several = graph([*sums, node("Neg", ["sum"], ["other"])], outputs=[info("score", floats, [None, 1]), info("other", floats, [None, 1])], initializers=[weights])
    zoo.refuse("several", several, "2 of its 2 outputs could be the score (score, other)")
    lists = graph([node("SplitToSequence", ["rows"], ["score"])], outputs=[helper.make_tensor_sequence_value_info("score", floats, None)])
    zoo.refuse("list", lists, "score: the output is a sequence")
    zoo.refuse("empty", graph([node("Constant", [], ["score"], value=weights)], [info("weights", floats, [5, 1])], initializers=[weights]), "it takes no input")
    # What the runtime alone knows.
    zoo.refuse("future", graph(sums, initializers=[weights], opset=1000), "runtime:opset")
    zoo.refuse("unknown", graph([node("Grow", ["rows"], ["score"])]), "runtime:Grow")
    zoo.refuse("mismatched", graph(sums, initializers=[helper.make_tensor("weights", floats, [4, 1], [1, 2, 3, 4])]), "runtime:dimension")
    zoo.refuse("summed", graph([node("ReduceSum", ["rows"], ["score"], keepdims=1)]), "runtime:the scores of 2 rows are of shape [1 1]")
    zoo.refuse("meaning", graph([node("Sigmoid", ["rows"], ["score"])], outputs=[info("score", floats, [None, 5])]), "runtime:nothing says what its 5 values mean")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("out")
    args.add_argument("--small", action="store_true")
    args = args.parse_args()
    zoo = Zoo(args.out, args.small)
    converted(zoo)
    by_hand(zoo)


if __name__ == "__main__":
    main()
