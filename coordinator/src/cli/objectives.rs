//! The three objectives that addon_aggregates was made to track, for one day, read back from the
//! part files as any reader would.

use std::collections::HashMap;
use std::fs::File;
use std::path::Path;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// Days in which a new user is to find an add-on.
const FIRST_DAYS: i64 = 14;

/// The day's figures.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Objectives {
    /// Clients with add-ons.
    pub clients: u64,
    /// Those with one that they installed themselves.
    pub self_installed: u64,
    /// Distinct add-ons a client, on average.
    pub addons_per_client: f64,
    /// Clients whose earliest add-on came within the first 14 days of their profile.
    pub early: u64,
}

#[derive(Default)]
struct Client {
    self_installed: bool,
    early: bool,
    counts: [i64; 3],
}

/// Reads the day's part files in `folder`.
///
/// # Errors
/// A file that cannot be read, by name.
pub fn read(folder: &Path) -> Result<Objectives, String> {
    let mut clients: HashMap<String, Client> = HashMap::new();
    for entry in std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))? {
        let path = entry.map_err(|e| format!("{}: {e}", folder.display()))?.path();
        let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let file = File::open(&path).map_err(|e| named(&e))?;
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|e| named(&e))?;
        for batch in reader.build().map_err(|e| named(&e))? {
            let batch = batch.map_err(|e| named(&e))?;
            let ids = batch.column(0).as_string::<i32>();
            let foreign = batch.column(1).as_boolean();
            let count = batch.column(2).as_primitive::<Int64Type>();
            let created = batch.column(4).as_primitive::<Int64Type>();
            let installed = batch.column(5).as_primitive::<Int32Type>();
            for row in 0..batch.num_rows() {
                let client = clients.entry(ids.value(row).to_string()).or_default();
                let kind = if foreign.is_null(row) { 2 } else { usize::from(foreign.value(row)) };
                client.counts[kind] = count.value(row);
                client.self_installed |= kind == 0;
                if created.is_valid(row) && installed.is_valid(row) {
                    let age = i64::from(installed.value(row)) - created.value(row);
                    client.early |= (0..FIRST_DAYS).contains(&age);
                }
            }
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
