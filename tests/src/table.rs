//! Reading Parquet back into typed rows with the parquet crate's own Arrow reader (never with the engine's), and
//! comparing two outputs as multisets. Not here: the expected rows (`naive`), or the layout of the files (`output`).

use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use arrow_array::cast::AsArray;
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
};
use arrow_cast::cast;
use arrow_schema::{DataType, Field};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::rows::{ActiveAddon, AddonRow, MainRow, Row, Theme};

/// The data files under `path` (or `path` itself), sorted. As in Spark, names that begin with `_` or `.` are not data.
pub fn data_files(path: &Path) -> Result<Vec<PathBuf>> {
    if path.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    let entries = std::fs::read_dir(path).with_context(|| format!("listing {}", path.display()))?;
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with(['_', '.']) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            files.extend(data_files(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    files.sort();
    Ok(files)
}

/// All rows of `main_summary` under `path`; a column or struct field that is missing from a file is null there.
pub fn read_main(path: &Path) -> Result<Vec<MainRow>> {
    read(path, |batch, rows| {
        let ids = strings(column(batch, "client_id"), batch.num_rows())?;
        let dates = longs(column(batch, "profile_creation_date"), batch.num_rows())?;
        let themes = column(batch, "active_theme");
        let lists = column(batch, "active_addons").map(|list| plain_list(&list)).transpose()?;
        for row in 0..batch.num_rows() {
            rows.push(MainRow {
                client_id: text(&ids, row),
                profile_creation_date: dates.is_valid(row).then(|| dates.value(row)),
                active_theme: theme_at(themes.as_ref(), row)?,
                active_addons: lists.as_ref().map_or(Ok(None), |lists| addons_at(lists, row))?,
            });
        }
        Ok(())
    })
}

/// All rows of `addons` under `path`; a column that is missing from a file is null there.
pub fn read_addons(path: &Path) -> Result<Vec<AddonRow>> {
    read(path, |batch, rows| {
        let n = batch.num_rows();
        let ids = strings(column(batch, "client_id"), n)?;
        let addons = strings(column(batch, "addon_id"), n)?;
        let mut flags = Vec::new();
        for name in ["foreign_install", "is_system", "user_disabled", "app_disabled"] {
            flags.push(booleans(column(batch, name), n)?);
        }
        let flag = |at: usize, row: usize| flags[at].is_valid(row).then(|| flags[at].value(row));
        for row in 0..n {
            rows.push(AddonRow {
                client_id: text(&ids, row),
                addon_id: text(&addons, row),
                foreign_install: flag(0, row),
                is_system: flag(1, row),
                user_disabled: flag(2, row),
                app_disabled: flag(3, row),
            });
        }
        Ok(())
    })
}

/// All rows of `addon_aggregates` under `path` (a file or a folder), sorted.
pub fn read_aggregates(path: &Path) -> Result<Vec<Row>> {
    let mut rows = read(path, |batch, rows| {
        let n = batch.num_rows();
        let ids = strings(column(batch, "client_id"), n)?;
        let foreign = booleans(column(batch, "foreign_install"), n)?;
        let longs_of = |name| longs(column(batch, name), n);
        let (count, user_type) = (longs_of("count")?, longs_of("user_type")?);
        let (date, theme) = (longs_of("profile_creation_date")?, longs_of("has_custom_theme")?);
        let day = ints(column(batch, "min_install_day"), n)?;
        let custom = ints(column(batch, "n_custom_theme_clients"), n)?;
        let clients = ints(column(batch, "n_clients"), n)?;
        for row in 0..n {
            rows.push(Row {
                client_id: text(&ids, row),
                foreign_install: foreign.is_valid(row).then(|| foreign.value(row)),
                count: count.value(row),
                user_type: user_type.is_valid(row).then(|| user_type.value(row)),
                profile_creation_date: date.is_valid(row).then(|| date.value(row)),
                min_install_day: day.is_valid(row).then(|| day.value(row)),
                has_custom_theme: theme.is_valid(row).then(|| theme.value(row)),
                n_custom_theme_clients: custom.value(row),
                n_clients: clients.value(row),
            });
        }
        Ok(())
    })?;
    rows.sort();
    Ok(rows)
}

/// Compares two sorted multisets of rows.
///
/// # Errors
/// Says how many rows only one side has and shows the first ten of each.
pub fn compare<R: Ord + Debug>(actual: &[R], expected: &[R]) -> Result<()> {
    let (mut extra, mut missing) = (Vec::new(), Vec::new());
    let (mut a, mut e) = (0, 0);
    while a < actual.len() || e < expected.len() {
        match (actual.get(a), expected.get(e)) {
            (Some(left), Some(right)) if left == right => (a, e) = (a + 1, e + 1),
            (Some(left), right) if right.is_none_or(|right| left < right) => {
                extra.push(left);
                a += 1;
            }
            (_, Some(right)) => {
                missing.push(right);
                e += 1;
            }
            (_, None) => a += 1,
        }
    }
    if extra.is_empty() && missing.is_empty() {
        return Ok(());
    }
    let mut text = format!("{} rows instead of {}\n", actual.len(), expected.len());
    for (title, sign, rows) in [("wrong or too many", '+', &extra), ("missing", '-', &missing)] {
        text += &format!("{} {title}:\n", rows.len());
        for row in rows.iter().take(10) {
            text += &format!("  {sign} {row:?}\n");
        }
    }
    bail!(text)
}

pub(crate) fn read<R>(
    path: &Path,
    mut take: impl FnMut(&RecordBatch, &mut Vec<R>) -> Result<()>,
) -> Result<Vec<R>> {
    let mut rows = Vec::new();
    for file in data_files(path)? {
        let context = || format!("reading {}", file.display());
        let input = File::open(&file).with_context(context)?;
        // The test is about the Parquet schema of the file, not about the Arrow schema that a writer stored besides it.
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let builder =
            ParquetRecordBatchReaderBuilder::try_new_with_options(input, options).with_context(context)?;
        for batch in builder.build().with_context(context)? {
            take(&batch.with_context(context)?, &mut rows).with_context(context)?;
        }
    }
    Ok(rows)
}

fn column(batch: &RecordBatch, name: &str) -> Option<ArrayRef> {
    batch.column_by_name(name).cloned()
}

fn typed(array: Option<ArrayRef>, len: usize, kind: &DataType) -> Result<ArrayRef> {
    match array {
        Some(array) => Ok(cast(&array, kind)?),
        None => Ok(arrow_array::new_null_array(kind, len)),
    }
}

pub(crate) fn strings(array: Option<ArrayRef>, len: usize) -> Result<StringArray> {
    Ok(typed(array, len, &DataType::Utf8)?.as_string::<i32>().clone())
}

pub(crate) fn booleans(array: Option<ArrayRef>, len: usize) -> Result<BooleanArray> {
    Ok(typed(array, len, &DataType::Boolean)?.as_boolean().clone())
}

pub(crate) fn longs(array: Option<ArrayRef>, len: usize) -> Result<Int64Array> {
    Ok(typed(array, len, &DataType::Int64)?.as_primitive().clone())
}

fn ints(array: Option<ArrayRef>, len: usize) -> Result<Int32Array> {
    Ok(typed(array, len, &DataType::Int32)?.as_primitive().clone())
}

pub(crate) fn text(array: &StringArray, row: usize) -> Option<String> {
    array.is_valid(row).then(|| array.value(row).to_owned())
}

fn theme_at(themes: Option<&ArrayRef>, row: usize) -> Result<Option<Theme>> {
    let Some(themes) = themes.filter(|themes| themes.is_valid(row)) else { return Ok(None) };
    let fields: &StructArray = themes.as_struct();
    let ids = strings(fields.column_by_name("addon_id").map(|ids| ids.slice(row, 1)), 1)?;
    Ok(Some(Theme { addon_id: text(&ids, 0) }))
}

fn addons_at(lists: &ListArray, row: usize) -> Result<Option<Vec<Option<ActiveAddon>>>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let elements = lists.value(row);
    let fields: &StructArray = elements.as_struct();
    // As in Spark: elements without the only requested field make the list null.
    let Some(days) = fields.column_by_name("install_day") else { return Ok(None) };
    let days = ints(Some(days.clone()), fields.len())?;
    let element = |at: usize| {
        fields.is_valid(at).then(|| ActiveAddon { install_day: days.is_valid(at).then(|| days.value(at)) })
    };
    Ok(Some((0..fields.len()).map(element).collect()))
}

/// The list with 32-bit offsets, in whatever form it was read.
pub(crate) fn plain_list(array: &ArrayRef) -> Result<ListArray> {
    let element = match array.data_type() {
        DataType::List(field) | DataType::LargeList(field) => Arc::clone(field),
        other => bail!("active_addons was read as {other}"),
    };
    let kind = DataType::List(Arc::new(Field::clone(&element)));
    Ok(cast(array, &kind)?.as_list::<i32>().clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, count: i64) -> Row {
        Row { client_id: Some(id.into()), count, ..Row::default() }
    }

    #[test]
    fn multisets_are_equal_only_with_the_same_multiplicities() {
        let twice = [row("a", 1), row("a", 1)];
        assert!(compare(&twice, &twice).is_ok());
        assert!(compare(&twice, &twice[..1]).is_err());
        assert!(compare(&twice[..1], &twice).is_err());
    }

    #[test]
    fn a_difference_shows_both_rows() {
        let error =
            compare(&[row("a", 1), row("b", 2)], &[row("a", 1), row("b", 3)]).unwrap_err().to_string();
        assert!(error.contains("+ Row") && error.contains("- Row") && error.contains("count: 3"), "{error}");
        assert!(!error.contains("count: 1"), "{error}");
    }
}
