"""The whole job in DuckDB's SQL, on two threads; snappy Parquet out.

    duckdb_day.py THREADS DATE ADDONS MAIN_SUMMARY OUTPUT

Prints {"version", "seconds"}: its own clock, from the first query to the written file. Settings are DuckDB's
defaults, but for the number of threads.
"""

import json
import sys
import time

import duckdb

QUERY = """
copy (
    with installed as (
        select client_id, foreign_install, addon_id
        from read_parquet('{addons}', union_by_name = true, hive_partitioning = false)
        where not is_system and not user_disabled and not app_disabled
        group by all
    ),
    counted as (
        select client_id, foreign_install, count(*) as "count" from installed group by client_id, foreign_install
    ),
    typed as (
        select client_id, sum(if(foreign_install, 1, -1))::bigint as user_type from counted group by client_id
    ),
    pings as (
        select client_id, profile_creation_date, active_addons,
               coalesce(active_theme.addon_id <> '{{972ce4c6-7e08-4474-a285-3208198ce6fd}}', false) as custom
        from read_parquet('{main_summary}', union_by_name = true, hive_partitioning = false)
    ),
    themed as (
        select client_id, bool_or(custom)::bigint - bool_or(not custom)::bigint as has_custom_theme
        from pings group by client_id
    ),
    dated as (
        select client_id, profile_creation_date,
               min(list_min(list_transform(active_addons, lambda addon: addon.install_day))) as min_install_day
        from pings where len(active_addons) > 0
        group by client_id, profile_creation_date
    ),
    totals as (
        select (count(*) filter (has_custom_theme >= 0))::int as n_custom_theme_clients, count(*)::int as n_clients
        from themed
    )
    select client_id, foreign_install, "count", user_type, profile_creation_date, min_install_day,
           has_custom_theme, n_custom_theme_clients, n_clients
    from counted
    join typed using (client_id)
    left join dated using (client_id)
    left join themed using (client_id)
    cross join totals
) to '{output}' (format parquet, compression snappy)
"""


def main():
    threads, date, addons, main_summary, output = sys.argv[1:]
    start = time.perf_counter()
    database = duckdb.connect()
    database.execute(f"set threads = {int(threads)}")
    day = f"submission_date_s3={date}/**/*.parquet"
    database.execute(
        QUERY.format(
            addons=f"{addons}/{day}", main_summary=f"{main_summary}/{day}", output=f"{output}/part-0.snappy.parquet"
        )
    )
    print(json.dumps({"version": duckdb.__version__, "seconds": time.perf_counter() - start}))


main()
