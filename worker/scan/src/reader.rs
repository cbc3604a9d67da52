//! The reader of a column chunk, by the kind of its column.
//!
//! Not here: how values are decoded (`columns`, `text`, `list`), and the order in which columns are read (`batches`).

use parquet::schema::types::ColumnDescPtr;
use tally_dataset::{Bits, Column, ColumnKind, ElementKind, Mapper, Width, check_values};

use crate::columns::{BoolReader, IntReader};
use crate::cursor::{Cursor, Wanted};
use crate::error::Fault;
use crate::list::ListMinReader;
use crate::page::Pages;
use crate::resolve::Leaf;
use crate::text::TextReader;

/// The reader of a column chunk.
pub(crate) enum Reader {
    Bool(BoolReader),
    Narrow(IntReader<i32>),
    Wide(IntReader<i64>),
    Text(TextReader),
    ListMin(ListMinReader),
    /// The file does not have the column: all values are null.
    Absent,
}

impl Reader {
    /// The reader of a column of a kind.
    pub(crate) fn new(
        (pages, descriptor): (Pages, ColumnDescPtr),
        leaf: Leaf,
        kind: ColumnKind,
    ) -> Result<Reader, Fault> {
        let cursor = match kind {
            ColumnKind::ListMinInt32 => {
                return Ok(Reader::ListMin(ListMinReader::new(pages, descriptor, leaf.element_def)));
            }
            ColumnKind::Element(_) => Reader::elements((pages, descriptor), leaf),
            _ => Cursor::rows(pages, &descriptor),
        };
        Ok(match kind {
            ColumnKind::Bool | ColumnKind::Element(ElementKind::Bool) => {
                Reader::Bool(BoolReader::new(cursor))
            }
            ColumnKind::Text | ColumnKind::Element(ElementKind::Text) => {
                Reader::Text(TextReader::new(cursor))
            }
            _ if leaf.width == Some(Width::W32) => Reader::Narrow(IntReader::new(cursor)),
            _ => Reader::Wide(IntReader::new(cursor)),
        })
    }

    /// The position in a field of the elements of lists.
    pub(crate) fn elements((pages, descriptor): (Pages, ColumnDescPtr), leaf: Leaf) -> Cursor {
        Cursor::elements(pages, &descriptor, leaf.element_def)
    }

    /// Drops all dictionary codes, because the mapper starts with an empty dictionary.
    pub(crate) fn forget(&mut self) {
        if let Reader::Text(reader) = self {
            reader.forget();
        }
    }

    /// Checks that no rows are left. The number of values of other columns is known.
    pub(crate) fn end(&mut self) -> Result<(), Fault> {
        if let Reader::ListMin(reader) = self { reader.end() } else { Ok(()) }
    }

    /// Reads the values of column `at` that are `wanted`, which are `count` rows or elements if that is known.
    pub(crate) fn read(
        &mut self,
        at: usize,
        column: &mut Column,
        wanted: Wanted<'_>,
        count: usize,
        selected: Option<&Bits>,
        mapper: &mut dyn Mapper,
    ) -> Result<(), Fault> {
        match (self, column) {
            (Reader::Bool(reader), Column::Bool { valid, value }) => reader.read(wanted, valid, value),
            (Reader::Wide(reader), Column::Int64 { valid, value }) => reader.read(wanted, valid, value),
            (Reader::Wide(reader), Column::Int { valid, value, width }) => {
                *width = Width::W64;
                reader.read(wanted, valid, value)
            }
            (Reader::Narrow(reader), Column::Int { valid, value, width }) => {
                *width = Width::W32;
                reader.read(wanted, valid, value)
            }
            (Reader::Text(reader), Column::Text { codes }) => {
                let mut resolve = |texts: &[&[u8]], out: &mut [u32]| {
                    check_values(texts)?;
                    mapper.resolve(at, texts, out)
                };
                reader.read(wanted, selected, codes, &mut resolve)
            }
            (Reader::ListMin(reader), Column::ListMin { present, valid, value }) => {
                reader.read(count, present, valid, value)
            }
            (_, column) => {
                column.fill_null(count);
                Ok(())
            }
        }
    }
}
