//! Reads a row group batch by batch into a mapper: filter columns first, and if the table has columns of elements, one of
//! them before all others, because the number of elements limits the rows of a batch.
//!
//! Not here: the readers of columns (`reader`), and how elements are counted (`lists`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;

use tally_dataset::{BATCH_ROWS, Batch, Bits, Column, ColumnKind, ElementKind, Mapper, TableSpec};

use crate::cursor::{Cursor, Wanted};
use crate::error::Fault;
use crate::lists::Lists;
use crate::resolve::is_element;
use crate::{AfterBatch, RowGroup, ScanError};

/// Bytes that a column may take per element. A vector may have twice its needed size.
const fn element_bytes(kind: ElementKind) -> usize {
    match kind {
        ElementKind::Bool => 1,
        ElementKind::Text => 2 * size_of::<u32>(),
        ElementKind::Int => 2 * size_of::<i64>() + 1,
    }
}

/// How the elements of a row group's lists are counted.
pub(crate) struct Lead {
    source: Source,
    lists: Lists,
    /// Entries that are not read yet, by the footer.
    left: i64,
}

enum Source {
    /// The column that is read first.
    Column(usize),
    /// A leaf of which only the levels are read: no column has elements.
    Levels(Box<Cursor>),
    /// The file does not have the list, so that no row has elements.
    Absent,
}

impl Lead {
    /// Counts the elements of a table with a chunk of so many entries: that of a column, or else of a leaf that is no column.
    pub(crate) fn new(
        table: &TableSpec,
        column: Option<(usize, i64)>,
        levels: Option<(Cursor, i64)>,
    ) -> Self {
        let (source, left) = match (column, levels) {
            (Some((at, left)), _) => (Source::Column(at), left),
            (None, Some((levels, left))) => (Source::Levels(Box::new(levels)), left),
            (None, None) => (Source::Absent, 0),
        };
        let kinds = table.columns.iter().map(|spec| match spec.kind {
            ColumnKind::Element(kind) => element_bytes(kind),
            _ => 0,
        });
        Lead { source, lists: Lists::new(kinds.sum()), left }
    }

    fn column(&self) -> Option<usize> {
        if let Source::Column(at) = self.source { Some(at) } else { None }
    }
}

impl RowGroup<'_> {
    /// Reads the row group into `mapper`.
    ///
    /// # Errors
    /// [`ScanError`], naming file, row group and column. A panic in a decoder is returned as an error.
    pub fn read(mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let read = AssertUnwindSafe(|| self.read_batches(mapper, after));
        catch_unwind(read).unwrap_or_else(|_| {
            let what = "a decoder panicked on its bytes (see the log)".into();
            Err(ScanError::Corrupt { place: self.place(self.reading), what })
        })
    }

    fn read_batches(&mut self, mapper: &mut dyn Mapper, after: &mut AfterBatch<'_>) -> Result<(), ScanError> {
        let mut batch = Batch { rows: 0, columns: self.columns(), ends: vec![] };
        let mut left = usize::try_from(self.rows()).unwrap_or(0);
        let (mut selected, mut elements) = (Bits::default(), Bits::default());
        while left > 0 {
            if self.context.cancelled.is_cancelled() {
                return Err(ScanError::Cancelled);
            }
            batch.rows = left.min(BATCH_ROWS);
            self.read_lists(&mut batch, left, mapper)?;
            left -= batch.rows;
            selected.clear();
            selected.push_run(true, batch.rows);
            for filters in [true, false] {
                self.read_columns(&mut batch, filters, (&selected, &mut elements), mapper)?;
                if filters {
                    mapper.select(&batch, &mut selected);
                }
            }
            mapper.consume(&batch, &selected);
            for count in [&self.context.counters.rows, &*self.context.rows] {
                count.fetch_add(batch.rows as u64, Ordering::Relaxed);
            }
            if self.lead.as_ref().is_some_and(|lead| lead.lists.is_large()) {
                batch.columns = self.columns();
                elements = Bits::default();
            }
            if after(mapper)? {
                self.readers.iter_mut().for_each(|reader| reader.forget());
            }
        }
        for at in 0..self.readers.len() {
            self.reading = Some(at);
            self.readers[at].end().map_err(|fault| fault.at(self.place(Some(at))))?;
        }
        Ok(())
    }

    /// Empty columns.
    fn columns(&self) -> Vec<Column> {
        self.table.columns.iter().map(|spec| Column::new(spec.kind)).collect()
    }

    /// Counts the elements of the next rows, of which `left` are left, and reads the column from which they are counted.
    /// Sets the rows of the batch.
    fn read_lists(
        &mut self,
        batch: &mut Batch,
        left: usize,
        mapper: &mut dyn Mapper,
    ) -> Result<(), ScanError> {
        let Some(lead) = &mut self.lead else { return Ok(()) };
        let column = match lead.source {
            Source::Column(at) => at,
            _ => self.table.columns.iter().position(is_element).unwrap_or(0),
        };
        self.reading = Some(column);
        let lists = &mut lead.lists;
        lists.start(batch.rows, std::mem::take(&mut batch.ends));
        let read = match &mut lead.source {
            Source::Column(at) => {
                let (reader, values) = (&mut self.readers[*at], &mut batch.columns[*at]);
                reader.read(*at, values, Wanted::Lists(lists), 0, None, mapper)
            }
            Source::Levels(cursor) => cursor.count(lists),
            Source::Absent => {
                batch.ends.resize(batch.rows, 0);
                return Ok(());
            }
        };
        let ends = read.and_then(|()| lists.finish());
        lead.left -= lists.entries() as i64;
        let more = lead.left != 0;
        let ends = ends.and_then(|ends| match ends.len() == left && more {
            true => Fault::corrupt("it has more rows than its row group"),
            false => Ok(ends),
        });
        batch.ends = ends.map_err(|fault| fault.at(self.place(Some(column))))?;
        batch.rows = batch.ends.len();
        Ok(())
    }

    /// Reads the columns that are filters, or the others. `elements` is reused.
    fn read_columns(
        &mut self,
        batch: &mut Batch,
        filters: bool,
        (selected, elements): (&Bits, &mut Bits),
        mapper: &mut dyn Mapper,
    ) -> Result<(), ScanError> {
        let lead =
            self.lead.as_ref().map(|lead| (lead.column(), lead.lists.entries(), lead.lists.elements()));
        let all = selected.count() == batch.rows;
        if lead.is_some() && !all {
            select_elements(selected, &batch.ends, elements);
        }
        for (at, spec) in self.table.columns.iter().enumerate().filter(|(_, spec)| spec.filter == filters) {
            let (count, entries, chosen) = match lead {
                Some((first, ..)) if first == Some(at) => continue,
                Some((_, entries, count)) if is_element(spec) => (count, entries, &*elements),
                _ => (batch.rows, batch.rows, selected),
            };
            self.reading = Some(at);
            let (reader, column) = (&mut self.readers[at], &mut batch.columns[at]);
            let chosen = (!all).then_some(chosen);
            let read = reader.read(at, column, Wanted::Entries(entries), count, chosen, mapper);
            let read = read.and_then(|()| match length(column) == count {
                true => Ok(()),
                false => {
                    Fault::corrupt("its lists have other numbers of elements than those of other columns")
                }
            });
            read.map_err(|fault| fault.at(self.place(Some(at))))?;
        }
        Ok(())
    }
}

/// The elements of the selected rows.
fn select_elements(selected: &Bits, ends: &[u32], elements: &mut Bits) {
    elements.clear();
    elements.push_run(false, ends.last().map_or(0, |&end| end as usize));
    for row in selected.ones(0, ends.len()) {
        let from = if row > 0 { ends[row - 1] } else { 0 };
        elements.set_range(from as usize, ends[row] as usize);
    }
}

/// The number of values in a column.
fn length(column: &Column) -> usize {
    match column {
        Column::Bool { valid, .. } | Column::Int64 { valid, .. } | Column::Int { valid, .. } => valid.len(),
        Column::ListMin { valid, .. } => valid.len(),
        Column::Text { codes } => codes.len(),
    }
}
