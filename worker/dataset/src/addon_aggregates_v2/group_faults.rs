//! What holds for every row of a correct output, whatever the inputs are. An audit of a published day checks it.
//!
//! Not here: how rows are computed (`reduce_groups`), and their checksum (`group_sums`).

use arrow_array::{Array, BooleanArray, Int64Array, RecordBatch, StringArray};

use super::TOTALS;
use super::day_text::is_day;
use super::ping_schema::{DATES, SUMS};
use crate::output_rows::named;
use crate::{DatasetError, ImpossibleRow};

/// The columns of output rows that are restricted.
struct Columns<'a> {
    versions: &'a StringArray,
    sums: Vec<&'a Int64Array>,
    days: [&'a StringArray; 2],
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self, DatasetError> {
        Ok(Columns {
            versions: named(rows, "app_version")?,
            sums: SUMS.iter().map(|name| named(rows, name)).collect::<Result<_, _>>()?,
            days: [named(rows, DATES[0])?, named(rows, DATES[1])?],
        })
    }

    /// What is wrong with a row.
    fn fault(&self, row: usize) -> Option<String> {
        if self.versions.is_valid(row) && self.versions.value(row).chars().nth(2).is_some() {
            return Some("app_version has more than two characters".into());
        }
        for (name, sum) in SUMS.iter().zip(&self.sums) {
            if sum.is_null(row) {
                return Some(format!("{name} is null"));
            }
            if sum.value(row) < 0 {
                return Some(format!("{name} is {}", sum.value(row)));
            }
        }
        for (name, days) in DATES.iter().zip(self.days) {
            if days.is_valid(row) && !is_day(days.value(row)) {
                return Some(format!("{name} is not a day"));
            }
        }
        (self.days[0].is_valid(row) && self.sums[0].value(row) == 0)
            .then(|| format!("{} is not null, and {} is 0", DATES[0], SUMS[0]))
    }
}

/// See [`crate::Dataset::impossible_row`].
pub(super) fn impossible_row(rows: &RecordBatch) -> Result<Option<ImpossibleRow>, DatasetError> {
    let columns = Columns::of(rows)?;
    Ok(ImpossibleRow::first(rows.num_rows(), |row| columns.fault(row)))
}

/// See [`crate::Dataset::counted_rows`]. Every row has a client, and a sum is at least the number of clients with a part of
/// it.
pub(super) fn counted_rows(rows: &RecordBatch) -> Result<Vec<BooleanArray>, DatasetError> {
    let mut counted = vec![BooleanArray::from(vec![true; rows.num_rows()])];
    for name in SUMS {
        let sums: &Int64Array = named(rows, name)?;
        counted.push(sums.iter().map(|sum| Some(sum.is_some_and(|sum| sum > 0))).collect());
    }
    debug_assert_eq!(counted.len(), TOTALS.len());
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::ArrayRef;

    use super::super::ping_schema;
    use super::*;

    /// One row by its restricted columns.
    #[derive(Clone, Copy)]
    struct Row {
        version: Option<&'static str>,
        sums: [Option<i64>; 5],
        days: [Option<&'static str>; 2],
    }

    const GOOD: Row =
        Row { version: Some("57"), sums: [Some(1); 5], days: [Some("20180101"), Some("-00011021")] };

    fn batch(rows: &[Row]) -> RecordBatch {
        let text = |of: &dyn Fn(&Row) -> Option<&'static str>| -> ArrayRef {
            Arc::new(StringArray::from_iter(rows.iter().map(of)))
        };
        let mut columns =
            vec![text(&|_| None), text(&|_| Some("beta")), text(&|row| row.version), text(&|_| None)];
        let sum =
            |at: usize| -> ArrayRef { Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.sums[at]))) };
        columns.extend((0..5).map(sum));
        columns.extend([text(&|row| row.days[0]), text(&|row| row.days[1])]);
        RecordBatch::try_new(ping_schema::output(), columns).unwrap()
    }

    #[test]
    fn rows_that_no_input_leads_to_are_found() {
        let check = |row: Row, fault: Option<&str>| {
            let found = impossible_row(&batch(&[GOOD, row])).unwrap();
            let expect = fault.map(|fault| ImpossibleRow { row: 1, fault: fault.into() });
            assert_eq!(found, expect);
        };
        check(GOOD, None);
        check(Row { version: None, sums: [Some(0); 5], days: [None, None] }, None);
        check(Row { version: Some("äö"), ..GOOD }, None);
        check(Row { version: Some("57."), ..GOOD }, Some("app_version has more than two characters"));
        check(
            Row { days: [Some("2018-01-01"), None], ..GOOD },
            Some("first_addon_install_date is not a day"),
        );
        check(Row { days: [None, Some("")], ..GOOD }, Some("profile_creation_date is not a day"));
        let with = |at: usize, sum| {
            let mut row = GOOD;
            row.sums[at] = sum;
            row
        };
        check(with(1, None), Some("n_shield_addons is null"));
        check(with(4, Some(-1)), Some("n_web_extensions is -1"));
        let own = "first_addon_install_date is not null, and n_self_installed_addons is 0";
        check(with(0, Some(0)), Some(own));
    }

    #[test]
    fn clients_with_a_part_of_a_sum_are_counted() {
        let mut none = GOOD;
        none.sums = [Some(0), Some(2), Some(0), Some(0), Some(0)];
        let counted = counted_rows(&batch(&[GOOD, none])).unwrap();
        let second: Vec<bool> = counted.iter().map(|rows| rows.value(1)).collect();
        assert_eq!(second, [true, false, true, false, false, false]);
        assert!(counted.iter().all(|rows| rows.value(0)));
    }
}
