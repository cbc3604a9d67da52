#!/usr/bin/env python3
"""Objects by their exact keys, including keys that are not paths: with a trailing slash, or two consecutive ones.

    raw_keys.py ENDPOINT BUCKET put|remove|list KEY...

`put` creates empty objects; `list` prints the keys that begin with KEY, one per line. Credentials come from the environment.
"""

import sys

import boto3
from botocore.config import Config

endpoint, bucket, what, *keys = sys.argv[1:]
s3 = boto3.client("s3", endpoint_url=endpoint, config=Config(s3={"addressing_style": "path"}))
for key in keys:
    match what:
        case "put":
            s3.put_object(Bucket=bucket, Key=key, Body=b"")
        case "remove":
            s3.delete_object(Bucket=bucket, Key=key)
        case "list":
            pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=key)
            for page in pages:
                for found in page.get("Contents", []):
                    print(found["Key"])
        case _:
            sys.exit(f"{what} is nothing to do")
