//! How much of a day must be fetched, according to its files, and how much was fetched, according to a proxy.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};

use super::OUTPUT;
use super::proxy::Exchange;
use crate::golden::DATE;
use crate::table;

/// The columns that the job needs, by table.
const NEEDED: [(&str, &[&str]); 2] = [
    (
        "addons/v2",
        &["client_id", "addon_id", "foreign_install", "is_system", "user_disabled", "app_disabled"],
    ),
    ("main_summary/v3", &["client_id", "profile_creation_date", "active_theme.addon_id", "install_day"]),
];

/// Files below this size are fetched whole.
pub const SMALL_FILE: u64 = 1 << 20;

/// The most bytes that a job reads of the footer of a part file.
const MAX_FOOTER: u64 = 64 << 10;

/// Bytes of a day that a job must fetch, including those that it fetches because the file is small.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// Of the needed columns of large files.
    pub chunks: u64,
    /// Of their footers, with their lengths and magic.
    pub footers: u64,
    /// Of small files.
    pub small: u64,
    /// How many files are small.
    pub small_files: usize,
    /// Sizes of the files by name.
    files: BTreeMap<String, u64>,
}

/// What a job requested of input files.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    pub bytes: u64,
    pub gets: usize,
    /// Of `gets`, those of small files.
    pub small_gets: usize,
}

impl Needed {
    /// Looks at the files of a day under `root`.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn of(root: &Path) -> Result<Self> {
        let mut needed = Self::default();
        for (folder, columns) in NEEDED {
            for file in table::data_files(&root.join(folder).join(format!("submission_date_s3={DATE}")))? {
                let bytes = std::fs::read(&file)?;
                let name = file.strip_prefix(root)?.display().to_string();
                let size = bytes.len() as u64;
                needed.files.insert(name, size);
                if size < SMALL_FILE {
                    (needed.small, needed.small_files) = (needed.small + size, needed.small_files + 1);
                    continue;
                }
                let length = bytes[bytes.len() - 8..][..4].try_into()?;
                needed.footers += u64::from(u32::from_le_bytes(length)) + 8;
                let reader = SerializedFileReader::new(bytes::Bytes::from(bytes))?;
                for column in reader.metadata().row_groups().iter().flat_map(|group| group.columns()) {
                    let path = column.column_path().string();
                    if columns.iter().any(|name| path == *name || path.ends_with(&format!(".{name}"))) {
                        needed.chunks += u64::try_from(column.compressed_size())?;
                    }
                }
            }
        }
        Ok(needed)
    }

    /// Checks that a job fetched hardly more than it needed, small files in hardly more than a request each, and no
    /// footer twice.
    ///
    /// Names the unnecessary requests.
    pub fn check(&self, exchanges: &[Exchange]) -> Result<Fetched> {
        let fetched = self.check_ends(exchanges)?;
        let (least, bytes) = (self.chunks + self.small, fetched.bytes);
        ensure!(bytes >= least, "{bytes} bytes are too few for {least} of chunks: the proxy did not see all");
        let most = (self.chunks + self.footers) * 103 / 100 + self.small;
        ensure!(bytes <= most, "{bytes} bytes were fetched, {most} at most may be");
        let (gets, files) = (fetched.small_gets, self.small_files);
        ensure!(gets * 10 <= files * 12, "{gets} requests for {files} small files");
        Ok(fetched)
    }

    /// Checks the same, except the bytes of chunks, which a speculative attempt fetches again. For the objectives table, the
    /// job reads a footer of the published day, and once more to see that no other job has replaced the day.
    ///
    /// Names the unnecessary requests.
    pub fn check_ends(&self, exchanges: &[Exchange]) -> Result<Fetched> {
        let mut fetched = Fetched { bytes: 0, gets: 0, small_gets: 0 };
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        let gets = exchanges.iter().filter(|e| e.method == "GET" && e.target.contains(".parquet"));
        let (published, inputs): (Vec<_>, Vec<_>) =
            gets.partition(|get| get.target.contains(&format!("/{OUTPUT}/")));
        let footers = published.iter().all(|get| get.received <= MAX_FOOTER);
        ensure!(published.len() <= 2 && footers, "more of the output is read than a footer: {published:?}");
        for get in inputs {
            fetched.bytes += get.received;
            fetched.gets += 1;
            let range = get.range.as_deref().context("a whole file was asked for")?;
            let last = range.rsplit('-').next().unwrap_or_default().parse::<u64>()?;
            let target = get.target.replace("%3D", "=");
            let file = self.files.iter().find(|(name, _)| target.contains(name.as_str()));
            let (name, size) = file.with_context(|| format!("{target} is no input"))?;
            fetched.small_gets += usize::from(*size < SMALL_FILE);
            if last + 1 == *size {
                *ends.entry(name).or_default() += 1;
            }
        }
        let twice: Vec<_> = ends.iter().filter(|(_, times)| **times != 1).collect();
        ensure!(twice.is_empty(), "ends of files were fetched again: {twice:?}");
        ensure!(ends.len() == self.files.len(), "{} footers of {} files", ends.len(), self.files.len());
        Ok(fetched)
    }
}
