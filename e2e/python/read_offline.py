"""Reads a table of the offline log as its users do: with pyarrow, Polars and DuckDB.

    python read_offline.py DIR [--rows N]

DIR is one table, such as data/offline/events/arrivals. Prints the row count, the number of days and the sum of every numeric column as
each of the three sees them, and of one day by its partition folder. Exits with 1 where they disagree, where the rows of the log's commits are
not the rows of the files, or where N rows were promised and are not there.
"""

import argparse
import json
import math
import pathlib
import sys

import duckdb
import polars
import pyarrow
import pyarrow.compute
import pyarrow.dataset


def with_pyarrow(folder):
    # Folders that start with "_" (the log, and files on their way) are not data by convention, and skipped.
    data = pyarrow.dataset.dataset(folder, format="ipc", partitioning="hive")
    numeric = [f.name for f in data.schema if pyarrow.types.is_integer(f.type) or pyarrow.types.is_floating(f.type)]
    table = data.to_table()
    sums = {name: pyarrow.compute.sum(table[name]).as_py() or 0 for name in numeric}
    first = min(table["dt"].to_pylist())
    by_day = data.count_rows(filter=pyarrow.dataset.field("dt") == first)
    return table.num_rows, len(table["dt"].unique()), sums, first, by_day


def with_polars(folder, numeric, first):
    frame = polars.scan_ipc(f"{folder}/dt=*/*.arrow", hive_partitioning=True)
    row = frame.select(
        polars.len().alias("rows"), polars.col("dt").n_unique().alias("days"), *[polars.col(name).sum() for name in numeric]
    ).collect().row(0)
    by_day = frame.filter(polars.col("dt").cast(polars.String) == str(first)).select(polars.len()).collect().item()
    return row[0], row[1], dict(zip(numeric, row[2:])), by_day


def with_duckdb(folder, numeric, first):
    # DuckDB takes Arrow data from pyarrow, pushing columns and filters down into the scan.
    data = pyarrow.dataset.dataset(folder, format="ipc", partitioning="hive")
    sums = ", ".join(f'sum("{name}")' for name in numeric)
    connection = duckdb.connect()
    connection.register("data", data)
    row = connection.execute(f"select count(*), count(distinct dt), {sums} from data").fetchone()
    by_day = connection.execute("select count(*) from data where dt = ?", [first]).fetchone()[0]
    return row[0], row[1], {n: s or 0 for n, s in zip(numeric, row[2:])}, by_day


def committed(folder):
    entries = [json.loads(path.read_text()) for path in pathlib.Path(folder).glob("_log/*/*.json")]
    return sum(f["rows"] for e in entries for f in e.get("files", []))


def same(a, b):
    return a.keys() == b.keys() and all(math.isclose(a[k], b[k], rel_tol=1e-9, abs_tol=1e-6) for k in a)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dir")
    parser.add_argument("--rows", type=int, help="how many rows there must be")
    args = parser.parse_args()

    rows, days, sums, first, by_day = with_pyarrow(args.dir)
    print(f"pyarrow {pyarrow.__version__}: {rows} rows of {days} days, {by_day} on {first}, sums {sums}")
    faults = []
    for name, version, read in [("polars", polars.__version__, with_polars), ("duckdb", duckdb.__version__, with_duckdb)]:
        r, d, s, b = read(args.dir, list(sums), first)
        print(f"{name} {version}: {r} rows of {d} days, {b} on {first}, sums {s}")
        if (r, d, b) != (rows, days, by_day) or not same(s, sums):
            faults.append(f"{name} and pyarrow disagree")
    if committed(args.dir) != rows:
        faults.append(f"{committed(args.dir)} rows are committed")
    if args.rows is not None and args.rows != rows:
        faults.append(f"{args.rows} rows were expected")
    for fault in faults:
        print(fault, file=sys.stderr)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
