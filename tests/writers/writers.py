"""Writers of Parquet files, each with its options: page versions, encodings, codecs, sizes of pages, row groups and
dictionaries. A writer first converts a row to values that it supports (`kept`), then writes them.

Not here: the rows (`rows.py`), which writer writes what (`make_days.py`)."""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).resolve().parent


class Writer:
    """The default of all writers: they support all values, and are available if their package is installed."""

    def kept(self, name, row):
        """The row of that table, as this writer can write it."""
        return row

    def write(self, table, path, rng):
        """Writes the Arrow table, and returns the chosen options."""
        raise NotImplementedError

    def finish(self):
        """Completes pending writes after the last file."""


def few(table, rng):
    """Rows per row group, for several row groups but not thousands."""
    return 1 + table.num_rows // rng.choice([1, 3, 30])


def retyped(table, rng, kinds):
    """The table with its strings in another of Arrow's types."""
    kind = rng.choice(kinds)
    columns = {}
    for field in table.schema:
        column = table[field.name]
        columns[field.name] = column.cast(kind) if field.type == pa.string() and kind is not None else column
    return pa.table(columns), str(kind)


def encodings(table, rng):
    """An encoding for some of the flat columns, which then have no dictionary."""
    choices = {
        pa.string(): ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"],
        pa.bool_(): ["PLAIN", "RLE"],
        pa.int64(): ["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
        pa.int32(): ["PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"],
    }
    found = {}
    for field in table.schema:
        for path, type in leaves(field.name, field.type):
            if type in choices and rng.random() < 0.8:
                found[path] = rng.choice(choices[type])
    return found


def leaves(path, type):
    """The leaves of a column with their paths in a Parquet file."""
    if pa.types.is_struct(type):
        return [leaf for field in type for leaf in leaves(f"{path}.{field.name}", field.type)]
    if pa.types.is_list(type):
        return leaves(f"{path}.list.element", type.value_type)
    return [(path, type)]


class PyArrow(Writer):
    """Arrow C++."""

    def write(self, table, path, rng):
        options = {
            "version": rng.choice(["1.0", "2.4", "2.6"]),
            "data_page_version": rng.choice(["1.0", "2.0"]),
            "compression": rng.choice(["none", "snappy", "gzip", "brotli", "lz4", "zstd"]),
            "row_group_size": rng.choice([1 << 20, 1 << 20, 500, 7]),
            "data_page_size": rng.choice([None, 1, 200, 10_000]),
            "write_batch_size": rng.choice([None, 1, 13]),
            "dictionary_pagesize_limit": rng.choice([None, 20, 4000]),
            "write_statistics": rng.random() < 0.5,
            "write_page_index": rng.random() < 0.3,
            "write_page_checksum": rng.random() < 0.5,
            "store_schema": rng.random() < 0.5,
        }
        if rng.random() < 0.4:
            options |= {"use_dictionary": False, "column_encoding": encodings(table, rng)}
        else:
            options["use_dictionary"] = rng.random() < 0.8
            options["use_compliant_nested_type"] = rng.random() < 0.5
            if rng.random() < 0.4:
                table, options["strings"] = retyped(table, rng, [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())])
        pq.write_table(table, path, **{key: value for key, value in options.items() if value is not None and key != "strings"})
        return options


class DuckDB(Writer):
    """DuckDB's COPY."""

    def __init__(self):
        import duckdb
        self.database = duckdb.connect()

    def write(self, table, path, rng):
        options = {
            "compression": rng.choice(["uncompressed", "snappy", "gzip", "zstd", "brotli", "lz4_raw"]),
            "row_group_size": rng.choice([2048, 4096, 122_880]),
            "parquet_version": rng.choice(["v1", "v2"]),
        }
        if rng.random() < 0.5:
            options["dictionary_size_limit"] = rng.choice([1, 10, 100_000])
        text = ", ".join(f"{key} '{value}'" if isinstance(value, str) else f"{key} {value}" for key, value in options.items())
        self.database.register("rows", table)
        self.database.execute(f"copy (from rows) to '{path}' (format parquet, {text})")
        return options


class Polars(Writer):
    """Polars' own writer."""

    def __init__(self):
        import polars
        self.module = polars

    def write(self, table, path, rng):
        options = {
            "compression": rng.choice(["uncompressed", "snappy", "gzip", "brotli", "lz4", "zstd"]),
            "statistics": rng.choice([True, False, "full"]),
            "row_group_size": rng.choice([None, 500, 7]),
            "data_page_size": rng.choice([None, 1, 200, 10_000]),
        }
        frame = self.module.from_arrow(table)
        if rng.random() < 0.3:
            options["sink"] = True
            frame.lazy().sink_parquet(path, **{key: value for key, value in options.items() if key != "sink"})
        elif rng.random() < 0.3:
            categorical = [name for name, type in frame.schema.items() if type == self.module.String]
            options["categorical"] = categorical
            frame.with_columns(self.module.col(categorical).cast(self.module.Categorical)).write_parquet(
                path, **{key: value for key, value in options.items() if key != "categorical"})
        else:
            frame.write_parquet(path, **options)
        return options


class FastParquet(Writer):
    """fastparquet, which has no nested columns."""

    def __init__(self):
        import fastparquet.writer
        self.module = fastparquet

    def kept(self, name, row):
        return row if name == "addons" else row | {"active_theme": None, "active_addons": None}

    def write(self, table, path, rng):
        writer = self.module.writer
        nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
        table = table.drop_columns(nested)
        types = {pa.bool_(): "boolean", pa.int64(): "Int64", pa.float64(): "float64", pa.string(): "object"}
        frame = table.to_pandas(types_mapper=None, integer_object_nulls=True)
        strings = [field.name for field in table.schema if field.type == pa.string()]
        for field in table.schema:
            frame[field.name] = frame[field.name].astype(types[field.type])
        options = {
            "compression": rng.choice(["UNCOMPRESSED", "SNAPPY", "GZIP", "BROTLI", "LZ4_RAW", "ZSTD"]),
            "row_group_offsets": rng.choice([None, few(table, rng)]),
            # Columns without nulls become required.
            "has_nulls": rng.choice([True, [name for name in table.column_names if table[name].null_count]]),
            "object_encoding": rng.choice(["utf8", {name: rng.choice(["utf8", "bytes"]) for name in strings}]),
            "stats": rng.choice([True, False, "auto"]),
        }
        written = dict(options)
        of_bytes = [] if options["object_encoding"] == "utf8" else [
            name for name, kind in options["object_encoding"].items() if kind == "bytes"]
        for name in of_bytes:
            frame[name] = frame[name].map(lambda text: text.encode() if isinstance(text, str) else None).astype("object")
        if not of_bytes and rng.random() < 0.3:
            written["category"] = True
            for name in strings:
                frame[name] = frame[name].astype("category")
        before = writer.DATAPAGE_VERSION, writer.MAX_PAGE_SIZE
        writer.DATAPAGE_VERSION, writer.MAX_PAGE_SIZE = rng.choice([1, 2]), rng.choice([500 * 2**20, 20_000, 4000])
        written |= {"pages": writer.DATAPAGE_VERSION, "page_size": writer.MAX_PAGE_SIZE}
        try:
            self.module.write(str(path), frame, write_index=False, **options)
        finally:
            writer.DATAPAGE_VERSION, writer.MAX_PAGE_SIZE = before
        return written


class ChDB(Writer):
    """ClickHouse, whose arrays and tuples are never null."""

    def __init__(self):
        import chdb
        self.module = chdb

    def kept(self, name, row):
        if name == "addons":
            return row
        theme = row["active_theme"] or {"addon_id": None, "name": None}
        elements = [element or {"install_day": None, "addon_id": None} for element in row["active_addons"] or []]
        return row | {"active_theme": theme, "active_addons": elements}

    def write(self, table, path, rng):
        options = {
            "output_format_parquet_compression_method": rng.choice(["none", "snappy", "gzip", "brotli", "lz4", "zstd"]),
            "output_format_parquet_row_group_size": rng.choice([1_000_000, 500, 7]),
            "output_format_parquet_data_page_size": rng.choice([1 << 20, 1, 200, 10_000]),
            "output_format_parquet_batch_size": rng.choice([1024, 1, 13]),
            "output_format_parquet_max_dictionary_size": rng.choice([1 << 20, 0, 50]),
            "output_format_parquet_string_as_string": rng.choice([0, 1]),
            "output_format_parquet_write_page_index": rng.choice([0, 1]),
            "output_format_parquet_write_bloom_filter": rng.choice([0, 1]),
            "output_format_parquet_write_checksums": rng.choice([0, 1]),
        }
        settings = ", ".join(f"{key} = {value!r}" for key, value in options.items())
        columns = ", ".join(f"{field.name} {click_house(field.type)}" for field in table.schema)
        with tempfile.TemporaryDirectory() as folder:
            pq.write_table(table, f"{folder}/plain")
            self.module.query(f"select * from file('{folder}/plain', Parquet, '{columns}') into outfile '{path}' truncate "
                       f"format Parquet settings {settings}")
        return options


def click_house(type):
    """ClickHouse's name of an Arrow type."""
    if pa.types.is_struct(type):
        return "Tuple(" + ", ".join(f"{field.name} {click_house(field.type)}" for field in type) + ")"
    if pa.types.is_list(type):
        return f"Array({click_house(type.value_type)})"
    names = {pa.string(): "String", pa.bool_(): "Bool", pa.int64(): "Int64", pa.int32(): "Int32", pa.float64(): "Float64"}
    return f"Nullable({names[type]})"


class Arro3(Writer):
    """The Rust crate parquet."""

    def __init__(self):
        import arro3.io
        self.module = arro3.io

    def write(self, table, path, rng):
        options = {
            "compression": rng.choice(["uncompressed", "snappy", "gzip(6)", "brotli(3)", "lz4", "lz4_raw", "zstd(3)"]),
            "writer_version": rng.choice(["parquet_1_0", "parquet_2_0"]),
            "max_row_group_size": rng.choice([None, 500, 7]),
            "data_page_row_count_limit": rng.choice([None, 1, 20]),
            "data_page_size_limit": rng.choice([None, 1, 500]),
            "dictionary_page_size_limit": rng.choice([None, 20, 4000]),
            "write_batch_size": rng.choice([None, 1, 13]),
            "dictionary_enabled": rng.random() < 0.6,
            "skip_arrow_metadata": rng.random() < 0.5,
            "bloom_filter_enabled": rng.random() < 0.2,
        }
        written = dict(options)
        if not options["dictionary_enabled"]:
            written["column_encoding"] = encodings(table, rng)
            options["column_encoding"] = {tuple(key.split(".")): value.lower()
                                          for key, value in written["column_encoding"].items()}
        self.module.write_parquet(table, str(path), **{key: value for key, value in options.items() if value is not None})
        return written


class Daft(Writer):
    """Daft's own writer."""

    def __init__(self):
        import daft
        self.module = daft

    def write(self, table, path, rng):
        options = {"compression": rng.choice(["uncompressed", "snappy", "gzip", "brotli", "lz4", "zstd"])}
        group = rng.choice([128 << 20, 2000])
        with tempfile.TemporaryDirectory() as folder:
            with self.module.execution_config_ctx(native_parquet_writer=True, parquet_target_row_group_size=group):
                self.module.from_arrow(table).write_parquet(folder, **options)
            move_only(folder, path)
        return options | {"row group": group}


class HyparquetWriter(Writer):
    """hyparquet-writer, in JavaScript; `HYPARQUET` names the folder with its node_modules."""

    def __init__(self):
        self.packages = os.environ["HYPARQUET"]
        self.jobs = []

    def write(self, table, path, rng):
        columns = [self.column(field, table[field.name].to_pylist(), rng) for field in table.schema]
        options = {
            "codec": rng.choice(["UNCOMPRESSED", "SNAPPY", "SNAPPY", "GZIP", "BROTLI"]),
            "statistics": rng.random() < 0.5,
            "pageSize": rng.choice([1 << 20, 1, 200, 10_000]),
            "rowGroupSize": rng.choice([100_000, few(table, rng), [3, 2 + table.num_rows // 10]]),
        }
        if rng.random() < 0.5:
            options["dictionarySize"] = rng.choice([0, 30, 4000])
        self.jobs.append({"filename": str(path), "columns": columns, "options": options})
        return options | {column["name"]: column.get("encoding") for column in columns}

    def finish(self):
        """Writes all files in one process."""
        jobs, command = json.dumps(self.jobs), ["node", HERE / "hyparquet.mjs", self.packages]
        done = subprocess.run(command, input=jobs, text=True, capture_output=True)
        assert done.returncode == 0, done.stderr

    def column(self, field, data, rng):
        """A column as hyparquet.mjs expects it."""
        names = {pa.string(): "string", pa.bool_(): "bool", pa.int64(): "long", pa.int32(): "int", pa.float64(): "double"}
        column = {"name": field.name, "data": data, "columnIndex": rng.random() < 0.3}
        inner = field.type.value_type if pa.types.is_list(field.type) else field.type
        if pa.types.is_struct(inner):
            fields = [{"name": each.name, "type": names[each.type]} for each in inner]
            return column | {"type": "list" if inner is not field.type else "struct", "fields": fields}
        column["type"] = names[field.type]
        if column["type"] == "string":
            column["type"] = rng.choice(["string", "string", "bytes"])
            column["encoding"] = rng.choice([None, None, "PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
        if column["type"] == "long":
            column["data"] = [None if value is None else str(value) for value in data]
            column["encoding"] = rng.choice([None, "PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"])
        if column["type"] == "bool":
            column["encoding"] = rng.choice([None, "PLAIN", "RLE"])
        return column


class Spark(Writer):
    """Apache Spark, with parquet-java; requires Java."""

    def __init__(self):
        from pyspark.sql import SparkSession
        if not shutil.which("java"):
            raise ImportError("no java", name="java")
        builder = SparkSession.builder.master("local[1]").appName("writers")
        settings = {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false", "spark.driver.memory": "1g",
                    "spark.sql.shuffle.partitions": "1", "spark.log.level": "ERROR"}
        for key, value in settings.items():
            builder = builder.config(key, value)
        self.session = builder.getOrCreate()

    def write(self, table, path, rng):
        options = {
            "compression": rng.choice(["none", "snappy", "gzip", "lz4", "lz4_raw", "zstd"]),
            "parquet.writer.version": rng.choice(["v1", "v2"]),
            "parquet.enable.dictionary": rng.choice(["true", "false"]),
            "parquet.page.size": rng.choice(["1048576", "100", "4000"]),
            "parquet.page.row.count.limit": rng.choice(["20000", "1", "30"]),
            "parquet.block.size": rng.choice(["134217728", "5000"]),
            "parquet.dictionary.page.size": rng.choice(["1048576", "100"]),
            "parquet.page.write-checksum.enabled": rng.choice(["true", "false"]),
            "parquet.page.size.row.check.min": "10",
            "parquet.block.size.row.check.min": "10",
        }
        legacy = rng.choice(["true", "false"])
        self.session.conf.set("spark.sql.parquet.writeLegacyFormat", legacy)
        with tempfile.TemporaryDirectory() as folder:
            pq.write_table(table, f"{folder}/plain")
            frame = self.session.read.parquet(f"{folder}/plain").coalesce(1)
            frame.write.options(**options).parquet(f"{folder}/out")
            move_only(f"{folder}/out", path)
        return options | {"legacy": legacy}


def move_only(folder, path):
    """Moves a folder's only file to a path."""
    [file] = [each for each in pathlib.Path(folder).rglob("*.parquet") if not each.name.startswith(".")]
    shutil.move(file, path)


# By name. The quick writers install in seconds.
WRITERS = {"pyarrow": PyArrow, "duckdb": DuckDB, "polars": Polars, "fastparquet": FastParquet, "arro3": Arro3,
           "hyparquet": HyparquetWriter, "chdb": ChDB, "daft": Daft, "spark": Spark}
QUICK = ["pyarrow", "duckdb", "polars", "fastparquet", "arro3", "hyparquet"]
