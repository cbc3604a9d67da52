//! The data of a schedule: a few files of a few rows, computed from their URLs, so that every process and the check at the
//! end know them. Map tasks partition rows by client, reduce tasks sum the values of each client.
//!
//! The files are Parquet with the columns of the real dataset, because the coordinator may read their footers; their
//! values are nulls. Not here: the tasks (`worker`).

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parquet::column::writer::ColumnWriter;
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use crate::rng::mix;
use crate::store::client::BUCKET;

/// The names of the input tables.
pub const TABLES: [&str; 2] = ["addons", "main_summary"];
/// The columns that each table needs.
pub const COLUMNS: [usize; 2] = [6, 4];
/// The most rows of a file.
const MAX_ROWS: u64 = 4;
/// Clients of a day.
const CLIENTS: u64 = 12;

const SCHEMAS: [&str; 2] = [
    "message spark_schema {
        optional binary client_id (UTF8);
        optional binary addon_id (UTF8);
        optional boolean foreign_install;
        optional boolean is_system;
        optional boolean user_disabled;
        optional boolean app_disabled;
    }",
    "message spark_schema {
        optional binary client_id (UTF8);
        optional group active_theme { optional binary addon_id (UTF8); }
        optional int64 profile_creation_date;
        optional group active_addons (LIST) {
            repeated group list { optional group element { optional int32 install_day; } }
        }
    }",
];

/// A row, of an input or of the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// The client.
    pub client: u64,
    /// A value, or the sum of the client's values.
    pub value: u64,
}

impl Row {
    /// The hash of the row. The checksum of several rows is the sum of their hashes.
    pub fn hash(self) -> u64 {
        mix(self.client ^ mix(self.value))
    }
}

/// A day of inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Day {
    /// The version of its inputs, which decides their rows.
    pub version: u32,
    /// `YYYYMMDD`.
    pub date: String,
    /// The number of files of each table.
    pub files: [u32; 2],
}

/// The name of a day's folder.
pub fn folder(date: &str) -> String {
    format!("submission_date_s3={date}")
}

impl Day {
    /// The URLs of the tables.
    pub fn inputs(&self) -> Vec<String> {
        TABLES.map(|table| format!("s3://{BUCKET}/in{}/{table}", self.version)).into()
    }

    /// The keys of its files with their content.
    pub fn objects(&self) -> Vec<(String, Bytes)> {
        let mut objects = vec![];
        for (table, name) in TABLES.iter().enumerate() {
            for file in 0..self.files[table] {
                // Some files have a folder, and with it an affinity, which says nothing about their rows.
                let below = ["", "sample=0/", "sample=1/"][file as usize % 3];
                let key = format!("in{}/{name}/{}/{below}f{file}.parquet", self.version, folder(&self.date));
                let content = content(table, rows(&key).len());
                objects.push((key, content));
            }
        }
        objects
    }

    /// The rows of the output.
    pub fn truth(&self) -> Vec<Row> {
        let files = self.objects().into_iter().map(|(key, _)| key);
        sum(files.flat_map(|key| rows(&key)))
    }
}

/// The rows of a file, by its key or URL.
pub fn rows(url: &str) -> Vec<Row> {
    let key = url.strip_prefix("s3://").and_then(|rest| Some(rest.split_once('/')?.1)).unwrap_or(url);
    let hash = key.bytes().fold(7, |hash, byte| mix(hash ^ u64::from(byte)));
    (0..1 + hash % MAX_ROWS)
        .map(|row| {
            let drawn = mix(hash ^ mix(row + 1));
            Row { client: drawn % CLIENTS, value: 1 + (drawn >> 32) % 1000 }
        })
        .collect()
}

/// One row per client, sorted.
pub fn sum(rows: impl IntoIterator<Item = Row>) -> Vec<Row> {
    let mut sums = BTreeMap::<u64, u64>::new();
    for row in rows {
        *sums.entry(row.client).or_default() += row.value;
    }
    sums.into_iter().map(|(client, value)| Row { client, value }).collect()
}

/// The partition of a client.
pub fn partition(client: u64, partitions: u32) -> usize {
    (client % u64::from(partitions.max(1))) as usize
}

/// The bytes of output rows.
pub fn encode(rows: &[Row]) -> Vec<u8> {
    rows.iter().flat_map(|row| [row.client.to_le_bytes(), row.value.to_le_bytes()].concat()).collect()
}

/// The rows and the day's number of rows in a part file; `None` if it is not one.
pub fn decode(bytes: &[u8]) -> Option<(Vec<Row>, u64)> {
    let (words, []) = bytes.as_chunks::<8>() else { return None };
    let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
    let (all, rows) = words.split_last()?;
    let (rows, []) = rows.as_chunks::<2>() else { return None };
    Some((rows.iter().map(|[client, value]| Row { client: *client, value: *value }).collect(), *all))
}

/// A Parquet file of a table with that many rows of nulls.
fn content(table: usize, rows: usize) -> Bytes {
    static FILES: OnceLock<Vec<Vec<Bytes>>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        let of =
            |table: usize| (0..=MAX_ROWS as usize).map(move |rows| write(table, rows).unwrap_or_default());
        (0..TABLES.len()).map(|table| of(table).collect()).collect()
    });
    files[table][rows].clone()
}

fn write(table: usize, rows: usize) -> Result<Bytes, ParquetError> {
    let schema = Arc::new(parse_message_type(SCHEMAS[table])?);
    let mut file = SerializedFileWriter::new(vec![], schema, Arc::default())?;
    let nulls = vec![0i16; rows];
    let mut group = file.next_row_group()?;
    while let Some(mut column) = group.next_column()? {
        let levels = (Some(&nulls[..]), Some(&nulls[..]));
        let _written = match column.untyped() {
            ColumnWriter::BoolColumnWriter(writer) => writer.write_batch(&[], levels.0, levels.1)?,
            ColumnWriter::Int32ColumnWriter(writer) => writer.write_batch(&[], levels.0, levels.1)?,
            ColumnWriter::Int64ColumnWriter(writer) => writer.write_batch(&[], levels.0, levels.1)?,
            ColumnWriter::ByteArrayColumnWriter(writer) => writer.write_batch(&[], levels.0, levels.1)?,
            _ => return Err(ParquetError::General("a column of another type".into())),
        };
        column.close()?;
    }
    group.close()?;
    Ok(file.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_files_are_read_back_and_days_differ() {
        let rows = [Row { client: 1, value: 2 }, Row { client: 3, value: 4 }];
        let bytes = [encode(&rows), 9u64.to_le_bytes().into()].concat();
        assert_eq!(decode(&bytes), Some((rows.into(), 9)));
        assert_eq!(decode(&bytes[1..]), None);
        let day = |version| Day { version, date: "20170227".into(), files: [2, 1] };
        assert_ne!(day(1).truth(), day(2).truth());
        assert!(day(1).objects().iter().all(|(_, content)| !content.is_empty()));
    }
}
