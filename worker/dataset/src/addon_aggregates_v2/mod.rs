//! The dataset `addon_aggregates_v2`: one row per client, channel, version and locale, for each sample of a day.
//!
//! The rules are stated where they are computed: `map_pings` and `packed` (rows to partials), `flags` and `test_pilots`
//! (what an element counts as), `reduce_groups` (partials to rows), `day_text` (days as text). `ping_schema` has the columns
//! of partials and output. Not here: Parquet, the shuffle and everything else that is the same for all datasets.

mod day_text;
mod elements;
mod flags;
mod group_faults;
mod group_rows;
mod group_sums;
mod map_pings;
mod numbered;
mod packed;
mod ping_schema;
mod reduce_groups;
mod test_pilots;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;

use crate::checksum::Fingerprint;
use crate::{
    ColumnKind, ColumnSpec, Dataset, DatasetError, ElementKind, FolderSpec, ImpossibleRow, Mapper, Missing,
    OptionError, OptionSpec, Pass, Reducer, Size, TableSpec, TotalSpec, Totals,
};

use flags::Fields;
use test_pilots::TestPilots;
pub use test_pilots::test_pilot_ids;

/// The dataset's name.
pub const NAME: &str = "addon_aggregates_v2";
/// The option with the ids of the Test Pilot.
pub const TEST_PILOT_IDS: &str = "test-pilot-ids";
/// The number of samples.
pub const SAMPLES: u32 = 100;

// Places of the columns in a batch.
const CLIENT: usize = 0;
const CHANNEL: usize = 1;
const VERSION: usize = 2;
const LOCALE: usize = 3;
const CREATED: usize = 4;
const ADDON: usize = 5;
const FIELDS: Fields = Fields { foreign: 6, system: 7, web: 8, day: 9 };

/// The clients of all samples, those of each sample being counted, the null client too; then the sums of the output.
const TOTALS: [TotalSpec; 6] = [
    TotalSpec { name: "n_clients" },
    TotalSpec { name: ping_schema::SUMS[0] },
    TotalSpec { name: ping_schema::SUMS[1] },
    TotalSpec { name: ping_schema::SUMS[2] },
    TotalSpec { name: ping_schema::SUMS[3] },
    TotalSpec { name: ping_schema::SUMS[4] },
];

const OPTIONS: [OptionSpec; 1] = [OptionSpec {
    name: TEST_PILOT_IDS,
    help: "File with add-on ids of the Test Pilot, one per line, which do not count as self-installed, and neither does \
           @testpilot-addon. Without the option, only @testpilot-addon; with an empty file, no id",
}];

/// The dataset; see the head of the module.
pub struct AddonAggregatesV2 {
    tables: Vec<TableSpec>,
    pilots: Arc<TestPilots>,
}

impl AddonAggregatesV2 {
    /// The dataset with these ids of the Test Pilot, which are never self-installed.
    pub fn new(test_pilot_ids: &[Vec<u8>]) -> Self {
        let column = |path, kind| ColumnSpec { path, kind, filter: false, missing: Missing::Fails };
        use ColumnKind::{Element, Int, Text};
        let columns = vec![
            column(&["client_id"], Text),
            column(&["normalized_channel"], Text),
            column(&["app_version"], Text),
            column(&["locale"], Text),
            column(&["profile_creation_date"], Int),
            column(&["active_addons", "addon_id"], Element(ElementKind::Text)),
            column(&["active_addons", "foreign_install"], Element(ElementKind::Bool)),
            column(&["active_addons", "is_system"], Element(ElementKind::Bool)),
            column(&["active_addons", "is_web_extension"], Element(ElementKind::Bool)),
            column(&["active_addons", "install_day"], Element(ElementKind::Int)),
        ];
        let help = "Root of the table main_summary: a path, or an s3://, gs://, az:// or file:// URL";
        AddonAggregatesV2 {
            tables: vec![TableSpec { name: "main_summary", help, columns }],
            pilots: Arc::new(TestPilots::new(test_pilot_ids)),
        }
    }
}

impl Default for AddonAggregatesV2 {
    fn default() -> Self {
        Self::new(&test_pilots::default_ids())
    }
}

impl Dataset for AddonAggregatesV2 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn meaning(&self) -> &'static str {
        "One row per client, channel, version and locale of a sample of a day, with the numbers of its add-ons by kind"
    }

    fn column_meaning(&self, column: &str) -> &'static str {
        ping_schema::meaning(column)
    }

    fn options(&self) -> &[OptionSpec] {
        &OPTIONS
    }

    fn with_options(&self, values: &BTreeMap<String, Vec<u8>>) -> Result<Arc<dyn Dataset>, OptionError> {
        if let Some(name) = values.keys().find(|name| *name != TEST_PILOT_IDS) {
            return Err(OptionError::Unknown { dataset: NAME, name: name.clone() });
        }
        Ok(Arc::new(match values.get(TEST_PILOT_IDS) {
            Some(text) => AddonAggregatesV2::new(&test_pilot_ids(text)),
            None => AddonAggregatesV2::default(),
        }))
    }

    fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    fn partition_column(&self) -> &'static str {
        "submission_date_s3"
    }

    fn folders(&self) -> Option<FolderSpec> {
        Some(FolderSpec { column: "sample_id", count: SAMPLES })
    }

    fn key_column(&self) -> &'static str {
        "client_id"
    }

    fn totals(&self) -> &[TotalSpec] {
        &TOTALS
    }

    fn partial_schema(&self, _: usize) -> SchemaRef {
        ping_schema::partial()
    }

    fn mapper(&self, _: usize, partitions: u32, folder: Option<u32>) -> Box<dyn Mapper> {
        let folder = folder.unwrap_or_default();
        Box::new(map_pings::PingsMapper::new(partitions, folder, self.pilots.clone()))
    }

    fn reducer(&self, pass: Pass, sizes: &[Size]) -> Box<dyn Reducer> {
        Box::new(reduce_groups::GroupsReducer::new(pass, sizes))
    }

    fn reducer_bytes(&self, sizes: &[Size]) -> u64 {
        reduce_groups::bytes(sizes)
    }

    fn partial_checksums(
        &self,
        _: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError> {
        group_sums::partials(batch, offsets)
    }

    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
        group_sums::output(batch, all)
    }

    fn output_schema(&self) -> SchemaRef {
        ping_schema::output()
    }

    fn reduced_schema(&self) -> SchemaRef {
        ping_schema::output()
    }

    fn constants(&self, _: &Totals) -> Result<Vec<ArrayRef>, DatasetError> {
        Ok(vec![])
    }

    fn unique_columns(&self) -> &[&'static str] {
        &ping_schema::KEYS
    }

    fn impossible_row(&self, rows: &RecordBatch) -> Result<Option<ImpossibleRow>, DatasetError> {
        group_faults::impossible_row(rows)
    }

    fn counted_rows(&self, rows: &RecordBatch) -> Result<Vec<BooleanArray>, DatasetError> {
        group_faults::counted_rows(rows)
    }

    fn bytes_per_row(&self) -> u64 {
        48
    }
}
