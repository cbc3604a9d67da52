//! The objectives of a day, counted from its output rows, client by client; and what a published day states: the footers of
//! its part files, and the table beside the output. Not here: the rows themselves (`table`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use arrow_array::Array;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float64Type, Int64Type};
use arrow_schema::DataType;
use chrono::NaiveDate;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::{Value, json};

use crate::output::part_files;
use crate::rows::Row;

/// Counters and figures by name.
pub type Figures = BTreeMap<String, Value>;

/// Buckets of the distribution.
const BUCKETS: usize = 20;

/// The table's file for a day, given by its folder in the output.
pub fn file_of(partition: &Path) -> PathBuf {
    let (root, day) = (partition.parent().unwrap_or(partition), partition.file_name().unwrap_or_default());
    let mut name = root.file_name().unwrap_or_default().to_os_string();
    name.push("_objectives");
    root.with_file_name(name).join(day).join("objectives.parquet")
}

/// What is counted in the rows of a date.
pub fn counted(rows: &[Row], date: &str) -> Result<Figures> {
    let date = NaiveDate::parse_from_str(date, "%Y%m%d")?;
    let today = (date - NaiveDate::default()).num_days();
    // The rows are sorted by client.
    let clients: Vec<&[Row]> = rows.chunk_by(|a, b| a.client_id == b.client_id).collect();
    let number = |test: &dyn Fn(&[Row]) -> bool| clients.iter().filter(|client| test(client)).count();
    let any = |test: &dyn Fn(&Row) -> bool| number(&|client| client.iter().any(test));
    let is_new =
        |row: &Row| row.profile_creation_date.is_some_and(|created| (today - 13..=today).contains(&created));
    let early = |row: &Row| {
        let (created, installed) = (row.profile_creation_date, row.min_install_day.map(i64::from));
        is_new(row) && installed.zip(created).is_some_and(|(day, created)| created <= day && day <= today)
    };
    let size = |client: &&[Row]| -> usize {
        let kinds: BTreeSet<_> = client.iter().map(|row| (row.foreign_install, row.count)).collect();
        kinds.iter().map(|(_, count)| *count as usize).sum()
    };
    let sizes: Vec<usize> = clients.iter().map(size).collect();
    let user_type = |value| any(&|row: &Row| row.user_type == Some(value));
    let theme = |value| any(&|row: &Row| row.has_custom_theme == value);
    let in_bucket = |n: usize| sizes.iter().filter(|size| (**size).min(BUCKETS) == n).count();
    let buckets: Vec<usize> = (1..=BUCKETS).map(in_bucket).collect();
    let counts = json!({
        "addon_clients": clients.len(),
        "addons": sizes.iter().sum::<usize>(),
        "self_installers": any(&|row: &Row| row.foreign_install == Some(false)),
        "new_profiles": any(&is_new),
        "new_installers": any(&early),
        "side_loaded_only": user_type(1),
        "both_types": user_type(0),
        "self_only": user_type(-1),
        "self_and_unknown": user_type(-2),
        "custom_theme": theme(Some(1)),
        "changed_theme": theme(Some(0)),
        "default_theme": theme(Some(-1)),
        "unknown_theme": theme(None),
        "clients_by_addons": buckets,
    });
    serde_json::from_value(counts).context("counts")
}

/// The counters in the footers of a day's part files, and the value of another key. All files state the same.
fn stated(partition: &Path, key: &str) -> Result<String> {
    let mut all = BTreeSet::new();
    for file in part_files(partition)? {
        let reader = SerializedFileReader::new(File::open(&file)?)?;
        let entries = reader.metadata().file_metadata().key_value_metadata().cloned().unwrap_or_default();
        let value = entries.into_iter().find(|entry| entry.key == key).and_then(|entry| entry.value);
        all.insert(value.with_context(|| format!("no {key} in {}", file.display()))?);
    }
    ensure!(all.len() == 1, "part files with different {key}: {all:?}");
    all.pop_first().context("no part file")
}

/// The only row of a table file.
pub fn row_of(file: &Path) -> Result<Figures> {
    let opened = File::open(file).with_context(|| format!("no {}", file.display()))?;
    let batches: Vec<_> =
        ParquetRecordBatchReaderBuilder::try_new(opened)?.build()?.collect::<Result<_, _>>()?;
    let [batch] = &batches[..] else { anyhow::bail!("{} batches in {}", batches.len(), file.display()) };
    ensure!(batch.num_rows() == 1, "{} rows in {}", batch.num_rows(), file.display());
    let mut row = Figures::new();
    for (field, array) in batch.schema().fields().iter().zip(batch.columns()) {
        let value = match field.data_type() {
            _ if array.is_null(0) => Value::Null,
            DataType::Int64 => array.as_primitive::<Int64Type>().value(0).into(),
            DataType::Float64 => array.as_primitive::<Float64Type>().value(0).into(),
            DataType::Utf8 => array.as_string::<i32>().value(0).into(),
            DataType::List(_) => {
                array.as_list::<i32>().value(0).as_primitive::<Int64Type>().values().to_vec().into()
            }
            other => anyhow::bail!("the column {} is {other}", field.name()),
        };
        row.insert(field.name().clone(), value);
    }
    Ok(row)
}

/// Checks that the part files of a day and the table state what is counted in its rows.
///
/// # Errors
/// Shows the difference.
pub fn check(partition: &Path, rows: &[Row]) -> Result<()> {
    let folder = partition.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let date = folder.rsplit_once('=').context("no date")?.1;
    let counted = counted(rows, date)?;
    let footer: Figures = serde_json::from_str(&stated(partition, "tally.objectives")?)?;
    ensure!(footer == counted, "footers state {footer:?}, but the rows have {counted:?}");
    let mut table = row_of(&file_of(partition))?;
    let mut take = |name: &str| table.remove(name).with_context(|| format!("no column {name}"));
    let mut total = |name: &str| -> Result<u64> {
        let value = take(name)?;
        let found = value.to_string();
        ensure!(stated(partition, &format!("tally.{name}"))? == found, "{name} is {found}");
        value.as_u64().context("no number")
    };
    let (clients, themes) = (total("n_clients")?, total("n_custom_theme_clients")?);
    ensure!(take("rows")? == json!(rows.len()), "another number of rows");
    // Workers of earlier releases report no checksums.
    ensure!(take("checksum")? == json!(stated(partition, "tally.total_checksum")?), "another checksum");
    let count = |name: &str| counted[name].as_u64().unwrap_or(0);
    let ratio = |of: u64, per: u64| if per == 0 { Value::Null } else { json!(of as f64 / per as f64) };
    let ratios = [
        ("addons_per_client", ratio(count("addons"), count("addon_clients"))),
        ("self_share", ratio(count("self_installers"), clients)),
        ("new_share", ratio(count("new_installers"), count("new_profiles"))),
        ("theme_share", ratio(themes, clients)),
    ];
    for (name, right) in ratios {
        let found = take(name)?;
        ensure!(found == right, "{name} is {found} instead of {right}");
    }
    ensure!(table == counted, "the table states {table:?}, but the rows have {counted:?}");
    Ok(())
}
