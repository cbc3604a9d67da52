//! How much of a day must be fetched, going by its files, and how much was, going by what a proxy saw.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use parquet::file::reader::{FileReader, SerializedFileReader};

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

/// Bytes of a day that a job cannot do without.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    /// Of the needed columns.
    pub chunks: u64,
    /// Of the footers, with their lengths and magic.
    pub footers: u64,
    /// Sizes of the files by name.
    files: BTreeMap<String, u64>,
}

/// What a job asked of input files.
#[derive(Clone, Copy, Debug)]
pub struct Fetched {
    pub bytes: u64,
    pub gets: usize,
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
                needed.files.insert(name, bytes.len() as u64);
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

    /// Checks that a job fetched hardly more than it needed, no whole file, and no footer twice.
    ///
    /// # Errors
    /// What was asked for in vain.
    pub fn check(&self, exchanges: &[Exchange]) -> Result<Fetched> {
        let fetched = self.check_ends(exchanges)?;
        let (least, bytes) = (self.chunks, fetched.bytes);
        ensure!(bytes >= least, "{bytes} bytes are too few for {least} of chunks: the proxy did not see all");
        let most = (self.chunks + self.footers) * 103 / 100;
        ensure!(bytes <= most, "{bytes} bytes were fetched, {most} at most may be");
        Ok(fetched)
    }

    /// Checks the same but for the bytes of chunks, which a second attempt of a task fetches again.
    ///
    /// # Errors
    /// What was asked for in vain.
    pub fn check_ends(&self, exchanges: &[Exchange]) -> Result<Fetched> {
        let mut fetched = Fetched { bytes: 0, gets: 0 };
        let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
        for get in exchanges.iter().filter(|e| e.method == "GET" && e.target.contains(".parquet")) {
            fetched.bytes += get.received;
            fetched.gets += 1;
            let range = get.range.as_deref().context("a whole file was asked for")?;
            let last = range.rsplit('-').next().unwrap_or_default().parse::<u64>()?;
            let target = get.target.replace("%3D", "=");
            let file = self.files.iter().find(|(name, _)| target.contains(name.as_str()));
            let (name, size) = file.with_context(|| format!("{target} is no input"))?;
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
