"""Counts with DuckDB; prints JSON. A separate process, so that the measuring process stays small.

    count.py output DIR              rows and totals of an output
    count.py day ADDONS MAIN_SUMMARY rows of a day's two tables
    count.py version
"""

import json
import sys

import duckdb


def output(folder):
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


def rows(root):
    """Rows of a table, according to its footers."""
    query = "select sum(num_rows)::bigint from parquet_file_metadata(?)"
    return duckdb.execute(query, [f"{root}/**/*.parquet"]).fetchone()[0]


def main():
    what, *args = sys.argv[1:]
    if what == "output":
        found = output(*args)
    elif what == "day":
        addons, main_summary = args
        found = {"addons_rows": rows(addons), "main_summary_rows": rows(main_summary)}
    else:
        import polars

        found = {"duckdb": duckdb.__version__, "polars": polars.__version__}
    print(json.dumps(found))


main()
