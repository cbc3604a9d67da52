//! Reads a generated day back and computes its totals naively, from maps of whole rows. Shares no code with the generator.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use arrow_array::cast::AsArray;
use arrow_array::types::{Int32Type, Int64Type};
use arrow_array::{Array, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tally_generate::Totals;

pub type Text = Option<String>;

/// The fields of an add-on row that the job reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddonRow {
    pub client: Text,
    pub addon: Text,
    pub foreign: Option<bool>,
    /// is_system, user_disabled, app_disabled.
    pub flags: [Option<bool>; 3],
}

/// The fields of a ping that the job reads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PingRow {
    pub client: Text,
    pub created: Option<i64>,
    /// `None` for a null struct.
    pub theme: Option<Text>,
    pub install_days: Vec<Option<i32>>,
}

/// All files below a folder, sorted, with paths relative to it.
pub fn files(folder: &Path) -> Vec<PathBuf> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, into) } else { into.push(path) }
        }
    }
    let mut all = Vec::new();
    walk(folder, &mut all);
    all.sort();
    all.iter().map(|path| path.strip_prefix(folder).unwrap().to_path_buf()).collect()
}

pub fn batches(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(|batch| batch.unwrap()).collect()
}

fn texts(column: &dyn Array) -> Vec<Text> {
    column.as_string::<i32>().iter().map(|text| text.map(String::from)).collect()
}

fn flags(batch: &RecordBatch, name: &str) -> Vec<Option<bool>> {
    batch.column_by_name(name).unwrap().as_boolean().iter().collect()
}

/// The rows of one file of `addons`.
pub fn addon_rows(path: &Path) -> Vec<AddonRow> {
    let mut rows = Vec::new();
    for batch in batches(path) {
        let clients = texts(batch.column_by_name("client_id").unwrap());
        let addons = texts(batch.column_by_name("addon_id").unwrap());
        let foreign = flags(&batch, "foreign_install");
        let filter = ["is_system", "user_disabled", "app_disabled"].map(|name| flags(&batch, name));
        for (row, (client, addon)) in clients.into_iter().zip(addons).enumerate() {
            let flags = [filter[0][row], filter[1][row], filter[2][row]];
            rows.push(AddonRow { client, addon, foreign: foreign[row], flags });
        }
    }
    rows
}

/// The rows of one file of `main_summary`.
pub fn ping_rows(path: &Path) -> Vec<PingRow> {
    let mut rows = Vec::new();
    for batch in batches(path) {
        let clients = texts(batch.column_by_name("client_id").unwrap());
        let created = batch.column_by_name("profile_creation_date").unwrap().as_primitive::<Int64Type>();
        let theme = batch.column_by_name("active_theme").unwrap().as_struct();
        let theme_ids = texts(theme.column_by_name("addon_id").unwrap());
        let lists = batch.column_by_name("active_addons").unwrap().as_list::<i32>();
        for (row, client) in clients.into_iter().enumerate() {
            let elements = lists.value(row);
            let days = elements.as_struct().column_by_name("install_day").unwrap().clone();
            rows.push(PingRow {
                client,
                created: created.is_valid(row).then(|| created.value(row)),
                theme: theme.is_valid(row).then(|| theme_ids[row].clone()),
                install_days: days.as_primitive::<Int32Type>().iter().collect(),
            });
        }
    }
    rows
}

/// All rows of a day: those of `addons`, those of `main_summary`.
pub fn day(output: &Path) -> (Vec<AddonRow>, Vec<PingRow>) {
    let (mut addons, mut pings) = (Vec::new(), Vec::new());
    for path in files(output) {
        if path.starts_with("addons/v2") {
            addons.extend(addon_rows(&output.join(path)));
        } else {
            pings.extend(ping_rows(&output.join(path)));
        }
    }
    (addons, pings)
}

/// The totals by the rules, over all rows at once.
pub fn naive_totals(output: &Path, date: &str) -> Totals {
    let (addons, pings) = day(output);
    let mut groups: BTreeMap<(Text, Option<bool>), BTreeSet<Text>> = BTreeMap::new();
    for row in &addons {
        if row.flags == [Some(false); 3] {
            let group = groups.entry((row.client.clone(), row.foreign)).or_default();
            group.insert(row.addon.clone());
        }
    }
    let mut dates: BTreeMap<Text, BTreeSet<Option<i64>>> = BTreeMap::new();
    let mut themes: BTreeMap<Text, BTreeSet<i64>> = BTreeMap::new();
    for ping in &pings {
        let custom = match &ping.theme {
            Some(Some(id)) => id != "{972ce4c6-7e08-4474-a285-3208198ce6fd}",
            _ => false,
        };
        themes.entry(ping.client.clone()).or_default().insert(if custom { 1 } else { -1 });
        if !ping.install_days.is_empty() {
            dates.entry(ping.client.clone()).or_default().insert(ping.created);
        }
    }
    let (mut rows, mut sum_of_count) = (0, 0);
    for ((client, _), addons) in groups.iter().filter(|((client, _), _)| client.is_some()) {
        let repeats = dates.get(client).map_or(1, |dates| dates.len() as u64);
        rows += repeats;
        sum_of_count += repeats * addons.len() as u64;
    }
    Totals {
        date: date.to_owned(),
        rows,
        sum_of_count,
        n_clients: themes.len() as u64,
        n_custom_theme_clients: themes.values().filter(|seen| seen.iter().sum::<i64>() >= 0).count() as u64,
        main_summary_rows: pings.len() as u64,
        addons_rows: addons.len() as u64,
    }
}
