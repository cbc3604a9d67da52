#!/usr/bin/env python3
"""Reads an output of addon_aggregates back with the libraries of users: DuckDB, PyArrow and Polars.

    check.py OUTPUT EXPECTED DATE

OUTPUT is the dataset's root, EXPECTED a Parquet file with the rows that must come back (in any order). Each reader
takes the whole folder, with the partition column from the path, and must see the nine columns with their types, the
date, and the same multiset of rows. Prints one line per reader; the exit status is 1 on any difference.
"""
import sys
from collections import Counter
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

# Column, Arrow type, nullable, DuckDB type, Polars type.
COLUMNS = [
    ("client_id", pa.string(), True, "VARCHAR", pl.String),
    ("foreign_install", pa.bool_(), True, "BOOLEAN", pl.Boolean),
    ("count", pa.int64(), False, "BIGINT", pl.Int64),
    ("user_type", pa.int64(), True, "BIGINT", pl.Int64),
    ("profile_creation_date", pa.int64(), True, "BIGINT", pl.Int64),
    ("min_install_day", pa.int32(), True, "INTEGER", pl.Int32),
    ("has_custom_theme", pa.int64(), True, "BIGINT", pl.Int64),
    ("n_custom_theme_clients", pa.int32(), False, "INTEGER", pl.Int32),
    ("n_clients", pa.int32(), False, "INTEGER", pl.Int32),
]
NAMES = [column[0] for column in COLUMNS]
PARTITION = "submission_date_s3"


def expect(found, wanted, what):
    if found != wanted:
        raise SystemExit(f"{what}: {found!r} instead of {wanted!r}")


def same_rows(reader, found, expected, date):
    """`found` holds tuples of the nine columns and the partition's date."""
    dates = {str(row[-1]) for row in found}
    expect(dates, {date} if found else set(), f"{reader}: the partition column")
    counted = Counter(tuple(row[:-1]) for row in found)
    extra, missing = counted - expected, expected - counted
    if extra or missing:
        raise SystemExit(f"{reader}: {extra.total()} rows too many, {missing.total()} missing\n"
                         f"+ {list(extra)[:5]}\n- {list(missing)[:5]}")
    print(f"{reader}: {len(found)} rows")


def with_duckdb(root, expected, date):
    source = f"read_parquet('{root}/**/*.parquet', hive_partitioning=true, hive_types_autocast=false)"
    con = duckdb.connect()
    types = {row[0]: row[1] for row in con.execute(f"describe select * from {source}").fetchall()}
    expect(list(types), NAMES + [PARTITION], "DuckDB: the columns")
    for name, _, _, kind, _ in COLUMNS:
        expect(types[name], kind, f"DuckDB: the type of {name}")
    found = con.execute(f"select * from {source}").fetchall()
    same_rows("DuckDB", found, expected, date)


def with_pyarrow(root, expected, date):
    for file in sorted(root.rglob("*.parquet")):
        schema = pq.ParquetFile(file).schema_arrow
        expect(schema.names, NAMES, f"PyArrow: the columns of {file}")
        for name, kind, nullable, _, _ in COLUMNS:
            field = schema.field(name)
            expect((field.type, field.nullable), (kind, nullable), f"PyArrow: {name} in {file}")
    hive = ds.partitioning(pa.schema([(PARTITION, pa.string())]), flavor="hive")
    table = ds.dataset(root, format="parquet", partitioning=hive).to_table()
    expect(table.column_names, NAMES + [PARTITION], "PyArrow: the columns")
    found = list(zip(*(column.to_pylist() for column in table.columns)))
    same_rows("PyArrow", found, expected, date)


def with_polars(root, expected, date):
    hive = {PARTITION: pl.String}
    frame = pl.scan_parquet(root, hive_partitioning=True, hive_schema=hive).collect()
    expect(frame.columns, NAMES + [PARTITION], "Polars: the columns")
    for name, _, _, _, kind in COLUMNS:
        expect(frame.schema[name], kind, f"Polars: the type of {name}")
    same_rows("Polars", frame.rows(), expected, date)


def main():
    root, date = Path(sys.argv[1]), sys.argv[3]
    table = pq.ParquetFile(sys.argv[2]).read().select(NAMES)
    expected = Counter(zip(*(column.to_pylist() for column in table.columns)))
    for read in (with_duckdb, with_pyarrow, with_polars):
        read(root, expected, date)


if __name__ == "__main__":
    main()
