//! The dataset `addon_aggregates`: one row per client and install type.
//!
//! The rules are stated where they are computed: [`map_addons`] and [`map_main`] (rows to partials), [`reduce`] (partials
//! to rows), `client_counts` (rows to counters). [`schema`] has the columns of partials and output. Not here: Parquet, the
//! shuffle and everything else that is the same for all datasets.

mod client_counts;
mod invariants;
pub mod map_addons;
pub mod map_main;
pub mod reduce;
pub mod schema;
mod sums;

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, Int32Array, RecordBatch};
use arrow_schema::SchemaRef;

use crate::checksum::Fingerprint;
use crate::{
    ColumnKind, ColumnSpec, Counting, Dataset, DatasetError, ImpossibleRow, Mapper, Missing, ObjectivesSpec,
    Pass, Preset, Reducer, Size, TableSpec, TotalSpec, Totals,
};

/// The dataset's name.
pub const NAME: &str = "addon_aggregates";
/// The partition column of its inputs and its output.
pub const PARTITION_COLUMN: &str = "submission_date_s3";
/// Place of the table `addons` among [`Dataset::tables`].
pub const ADDONS: usize = 0;
/// Place of the table `main_summary` among [`Dataset::tables`].
pub const MAIN_SUMMARY: usize = 1;
/// Place among [`Dataset::totals`]: distinct clients of the day, the null client being one.
pub const CLIENTS: usize = 0;
/// Place among [`Dataset::totals`]: those with a custom theme at some time of the day.
pub const CUSTOM_THEME_CLIENTS: usize = 1;

const TOTALS: [TotalSpec; 2] =
    [TotalSpec { name: "n_clients" }, TotalSpec { name: "n_custom_theme_clients" }];

/// The locations of the job that this dataset was first computed by.
const PRESETS: [Preset; 1] = [Preset {
    name: "telemetry",
    inputs: &["s3://telemetry-parquet/addons/v2", "s3://telemetry-parquet/main_summary/v3"],
    bucket: "telemetry-parquet",
    output: "addons/agg/v1",
}];

/// The dataset; see the head of the module.
pub struct AddonAggregates {
    tables: Vec<TableSpec>,
}

impl AddonAggregates {
    /// The dataset.
    pub fn new() -> Self {
        let column = |path, kind, filter, missing| ColumnSpec { path, kind, filter, missing };
        use {ColumnKind::*, Missing::*};
        let addons = vec![
            column(&["client_id"], Text, false, Fails),
            column(&["addon_id"], Text, false, Fails),
            column(&["foreign_install"], Bool, false, Fails),
            column(&["is_system"], Bool, true, Fails),
            column(&["user_disabled"], Bool, true, Fails),
            column(&["app_disabled"], Bool, true, Fails),
        ];
        let main = vec![
            column(&["client_id"], Text, false, Fails),
            column(&["active_theme", "addon_id"], Text, false, IsNull),
            column(&["profile_creation_date"], Int64, false, IsNull),
            column(&["active_addons", "install_day"], ListMinInt32, false, IsNull),
        ];
        AddonAggregates {
            tables: vec![
                TableSpec {
                    name: "addons",
                    help: "Root of the table addons: a path, or an s3://, gs://, az:// or file:// URL",
                    columns: addons,
                },
                TableSpec {
                    name: "main_summary",
                    help: "Root of the table main_summary: a path or URL, as above",
                    columns: main,
                },
            ],
        }
    }
}

impl Default for AddonAggregates {
    fn default() -> Self {
        Self::new()
    }
}

impl Dataset for AddonAggregates {
    fn name(&self) -> &'static str {
        NAME
    }

    fn meaning(&self) -> &'static str {
        "One row per client and install type of a day, with the number of its distinct add-ons"
    }

    fn column_meaning(&self, column: &str) -> &'static str {
        schema::meaning(column)
    }

    fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    fn partition_column(&self) -> &'static str {
        PARTITION_COLUMN
    }

    fn presets(&self) -> &[Preset] {
        &PRESETS
    }

    fn key_column(&self) -> &'static str {
        "client_id"
    }

    fn totals(&self) -> &[TotalSpec] {
        &TOTALS
    }

    fn partial_schema(&self, table: usize) -> SchemaRef {
        if table == ADDONS { schema::addons_partial() } else { schema::main_partial() }
    }

    fn mapper(&self, table: usize, partitions: u32, _: Option<u32>) -> Box<dyn Mapper> {
        if table == ADDONS {
            Box::new(map_addons::AddonsMapper::new(partitions))
        } else {
            Box::new(map_main::MainMapper::new(partitions))
        }
    }

    fn reducer(&self, pass: Pass, sizes: &[Size]) -> Box<dyn Reducer> {
        Box::new(reduce::AddonReducer::new(pass, sizes))
    }

    fn reducer_bytes(&self, sizes: &[Size]) -> u64 {
        reduce::bytes(sizes)
    }

    fn partial_checksums(
        &self,
        table: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError> {
        sums::partials(table, batch, offsets)
    }

    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
        sums::reduced(batch, all)
    }

    fn output_schema(&self) -> SchemaRef {
        schema::output()
    }

    fn reduced_schema(&self) -> SchemaRef {
        schema::reduced()
    }

    fn constants(&self, totals: &Totals) -> Result<Vec<ArrayRef>, DatasetError> {
        let int = |total: usize| -> Result<ArrayRef, DatasetError> {
            let (name, value) = (TOTALS[total].name, totals[total]);
            let value = i32::try_from(value).map_err(|_| DatasetError::TotalTooLarge { name, value })?;
            Ok(Arc::new(Int32Array::from(vec![value])))
        };
        Ok(vec![int(CUSTOM_THEME_CLIENTS)?, int(CLIENTS)?])
    }

    fn objectives(&self) -> Option<&ObjectivesSpec> {
        Some(&client_counts::SPEC)
    }

    fn counting(&self, day: i64) -> Option<Box<dyn Counting>> {
        Some(Box::new(client_counts::ClientCounting::new(day)))
    }

    fn unique_columns(&self) -> &[&'static str] {
        &["client_id", "foreign_install", "profile_creation_date"]
    }

    fn impossible_row(&self, rows: &RecordBatch) -> Result<Option<ImpossibleRow>, DatasetError> {
        invariants::impossible_row(rows)
    }

    fn counted_rows(&self, rows: &RecordBatch) -> Result<Vec<BooleanArray>, DatasetError> {
        invariants::counted_rows(rows)
    }

    fn bytes_per_row(&self) -> u64 {
        38
    }
}
