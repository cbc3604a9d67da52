//! Objectives of a dataset: what it counts in its output rows to follow goals from day to day, and the figures that follow
//! from the counters.
//!
//! Reduce tasks count their rows, the coordinator adds the counts of all partitions, and `tally report` shows the figures.
//! All counters are integers that add up in any order, because partitions share no key. So the counts do not depend on
//! the number of partitions, workers or attempts.
//!
//! Not here: where the counts are stored, and what a dataset counts.

use std::sync::Arc;

use arrow_array::{ArrayRef, Float64Array, Int64Array, ListArray, RecordBatch, StringArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::ArrowError;
use arrow_schema::{DataType, Field, Schema};

use crate::{Dataset, DatasetError};

/// Maximum number of counts of a dataset, with those of all buckets. Results of reduce tasks have no more.
pub const MAX_COUNTS: usize = 256;

/// A counter of the output rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CounterSpec {
    /// The name in part files and in the objectives table. A name never changes its meaning.
    pub name: &'static str,
    /// 1, or the buckets of a distribution: bucket `n` counts what has the value `n`, from 1. The last bucket also counts all
    /// larger values.
    pub buckets: usize,
}

/// The value of a figure. Names are those of counters or of the dataset's totals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FigureValue {
    /// A counter.
    Count(&'static str),
    /// The first counter divided by the second: an average.
    Average(&'static str, &'static str),
    /// The first counter divided by the second: a share, shown in percent.
    Share(&'static str, &'static str),
}

/// A figure that people follow from day to day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FigureSpec {
    /// The name in tables and in JSON.
    pub name: &'static str,
    /// The title in reports.
    pub title: &'static str,
    /// The section of reports that shows it; figures of a section are next to each other.
    pub section: &'static str,
    /// Its value.
    pub value: FigureValue,
    /// The increase over the baseline that is the goal, in percent.
    pub goal_percent: Option<u32>,
}

/// What a dataset counts, and the figures that follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectivesSpec {
    /// The counters, in the order of [`Counting::counts`].
    pub counters: &'static [CounterSpec],
    /// The figures, in the order of reports.
    pub figures: &'static [FigureSpec],
    /// The title of each distribution, by the name of its counter.
    pub distributions: &'static [(&'static str, &'static str)],
}

impl ObjectivesSpec {
    /// The number of counts, with those of all buckets.
    pub fn counts(&self) -> usize {
        self.counters.iter().map(|counter| counter.buckets).sum()
    }
}

/// Counts the output rows of a reduce task.
pub trait Counting: Send {
    /// Counts rows of [`Dataset::reduced_schema`]. All rows of a key are passed one after another, if in several batches.
    ///
    /// # Errors
    /// [`DatasetError::Malformed`] if the batch has another schema.
    fn add(&mut self, rows: &RecordBatch) -> Result<(), DatasetError>;

    /// The counts of all rows, in the order of [`ObjectivesSpec::counters`], bucket by bucket.
    fn counts(self: Box<Self>) -> Vec<u64>;
}

/// The counts of a day, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts(Vec<(String, Vec<u64>)>);

impl Counts {
    /// The counts of a day by the names of `counters`, from the values in their order; `None` for another number of values.
    pub fn of(counters: &[CounterSpec], values: &[u64]) -> Option<Self> {
        let mut rest = values;
        let mut named = vec![];
        for counter in counters {
            let (own, others) = rest.split_at_checked(counter.buckets)?;
            named.push((counter.name.to_string(), own.to_vec()));
            rest = others;
        }
        rest.is_empty().then_some(Counts(named))
    }

    /// Adds a counter, or replaces it.
    pub fn set(&mut self, name: &str, buckets: Vec<u64>) {
        self.0.retain(|(other, _)| other != name);
        self.0.push((name.into(), buckets));
    }

    /// All counters.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u64])> {
        self.0.iter().map(|(name, buckets)| (name.as_str(), buckets.as_slice()))
    }

    /// The buckets of a distribution.
    pub fn buckets(&self, name: &str) -> Option<&[u64]> {
        self.iter().find(|(other, _)| *other == name).map(|(_, buckets)| buckets)
    }

    /// The value of a counter.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.buckets(name)?.first().copied()
    }

    /// The value of a figure; `None` if a counter is missing, or if the divisor is 0.
    pub fn figure(&self, value: FigureValue) -> Option<f64> {
        match value {
            FigureValue::Count(name) => Some(self.count(name)? as f64),
            FigureValue::Average(of, per) | FigureValue::Share(of, per) => {
                let (of, per) = (self.count(of)?, self.count(per)?);
                (per > 0).then(|| of as f64 / per as f64)
            }
        }
    }
}

/// The row of a day in the objectives table: `rows` and `checksum` of the day, the totals and counters of the dataset, and
/// its averages and shares.
///
/// # Errors
/// Never for the counts of this dataset.
pub fn table_row(
    dataset: &dyn Dataset,
    spec: &ObjectivesSpec,
    rows: u64,
    checksum: Option<&str>,
    counts: &Counts,
) -> Result<RecordBatch, ArrowError> {
    let mut columns: Vec<(Field, ArrayRef)> = vec![];
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let mut column = |name: &str, array: ArrayRef, nullable| {
        columns.push((Field::new(name, array.data_type().clone(), nullable), array));
    };
    column("rows", Arc::new(Int64Array::from(vec![long(rows)])), false);
    column("checksum", Arc::new(StringArray::from(vec![checksum])), true);
    let scalars = spec.counters.iter().filter(|counter| counter.buckets == 1).map(|counter| counter.name);
    for name in dataset.totals().iter().map(|total| total.name).chain(scalars) {
        column(name, Arc::new(Int64Array::from(vec![counts.count(name).map(long)])), true);
    }
    for figure in spec.figures.iter().filter(|figure| !matches!(figure.value, FigureValue::Count(_))) {
        column(figure.name, Arc::new(Float64Array::from(vec![counts.figure(figure.value)])), true);
    }
    for counter in spec.counters.iter().filter(|counter| counter.buckets > 1) {
        let buckets: Vec<i64> =
            counts.buckets(counter.name).unwrap_or_default().iter().copied().map(long).collect();
        let item = Arc::new(Field::new("element", DataType::Int64, false));
        let offsets = OffsetBuffer::from_lengths([buckets.len()]);
        let list = ListArray::try_new(item, offsets, Arc::new(Int64Array::from(buckets)), None)?;
        column(counter.name, Arc::new(list), true);
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)
}

#[cfg(test)]
mod tests {
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type};

    use super::*;
    use crate::addon_aggregates::AddonAggregates;

    const COUNTERS: [CounterSpec; 3] = [
        CounterSpec { name: "a", buckets: 1 },
        CounterSpec { name: "sizes", buckets: 3 },
        CounterSpec { name: "b", buckets: 1 },
    ];

    #[test]
    fn counts_have_their_names_and_figures_their_divisors() {
        let counts = Counts::of(&COUNTERS, &[6, 1, 2, 3, 4]).unwrap();
        assert_eq!((counts.count("a"), counts.count("b"), counts.count("c")), (Some(6), Some(4), None));
        assert_eq!(counts.buckets("sizes"), Some(&[1, 2, 3][..]));
        assert_eq!(counts.figure(FigureValue::Average("a", "b")), Some(1.5));
        assert_eq!(counts.figure(FigureValue::Share("a", "c")), None);
        let none = Counts::of(&COUNTERS, &[0; 5]).unwrap();
        assert_eq!(none.figure(FigureValue::Average("a", "b")), None);
        assert_eq!(none.figure(FigureValue::Count("a")), Some(0.0));
        assert_eq!(Counts::of(&COUNTERS, &[0; 4]), None);
        assert_eq!(Counts::of(&COUNTERS, &[0; 6]), None);
    }

    #[test]
    fn every_figure_and_distribution_of_a_dataset_has_its_counters() {
        for dataset in crate::registry::datasets() {
            let Some(spec) = dataset.objectives() else { continue };
            assert!(spec.counts() <= MAX_COUNTS);
            let totals = dataset.totals().iter().map(|total| total.name);
            let names: Vec<_> = totals.chain(spec.counters.iter().map(|counter| counter.name)).collect();
            for figure in spec.figures {
                let used = match figure.value {
                    FigureValue::Count(name) => vec![name],
                    FigureValue::Average(of, per) | FigureValue::Share(of, per) => vec![of, per],
                };
                assert!(used.iter().all(|name| names.contains(name)), "{figure:?}");
                let is_count = matches!(figure.value, FigureValue::Count(_));
                assert!(is_count || !names.contains(&figure.name), "{figure:?} is a counter, too");
            }
            let of_spec: Vec<_> = spec
                .counters
                .iter()
                .filter(|counter| counter.buckets > 1)
                .map(|counter| counter.name)
                .collect();
            assert_eq!(spec.distributions.iter().map(|(name, _)| *name).collect::<Vec<_>>(), of_spec);
        }
    }

    #[test]
    fn the_table_has_a_column_for_each_counter_average_and_share() {
        let dataset = AddonAggregates::new();
        let spec = dataset.objectives().unwrap();
        let mut counts = Counts::of(spec.counters, &vec![7; spec.counts()]).unwrap();
        counts.set("n_clients", vec![14]);
        let row = table_row(&dataset, spec, 9, Some("00ff"), &counts).unwrap();
        assert_eq!(row.num_rows(), 1);
        let value = |name: &str| row.column_by_name(name).unwrap().clone();
        let long = |name: &str| value(name).as_primitive::<Int64Type>().value(0);
        assert_eq!((long("rows"), long("n_clients"), long("self_installers")), (9, 14, 7));
        assert_eq!(value("checksum").as_string::<i32>().value(0), "00ff");
        assert_eq!(value("self_share").as_primitive::<Float64Type>().value(0), 0.5);
        assert_eq!(value("addons_per_client").as_primitive::<Float64Type>().value(0), 1.0);
        assert_eq!(value("clients_by_addons").as_list::<i32>().value(0).len(), 20);
        // A total that is not known is null, and so is what follows from it.
        for name in ["n_custom_theme_clients", "theme_share"] {
            assert!(value(name).is_null(0), "{name}");
        }
    }
}
