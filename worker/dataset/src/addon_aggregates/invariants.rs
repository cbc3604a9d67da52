//! What holds for every row of a correct output, whatever the inputs are. An audit of a published day checks it.
//!
//! Not here: how rows are computed (`reduce`), and their checksum (`sums`).

use arrow_array::{Array, BooleanArray, Int32Array, Int64Array, RecordBatch, StringArray};

use super::{CLIENTS, CUSTOM_THEME_CLIENTS, TOTALS};
use crate::output_rows::named;
use crate::{DatasetError, ImpossibleRow};

/// The columns of output rows that restrict each other.
struct Columns<'a> {
    ids: &'a StringArray,
    foreign: &'a BooleanArray,
    counts: &'a Int64Array,
    user_types: &'a Int64Array,
    dates: &'a Int64Array,
    days: &'a Int32Array,
    themes: &'a Int64Array,
}

fn value(column: &Int64Array, row: usize) -> Option<i64> {
    column.is_valid(row).then(|| column.value(row))
}

/// A value as text; `null` if there is none.
fn shown(value: Option<i64>) -> String {
    value.map_or_else(|| "null".into(), |value| value.to_string())
}

impl<'a> Columns<'a> {
    fn of(rows: &'a RecordBatch) -> Result<Self, DatasetError> {
        Ok(Columns {
            ids: named(rows, "client_id")?,
            foreign: named(rows, "foreign_install")?,
            counts: named(rows, "count")?,
            user_types: named(rows, "user_type")?,
            dates: named(rows, "profile_creation_date")?,
            days: named(rows, "min_install_day")?,
            themes: named(rows, "has_custom_theme")?,
        })
    }

    /// What is wrong with a row.
    fn fault(&self, row: usize) -> Option<String> {
        if self.ids.is_null(row) {
            return Some("client_id is null".into());
        }
        let count = self.counts.value(row);
        if count < 1 {
            return Some(format!("count is {count}"));
        }
        // The sum over the client's install types: +1 for side-loaded, -1 for self-installed, -1 for unknown.
        let foreign = self.foreign.is_valid(row) && self.foreign.value(row);
        let (user_type, possible) =
            (value(self.user_types, row), if foreign { [-1, 0, 1] } else { [-2, -1, 0] });
        if !user_type.is_some_and(|user_type| possible.contains(&user_type)) {
            let install =
                if self.foreign.is_null(row) { "null" } else { ["false", "true"][usize::from(foreign)] };
            return Some(format!("user_type is {} and foreign_install is {install}", shown(user_type)));
        }
        let theme = value(self.themes, row);
        match theme {
            Some(-1..=1) => None,
            None if self.dates.is_null(row) && self.days.is_null(row) => None,
            None => Some("has_custom_theme is null, and the client has a profile date or install day".into()),
            Some(theme) => Some(format!("has_custom_theme is {theme}")),
        }
    }
}

/// See [`crate::Dataset::impossible_row`].
pub(super) fn impossible_row(rows: &RecordBatch) -> Result<Option<ImpossibleRow>, DatasetError> {
    let columns = Columns::of(rows)?;
    Ok(ImpossibleRow::first(rows.num_rows(), |row| columns.fault(row)))
}

/// See [`crate::Dataset::counted_rows`]. Both totals count clients of `main_summary`, which have a theme flag.
pub(super) fn counted_rows(rows: &RecordBatch) -> Result<Vec<BooleanArray>, DatasetError> {
    let themes: &Int64Array = named(rows, "has_custom_theme")?;
    let mut counted = vec![BooleanArray::from(vec![false; rows.num_rows()]); TOTALS.len()];
    counted[CLIENTS] = themes.iter().map(|theme| Some(theme.is_some())).collect();
    counted[CUSTOM_THEME_CLIENTS] =
        themes.iter().map(|theme| Some(theme.is_some_and(|theme| theme >= 0))).collect();
    Ok(counted)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::ArrayRef;

    use super::super::schema;
    use super::*;

    /// One row by its columns.
    struct Row {
        id: Option<&'static str>,
        foreign: Option<bool>,
        count: i64,
        user_type: Option<i64>,
        date: Option<i64>,
        day: Option<i32>,
        theme: Option<i64>,
    }

    const GOOD: Row = Row {
        id: Some("a"),
        foreign: Some(false),
        count: 1,
        user_type: Some(-1),
        date: Some(17_000),
        day: None,
        theme: Some(0),
    };

    fn batch(rows: &[Row]) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.id))),
            Arc::new(BooleanArray::from_iter(rows.iter().map(|row| row.foreign))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.count))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.user_type))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.date))),
            Arc::new(Int32Array::from_iter(rows.iter().map(|row| row.day))),
            Arc::new(Int64Array::from_iter(rows.iter().map(|row| row.theme))),
        ];
        RecordBatch::try_new(schema::reduced(), columns).unwrap()
    }

    #[test]
    fn rows_that_no_input_leads_to_are_found() {
        let check = |row: Row, fault: Option<&str>| {
            let found = impossible_row(&batch(&[GOOD, row])).unwrap();
            let expect = fault.map(|fault| ImpossibleRow { row: 1, fault: fault.into() });
            assert_eq!(found, expect);
        };
        check(GOOD, None);
        check(Row { id: None, ..GOOD }, Some("client_id is null"));
        check(Row { count: 0, ..GOOD }, Some("count is 0"));
        check(Row { user_type: None, ..GOOD }, Some("user_type is null and foreign_install is false"));
        check(Row { user_type: Some(1), ..GOOD }, Some("user_type is 1 and foreign_install is false"));
        // False and unknown install types; all three of them.
        check(Row { foreign: None, user_type: Some(-2), ..GOOD }, None);
        check(Row { foreign: Some(true), user_type: Some(-1), ..GOOD }, None);
        check(
            Row { foreign: Some(true), user_type: Some(-2), ..GOOD },
            Some("user_type is -2 and foreign_install is true"),
        );
        check(Row { theme: Some(2), ..GOOD }, Some("has_custom_theme is 2"));
        check(Row { theme: None, date: None, ..GOOD }, None);
        let dated = "has_custom_theme is null, and the client has a profile date or install day";
        check(Row { theme: None, ..GOOD }, Some(dated));
    }

    #[test]
    fn clients_with_a_theme_flag_are_counted() {
        let themes = [None, Some(-1), Some(0), Some(1)];
        let rows = batch(&themes.map(|theme| Row { theme, ..GOOD }));
        let counted = counted_rows(&rows).unwrap();
        let flags = |total: usize| counted[total].iter().map(|flag| flag.unwrap()).collect::<Vec<_>>();
        assert_eq!(flags(CLIENTS), [false, true, true, true]);
        assert_eq!(flags(CUSTOM_THEME_CLIENTS), [false, false, true, true]);
    }
}
