"""Makes days whose files come from many writers, each day with a plain copy of the same rows and the result of DuckDB over
that.

    make_days.py FOLDER WRITERS SEED...

WRITERS is `quick`, `all`, or names separated by commas. The day of a seed is FOLDER/SEED: `mixed` and `plain` hold
`addons/v2` and `main_summary/v3`, `expected.parquet` the expected result, `files.json` the writer and options of each file.
The same seed and writers always make the same day."""

import json
import pathlib
import random
import sys

import pyarrow.parquet as pq

import rows
from writers import QUICK, WRITERS

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "readers"))
import reference  # noqa: E402

# The exit code if a writer is not installed.
NOT_INSTALLED = 3
DATE = "20170227"
TABLES = {"addons": "addons/v2", "main_summary": "main_summary/v3"}


class Maker:
    """Writers that are set up once for many days."""

    def __init__(self, folder, names):
        self.folder = pathlib.Path(folder)
        self.names = names
        self.writers = {name: WRITERS[name]() for name in names}

    def day(self, seed):
        """Makes the day of a seed."""
        # Includes the set of writers: two sets make two days.
        rng = random.Random(f"{seed} {self.names}")
        drawn = rows.Rows(rng)
        day, described = self.folder / str(seed), {}
        for table in TABLES:
            kept = []
            for at in range(rng.choice([1, 3, 6, 9])):
                kept += self.file(day, table, at, drawn, rng, described)
            if rng.random() < 0.5:
                litter(partition(day / "mixed", table))
            plain = partition(day / "plain", table) / "part-0.parquet"
            plain.parent.mkdir(parents=True)
            pq.write_table(rows.table(table, kept), plain, compression="none", use_dictionary=False)
        (day / "files.json").write_text(json.dumps(described, indent=1))
        both = [[str(partition(day / "plain", table) / "part-0.parquet")] for table in TABLES]
        reference.write(*both, day / "expected.parquet")

    def file(self, day, table, at, drawn, rng, described):
        """Writes a file, and returns its rows."""
        name = rng.choice(self.names)
        writer = self.writers[name]
        draw = drawn.addon if table == "addons" else drawn.ping
        kept = [writer.kept(table, draw()) for _ in range(drawn.size())]
        path = partition(day / "mixed", table) / rng.choice(["", "", f"sample_id={at}", f"_locality={at}"]) / f"part-{at:05}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Recorded before the write, to identify the writer if it fails.
        where = f"{TABLES[table]}/{path.name}"
        described[where] = {"writer": name, "rows": len(kept)}
        try:
            described[where]["options"] = writer.write(rows.table(table, kept, rng), path, rng)
        except BaseException as error:
            error.add_note(f"{name} writes {len(kept)} rows of {table} to {path}")
            raise
        return kept


def litter(folder):
    """Adds files that are not data."""
    for name, text in [("_SUCCESS", ""), (".part-0.crc", "crc"), ("part-9.parquet._COPYING_", "PAR1"), ("part-8.parquet", ""),
                       ("_temporary/part-0.parquet", "PAR1")]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def partition(root, table):
    """The day's folder of a table."""
    return root / TABLES[table] / f"submission_date_s3={DATE}"


def main():
    folder, names, *seeds = sys.argv[1:]
    names = {"quick": QUICK, "all": list(WRITERS)}.get(names) or names.split(",")
    try:
        maker = Maker(folder, names)
    except ImportError as error:
        print(f"no {error.name} for {sys.executable}", file=sys.stderr)
        raise SystemExit(NOT_INSTALLED) from error
    for seed in seeds:
        maker.day(int(seed))
    for writer in maker.writers.values():
        writer.finish()


if __name__ == "__main__":
    main()
