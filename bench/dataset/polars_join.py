"""The features of bench/dataset/millrace.yaml in Polars, as one who knows it would write them.

Windows are [t-w, t): of events that landed before the flight leaves. For every entity, flights about to leave and flights
that landed go into one frame sorted by time, in which rolling aggregates look back from each row; rows of departures have
no delay, so they count for nothing. (join_asof on running sums gives count, mean and stddev, too, but not max and min, and
is no faster; see docs/bench/dataset.md.)

usage: polars_join.py SPINE EVENTS OUT
"""
import sys
import polars as pl

WINDOWS = ["1h", "3h", "24h", "7d"]


def features(spine: pl.LazyFrame, events: pl.LazyFrame, entity: str) -> pl.LazyFrame:
    at = spine.select(pl.col("row"), pl.col(entity), t=pl.col("scheduled"), delay=pl.lit(None, pl.Float64))
    seen = events.select(pl.lit(None, pl.UInt32).alias("row"), pl.col(entity), t=pl.col("arrived"), delay=pl.col("delay").cast(pl.Float64))
    both = pl.concat([at, seen]).sort("t")
    columns = []
    for w in WINDOWS:
        rolling = dict(window_size=w, closed="left")
        d = pl.col("delay")
        columns += [
            d.is_not_null().cast(pl.UInt32).rolling_sum_by("t", **rolling).over(entity).alias(f"{entity}.count_{w}"),
            d.rolling_mean_by("t", **rolling).over(entity).alias(f"{entity}.mean_{w}"),
            d.rolling_std_by("t", ddof=0, **rolling).over(entity).alias(f"{entity}.stddev_{w}"),
            d.rolling_max_by("t", **rolling).over(entity).alias(f"{entity}.max_{w}"),
            d.rolling_min_by("t", **rolling).over(entity).alias(f"{entity}.min_{w}"),
        ]
    return both.with_columns(columns).filter(pl.col("row").is_not_null()).drop("t", "delay", entity).sort("row")


def main(spine_path: str, events_path: str, out: str) -> None:
    spine = pl.scan_parquet(spine_path).with_row_index("row")
    events = pl.scan_parquet(events_path)
    frames = [spine.collect()]
    for entity in ("origin", "destination"):
        frames.append(features(spine, events, entity).drop("row").collect())
    pl.concat(frames, how="horizontal").drop("row").write_parquet(out, compression="zstd", compression_level=1)


main(*sys.argv[1:4])
