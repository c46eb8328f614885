"""Make spine.parquet and events.parquet of flights: each flight as it is about to leave, and as it has landed.

A flight lands its schedule's minutes plus 30 and one for every eight miles after its departure, plus its delay, and not
before it has left. Events are in the order of landing, as a log has them; the spine is in that of departure.
"""
import sys
import polars as pl

flights, out = sys.argv[1:3]
df = pl.read_parquet(flights).with_row_index("n")
# Most delays are known to the minute alone: seconds from the row's number spread flights within their minute.
df = df.with_columns(
    flight_id=pl.format("F{}", "n"),
    scheduled=pl.col("date").cast(pl.Datetime("ms")) + pl.duration(milliseconds=(pl.col("n") * 7919) % 60000),
)
df = df.with_columns(
    arrived=pl.max_horizontal(
        "scheduled",
        pl.col("scheduled") + pl.duration(minutes=30 + pl.col("distance") // 8 + pl.col("delay")),
    )
)
spine = df.sort("scheduled").select("flight_id", "scheduled", "origin", "destination")
spine.write_parquet(f"{out}/spine.parquet", compression="zstd")
df.sort("arrived").select("flight_id", "arrived", "origin", "destination", "delay").write_parquet(
    f"{out}/events.parquet", compression="zstd"
)
