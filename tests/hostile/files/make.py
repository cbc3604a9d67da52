"""Writes the Parquet files of this directory: each table in several encodings, with and without page checksums. Other writers
wrote `*-zero-bits`, `*-wide-deltas` and `*-lz4-blocks`: indices without bits or runs, 32-bit values with differences of 33
bits, Hadoop's LZ4 in several blocks.

    python make.py       (needs PyArrow)
"""
import random
import uuid

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = 240
random.seed(7)
CLIENTS = [str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(60)] + ["no uuid", None]

addons = pa.table({
    "client_id": pa.array([CLIENTS[i // 4 % len(CLIENTS)] for i in range(ROWS)]),
    "addon_id": pa.array([None if i % 31 == 0 else f"addon{i % 37}@example.org" for i in range(ROWS)]),
    "foreign_install": pa.array([[True, False, None][i % 3] for i in range(ROWS)]),
    "is_system": pa.array([i % 11 == 0 for i in range(ROWS)]),
    "user_disabled": pa.array([None if i % 29 == 0 else i % 13 == 0 for i in range(ROWS)]),
    "app_disabled": pa.array([i % 17 == 0 for i in range(ROWS)]),
})
addon = pa.struct([("install_day", pa.int32())])
theme = pa.struct([("addon_id", pa.string())])
main_summary = pa.table({
    "client_id": pa.array([CLIENTS[i % len(CLIENTS)] for i in range(ROWS)]),
    "profile_creation_date": pa.array([None if i % 19 == 0 else 16_000 + i % 900 for i in range(ROWS)], pa.int64()),
    "active_theme": pa.array([None if i % 23 == 0 else {"addon_id": f"theme{i % 5}"} for i in range(ROWS)], theme),
    "active_addons": pa.array(
        [None if i % 7 == 0 else [None if j == 3 else {"install_day": 15_000 + i + j} for j in range(i % 5)]
         for i in range(ROWS)], pa.list_(addon)),
})

PINGS = ROWS // 2


def ping(i):
    """Its list: null, empty, with a null element, with null fields."""
    return None if i % 11 == 0 else [None if (i + j) % 13 == 0 else {
        "name": f"name {j}", "addon_id": None if (i + j) % 17 == 0 else f"addon{(i * 7 + j) % 23}@example.org",
        "foreign_install": [False, True, False, None][(i + j) % 4], "is_system": [False, False, True, None][(i * j) % 4],
        "is_web_extension": [True, False, None][(i + 2 * j) % 3],
        "install_day": None if (i + j) % 19 == 0 else 15_000 + (i * 31 + j) % 3000} for j in range(i * 5 % 9)]


def pings(date, day):
    """Pings with these types of dates and install days."""
    element = pa.struct([("name", pa.string()), ("addon_id", pa.string()), ("foreign_install", pa.bool_()),
                         ("is_system", pa.bool_()), ("is_web_extension", pa.bool_()), ("install_day", day)])
    return pa.table({
        "client_id": pa.array([CLIENTS[i % len(CLIENTS)] for i in range(PINGS)]),
        "normalized_channel": pa.array([["release", "beta", None][i % 3] for i in range(PINGS)]),
        "app_version": pa.array([f"{50 + i % 7}.0.1" for i in range(PINGS)]),
        "locale": pa.array([["de", "en-US"][i % 2] for i in range(PINGS)]),
        "profile_creation_date": pa.array([None if i % 19 == 0 else 16_000 + i % 900 for i in range(PINGS)], date),
        "active_addons": pa.array([ping(i) for i in range(PINGS)], pa.list_(element)),
    })


DELTA = {"string": "DELTA_BYTE_ARRAY", "int": "DELTA_BINARY_PACKED", "bool": "RLE"}
SPLIT = {"profile_creation_date": "BYTE_STREAM_SPLIT", "active_addons.list.element.install_day": "BYTE_STREAM_SPLIT",
         "active_addons.list.element.addon_id": "DELTA_LENGTH_BYTE_ARRAY"}


def delta(table):
    """The delta encoding of each leaf."""
    kinds = {pa.string(): "string", pa.int32(): "int", pa.int64(): "int", pa.bool_(): "bool"}
    return {path: DELTA[kinds[type]] for path, type in leaves(table.schema)}


def leaves(fields, prefix=""):
    """The path and type of each leaf."""
    for field in fields:
        path, type = prefix + field.name, field.type
        if pa.types.is_list(type):
            path, type = f"{path}.list.element", type.value_type
        yield from leaves(type.fields, f"{path}.") if pa.types.is_struct(type) else [(path, type)]


def write(table, path, **options):
    pq.write_table(table, path, **{"row_group_size": table.num_rows // 2, "data_page_size": 400, "write_batch_size": 16,
                                   "store_schema": False, **options})


# Pages long enough for a Snappy stream to repeat whole ids in.
runs = pa.array([CLIENTS[(i // 8 + 40) % len(CLIENTS)] for i in range(ROWS)])

for name, table in [("addons", addons), ("main_summary", main_summary), ("pings", pings(pa.int64(), pa.int32()))]:
    formats = {
        "dictionary-snappy": dict(compression="snappy", use_dictionary=True),
        "plain-gzip": dict(compression="gzip", use_dictionary=False),
        "delta-zstd-v2": dict(compression="zstd", use_dictionary=False, data_page_version="2.0",
                              column_encoding=delta(table)),
    }
    if name == "pings":
        formats["split-none"] = dict(compression="none", use_dictionary=False, column_encoding=SPLIT)
    for kind, options in formats.items():
        for checksums, sums in [(True, "sums"), (False, "bare")]:
            write(table, f"{name}-{kind}-{sums}.parquet", write_page_checksum=checksums, **options)
    if name == "pings":
        # Integers of the other widths.
        table = pings(pa.int32(), pa.int64())
    for version, kind in [("1.0", "runs-snappy"), ("2.0", "runs-snappy-v2")]:
        for checksums, sums in [(True, "sums"), (False, "bare")]:
            write(table.set_column(0, "client_id", runs[:table.num_rows]), f"{name}-{kind}-{sums}.parquet", use_dictionary=False,
                  compression="snappy", data_page_version=version, data_page_size=4000, write_page_checksum=checksums)
