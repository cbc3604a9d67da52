//! The second partition column of a dataset, whose values are in the paths of a day's files: `DAY/.../COLUMN=N/.../FILE`.
//!
//! Values are read as Spark reads them: `07`, `+7`, `7.0` and `7 ` are 7. Files below other values are ignored. A file
//! without a value is an error, as folders of different depth are in Spark. So is a value that Spark counts or not,
//! depending on the other folders of the table: with only numbers, the column has a type of numbers, in which `7e0` is 7;
//! with a text among them, also in another day, all values are texts and cut to integers, so that `7.5` is 7. Names match
//! without regard to letter case. Pure.

use tally_dataset::{Dataset, FolderSpec};
use tally_scan::InputFile;

use crate::job::JobSpec;

/// The number of ignored files that a warning names.
const NAMED_FILES: usize = 3;

/// A file that is in no folder of the dataset.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It has no value of the second partition column.
    #[error("{table}: {path} is not in a folder {column}=N below the day: move it into one")]
    Missing {
        /// The table.
        table: &'static str,
        /// The file.
        path: String,
        /// The column.
        column: &'static str,
    },
    /// The value may be a number or not.
    #[error(
        "{table}: {path} is in the folder {column}={value}, which is no whole number but may be read as one: rename the \
         folder, or move it out of the day"
    )]
    Unclear {
        /// The table.
        table: &'static str,
        /// The file.
        path: String,
        /// The column.
        column: &'static str,
        /// The value.
        value: String,
    },
}

/// What a folder's value means.
#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    /// This number, which the dataset has.
    Read(u32),
    /// Another number, null, or a text that is no number.
    Ignored,
    Unclear,
}

/// The second partition column in the paths of a table's day.
#[derive(Debug, Clone, Copy)]
pub(super) struct Folders<'a> {
    table: &'static str,
    spec: FolderSpec,
    /// The name of the day's folder.
    day: &'a str,
}

/// Files by whether they are read.
#[derive(Debug, Default)]
pub(super) struct Divided {
    pub(super) read: Vec<InputFile>,
    /// Files of other values than the dataset has.
    pub(super) ignored: Vec<InputFile>,
}

impl<'a> Folders<'a> {
    /// Those of a job's table, if the dataset has them.
    pub(super) fn of(job: &'a JobSpec, dataset: &dyn Dataset, table: &'static str) -> Option<Self> {
        dataset.folders().map(|spec| Folders { table, spec, day: &job.day_folder })
    }

    /// Divides the files of a day.
    ///
    /// # Errors
    /// [`FolderError`], naming the first file that has none.
    pub(super) fn divide(&self, files: Vec<InputFile>) -> Result<Divided, FolderError> {
        let (table, column) = (self.table, self.spec.column);
        let mut divided = Divided::default();
        for file in files {
            let Some(value) = self.value(&file) else {
                return Err(FolderError::Missing { table, path: file.name, column });
            };
            match self.meaning(&value) {
                Meaning::Read(_) => divided.read.push(file),
                Meaning::Ignored => divided.ignored.push(file),
                Meaning::Unclear => {
                    return Err(FolderError::Unclear { table, path: file.name, column, value });
                }
            }
        }
        Ok(divided)
    }

    /// The number of the folder of a file that is read.
    pub(super) fn folder(&self, file: &InputFile) -> Option<u32> {
        match self.meaning(&self.value(file)?) {
            Meaning::Read(number) => Some(number),
            Meaning::Ignored | Meaning::Unclear => None,
        }
    }

    /// The text after `COLUMN=` in the path of a file, below the day. The innermost one, if there are several.
    fn value(&self, file: &InputFile) -> Option<String> {
        let mut parts: Vec<String> = file.path.parts().map(|part| part.as_ref().to_string()).collect();
        // The last part is the file.
        parts.pop();
        let below = parts.iter().rposition(|part| same(part, self.day)).map_or(0, |at| at + 1);
        let values = parts[below..].iter().rev().filter_map(|part| part.split_once('='));
        let mut values = values.filter(|(column, _)| same(column, self.spec.column));
        values.next().map(|(_, value)| value.to_string())
    }

    /// What a value means. `__HIVE_DEFAULT_PARTITION__` stands for null.
    fn meaning(&self, value: &str) -> Meaning {
        let text = value.trim_matches(|c: char| c.is_ascii_whitespace() || c.is_ascii_control());
        let whole = match text.split_once('.') {
            Some((whole, zeros)) if zeros.bytes().all(|digit| digit == b'0') => whole,
            _ => text,
        };
        if let Ok(number) = whole.parse::<i64>() {
            let number = u32::try_from(number).ok().filter(|number| *number < self.spec.count);
            return number.map_or(Meaning::Ignored, Meaning::Read);
        }
        // Spark cuts texts to integers towards 0.
        let counted = text.parse::<f64>().is_ok_and(|n| n > -1.0 && n < f64::from(self.spec.count));
        // Java reads these, too: digits of other scripts, escapes, hexadecimal fractions. Spark refuses an empty text.
        let digits = |c: char| !c.is_ascii() && c.is_numeric();
        let unsigned = text.trim_start_matches(['+', '-']);
        let hexadecimal = unsigned.get(..2).is_some_and(|head| head.eq_ignore_ascii_case("0x"));
        let odd = hexadecimal || text.contains(digits) || text.contains('%');
        if counted || odd || text.is_empty() { Meaning::Unclear } else { Meaning::Ignored }
    }

    /// The warning about ignored files.
    pub(super) fn warning(&self, ignored: &[InputFile]) -> Option<String> {
        let names: Vec<&str> = ignored.iter().take(NAMED_FILES).map(|file| file.name.as_str()).collect();
        let more = match ignored.len() - names.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let (table, FolderSpec { column, count }) = (self.table, self.spec);
        (!ignored.is_empty()).then(|| {
            let names = names.join(", ");
            format!(
                "{table}: files are ignored whose {column} is not one of 0 to {}: {names}{more}",
                count.saturating_sub(1)
            )
        })
    }
}

/// Whether names are equal without regard to letter case.
fn same(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;
    use object_store::path::Path;

    use super::*;

    const SAMPLES: Folders<'static> = Folders {
        table: "main_summary",
        spec: FolderSpec { column: "sample_id", count: 100 },
        day: "submission_date_s3=20180101",
    };

    fn file(below: &str) -> InputFile {
        let path = format!("in/sample_id=3/v4/submission_date_s3=20180101/{below}");
        InputFile {
            store: Arc::new(InMemory::new()),
            name: format!("s3://b/{path}"),
            path: path.into(),
            size: 1,
            etag: None,
            footer: None,
        }
    }

    #[test]
    fn the_number_is_that_of_the_folder_below_the_day() {
        for (below, number) in [
            ("sample_id=7/part-0.parquet", Some(7)),
            ("sample_id=07/part-0.parquet", Some(7)),
            ("sample_id=+7/part-0.parquet", Some(7)),
            ("sample_id=000000000000000007/part-0.parquet", Some(7)),
            ("sample_id=-0/part-0.parquet", Some(0)),
            ("Sample_ID=99/part-0.parquet", Some(99)),
            ("x=1/sample_id=5/y/part-0.parquet", Some(5)),
            ("sample_id=100/part-0.parquet", None),
            ("sample_id=-7/part-0.parquet", None),
            ("sample_id=4294967303/part-0.parquet", None),
            ("sample_id=99999999999999999999/part-0.parquet", None),
            ("sample_id=7.0/part-0.parquet", Some(7)),
            ("sample_id=07./part-0.parquet", Some(7)),
            ("sample_id=7 /part-0.parquet", Some(7)),
            ("sample_id= 7.00/part-0.parquet", Some(7)),
            ("sample_id=100.0/part-0.parquet", None),
            ("sample_id=100.5/part-0.parquet", None),
            ("sample_id=-1.5/part-0.parquet", None),
            ("sample_id=1e2/part-0.parquet", None),
            ("sample_id=7x/part-0.parquet", None),
            ("sample_id=7d/part-0.parquet", None),
            ("sample_id=7_old/part-0.parquet", None),
            ("sample_id=2018-01-07/part-0.parquet", None),
            ("sample_id=NaN/part-0.parquet", None),
            ("sample_id=__HIVE_DEFAULT_PARTITION__/part-0.parquet", None),
        ] {
            assert_eq!(SAMPLES.folder(&file(below)), number, "{below}");
            let divided = SAMPLES.divide(vec![file(below)]).unwrap();
            assert_eq!(
                (divided.read.len(), divided.ignored.len()),
                match number {
                    Some(_) => (1, 0),
                    None => (0, 1),
                }
            );
        }
    }

    #[test]
    fn a_file_without_a_folder_is_an_error() {
        for below in ["part-0.parquet", "x/part-0.parquet", "sample=1/part-0.parquet", "sample_id=1"] {
            let error = SAMPLES.divide(vec![file("sample_id=1/a"), file(below)]).unwrap_err().to_string();
            for part in ["main_summary", below, "sample_id=N"] {
                assert!(error.contains(part), "{error}");
            }
        }
    }

    #[test]
    fn a_value_that_may_be_a_number_is_an_error() {
        let unclear =
            ["7.5", "7e0", "700e-2", ".0", "-0.5", "99.9", "%37", "7%20", "0x7p0", "\u{667}", "", " "];
        for value in unclear {
            let mut bad = file("sample_id=1/part-0.parquet");
            // As in a store, whose keys may have any characters.
            bad.path = Path::parse(format!("submission_date_s3=20180101/sample_id={value}/x")).unwrap();
            bad.name = format!("s3://b/{}", bad.path);
            assert_eq!(SAMPLES.folder(&bad), None, "{value}");
            let error = SAMPLES.divide(vec![file("sample_id=1/a"), bad]).unwrap_err().to_string();
            assert!(error.contains(&format!("the folder sample_id={value}, ")), "{error}");
            assert!(error.contains("main_summary: s3://b/") && error.contains("rename"), "{error}");
        }
    }

    #[test]
    fn a_warning_names_some_of_the_ignored_files() {
        let ignored = |numbers: std::ops::Range<u32>| {
            let files: Vec<InputFile> = numbers.map(|n| file(&format!("sample_id={n}/part-0"))).collect();
            SAMPLES.warning(&files)
        };
        assert_eq!(ignored(0..0), None);
        let one = ignored(100..101).unwrap();
        assert!(one.contains("not one of 0 to 99") && one.ends_with("sample_id=100/part-0"), "{one}");
        let many = ignored(100..110).unwrap();
        assert!(many.contains("sample_id=102/part-0 and 7 more"), "{many}");
    }
}
