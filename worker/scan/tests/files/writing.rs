//! Writes files of lists: by the Arrow writer, and level by level in the layouts of other writers.
//!
//! Not here: how they are read (`reading`).

use std::sync::Arc;

use arrow_array::builder::{BooleanBuilder, Int32Builder, Int64Builder, StringBuilder};
use arrow_array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch, StructArray};
use arrow_buffer::{NullBuffer, OffsetBuffer};
use arrow_schema::{DataType, Field, Fields, Schema};
use parquet::arrow::ArrowWriter;
use parquet::data_type::{BoolType, ByteArrayType, DataType as Physical, Int32Type as Narrow};
use parquet::file::properties::{WriterProperties, WriterPropertiesBuilder};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use crate::Result;

/// Random numbers that are the same in every run.
pub struct Numbers(u64);

impl Numbers {
    pub fn new(seed: u64) -> Self {
        Numbers(seed)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % end
    }

    fn one_of(&mut self, end: u64) -> bool {
        self.below(end) == 0
    }
}

/// How the lists of a file are filled.
#[derive(Clone, Copy)]
pub struct Fill {
    pub rows: usize,
    /// Every so many-th value, list and element is null; 0 for none.
    pub nulls: u64,
    /// Distinct strings.
    pub distinct: u64,
    pub wide: bool,
}

pub const FILL: Fill = Fill { rows: 9_000, nulls: 20, distinct: 300, wide: false };

/// Rows with a number and a list of these fields.
pub fn batch(fill: Fill, names: &[&str]) -> Result<RecordBatch> {
    let mut numbers = Numbers::new(fill.rows as u64 + fill.nulls);
    let mut null = |numbers: &mut Numbers| fill.nulls > 0 && numbers.one_of(fill.nulls);
    let lengths: Vec<usize> = (0..fill.rows).map(|_| numbers.below(12) as usize).collect();
    let elements: usize = lengths.iter().sum();
    let (mut ids, mut flags) = (StringBuilder::new(), BooleanBuilder::new());
    let (mut narrow, mut wide) = (Int32Builder::new(), Int64Builder::new());
    for _ in 0..elements {
        let id = format!("addon {}", numbers.below(fill.distinct));
        ids.append_option((!null(&mut numbers)).then_some(id));
        flags.append_option((!null(&mut numbers)).then(|| numbers.one_of(3)));
        let day = (!null(&mut numbers)).then(|| numbers.below(3_000) as i64 - 900);
        narrow.append_option(day.map(|day| day as i32));
        wide.append_option(day.map(|day| day << 33));
    }
    let days: ArrayRef = if fill.wide { Arc::new(wide.finish()) } else { Arc::new(narrow.finish()) };
    let ids: ArrayRef = Arc::new(ids.finish());
    let flags: ArrayRef = Arc::new(flags.finish());
    let other: ArrayRef = Arc::new(Int64Array::from_iter_values(0..elements as i64));
    let arrays: Vec<(Field, ArrayRef)> = names
        .iter()
        .map(|&name| {
            let array = match name.to_lowercase().as_str() {
                "id" => &ids,
                "flag" => &flags,
                "day" => &days,
                _ => &other,
            };
            (Field::new(name, array.data_type().clone(), true), array.clone())
        })
        .collect();
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = arrays.into_iter().unzip();
    let fields = Fields::from(fields);
    let valid = |numbers: &mut Numbers, count, null: &mut dyn FnMut(&mut Numbers) -> bool| {
        NullBuffer::from_iter((0..count).map(|_| !null(numbers)))
    };
    let present = valid(&mut numbers, elements, &mut null);
    let lists = valid(&mut numbers, fill.rows, &mut null);
    let structs = StructArray::new(fields.clone(), arrays, Some(present));
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    let lists = ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(structs), Some(lists));
    let n = Int64Array::from_iter((0..fill.rows as i64).map(|n| (n % 7 > 0).then_some(n)));
    let schema = Schema::new(vec![
        Field::new("n", DataType::Int64, true),
        Field::new("addons", lists.data_type().clone(), true),
    ]);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(n), Arc::new(lists)])?)
}

pub fn write(batch: &RecordBatch, properties: WriterPropertiesBuilder) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties.build()))?;
    writer.write(batch)?;
    writer.close()?;
    Ok(bytes)
}

pub const ALL: [&str; 3] = ["id", "flag", "day"];

/// Definition and repetition levels of a leaf, and its values.
struct Levels<T> {
    def: Vec<i16>,
    rep: Vec<i16>,
    values: Vec<T>,
}

/// The definition level of each kind of entry in a layout: a null list, an empty list, a null element, a null field, a
/// value. A layout without a kind has the level of another.
pub type Layout = [i16; 5];

/// Entries of a leaf in a layout; entry kinds are as in [`Layout`].
fn levels<T>(layout: Layout, rows: &[Vec<usize>], mut value: impl FnMut(usize) -> T) -> Levels<T> {
    let mut levels = Levels { def: vec![], rep: vec![], values: vec![] };
    for row in rows {
        for (at, &kind) in row.iter().enumerate() {
            levels.def.push(layout[kind]);
            levels.rep.push(i16::from(at > 0));
            if layout[kind] == layout[4] {
                levels.values.push(value(levels.def.len()));
            }
        }
    }
    levels
}

/// Rows of entries by kind.
pub fn kinds(rows: usize) -> Vec<Vec<usize>> {
    let mut numbers = Numbers::new(5);
    (0..rows)
        .map(|_| match numbers.below(9) {
            0 => vec![0],
            1 => vec![1],
            _ => (0..1 + numbers.below(7)).map(|_| [2, 3, 4, 4, 4, 4][numbers.below(6) as usize]).collect(),
        })
        .collect()
}

/// A file of the list's fields `id`, `flag` and `day` in this order, with the given entries of each.
pub fn layout_file(message: &str, layout: Layout, rows: [&[Vec<usize>]; 3]) -> Result<Vec<u8>> {
    let schema = Arc::new(parse_message_type(&format!("message m {{ {message} }}"))?);
    let properties = WriterProperties::builder().set_data_page_row_count_limit(50).set_write_batch_size(20);
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties.build()))?;
    let mut group = writer.next_row_group()?;
    let mut number = 0;
    while let Some(mut column) = group.next_column()? {
        fn put<T: Physical>(column: &mut SerializedColumnWriter<'_>, levels: &Levels<T::T>) -> Result<()> {
            column.typed::<T>().write_batch(&levels.values, Some(&levels.def), Some(&levels.rep))?;
            Ok(())
        }
        match number {
            0 => {
                let id = |at: usize| format!("id {}", at % 9).as_str().into();
                put::<ByteArrayType>(&mut column, &levels(layout, rows[0], id))?;
            }
            1 => put::<BoolType>(&mut column, &levels(layout, rows[1], |at| at % 3 == 0))?,
            _ => put::<Narrow>(&mut column, &levels(layout, rows[2], |at| at as i32))?,
        }
        number += 1;
        column.close()?;
    }
    group.close()?;
    writer.close()?;
    Ok(bytes)
}
