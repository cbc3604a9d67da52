//! More datasets, outside the engine's crates: activity and payments per account on a day, and the same per shop, which is a folder
//! within the day.
//!
//! `map` turns rows into partials, `reduce` partials into rows. The binaries of this package are Tally's own entry points
//! with [`DATASETS`]. Not here: the expected result (`tests/toy.rs`).

mod map;
mod reduce;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow_array::{ArrayRef, Int32Array, Int64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use tally_dataset::checksum::{self, Fingerprint, start, step};
use tally_dataset::output_rows::named;
use tally_dataset::partials::{column, key_bytes, row_ranges};
use tally_dataset::registry::{BUILT_IN, Constructor};
use tally_dataset::{
    ColumnKind, ColumnSpec, Dataset, DatasetError, FolderSpec, Mapper, Missing, OptionError, OptionSpec,
    Pass, Reducer, Size, TableSpec, TotalSpec, Totals,
};

/// Tally's own dataset, which stays the default, and these.
pub const DATASETS: &[Constructor] =
    &[BUILT_IN[0], || Arc::new(Accounts::new()), || Arc::new(Accounts::by_shop())];

/// The shops, each a folder within the day.
const SHOPS: FolderSpec = FolderSpec { column: "shop", count: 4 };
/// An option of the accounts by shop.
const EXCLUDED: OptionSpec = OptionSpec {
    name: "excluded-accounts",
    help: "accounts without rows, one in each line; none without it",
};

/// Index of the table `events`.
const EVENTS: usize = 0;
/// Bits of a partial's `state` column.
mod state {
    /// The account is a dictionary code, not a UUID.
    pub const CODED: u8 = 1;
    /// `last` is not null.
    pub const LAST: u8 = 1 << 1;
}

const TOTALS: [TotalSpec; 3] = [
    TotalSpec { name: "n_accounts" },
    TotalSpec { name: "n_paying_accounts" },
    TotalSpec { name: "total_seconds" },
];

/// One row per account that has a payment, or an event that is not a test: the sum of the seconds of its events, the time of
/// the last one, and the sum of its payments. The null account is dropped.
pub struct Accounts {
    tables: Vec<TableSpec>,
    folders: Option<FolderSpec>,
    excluded: Arc<BTreeSet<String>>,
}

impl Accounts {
    /// The dataset.
    pub fn new() -> Self {
        let column = |name: &'static [&'static str], kind| ColumnSpec {
            path: name,
            kind,
            filter: false,
            missing: Missing::Fails,
        };
        use ColumnKind::*;
        let test = ColumnSpec { filter: true, missing: Missing::IsNull, ..column(&["is_test"], Bool) };
        let events = vec![
            column(&["account"], Text),
            column(&["seconds"], Int64),
            column(&["time", "at"], Int64),
            test,
        ];
        let payments = vec![column(&["account"], Text), column(&["cents"], Int64)];
        let table = |name, columns| TableSpec { name, help: "", columns };
        let tables = vec![table("events", events), table("payments", payments)];
        Accounts { tables, folders: None, excluded: Arc::default() }
    }

    /// The same per shop.
    pub fn by_shop() -> Self {
        Accounts { folders: Some(SHOPS), ..Self::new() }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        Self::new()
    }
}

fn partial_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("account", DataType::FixedSizeBinary(16), false),
        Field::new("state", DataType::UInt8, false),
        Field::new("sum", DataType::Int64, false),
        Field::new("last", DataType::Int64, false),
    ]))
}

fn reduced_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("account", DataType::Utf8, false),
        Field::new("seconds", DataType::Int64, false),
        Field::new("last", DataType::Int64, true),
        Field::new("cents", DataType::Int64, false),
    ]))
}

impl Dataset for Accounts {
    fn name(&self) -> &'static str {
        if self.folders.is_some() { "accounts_by_shop" } else { "accounts" }
    }

    fn folders(&self) -> Option<FolderSpec> {
        self.folders
    }

    fn options(&self) -> &[OptionSpec] {
        if self.folders.is_some() { std::slice::from_ref(&EXCLUDED) } else { &[] }
    }

    fn with_options(&self, values: &BTreeMap<String, Vec<u8>>) -> Result<Arc<dyn Dataset>, OptionError> {
        let (dataset, mut excluded) = (self.name(), BTreeSet::new());
        for (name, value) in values {
            if self.options().iter().all(|option| option.name != name) {
                return Err(OptionError::Unknown { dataset, name: name.clone() });
            }
            let invalid = |fault: String| OptionError::Invalid { dataset, name: name.clone(), fault };
            let text = str::from_utf8(value).map_err(|error| invalid(error.to_string()))?;
            excluded.extend(text.lines().map(String::from));
        }
        Ok(Arc::new(Accounts {
            tables: self.tables.clone(),
            folders: self.folders,
            excluded: Arc::new(excluded),
        }))
    }

    fn meaning(&self) -> &'static str {
        "One row per account with a payment, or with an event that is not a test"
    }

    fn tables(&self) -> &[TableSpec] {
        &self.tables
    }

    fn partition_column(&self) -> &'static str {
        "day"
    }

    fn key_column(&self) -> &'static str {
        "account"
    }

    fn totals(&self) -> &[TotalSpec] {
        &TOTALS
    }

    fn partial_schema(&self, _: usize) -> SchemaRef {
        partial_schema()
    }

    fn mapper(&self, table: usize, partitions: u32, folder: Option<u32>) -> Box<dyn Mapper> {
        Box::new(map::AccountsMapper::new(table, partitions, folder, self.excluded.clone()))
    }

    fn reducer(&self, pass: Pass, _: &[Size]) -> Box<dyn Reducer> {
        Box::new(reduce::AccountsReducer::new(pass))
    }

    fn reducer_bytes(&self, sizes: &[Size]) -> u64 {
        sizes.iter().fold(0, |bytes: u64, size| bytes.saturating_add(size.rows.saturating_mul(200)))
    }

    fn partial_checksums(
        &self,
        _: usize,
        batch: &RecordBatch,
        offsets: &[u32],
    ) -> Result<Vec<u64>, DatasetError> {
        let ranges = row_ranges(batch, offsets)?;
        let reduce::Partials { keys, states, sums, lasts } = reduce::Partials::of(batch)?;
        let keys = key_bytes(keys)?;
        let row = |row: usize| {
            let hash = step(checksum::id(keys[row]), u64::from(states[row]), 0);
            step(hash, sums[row].cast_unsigned(), lasts[row].cast_unsigned())
        };
        Ok(ranges.map(|rows| rows.fold(0u64, |sum, at| sum.wrapping_add(row(at)))).collect())
    }

    fn fingerprint(&self, batch: &RecordBatch, all: &mut Fingerprint) -> Result<(), DatasetError> {
        let accounts: &StringArray = column(batch, "account")?;
        let seconds: &Int64Array = column(batch, "seconds")?;
        let cents: &Int64Array = column(batch, "cents")?;
        let lasts: &Int64Array = named(batch, "last")?;
        for (row, last) in lasts.iter().enumerate() {
            let account = accounts.value(row).as_bytes();
            let hash = step(start(), checksum::text(account, 0, account.len()), account.len() as u64);
            let hash = step(hash, seconds.value(row).cast_unsigned(), cents.value(row).cast_unsigned());
            let (known, last) = (u64::from(last.is_some()), last.unwrap_or(0).cast_unsigned());
            all.add(step(hash, known, last));
        }
        Ok(())
    }

    fn output_schema(&self) -> SchemaRef {
        let mut fields = reduced_schema().fields().to_vec();
        fields.extend(
            [
                Field::new("n_accounts", DataType::Int32, false),
                Field::new("total_seconds", DataType::Int64, false),
                Field::new("paying_share", DataType::Int64, true),
                Field::new("currency", DataType::Utf8, false),
            ]
            .map(Arc::new),
        );
        Arc::new(Schema::new(fields))
    }

    fn reduced_schema(&self) -> SchemaRef {
        reduced_schema()
    }

    fn constants(&self, totals: &Totals) -> Result<Vec<ArrayRef>, DatasetError> {
        let large = |name, value| DatasetError::TotalTooLarge { name, value };
        let int = |value: u64| i64::try_from(value).map_err(|_| large("a sum", value));
        let accounts = i32::try_from(totals[0]).map_err(|_| large("accounts", totals[0]))?;
        let share = (totals[1] * 100).checked_div(totals[0]);
        Ok(vec![
            Arc::new(Int32Array::from(vec![accounts])),
            Arc::new(Int64Array::from(vec![int(totals[2])?])),
            Arc::new(Int64Array::from(vec![share.map(int).transpose()?])),
            Arc::new(StringArray::from(vec!["EUR"])),
        ])
    }

    fn unique_columns(&self) -> &[&'static str] {
        &["account"]
    }

    fn bytes_per_row(&self) -> u64 {
        50
    }
}
