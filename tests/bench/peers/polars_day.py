"""The whole job in Polars, streaming, on two threads; snappy Parquet out.

    polars_day.py THREADS DATE ADDONS MAIN_SUMMARY OUTPUT

Prints {"version", "seconds"}: its own clock, from the first scan to the written file.
"""

import json
import os
import sys
import time

# Read at import.
os.environ["POLARS_MAX_THREADS"] = sys.argv[1]

import polars as pl
from polars import col, lit

DEFAULT_THEME = "{972ce4c6-7e08-4474-a285-3208198ce6fd}"


def count_addons(addons):
    """One row per client and install type, with its distinct add-ons."""
    passing = ~col("is_system") & ~col("user_disabled") & ~col("app_disabled")
    distinct = addons.filter(passing).select("client_id", "foreign_install", "addon_id").unique()
    return distinct.group_by("client_id", "foreign_install").agg(pl.len().cast(pl.Int64).alias("count"))


def find_themes(pings):
    """One row per client: whether its themes of the day were custom (1), default (-1) or both (0)."""
    custom = (col("active_theme").struct.field("addon_id") != DEFAULT_THEME).fill_null(False)
    seen = pings.select("client_id", custom=custom).group_by("client_id")
    sides = seen.agg(some=col("custom").any(), others=(~col("custom")).any())
    both = col("some").cast(pl.Int64) - col("others").cast(pl.Int64)
    return sides.select("client_id", has_custom_theme=both)


def find_days(pings):
    """One row per client and profile date, with the earliest install day of its add-ons."""
    installed = col("active_addons").list.eval(pl.element().struct.field("install_day")).list.min()
    with_addons = pings.filter(col("active_addons").list.len() > 0)
    days = with_addons.select("client_id", "profile_creation_date", day=installed)
    return days.group_by("client_id", "profile_creation_date").agg(min_install_day=col("day").min())


def main():
    _, date, addons_root, main_root, output = sys.argv[1:]
    start = time.perf_counter()
    addons, pings = (
        pl.scan_parquet(f"{root}/submission_date_s3={date}/**/*.parquet", hive_partitioning=False)
        for root in (addons_root, main_root)
    )
    counted = count_addons(addons).collect(engine="streaming")
    themed = find_themes(pings).collect(engine="streaming")
    dated = find_days(pings).collect(engine="streaming")
    sign = pl.when(col("foreign_install").fill_null(False)).then(1).otherwise(-1)
    typed = counted.lazy().group_by("client_id").agg(user_type=sign.sum().cast(pl.Int64))
    customs = themed.filter(col("has_custom_theme") >= 0).height
    rows = (
        counted.lazy()
        .join(typed, on="client_id")
        .join(dated.lazy(), on="client_id", how="left")
        .join(themed.lazy(), on="client_id", how="left")
        .with_columns(
            n_custom_theme_clients=lit(customs, dtype=pl.Int32), n_clients=lit(themed.height, dtype=pl.Int32)
        )
    )
    columns = ["client_id", "foreign_install", "count", "user_type", "profile_creation_date", "min_install_day"]
    columns += ["has_custom_theme", "n_custom_theme_clients", "n_clients"]
    rows.select(columns).sink_parquet(f"{output}/part-0.snappy.parquet", compression="snappy", engine="streaming")
    print(json.dumps({"version": pl.__version__, "seconds": time.perf_counter() - start}))


main()
