"""The whole job of `addon_aggregates_v2` in DuckDB's SQL; a folder of snappy Parquet per sample.

    duckdb_day_v2.py THREADS DATE MAIN_SUMMARY OUTPUT

A sample's rows are in its folder, so each thread takes folders in turn, the largest first. Days are as the generator makes them:
between the years 1901 and 2038, where days and their texts sort alike. Prints {"version", "seconds"}: its own clock, from the
first query to the last written file. Settings are DuckDB's defaults, but for the number of threads and the order of rows.
"""

import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb

QUERY = """
copy (
    with exploded as (
        select client_id, normalized_channel, substring(app_version, 1, 2) as app_version, locale, profile_creation_date,
               unnest(active_addons) as addon
        from read_parquet('{files}', union_by_name = true, hive_partitioning = false)
    ),
    flagged as (
        select distinct client_id, normalized_channel, app_version, locale, profile_creation_date,
               addon.addon_id as addon_id, addon.install_day as install_day, addon.foreign_install as foreign_install,
               coalesce(addon.is_system, false) as system, coalesce(addon.is_web_extension, false) as web,
               coalesce(
                   not addon.is_system and not addon.foreign_install and not contains(addon.addon_id, 'mozilla')
                   and not contains(addon.addon_id, 'cliqz') and not contains(addon.addon_id, '@unified-urlbar')
                   and addon.addon_id <> '@testpilot-addon',
                   false
               ) as own
        from exploded
    )
    select client_id, normalized_channel, app_version, locale,
           count(*) filter (where own) as n_self_installed_addons,
           count(*) filter (where contains(addon_id, '@shield.mozilla')) as n_shield_addons,
           count(*) filter (where foreign_install) as n_foreign_installed_addons,
           count(*) filter (where system) as n_system_addons,
           count(*) filter (where web) as n_web_extensions,
           strftime(date '1970-01-01' + (min(install_day) filter (where own))::int, '%Y%m%d') as first_addon_install_date,
           strftime(date '1970-01-01' + min(profile_creation_date)::int, '%Y%m%d') as profile_creation_date
    from flagged
    group by client_id, normalized_channel, app_version, locale
) to '{output}' (format parquet, compression snappy)
"""


def main():
    threads, date, main_summary, output = sys.argv[1:]
    start = time.perf_counter()
    database = duckdb.connect()
    database.execute(f"set threads = {int(threads)}")
    database.execute("set preserve_insertion_order = false")

    def compute(folder):
        target = Path(output, folder.parent.name, folder.name)
        target.mkdir(parents=True)
        query = QUERY.format(files=f"{folder}/*.parquet", output=target / "part-0.snappy.parquet")
        with database.cursor() as mine:
            mine.execute(query)

    folders = list(Path(main_summary, f"submission_date_s3={date}").iterdir())
    size = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
    with ThreadPoolExecutor(int(threads)) as pool:
        for done in [pool.submit(compute, folder) for folder in sorted(folders, key=size.get, reverse=True)]:
            done.result()
    print(json.dumps({"version": duckdb.__version__, "seconds": time.perf_counter() - start}))


main()
