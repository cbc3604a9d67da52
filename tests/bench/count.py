"""Counts with DuckDB; prints JSON. A separate process, so that the measuring process stays small.

    count.py output DATASET DIR   rows and totals of an output
    count.py day TABLE=DIR...     rows of a day's tables
    count.py version
"""

import json
import sys

import duckdb


SUMS = ("n_self_installed_addons", "n_shield_addons", "n_foreign_installed_addons", "n_system_addons", "n_web_extensions")


def version_1(folder):
    """The figures that a day's totals are compared with. The two global counts must be equal in all rows."""
    query = """
        select count(*)::bigint as rows, sum("count")::bigint as sum_of_count,
               min(n_clients) as n_clients, min(n_custom_theme_clients) as n_custom_theme_clients,
               count(distinct (n_clients, n_custom_theme_clients)) as kinds
        from read_parquet(?, hive_partitioning = false)
    """
    found = duckdb.execute(query, [f"{folder}/**/*.parquet"])
    row = dict(zip([column[0] for column in found.description], found.fetchone()))
    if row.pop("kinds") != 1:
        sys.exit("its global counts are not the same in all rows")
    return row


def version_2(folder):
    """The same. A client that has rows in two samples counts twice."""
    sums = ", ".join(f"sum({name})::bigint as {name}" for name in SUMS)
    query = f"""
        select count(*)::bigint as rows, {sums}, (
            select count(*) from (select distinct sample_id, client_id from output)
        ) as n_clients
        from output
    """
    parts = "read_parquet('" + folder.replace("'", "''") + "/**/*.parquet', hive_partitioning = true)"
    found = duckdb.execute(f"with output as (from {parts}) {query}")
    return dict(zip([column[0] for column in found.description], found.fetchone()))


OUTPUTS = {"addon_aggregates": version_1, "addon_aggregates_v2": version_2}


def rows(root):
    """Rows of a table, according to its footers."""
    query = "select sum(num_rows)::bigint from parquet_file_metadata(?)"
    return duckdb.execute(query, [f"{root}/**/*.parquet"]).fetchone()[0]


def main():
    what, *args = sys.argv[1:]
    if what == "output":
        dataset, folder = args
        found = OUTPUTS[dataset](folder)
    elif what == "day":
        found = {table: rows(root) for table, root in (arg.split("=", 1) for arg in args)}
    else:
        import polars

        found = {"duckdb": duckdb.__version__, "polars": polars.__version__}
    print(json.dumps(found))


main()
