//! The three objectives that addon_aggregates tracks, for one day, computed from the published
//! part files.
//!
//! Not here: their presentation (`demo`).

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::{Field, Row};

/// Days within which a new user should install an add-on.
const FIRST_DAYS: i64 = 14;

/// The day's figures.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Objectives {
    /// Clients with add-ons.
    pub clients: u64,
    /// Clients with a self-installed add-on.
    pub self_installed: u64,
    /// Average number of distinct add-ons per client.
    pub addons_per_client: f64,
    /// Clients who installed their first add-on within the first 14 days of their profile.
    pub early: u64,
}

/// A file or folder of the day cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct UnreadableDay {
    path: PathBuf,
    source: ParquetError,
}

#[derive(Default)]
struct Client {
    self_installed: bool,
    early: bool,
    counts: [i64; 3],
}

/// Adds a row of a part file. A row of other columns is left out.
fn add(clients: &mut HashMap<String, Client>, row: &Row) {
    let fields: Vec<&Field> = row.get_column_iter().map(|(_, field)| field).collect();
    let [Field::Str(id), foreign, Field::Long(count), _, created, installed, ..] = fields[..] else { return };
    let client = clients.entry(id.clone()).or_default();
    let kind = if let Field::Bool(foreign) = foreign { usize::from(*foreign) } else { 2 };
    client.counts[kind] = *count;
    client.self_installed |= kind == 0;
    if let (Field::Long(created), Field::Int(installed)) = (created, installed) {
        client.early |= (0..FIRST_DAYS).contains(&(i64::from(*installed) - created));
    }
}

/// Reads the day's part files in `folder`.
///
/// # Errors
/// [`UnreadableDay`].
pub fn read(folder: &Path) -> Result<Objectives, UnreadableDay> {
    let mut clients: HashMap<String, Client> = HashMap::new();
    let unreadable = |path: &Path, source: ParquetError| UnreadableDay { path: path.into(), source };
    for entry in std::fs::read_dir(folder).map_err(|e| unreadable(folder, e.into()))? {
        let path = entry.map_err(|e| unreadable(folder, e.into()))?.path();
        let named = |source| unreadable(&path, source);
        let file = File::open(&path).map_err(|e| named(e.into()))?;
        let reader = SerializedFileReader::new(file).map_err(named)?;
        for row in reader.get_row_iter(None).map_err(named)? {
            add(&mut clients, &row.map_err(named)?);
        }
    }
    let number = |test: fn(&Client) -> bool| clients.values().filter(|client| test(client)).count() as u64;
    let addons: i64 = clients.values().flat_map(|client| client.counts).sum();
    Ok(Objectives {
        clients: clients.len() as u64,
        self_installed: number(|client| client.self_installed),
        addons_per_client: addons as f64 / (clients.len().max(1)) as f64,
        early: number(|client| client.early),
    })
}
