//! Merging what the day's files have of the needed columns.
//!
//! A file may lack a column that others have (null there), hold more, and order them otherwise.
//! Types must agree; where they do not, the error names both files.

use parquet::file::metadata::ParquetMetaData;
use tally_dataset::{ColumnSpec, Missing, TableSpec};
use tally_worker::scan::resolve::{self, Lookup};

/// Columns that cannot be read as the dataset needs them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// A needed column in no file.
    #[error(
        "{table}: the column {column} ({wanted}) is in none of the day's {files} files, for example not in {example}"
    )]
    Missing {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What it should be.
        wanted: &'static str,
        /// How many files there are.
        files: usize,
        /// One of them.
        example: String,
    },
    /// A column of another type.
    #[error("{table}: the column {column} must be a {wanted}, but it is {found}")]
    WrongType {
        /// The table.
        table: &'static str,
        /// The column.
        column: String,
        /// What it should be.
        wanted: &'static str,
        /// What it is in which file, and how it is in another.
        found: String,
    },
    /// Several columns of a file whose names differ in letter case alone, or not at all.
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

/// What one file has of a table's needed columns.
#[derive(Debug, Clone, Default)]
pub struct FileSchema {
    name: String,
    /// Rows in the file.
    pub rows: u64,
    columns: Vec<Lookup>,
}

impl FileSchema {
    /// Looks the table's columns up in a file.
    pub fn of(name: &str, metadata: &ParquetMetaData, table: &TableSpec) -> Self {
        let schema = metadata.file_metadata().schema_descr();
        FileSchema {
            name: name.to_string(),
            rows: u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0),
            columns: table.columns.iter().map(|spec| resolve::lookup(schema, spec)).collect(),
        }
    }

    /// The needed columns that were found, with their leaves.
    pub fn found<'a>(&self, table: &'a TableSpec) -> impl Iterator<Item = (&'a ColumnSpec, usize)> {
        table.columns.iter().zip(&self.columns).filter_map(|(spec, lookup)| match lookup {
            Lookup::Found(leaf) => Some((spec, leaf.index)),
            _ => None,
        })
    }
}

/// Checks that all files together have what the table needs; gives warnings.
///
/// # Errors
/// [`SchemaError`].
pub fn merge(table: &TableSpec, files: &[FileSchema]) -> Result<Vec<String>, SchemaError> {
    let mut warnings = vec![];
    // A file without rows need not have a type for what is not there, and some writers give it any.
    let with_rows: Vec<&FileSchema> = files.iter().filter(|file| file.rows > 0).collect();
    let files = if with_rows.is_empty() { files.iter().collect() } else { with_rows };
    for (at, spec) in table.columns.iter().enumerate() {
        let column = spec.path.join(".");
        let wanted = resolve::kind_name(spec.kind);
        let several = files.iter().find_map(|file| match &file.columns[at] {
            Lookup::Ambiguous(names) => Some((file, names)),
            _ => None,
        });
        if let Some((file, names)) = several {
            let (table, names, file) = (table.name, names.clone(), file.name.clone());
            return Err(SchemaError::Ambiguous { table, column, names, file });
        }
        let found = |file: &&&FileSchema| matches!(file.columns[at], Lookup::Found(_));
        let good = files.iter().find(found);
        if let Some((file, found)) = files.iter().find_map(|file| wrong(file, at).map(|w| (file, w))) {
            let second = || files.iter().find(|other| other.name != file.name && wrong(other, at).is_some());
            let other = match (good, second()) {
                (Some(good), _) => format!(", while it is right in {}", good.name),
                (None, Some(second)) => {
                    format!(" and {} in {}", wrong(second, at).unwrap_or_default(), second.name)
                }
                (None, None) => String::new(),
            };
            let found = format!("{found} in {}{other}", file.name);
            return Err(SchemaError::WrongType { table: table.name, column, wanted, found });
        }
        let lacking: Vec<&FileSchema> =
            files.iter().copied().filter(|file| file.columns[at] == Lookup::Missing).collect();
        let Some(example) = lacking.first() else { continue };
        let rows: u64 = lacking.iter().map(|file| file.rows).sum();
        if good.is_none() && spec.missing == Missing::Fails {
            let (table, files, example) = (table.name, files.len(), example.name.clone());
            return Err(SchemaError::Missing { table, column, wanted, files, example });
        }
        if good.is_none() {
            warnings.push(format!("{}: no file of the day has {column}: it is null in all rows", table.name));
        } else if spec.missing == Missing::Fails {
            warnings.push(format!(
                "{}: {} of {} files lack {column} (for example {}): it is null in their {rows} rows",
                table.name,
                lacking.len(),
                files.len(),
                example.name
            ));
        }
    }
    Ok(warnings)
}

fn wrong(file: &FileSchema, at: usize) -> Option<&str> {
    match &file.columns[at] {
        Lookup::WrongType(found) => Some(found),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_dataset::Dataset;
    use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates, MAIN_SUMMARY};
    use tally_worker::scan::resolve::Leaf;

    fn file(name: &str, columns: Vec<Lookup>) -> FileSchema {
        FileSchema { name: name.into(), rows: 10, columns }
    }

    fn all(table: &TableSpec) -> Vec<Lookup> {
        (0..table.columns.len()).map(|index| Lookup::Found(Leaf { index, element_def: 0 })).collect()
    }

    #[test]
    fn both_files_of_a_conflict_are_named() {
        let dataset = AddonAggregates::new();
        let table = &dataset.tables()[MAIN_SUMMARY];
        let mut bad = all(table);
        bad[2] = Lookup::WrongType("INT32".into());
        let files = [file("a", all(table)), file("b", bad.clone())];
        let error = merge(table, &files).unwrap_err().to_string();
        for part in ["main_summary", "profile_creation_date", "64-bit integer", "INT32", " b", " a"] {
            assert!(error.contains(part), "{error}");
        }
        let error = merge(table, &[file("b", bad)]).unwrap_err().to_string();
        assert!(error.contains("INT32"), "{error}");
    }

    #[test]
    fn what_lacks_everywhere_fails_or_is_null() {
        let dataset = AddonAggregates::new();
        let (addons, main) = (&dataset.tables()[ADDONS], &dataset.tables()[MAIN_SUMMARY]);
        let lacks = |table: &TableSpec, at: usize| {
            let mut columns = all(table);
            columns[at] = Lookup::Missing;
            columns
        };
        let error = merge(addons, &[file("a", lacks(addons, 2))]).unwrap_err().to_string();
        assert!(error.contains("foreign_install") && error.contains('a'), "{error}");
        let warnings = merge(addons, &[file("a", lacks(addons, 2)), file("b", all(addons))]).unwrap();
        assert!(warnings[0].contains("10 rows") && warnings[0].contains("foreign_install"), "{warnings:?}");
        let warnings = merge(main, &[file("a", lacks(main, 1))]).unwrap();
        assert!(warnings[0].contains("active_theme.addon_id"), "{warnings:?}");
        assert_eq!(merge(main, &[file("a", lacks(main, 1)), file("b", all(main))]), Ok(vec![]));
        assert!(merge(main, &[file("a", lacks(main, 0))]).is_err());
    }
}
