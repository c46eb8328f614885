"""Trains LightGBM and Millrace's built-in forest on the same rows and prints, as JSON lines, how they compare.

    pip install lightgbm numpy pandas pyarrow scikit-learn
    python bench/forest/compare.py [flights-3m.parquet]

Without a path the flights are fetched with npm (vega-datasets 3.2.1, BSD-3-Clause; the data is US DOT's). Needs go on
the PATH. Rows are the departures of January 2001, trained on the 1st to 24th and held out from the 25th to 31st; the
label is a delay above 15 minutes. Features are hour, weekday, distance and, per origin and per destination, count,
mean, standard deviation and 95th percentile of the delays that had arrived in the 1, 3, 24 hours and 7 days before the
scheduled departure, over exact windows [t-W, t). A flight arrives 30 minutes plus distance/8 minutes plus its delay
after its scheduled departure, and is not known before.

Exit status 1 when the built-in forest misses a bound: AUC within 0.002 of LightGBM's, at most 1.5 times its CPU
time (the lesser of its runs on one thread and on all), scores within 1e-9 of LightGBM's for the same model file.
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
from sklearn.metrics import roc_auc_score

HERE = pathlib.Path(__file__).resolve().parent
WINDOWS = ["1h", "3h", "24h", "7D"]
LATE = 15


def fetch(folder):
    """Downloads the flights into folder."""
    subprocess.run(["npm", "pack", "--silent", "vega-datasets@3.2.1"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    archive = folder / "vega-datasets-3.2.1.tgz"
    subprocess.run(["tar", "xzf", archive, "package/data/flights-3m.parquet"], cwd=folder, check=True)
    return folder / "package/data/flights-3m.parquet"


def flights(path):
    """Flights scheduled in January 2001, with the time at which they are known to have arrived."""
    f = pd.read_parquet(path, columns=["date", "delay", "distance", "origin", "destination"],
                        filters=[("date", "<", pd.Timestamp("2001-02-01"))])
    f["date"] = f["date"].astype("datetime64[ms]")
    f = f.sort_values("date", kind="stable", ignore_index=True)
    minutes = 30 + f["distance"] / 8 + f["delay"]
    f["arrived"] = f["date"] + (minutes * 60_000).round().astype("timedelta64[ms]")
    return f


def delays_of(f, entity):
    """Delay statistics of each flight's entity at its departure, as columns.

    Departures and arrivals of one entity are put on one time line, departures first where times are equal; a departure
    has no delay of its own, so that a rolling window over the line sees arrivals alone. closed="left" is [t-W, t).
    """
    line = pd.concat([
        pd.DataFrame({"entity": f[entity], "time": f["date"], "kind": 0, "delay": np.nan, "row": f.index}),
        pd.DataFrame({"entity": f[entity], "time": f["arrived"], "kind": 1, "delay": f["delay"].astype(float), "row": -1}),
    ]).sort_values(["entity", "time", "kind"], kind="stable")
    departures = (line["kind"] == 0).to_numpy()
    rows = line["row"].to_numpy()[departures]
    columns = {}
    for window in WINDOWS:
        rolling = line.set_index("time").groupby("entity", sort=False)["delay"].rolling(window, closed="left", min_periods=1)
        for name, values in [("count", rolling.count()), ("mean", rolling.mean()), ("std", rolling.std(ddof=0)),
                             ("p95", rolling.quantile(0.95))]:
            column = np.empty(len(f))
            column[rows] = values.to_numpy()[departures]
            if name == "count":
                column = np.nan_to_num(column)
            columns[f"{entity}_delay_{name}_{window.lower()}"] = column
    return columns


def feature_rows(f):
    x = {"distance": f["distance"].to_numpy(float), "hour": f["date"].dt.hour.to_numpy(float),
         "weekday": f["date"].dt.day_of_week.to_numpy(float)}
    return x | delays_of(f, "origin") | delays_of(f, "destination")


def check_windows(f, x):
    """Recomputes some rows from all flights, without pandas' windows, to know that the rows are what they are said to be."""
    arrived, date, delay = (f[c].to_numpy() for c in ("arrived", "date", "delay"))
    for row in np.random.default_rng(5).choice(len(f), 200, replace=False):
        for entity in ("origin", "destination"):
            same = f[entity].to_numpy() == f[entity].iloc[row]
            for window in WINDOWS:
                width = np.timedelta64(pd.Timedelta(window).value, "ns")
                seen = delay[same & (arrived < date[row]) & (arrived >= date[row] - width)]
                want = [len(seen)] + ([seen.mean(), seen.std(), np.quantile(seen, 0.95)] if len(seen) else [np.nan] * 3)
                got = [x[f"{entity}_delay_{s}_{window.lower()}"][row] for s in ("count", "mean", "std", "p95")]
                np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-5, err_msg=f"row {row} {entity} {window}")


def train_lightgbm(train, labels, args, threads):
    params = {"objective": "binary", "num_leaves": args.leaves, "learning_rate": 0.1, "verbose": -1, "num_threads": threads, "seed": 1}
    wall, cpu = time.perf_counter(), time.process_time()
    booster = lightgbm.train(params, lightgbm.Dataset(train, labels), args.trees)
    return booster, time.process_time() - cpu, time.perf_counter() - wall


def train_ours(folder, names, train, test, labels, test_labels, args):
    (folder / "meta.json").write_text(json.dumps({"Names": names, "Train": len(train), "Test": len(test)}))
    for name, matrix, y in [("train", train, labels), ("test", test, test_labels)]:
        np.asfortranarray(np.column_stack([matrix, y])).T.tofile(folder / f"{name}.f64")
    binary = folder / "forest"
    subprocess.run(["go", "build", "-o", binary, "."], cwd=HERE, check=True)
    out = subprocess.run([binary, "-dir", folder, "-trees", str(args.trees), "-leaves", str(args.leaves)], check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    margins, scores = np.fromfile(folder / "ours.f64").reshape(2, -1)
    return json.loads(out), margins, scores


def compare(folder, args):
    path = args.flights or fetch(folder)
    f = flights(path)
    x = feature_rows(f)
    check_windows(f, x)
    names, matrix = list(x), np.column_stack(list(x.values()))
    labels = (f["delay"] > LATE).to_numpy(float)
    held = (f["date"] >= pd.Timestamp("2001-01-25")).to_numpy()
    train, test = matrix[~held], matrix[held]
    say(what="rows", train=len(train), held_out=len(test), columns=len(names), late=round(labels.mean(), 4),
        missing=round(float(np.isnan(train).mean()), 4), cores=os.cpu_count())

    base = [names.index(n) for n in ("distance", "hour", "weekday")]
    plain, _, _ = train_lightgbm(train[:, base], labels[~held], args, 1)
    say(what="lightgbm_without_streaming_features", auc=round(roc_auc_score(labels[held], plain.predict(test[:, base])), 5))

    cpus = []
    for threads in sorted({1, os.cpu_count()}):
        theirs, cpu, wall = train_lightgbm(train, labels[~held], args, threads)
        cpus.append(cpu)
        auc = roc_auc_score(labels[held], theirs.predict(test))
        say(what="lightgbm", version=lightgbm.__version__, threads=threads, auc=round(auc, 5), train_cpu_seconds=round(cpu, 2),
            train_seconds=round(wall, 2))
    cpu = min(cpus)  # one thread waits for nobody, so that this is the work itself

    run, margins, scores = train_ours(folder, names, train, test, labels[~held], labels[held], args)
    our_auc = roc_auc_score(labels[held], scores)
    say(what="millrace", auc=round(our_auc, 5), **{k: v if v == 0 or abs(v) < 1e-3 else round(v, 3) for k, v in run.items()})

    loaded = lightgbm.Booster(model_file=folder / "ours.txt")
    difference = float(np.abs(loaded.predict(test) - scores).max())
    margin_difference = float(np.abs(loaded.predict(test, raw_score=True) - margins).max())
    ratio = run["train_cpu_seconds"] / cpu
    ok = our_auc >= auc - 0.002 and ratio <= 1.5 and difference <= 1e-9
    say(what="comparison", auc_difference=round(our_auc - auc, 5), cpu_ratio=round(ratio, 2), max_score_difference_in_lightgbm=difference,
        max_margin_difference_in_lightgbm=margin_difference, ok=bool(ok))
    return ok


def say(**fields):
    print(json.dumps(fields), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("flights", nargs="?", type=pathlib.Path, help="flights-3m.parquet; fetched when not given")
    parser.add_argument("--trees", type=int, default=200)
    parser.add_argument("--leaves", type=int, default=31)
    parser.add_argument("--keep", type=pathlib.Path, help="folder to keep rows, model and scores in")
    args = parser.parse_args()
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
        return 0 if compare(args.keep.resolve(), args) else 1
    with tempfile.TemporaryDirectory() as folder:
        return 0 if compare(pathlib.Path(folder), args) else 1


if __name__ == "__main__":
    sys.exit(main())
