#!/usr/bin/env python3
"""Reads a day's folder in S3 with PyArrow and Polars, repeatedly while another process replaces it.

    poll_s3.py ENDPOINT FOLDER ROWS FILES STOP

Every observed state must contain at least one complete day: FILES files of one job and ROWS rows. A read may fail if a
listed file is removed meanwhile; then the next listing must differ. A replacement may tear a listing, but not two
consecutive ones. Ends when the file STOP exists, after a final read that must succeed, and prints one JSON object of
counts. Exit code 1: a state was less than a day.

Keys come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
"""

import collections
import json
import os
import re
import sys

import polars
import pyarrow.dataset
import pyarrow.fs

endpoint, folder, rows, files, stop = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), sys.argv[5]
keys = {"access_key": os.environ["AWS_ACCESS_KEY_ID"], "secret_key": os.environ["AWS_SECRET_ACCESS_KEY"]}
store = pyarrow.fs.S3FileSystem(endpoint_override=endpoint, scheme="http", region="us-east-1", **keys)
options = {
    "aws_access_key_id": keys["access_key"],
    "aws_secret_access_key": keys["secret_key"],
    "aws_region": "us-east-1",
    "aws_endpoint_url": f"http://{endpoint}",
    "aws_allow_http": "true",
}
seen = collections.Counter()


def listing():
    found = store.get_file_info(pyarrow.fs.FileSelector(folder))
    return sorted(info.path for info in found if info.type == pyarrow.fs.FileType.File)


def check(what, good):
    if not good:
        sys.exit(f"less than a day was seen: {what}")


def whole(paths):
    jobs = collections.Counter(re.sub(r".*/part-\d+-(.*)-\d+\.snappy\.parquet", r"\1", path) for path in paths)
    return max(jobs.values(), default=0) == files


def look(name, read):
    """One read, with a listing before and after it."""
    before = listing()
    if not whole(before):
        # A listing is not atomic: it may miss a new file, and list an old one that is removed.
        seen["torn listing"] += 1
        again = listing()
        check(f"files {before}, then {again}", whole(again))
        return False
    try:
        count = read()
    except Exception as error:  # Each reader has its own errors for a removed file.
        check(f"{name} failed on a day that stood still: {error}", listing() != before)
        seen[f"{name} stale"] += 1
        return False
    check(f"{count} rows by {name}", rows <= count)
    seen[name if count == rows else f"{name} mixed"] += 1
    return True


def arrow():
    return pyarrow.dataset.dataset(folder, filesystem=store, format="parquet").count_rows()


def frame():
    scan = polars.scan_parquet(f"s3://{folder}/*.parquet", storage_options=options)
    return scan.select(polars.len()).collect().item()


def round_of_looks():
    return [look("pyarrow", arrow), look("polars", frame)]


while not os.path.exists(stop):
    round_of_looks()
if not all(round_of_looks()):
    sys.exit("a day that stood still could not be read")
print(json.dumps(seen))
