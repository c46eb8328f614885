"""Millrace and Polars on the same training set: 3,000,000 rows x 40 features.

usage: compare.py FLIGHTS [MILLRACE] [FOLDER]

FLIGHTS is flights-3m.parquet (npm package vega-datasets), MILLRACE the program (default bin/millrace). It prepares a spine
and events (prepare.py), times millrace dataset and polars_join.py one after the other in processes of their own (wall
clock, CPU of all threads, peak resident memory), and compares the values:

  - every value of both: a window of ours begins up to 1/60 earlier than declared (the width of its tile), so our counts
    and extremes must lie between Polars' of the window and Polars' of the window one tile longer;
  - a sample of rows with DuckDB over the raw events, windows beginning at the tile: equal, sums to 1e-9.
"""
import json, os, resource, subprocess, sys, tempfile, time
import duckdb, polars as pl

here = os.path.dirname(os.path.abspath(__file__))
flights = sys.argv[1]
millrace = sys.argv[2] if len(sys.argv) > 2 else "bin/millrace"
folder = sys.argv[3] if len(sys.argv) > 3 else tempfile.mkdtemp(prefix="millrace-bench-")
spine, events, ours, theirs = (os.path.join(folder, f) for f in ("spine.parquet", "events.parquet", "ours.parquet", "polars.parquet"))
TILES = {"1h": 60, "3h": 180, "24h": 24 * 60, "7d": 168 * 60}
SPANS = {"1h": 3600, "3h": 3 * 3600, "24h": 24 * 3600, "7d": 7 * 24 * 3600}


def timed(name, command):
    began = time.time()
    p = subprocess.Popen(command, stdout=sys.stderr)
    _, status, used = os.wait4(p.pid, 0)
    wall = time.time() - began
    if status:
        sys.exit(f"{name} ended with status {status}")
    line = {"name": name, "wall_s": round(wall, 1), "cpu_s": round(used.ru_utime + used.ru_stime, 1), "peak_rss_mib": used.ru_maxrss // 1024}
    print(json.dumps(line), flush=True)
    return line


if not os.path.exists(spine):
    subprocess.run([sys.executable, f"{here}/prepare.py", flights, folder], check=True)
rows = pl.scan_parquet(spine).select(pl.len()).collect().item()
print(json.dumps({"rows": rows, "features": 40, "cores": len(os.sched_getaffinity(0)), "load": round(os.getloadavg()[0], 1), "polars": pl.__version__}))
a = timed("millrace", [millrace, "dataset", "--project", here, "--spine", spine, "--time", "scheduled", "--events", f"arrivals={events}", "--out", ours])
b = timed("polars", [sys.executable, f"{here}/polars_join.py", spine, events, theirs])
print(json.dumps({"millrace/polars": {k: round(a[k] / b[k], 2) for k in ("wall_s", "cpu_s", "peak_rss_mib")}}))

# Every count and extreme, between those of the two windows that Polars gives.
o, p = pl.scan_parquet(ours), pl.scan_parquet(theirs)
assert pl.scan_parquet(ours).select("flight_id").collect().equals(pl.read_parquet(spine, columns=["flight_id"])), "rows are not those of the spine"
checked = exact = 0
for entity in ("origin", "destination"):
    for w in TILES:
        names = [f"{entity}.{f}_{w}" for f in ("count", "max", "min")]
        x, y = o.select(names).collect(), p.select(names).collect()
        count, most, least = ((x[n].cast(pl.Float64), y[n].cast(pl.Float64)) for n in names)
        never = x[names[0]].is_null()  # nothing is known of the entity yet: Polars counts 0
        assert y[names[0]].filter(never).fill_null(0).sum() == 0, names[0]
        assert (count[0] < count[1]).fill_null(False).sum() == 0, names[0]
        assert (most[0] < most[1]).fill_null(False).sum() == 0, names[1]
        assert (least[0] > least[1]).fill_null(False).sum() == 0, names[2]
        same = (count[0] == count[1]).fill_null(True)
        for f, tolerance in (("max", 0), ("min", 0), ("mean", 1e-9), ("stddev", 1e-6)):
            n = f"{entity}.{f}_{w}"
            u, v = (s.select(n).collect()[n].cast(pl.Float64).filter(same & ~never) for s in (o, p))
            wrong = ((u - v).abs() > tolerance * (1 + v.abs())).fill_null(False).sum() + (u.is_null() & v.is_not_null()).sum()
            assert wrong == 0, f"{n}: {wrong} values differ where counts are the same"
            checked += len(u)
        exact += same.sum()
        checked += 3 * rows
print(json.dumps({"values_compared_with_polars": checked, "windows_with_equal_counts": round(exact / (8 * rows), 4)}))

# A sample to the bit, with windows that begin at the tile.
db = duckdb.connect()
db.execute(f"create table e as select origin, destination, epoch_ms(arrived) t, delay from '{events}'")
sample = 300
db.execute(f"create table s as select * from (select row_number() over () - 1 as row, epoch_ms(scheduled) t, * from '{ours}') using sample {sample} (reservoir, 7)")
compared = 0
for entity in ("origin", "destination"):
    for w, tile in TILES.items():
        tile, span = tile * 1000, SPANS[w] * 1000
        bad = db.sql(f"""
            with want as (select s.row, count(e.t) n, avg(e.delay) mean, stddev_pop(e.delay) std, max(e.delay) most, min(e.delay) least
                from s left join e on e.{entity} = s.{entity} and e.t < s.t and e.t >= (s.t - {span}) // {tile} * {tile} group by s.row)
            select count(*) from s join want using (row) where
                coalesce(s."{entity}.count_{w}", 0) <> n or coalesce(s."{entity}.max_{w}", -9999) <> coalesce(most, -9999)
                or coalesce(s."{entity}.min_{w}", -9999) <> coalesce(least, -9999)
                or abs(coalesce(s."{entity}.mean_{w}", 0) - coalesce(mean, 0)) > 1e-9 * (1 + abs(mean))
                or abs(coalesce(s."{entity}.stddev_{w}", 0) - coalesce(std, 0)) > 1e-9 * (1 + abs(std))""").fetchall()[0][0]
        assert bad == 0, f"{entity} {w}: {bad} of {sample} rows are not what DuckDB says"
        compared += 5 * sample
print(json.dumps({"values_equal_to_duckdb": compared}))
