//! The schema of a table's day: the needed columns, merged over all files.
//!
//! A file may have missing columns (their values are null), additional columns, and another column order.
//! Types must agree; otherwise the error names both files.

use std::sync::Arc;

use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::SchemaDescriptor;
use tally_common::counts::{counted, grouped};
use tally_dataset::{ColumnSpec, Missing, TableSpec};
use tally_proto::v1;
use tally_scan::presence;
use tally_scan::resolve::{self, Lookup, TableLookup};

/// Columns that cannot be read as the dataset needs them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// No file has a needed column.
    #[error(
        "{table}: the column {column} ({wanted}) is in none of the day's {}, for example not in {example}",
        counted(*files, "file")
    )]
    Missing {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What it should be.
        wanted: &'static str,
        /// The number of files.
        files: u64,
        /// One of them.
        example: String,
    },
    /// A column has another type.
    #[error("{table}: the column {column} must be a {wanted}, but it is {found}")]
    WrongType {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is in which file, and what it is in another file.
        found: String,
    },
    /// The integers of a column have 32 bits in one file and 64 bits in another.
    #[error(
        "{table}: the column {column} has 32 bits (INT32) in {narrow} and 64 bits (INT64) in {wide}: all files of a day must have one type"
    )]
    Widths {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// A file with 32 bits.
        narrow: String,
        /// A file with 64 bits.
        wide: String,
    },
    /// The names of several columns of a file are equal, or differ only in letter case.
    #[error(
        "{table}: the column {column} may be any of {names} in {file} (names match without regard to letter case): rename or remove all but one"
    )]
    Ambiguous {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// The names of those that it may be.
        names: String,
        /// The file.
        file: String,
    },
}

/// The schemas that are remembered: the files of a table have few.
const MAX_REMEMBERED: usize = 8;

/// The needed columns in the files of a table, counted file by file. Its size does not depend on the number of files.
#[derive(Debug, Clone)]
pub struct TableSchema {
    table: Arc<TableSpec>,
    presence: v1::Presence,
    /// By column, in files with rows.
    with_rows: Vec<ColumnSchema>,
    /// By column, in files without rows.
    without_rows: Vec<ColumnSchema>,
    /// The files have no rows.
    empty: bool,
    remembered: Vec<(Arc<SchemaDescriptor>, Arc<TableLookup>)>,
}

/// What the files have of a column: the first files of each kind.
#[derive(Debug, Clone, Default)]
struct ColumnSchema {
    /// A file whose column has the right type.
    good: Option<String>,
    /// The names of several columns that match, and their file.
    ambiguous: Option<(String, String)>,
    /// The wrong type of a column, and its file; of two files.
    wrong: [Option<(String, String)>; 2],
}

impl ColumnSchema {
    fn add(&mut self, lookup: &Lookup, file: &str) {
        match lookup {
            Lookup::Missing => {}
            Lookup::Found(_) if self.good.is_some() => {}
            Lookup::Found(_) => self.good = Some(file.into()),
            Lookup::Ambiguous(names) => {
                self.ambiguous.get_or_insert_with(|| (names.clone(), file.into()));
            }
            Lookup::WrongType(found) => {
                if let Some(free) = self.wrong.iter_mut().find(|wrong| wrong.is_none()) {
                    *free = Some((found.clone(), file.into()));
                }
            }
        }
    }

    /// Adds what later files have.
    fn append(&mut self, later: ColumnSchema) {
        self.good = self.good.take().or(later.good);
        self.ambiguous = self.ambiguous.take().or(later.ambiguous);
        for wrong in later.wrong {
            if let Some(free) = self.wrong.iter_mut().find(|wrong| wrong.is_none()) {
                *free = wrong;
            }
        }
    }

    /// Checks the type.
    fn check(&self, table: &'static str, spec: &ColumnSpec) -> Result<(), SchemaError> {
        let column = spec.path.join(".");
        if let Some((names, file)) = self.ambiguous.clone() {
            return Err(SchemaError::Ambiguous { table, column, names, file });
        }
        let Some((found, file)) = &self.wrong[0] else { return Ok(()) };
        let other = match (&self.good, &self.wrong[1]) {
            (Some(good), _) => format!(", while it is right in {good}"),
            (None, Some((found, file))) => format!(" and {found} in {file}"),
            (None, None) => String::new(),
        };
        let found = format!("{found} in {file}{other}");
        Err(SchemaError::WrongType { table, column, wanted: resolve::kind_name(spec.kind), found })
    }
}

impl TableSchema {
    /// The schema of no file.
    pub fn new(table: Arc<TableSpec>) -> Self {
        let columns = || vec![ColumnSchema::default(); table.columns.len()];
        let (with_rows, without_rows) = (columns(), columns());
        let presence = v1::Presence::default();
        TableSchema { table, presence, with_rows, without_rows, empty: true, remembered: vec![] }
    }

    /// Looks the table's columns up in a file's schema.
    pub fn lookup(&mut self, metadata: &ParquetMetaData) -> Arc<TableLookup> {
        let schema = metadata.file_metadata().schema_descr_ptr();
        // Files with the same schema share it, see `tally_scan::footer`.
        if let Some((_, found)) = self.remembered.iter().find(|(known, _)| Arc::ptr_eq(known, &schema)) {
            return found.clone();
        }
        let found = Arc::new(resolve::lookup(&schema, &self.table));
        if self.remembered.len() == MAX_REMEMBERED {
            self.remembered.remove(0);
        }
        self.remembered.push((schema, found.clone()));
        found
    }

    /// Adds a file.
    pub fn add(&mut self, file: &str, rows: u64, found: &[Lookup]) {
        presence::note(&mut self.presence, &self.table, found, file, rows);
        self.empty &= rows == 0;
        let columns = if rows > 0 { &mut self.with_rows } else { &mut self.without_rows };
        columns.iter_mut().zip(found).for_each(|(column, lookup)| column.add(lookup, file));
    }

    /// Adds what later files of the table have.
    pub fn append(&mut self, later: TableSchema) {
        presence::add(&mut self.presence, &later.presence);
        self.empty &= later.empty;
        let later = [later.with_rows, later.without_rows];
        for (columns, later) in [&mut self.with_rows, &mut self.without_rows].into_iter().zip(later) {
            columns.iter_mut().zip(later).for_each(|(column, later)| column.append(later));
        }
    }

    /// Checks the types of the columns that files have. `all`: the table has no other files. Returns the number of files by
    /// column.
    ///
    /// # Errors
    /// [`SchemaError`].
    pub fn check(self, all: bool) -> Result<v1::Presence, SchemaError> {
        // Some writers give the columns of a file without rows arbitrary types.
        let columns = if self.empty && all { &self.without_rows } else { &self.with_rows };
        for (spec, column) in self.table.columns.iter().zip(columns) {
            column.check(self.table.name, spec)?;
        }
        check_widths(&self.table, &self.presence)?;
        Ok(self.presence)
    }
}

/// Checks that the integers of each column have one width in all files with rows.
fn check_widths(table: &TableSpec, present: &v1::Presence) -> Result<(), SchemaError> {
    let mut columns = table.columns.iter().zip(&present.with_rows);
    let mixed = |(_, found): &(&ColumnSpec, &v1::ColumnPresence)| {
        !found.narrow_example.is_empty() && !found.wide_example.is_empty()
    };
    let Some((spec, found)) = columns.find(mixed) else { return Ok(()) };
    let (narrow, wide) = (found.narrow_example.clone(), found.wide_example.clone());
    Err(SchemaError::Widths { table: table.name, column: spec.path.join("."), narrow, wide })
}

/// Checks that all files of a table together have the needed columns, with one width of integers; returns warnings.
///
/// # Errors
/// [`SchemaError`]: a column is missing, or has two widths, or no file has rows and the column has another type in some
/// file.
pub fn check_missing(table: &TableSpec, present: &v1::Presence) -> Result<Vec<String>, SchemaError> {
    check_widths(table, present)?;
    let mut warnings = vec![];
    let columns = if present.with_rows.is_empty() { &present.without_rows } else { &present.with_rows };
    for (at, (spec, found)) in table.columns.iter().zip(columns).enumerate() {
        let column = spec.path.join(".");
        // Where there are rows, the worker that reads them checks the type.
        if present.with_rows.is_empty() && found.unfit > 0 {
            let (wanted, found) = (resolve::kind_name(spec.kind), found.unfit_example.clone());
            return Err(SchemaError::WrongType { table: table.name, column, wanted, found });
        }
        // A file without rows has columns too; of the wrong type, they do not count.
        let exists =
            found.found > 0 || present.without_rows.get(at).is_some_and(|empty| empty.found > empty.unfit);
        let (files, example) = (found.found.saturating_add(found.missing), found.example.clone());
        match (exists, spec.missing) {
            _ if found.missing == 0 => {}
            (false, Missing::Fails) => {
                let (table, wanted) = (table.name, resolve::kind_name(spec.kind));
                return Err(SchemaError::Missing { table, column, wanted, files, example });
            }
            (false, _) => warnings
                .push(format!("{}: no file of the day has {column}: it is null in all rows", table.name)),
            (true, Missing::Fails) => warnings.push(format!(
                "{}: {column} is missing from {} of {} (for example {example}): it is null in their {}",
                table.name,
                grouped(found.missing),
                counted(files, "file"),
                counted(found.missing_rows, "row")
            )),
            _ => {}
        }
    }
    Ok(warnings)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates, MAIN_SUMMARY};
    use tally_dataset::{ColumnKind, Dataset, ElementKind, Width};
    use tally_scan::resolve::Leaf;

    /// A file by name and rows.
    #[derive(Clone)]
    struct FileSchema {
        name: String,
        rows: u64,
        columns: Vec<Lookup>,
    }

    fn file(name: &str, columns: Vec<Lookup>) -> FileSchema {
        FileSchema { name: name.into(), rows: 10, columns }
    }

    fn of_files(table: &TableSpec, files: &[FileSchema]) -> TableSchema {
        let mut schema = TableSchema::new(Arc::new(table.clone()));
        files.iter().for_each(|file| schema.add(&file.name, file.rows, &file.columns));
        schema
    }

    /// Parts of the files give the same as all of them.
    fn merge(table: &TableSpec, files: &[FileSchema], all: bool) -> Result<v1::Presence, SchemaError> {
        let whole = of_files(table, files).check(all);
        for cut in 0..=files.len() {
            let mut parts = of_files(table, &files[..cut]);
            parts.append(of_files(table, &files[cut..]));
            assert_eq!(parts.check(all), whole, "cut at {cut}");
        }
        whole
    }

    fn all(table: &TableSpec) -> Vec<Lookup> {
        (0..table.columns.len())
            .map(|index| Lookup::Found(Leaf { index, element_def: 0, width: None }))
            .collect()
    }

    #[test]
    fn both_files_of_a_conflict_are_named() {
        let dataset = AddonAggregates::new();
        let table = &dataset.tables()[MAIN_SUMMARY];
        let mut bad = all(table);
        bad[2] = Lookup::WrongType("INT32".into());
        let files = [file("a", all(table)), file("b", bad.clone())];
        let error = merge(table, &files, true).unwrap_err().to_string();
        for part in ["main_summary", "profile_creation_date", "64-bit integer", "INT32", " b", " a"] {
            assert!(error.contains(part), "{error}");
        }
        let error = merge(table, &[file("b", bad.clone())], false).unwrap_err().to_string();
        assert!(error.contains("INT32"), "{error}");
        let error = merge(table, &[file("b", bad.clone()), file("c", bad.clone())], false).unwrap_err();
        assert!(error.to_string().contains("INT32 in b and INT32 in c"), "{error}");
        let mut several = all(table);
        several[2] = Lookup::Ambiguous("a and A".into());
        let error = merge(table, &[file("b", bad.clone()), file("c", several)], false).unwrap_err();
        assert!(error.to_string().contains("any of a and A in c"), "{error}");
        // Without rows its type does not count, unless there are no rows at all.
        let empty = FileSchema { rows: 0, ..file("b", bad) };
        assert!(merge(table, &[empty.clone(), file("a", all(table))], true).is_ok());
        assert!(merge(table, std::slice::from_ref(&empty), false).is_ok());
        assert!(merge(table, &[empty], true).is_err());
    }

    #[test]
    fn integers_of_two_widths_name_both_files() {
        let column = |path, kind| ColumnSpec { path, kind, filter: false, missing: Missing::IsNull };
        let table = TableSpec {
            name: "t",
            help: "",
            columns: vec![
                column(&["n"], ColumnKind::Int),
                column(&["l", "day"], ColumnKind::Element(ElementKind::Int)),
            ],
        };
        let of = |widths: [Option<Width>; 2]| {
            let lookup = |width: Option<Width>| match width {
                None => Lookup::Missing,
                width => Lookup::Found(Leaf { index: 0, element_def: 0, width }),
            };
            widths.map(lookup).to_vec()
        };
        let (narrow, wide) = (Some(Width::W32), Some(Width::W64));
        let merge = |files: &[FileSchema]| {
            let presence = merge(&table, files, true)?;
            // Reports of map tasks are checked in the same way.
            check_missing(&table, &presence).map(|_| ())
        };
        let files =
            [file("a", of([narrow, wide])), file("b", of([None, None])), file("c", of([narrow, wide]))];
        assert_eq!(merge(&files), Ok(()));
        for (last, column) in [(of([wide, wide]), "column n "), (of([None, narrow]), "column l.day ")] {
            let error = merge(&[&files[..], &[file("d", last.clone())]].concat()).unwrap_err().to_string();
            for part in ["t: ", column, "INT32", "INT64", " a", " d"] {
                assert!(error.contains(part), "{error}");
            }
            let mut reported = v1::Presence::default();
            presence::note(&mut reported, &table, &last, "s3://b/d", 5);
            let mut all = of_files(&table, &files).check(true).unwrap();
            presence::add(&mut all, &reported);
            let error = check_missing(&table, &all).unwrap_err().to_string();
            assert!(error.contains(column) && error.contains("s3://b/d"), "{error}");
            // The type of a file without rows does not count.
            let empty = FileSchema { rows: 0, ..file("d", last) };
            assert_eq!(merge(&[&files[..], &[empty]].concat()), Ok(()));
        }
    }

    #[test]
    fn a_column_that_no_file_has_fails_or_is_null() {
        let dataset = AddonAggregates::new();
        let merge =
            |table: &TableSpec, files: &[FileSchema]| check_missing(table, &merge(table, files, true)?);
        let (addons, main) = (&dataset.tables()[ADDONS], &dataset.tables()[MAIN_SUMMARY]);
        let without = |table: &TableSpec, at: usize| {
            let mut columns = all(table);
            columns[at] = Lookup::Missing;
            columns
        };
        let error = merge(addons, &[file("a", without(addons, 2))]).unwrap_err().to_string();
        assert!(error.contains("foreign_install") && error.contains('a'), "{error}");
        let warnings = merge(addons, &[file("a", without(addons, 2)), file("b", all(addons))]).unwrap();
        assert!(warnings[0].contains("10 rows") && warnings[0].contains("foreign_install"), "{warnings:?}");
        let warnings = merge(main, &[file("a", without(main, 1))]).unwrap();
        assert!(warnings[0].contains("active_theme.addon_id"), "{warnings:?}");
        assert_eq!(merge(main, &[file("a", without(main, 1)), file("b", all(main))]), Ok(vec![]));
        assert!(merge(main, &[file("a", without(main, 0))]).is_err());
        // A file without rows adds its columns, unless their type is wrong.
        let empty = |columns| FileSchema { rows: 0, ..file("e", columns) };
        let warnings = merge(main, &[empty(all(main)), file("a", without(main, 0))]).unwrap();
        assert!(warnings[0].contains("client_id is missing from 1 of 1 file "), "{warnings:?}");
        let mut wrong = all(main);
        wrong[0] = Lookup::WrongType("INT32".into());
        assert!(merge(main, &[empty(wrong), file("a", without(main, 0))]).is_err());
    }
}
