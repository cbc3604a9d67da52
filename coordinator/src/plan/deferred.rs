//! Footers that the planner does not read: workers read the footers of small files together with the files, in one
//! request. The planner's checks of them run when all map tasks have reported them, before any row is reduced.
//!
//! Not here: the types of columns and the readability of chunks, which workers check before they read a row.

use tally_dataset::TableSpec;
use tally_proto::{ALL_ROW_GROUPS, v1};
use tally_scan::presence;

use super::schema::{self, SchemaError};
use super::{InputPlan, MapTask};

/// What all map tasks reported of deferred files.
#[derive(Debug, Default)]
pub struct Deferred {
    /// Rows in them.
    pub rows: u64,
    /// Warnings for the user.
    pub warnings: Vec<String>,
}

impl MapTask {
    /// Whether it has files whose footers the planner did not read.
    pub fn is_deferred(&self) -> bool {
        self.deferred().next().is_some()
    }

    /// The files whose footers the planner did not read; each is one piece.
    fn deferred(&self) -> impl Iterator<Item = &v1::InputPiece> {
        self.work.pieces.iter().filter(|piece| piece.row_groups == [ALL_ROW_GROUPS])
    }

    /// Checks that a result reports the footers of all deferred files of the task. `columns` is the number of columns that
    /// their table needs.
    ///
    /// # Errors
    /// What was reported instead.
    pub fn fits(&self, result: &v1::MapResult, columns: usize) -> Result<(), &'static str> {
        if !self.is_deferred() {
            return Ok(());
        }
        let footers = result.footers.as_ref().ok_or("no footers of its small files: upgrade its worker")?;
        if footers.file_bytes != self.deferred().map(|piece| piece.size).fold(0, u64::saturating_add) {
            return Err("footers of other files than its task has");
        }
        let v1::Presence { with_rows, without_rows } =
            footers.presence.as_ref().ok_or("footers without their columns")?;
        if ![with_rows, without_rows].iter().all(|list| list.is_empty() || list.len() == columns) {
            return Err("footers with other columns than its table needs");
        }
        let count = self.deferred().count() as u64;
        let files = |at: usize| {
            let found = [with_rows, without_rows].into_iter().filter_map(|list| list.get(at));
            found.fold(0u64, |sum, column| sum.saturating_add(column.found).saturating_add(column.missing))
        };
        if (0..columns).any(|at| files(at) != count) {
            return Err("footers of more or fewer files than its task has");
        }
        Ok(())
    }

    /// The rows of the task, by the footers that the planner read and those that an attempt reported; `None` if unknown.
    ///
    /// # Errors
    /// The attempt should have reported footers, but did not.
    pub fn rows_with(&self, reported: Option<&v1::Footers>) -> Result<Option<u64>, &'static str> {
        let reported = match reported {
            Some(footers) => footers.rows,
            None if self.is_deferred() => {
                return Err("did not report the footers of its files: upgrade its worker");
            }
            None => 0,
        };
        Ok(self.rows.map(|rows| rows.saturating_add(reported)))
    }
}

/// The deferred footers are incomplete, or miss a column.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeferredError {
    /// No map task reported the footers.
    #[error("the footers of input table {table} are unknown")]
    Unknown {
        /// The table's number.
        table: usize,
    },
    /// A column is missing or of the wrong type.
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Checks that the files of each table with deferred files together have the columns that the table needs; `reported`
/// has the report of each map task.
///
/// # Errors
/// [`DeferredError`].
pub fn check<'a>(
    plan: &InputPlan,
    tables: &[TableSpec],
    reported: impl Iterator<Item = Option<&'a v1::Footers>>,
) -> Result<Deferred, DeferredError> {
    let mut deferred = Deferred::default();
    let mut found: Vec<Option<v1::Presence>> = vec![None; tables.len()];
    for (task, footers) in plan.tasks.iter().zip(reported) {
        if !task.is_deferred() {
            continue;
        }
        let number = task.work.table as usize;
        let unknown = || DeferredError::Unknown { table: number };
        let footers = footers.ok_or_else(unknown)?;
        deferred.rows = deferred.rows.saturating_add(footers.rows);
        let all = found.get_mut(number).ok_or_else(unknown)?;
        let all = all.get_or_insert_with(|| plan.presence.get(number).cloned().unwrap_or_default());
        presence::add(all, footers.presence.as_ref().ok_or_else(unknown)?);
    }
    for (table, presence) in tables.iter().zip(&found) {
        let Some(presence) = presence else { continue };
        deferred.warnings.extend(schema::check_missing(table, presence)?);
    }
    Ok(deferred)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tally_dataset::Dataset;
    use tally_dataset::addon_aggregates::{ADDONS, AddonAggregates};

    fn task(row_groups: &[u32]) -> MapTask {
        let piece = v1::InputPiece { row_groups: row_groups.to_vec(), size: 50, ..Default::default() };
        let work = v1::MapWork { table: ADDONS as u32, pieces: vec![piece], ..Default::default() };
        MapTask { work, bytes: 1, rows: Some(if row_groups == [ALL_ROW_GROUPS] { 0 } else { 7 }) }
    }

    fn footers(columns: usize, missing: Option<usize>) -> v1::Footers {
        let mut with_rows = vec![v1::ColumnPresence { found: 1, ..Default::default() }; columns];
        if let Some(missing) = missing {
            with_rows[missing] = v1::ColumnPresence {
                found: 0,
                missing: 1,
                missing_rows: 9,
                example: "s3://b/f".into(),
                ..Default::default()
            };
        }
        let presence = Some(v1::Presence { with_rows, without_rows: vec![] });
        v1::Footers { rows: 9, presence, file_bytes: 50 }
    }

    #[test]
    fn deferred_footers_are_checked_when_they_are_reported() {
        let dataset = AddonAggregates::new();
        let tables = dataset.tables();
        let columns = tables[ADDONS].columns.len();
        let plan = InputPlan { tasks: vec![task(&[ALL_ROW_GROUPS]), task(&[0, 1])], ..Default::default() };
        let check = |footers: Option<&v1::Footers>, plan: &InputPlan| {
            check(plan, tables, [footers, None].into_iter())
                .map(|deferred| (deferred.rows, deferred.warnings))
        };
        assert_eq!(check(Some(&footers(columns, None)), &plan), Ok((9, vec![])));
        assert!(check(None, &plan).is_err());
        let missing_column = footers(columns, Some(2));
        let error = check(Some(&missing_column), &plan).unwrap_err().to_string();
        assert!(error.contains("foreign_install") && error.contains("s3://b/f"), "{error}");
        // A file that was planned by its footer has it.
        let mut presence = vec![v1::Presence::default(); tables.len()];
        presence[ADDONS] = footers(columns, None).presence.unwrap();
        let (rows, warnings) = check(Some(&missing_column), &InputPlan { presence, ..plan }).unwrap();
        assert!(
            rows == 9 && warnings[0].contains("1 of 2 files") && warnings[0].contains("9 rows"),
            "{warnings:?}"
        );
    }

    #[test]
    fn a_result_reports_the_footer_of_each_deferred_file_and_of_no_other() {
        let fits = |row_groups: &[u32], footers| {
            task(row_groups).fits(&v1::MapResult { footers, ..Default::default() }, 3)
        };
        let altered = |alter: fn(&mut v1::Footers)| {
            let mut footers = footers(3, Some(1));
            alter(&mut footers);
            fits(&[ALL_ROW_GROUPS], Some(footers))
        };
        fn with_rows(footers: &mut v1::Footers) -> &mut Vec<v1::ColumnPresence> {
            &mut footers.presence.get_or_insert_default().with_rows
        }
        assert_eq!(altered(|_| ()), Ok(()));
        assert_eq!(fits(&[0], None), Ok(()), "the planner read its footer");
        assert!(fits(&[ALL_ROW_GROUPS], None).unwrap_err().contains("upgrade"));
        assert!(altered(|footers| footers.file_bytes = 49).is_err());
        assert!(altered(|footers| footers.presence = None).is_err());
        assert!(altered(|footers| with_rows(footers).clear()).is_err());
        assert!(altered(|footers| with_rows(footers).truncate(2)).is_err());
        assert!(altered(|footers| with_rows(footers)[2].found = 0).is_err());
        assert!(altered(|footers| with_rows(footers)[1].found = 1).is_err());
        // The same file, without rows.
        let moved = |footers: &mut v1::Footers| {
            let presence = footers.presence.get_or_insert_default();
            presence.without_rows = std::mem::take(&mut presence.with_rows);
        };
        assert_eq!(altered(moved), Ok(()));
    }

    #[test]
    fn a_wrong_type_counts_where_no_file_has_rows() {
        let dataset = AddonAggregates::new();
        let tables = dataset.tables();
        let plan = InputPlan { tasks: vec![task(&[ALL_ROW_GROUPS])], ..Default::default() };
        let mut reported = footers(tables[ADDONS].columns.len(), None);
        let presence = reported.presence.as_mut().unwrap();
        (presence.with_rows[2].unfit, presence.with_rows[2].unfit_example) = (1, "INT32 in s3://b/f".into());
        assert!(
            check(&plan, tables, [Some(&reported)].into_iter()).is_ok(),
            "the worker that read its rows checked the type"
        );
        let presence = reported.presence.as_mut().unwrap();
        presence.without_rows = std::mem::take(&mut presence.with_rows);
        let error = check(&plan, tables, [Some(&reported)].into_iter()).unwrap_err().to_string();
        assert!(error.contains("foreign_install") && error.contains("INT32 in s3://b/f"), "{error}");
    }

    #[test]
    fn rows_are_those_of_the_plan_and_those_that_were_reported() {
        let reported = v1::Footers { rows: 9, ..Default::default() };
        assert_eq!(task(&[ALL_ROW_GROUPS]).rows_with(Some(&reported)), Ok(Some(9)));
        assert!(task(&[ALL_ROW_GROUPS]).rows_with(None).is_err());
        assert_eq!(task(&[0]).rows_with(None), Ok(Some(7)));
        assert_eq!(MapTask { rows: None, ..task(&[0]) }.rows_with(None), Ok(None));
    }
}
