#!/usr/bin/env python3
"""Rewrites the files of a table with another writer; the rows are unchanged.

    rewrite.py SOURCE TARGET WRITER

SOURCE and TARGET are roots of one table; WRITER is duckdb, duckdb-v2, polars, pyarrow or pyarrow-tiny (many pages).
"""
import sys
from pathlib import Path

import duckdb
import polars as pl
import pyarrow.parquet as pq


def with_duckdb(table, path, version):
    con = duckdb.connect()
    con.register("rows", table)
    options = f"format parquet, compression zstd, parquet_version {version}, row_group_size 2048"
    con.execute(f"copy rows to '{path}' ({options})")


WRITERS = {
    "duckdb": lambda table, path: with_duckdb(table, path, "v1"),
    "duckdb-v2": lambda table, path: with_duckdb(table, path, "v2"),
    "polars": lambda table, path: pl.from_arrow(table).write_parquet(path, compression="lz4", row_group_size=16),
    "pyarrow": lambda table, path: pq.write_table(table, path, version="2.6", data_page_version="2.0"),
    "pyarrow-tiny": lambda table, path: pq.write_table(
        table, path, data_page_version="1.0", use_dictionary=False, write_batch_size=1, data_page_size=1),
}


def main():
    source, target, writer = Path(sys.argv[1]), Path(sys.argv[2]), WRITERS[sys.argv[3]]
    for file in sorted(source.rglob("*.parquet")):
        if file.name.startswith((".", "_")):
            continue
        path = target / file.relative_to(source)
        path.parent.mkdir(parents=True, exist_ok=True)
        writer(pq.ParquetFile(file).read(), path)


if __name__ == "__main__":
    main()
