"""The objectives table as DuckDB reads it, against the statement of the documentation over the output.

    objectives.py OUTPUT DOCUMENT

OUTPUT is the root of an output with the day 20170227, and DOCUMENT has the statement in its only SQL block. Exits with 1 if the
table has another row.
"""

import re
import sys

import duckdb

DAY = "submission_date_s3=20170227"


def rows(statement: str) -> list[dict]:
    found = duckdb.sql(statement)
    return [dict(zip(found.columns, row)) for row in found.fetchall()]


def main(output: str, document: str) -> None:
    (statement,) = re.findall(r"```sql\n(.*?)```", open(document, encoding="utf-8").read(), re.DOTALL)
    place = f"aggregates/{DAY}"
    assert statement.count(place) == 1
    path = f"{output}/{DAY}".replace("'", "''")
    (right,) = rows(statement.replace(place, path))
    table = f"{output}_objectives/*/*.parquet".replace("'", "''")
    (found,) = rows(f"select * from read_parquet('{table}', hive_partitioning = true)")
    assert str(found.pop("submission_date_s3")) == "20170227", found
    assert re.fullmatch("[0-9a-f]{16}", found.pop("checksum")), found
    if right["rows"] == 0:
        # A day without rows does not have the counts of the day.
        for name in ["n_clients", "n_custom_theme_clients", "self_share", "theme_share"]:
            del right[name], found[name]
    if found != right:
        print(f"the table has {found}, the output {right}")
        sys.exit(1)
    print(f"{len(right)} figures, {right['addon_clients']} clients")


main(*sys.argv[1:])
