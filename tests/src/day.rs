//! Writes a small day as Parquet: rows into files, each in a format of its own (list layout, codec, page version,
//! encoding, sizes, order of columns, columns left out). Not here: the choice of rows and formats (`random`, or the
//! test itself).

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use arrow_schema::{DataType, Field as ArrowField, Fields, Schema};
use parquet::arrow::{add_encoded_arrow_schema_to_metadata, parquet_to_arrow_schema};
use parquet::basic::{Compression, Encoding, Type as Physical};
use parquet::data_type::{BoolType, ByteArrayType, Int32Type, Int64Type};
use parquet::file::properties::{
    EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion,
};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use crate::columns::{Columns, Record};
use crate::rows::{AddonRow, MainRow};
use crate::shred::{Column, Leaf, Values};
use crate::split::append_split;

pub use crate::shred::ListLayout;

/// How the values of a file are encoded. Booleans know no dictionaries: they are plain, or RLE with the deltas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueEncoding {
    Plain,
    Dictionary,
    /// A dictionary of any size.
    LargeDictionary,
    /// A dictionary that overflows in mid-chunk, then plain pages.
    DictionaryThenPlain,
    /// A dictionary that overflows in mid-chunk, then DELTA_BYTE_ARRAY and DELTA_BINARY_PACKED.
    DictionaryThenDelta,
    /// DELTA_BYTE_ARRAY and DELTA_BINARY_PACKED.
    DeltaByteArray,
    /// DELTA_LENGTH_BYTE_ARRAY and DELTA_BINARY_PACKED.
    DeltaLength,
    /// BYTE_STREAM_SPLIT for numbers, plain strings.
    ByteStreamSplit,
}

impl ValueEncoding {
    pub const ALL: [Self; 7] = [
        Self::Plain,
        Self::Dictionary,
        Self::DictionaryThenPlain,
        Self::DictionaryThenDelta,
        Self::DeltaByteArray,
        Self::DeltaLength,
        Self::ByteStreamSplit,
    ];

    fn dictionary_limit(self) -> Option<usize> {
        match self {
            Self::Dictionary => Some(1 << 20),
            Self::LargeDictionary => Some(usize::MAX),
            Self::DictionaryThenPlain | Self::DictionaryThenDelta => Some(24),
            _ => None,
        }
    }

    fn of(self, physical: Physical) -> Encoding {
        let delta = matches!(self, Self::DictionaryThenDelta | Self::DeltaByteArray | Self::DeltaLength);
        match physical {
            Physical::BOOLEAN if delta => Encoding::RLE,
            Physical::BYTE_ARRAY if self == Self::DeltaLength => Encoding::DELTA_LENGTH_BYTE_ARRAY,
            Physical::BYTE_ARRAY if delta => Encoding::DELTA_BYTE_ARRAY,
            Physical::INT32 | Physical::INT64 if delta => Encoding::DELTA_BINARY_PACKED,
            Physical::INT32 | Physical::INT64 if self == Self::ByteStreamSplit => Encoding::BYTE_STREAM_SPLIT,
            _ => Encoding::PLAIN,
        }
    }
}

/// The schema that an Arrow writer would have stored besides the Parquet schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArrowNote {
    None,
    /// LargeUtf8 and LargeList.
    Large,
    /// Dictionary(Int32, Utf8).
    Dictionary,
    /// Utf8View.
    View,
}

/// The format of one file.
#[derive(Clone, Debug)]
pub struct Format {
    pub list: ListLayout,
    pub codec: Compression,
    /// Data pages of version 2 instead of 1.
    pub pages_v2: bool,
    pub encoding: ValueEncoding,
    pub row_group_rows: usize,
    pub page_rows: usize,
    /// Pages of lists are plain, of version 1 and uncompressed, and end at any position, even within a list.
    pub split_lists: bool,
    /// Every column that holds no null is declared required.
    pub required: bool,
    pub arrow: ArrowNote,
    /// Columns and fields that the job does not read, of types that differ from file to file.
    pub extras: bool,
    /// The columns (and struct fields) are in an order drawn from this seed; 0 is the usual order.
    pub order: u64,
    /// A row group without rows precedes the others.
    pub empty_row_group: bool,
    pub statistics: EnabledStatistics,
    /// Integers of `main_summary/v4` with another width than usual, which all files of a day share: install days of 64
    /// bits, and profile creation dates of 32.
    pub widths: OtherWidths,
}

/// See [`Format::widths`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OtherWidths {
    pub wide_days: bool,
    pub narrow_dates: bool,
}

impl Default for Format {
    fn default() -> Self {
        Self {
            list: ListLayout::ListElement,
            codec: Compression::SNAPPY,
            pages_v2: false,
            encoding: ValueEncoding::Dictionary,
            row_group_rows: 1 << 20,
            page_rows: 20_000,
            split_lists: false,
            required: false,
            arrow: ArrowNote::None,
            extras: false,
            order: 0,
            empty_row_group: false,
            statistics: EnabledStatistics::Chunk,
            widths: OtherWidths::default(),
        }
    }
}

/// One data file of a table.
#[derive(Clone, Debug)]
pub struct DataFile<R> {
    /// Below the date's partition, such as `sample_id=3/part-00000.snappy.parquet`.
    pub path: String,
    pub rows: Vec<R>,
    pub format: Format,
    /// Columns that are missing from the file; struct fields as `active_theme.addon_id`.
    pub missing: BTreeSet<&'static str>,
}

impl<R: Record> DataFile<R> {
    /// A file of `rows` with all columns.
    pub fn new(path: impl Into<String>, rows: Vec<R>, format: Format) -> Self {
        Self { path: path.into(), rows, format, missing: BTreeSet::new() }
    }

    /// The rows as a reader sees them: null where the column is missing, an element of nulls where the layout
    /// has no null element.
    pub fn visible_rows(&self) -> Vec<R> {
        let mut rows = self.rows.clone();
        rows.iter_mut().for_each(|row| row.mask(self));
        rows
    }

    /// Writes the file to `path` and creates its folders.
    pub fn write_to(&self, path: &Path) -> Result<()> {
        let context = || format!("writing {}", path.display());
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(context)?;
        }
        self.write(File::create(path).with_context(context)?).with_context(context)
    }

    fn write(&self, out: File) -> Result<()> {
        let rows = self.visible_rows();
        let Columns(mut columns) = R::columns(self);
        if self.format.required {
            columns.iter_mut().for_each(|column| column.require(&rows));
        }
        let fields = columns.iter().map(Column::schema).collect::<Result<Vec<_>>>()?;
        let schema = Arc::new(Type::group_type_builder("schema").with_fields(fields).build()?);
        let properties = properties(&self.format, &schema)?;
        let descriptor = SchemaDescriptor::new(Arc::clone(&schema));
        let mut writer = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        let empty = self.format.empty_row_group.then_some(&rows[..0]);
        for group in empty.into_iter().chain(rows.chunks(self.format.row_group_rows.max(1))) {
            let mut row_group = writer.next_row_group()?;
            let leaves = columns.iter().flat_map(|column| column.leaves(group));
            for (leaf, column) in leaves.zip(descriptor.columns()) {
                if self.format.split_lists && column.max_rep_level() > 0 {
                    append_split(&mut row_group, Arc::clone(column), &leaf, self.format.page_rows.max(1))?;
                } else {
                    write_leaf(&mut row_group, &leaf)?;
                }
            }
            row_group.close()?;
        }
        writer.close()?;
        Ok(())
    }
}

/// One day of both tables.
#[derive(Clone, Debug, Default)]
pub struct Day {
    pub main: Vec<DataFile<MainRow>>,
    pub addons: Vec<DataFile<AddonRow>>,
    /// Names below a table's root whose bytes are neither Parquet nor data.
    pub litter: Vec<String>,
}

impl Day {
    /// Writes the day under `root`, as `addons/v2` and `main_summary/v3`.
    pub fn write(&self, root: &Path, date: &str) -> Result<()> {
        write_table(&self.main, root, date)?;
        write_table(&self.addons, root, date)?;
        for name in &self.litter {
            for table in [MainRow::TABLE, AddonRow::TABLE] {
                let path = root.join(table).join(name);
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder)?;
                }
                std::fs::write(&path, "no data").with_context(|| format!("writing {}", path.display()))?;
            }
        }
        Ok(())
    }

    /// All rows of `main_summary` as a reader sees them.
    pub fn main_rows(&self) -> Vec<MainRow> {
        self.main.iter().flat_map(DataFile::visible_rows).collect()
    }

    /// All rows of `addons` as a reader sees them.
    pub fn addon_rows(&self) -> Vec<AddonRow> {
        self.addons.iter().flat_map(DataFile::visible_rows).collect()
    }
}

/// Writes the files of a table under `root`.
///
/// # Errors
/// Those of the writer.
pub fn write_table<R: Record>(files: &[DataFile<R>], root: &Path, date: &str) -> Result<()> {
    let partition = root.join(R::TABLE).join(format!("submission_date_s3={date}"));
    files.iter().try_for_each(|file| file.write_to(&partition.join(&file.path)))
}

fn properties(format: &Format, schema: &TypePtr) -> Result<WriterProperties> {
    let version = if format.pages_v2 { WriterVersion::PARQUET_2_0 } else { WriterVersion::PARQUET_1_0 };
    let mut builder: WriterPropertiesBuilder = WriterProperties::builder()
        .set_writer_version(version)
        .set_compression(format.codec)
        .set_data_page_row_count_limit(format.page_rows.max(1))
        .set_write_batch_size(format.page_rows.clamp(1, 1024))
        .set_statistics_enabled(format.statistics)
        .set_offset_index_disabled(format.split_lists)
        .set_dictionary_enabled(format.encoding.dictionary_limit().is_some())
        .set_dictionary_page_size_limit(format.encoding.dictionary_limit().unwrap_or(1 << 20));
    let descriptor = SchemaDescriptor::new(Arc::clone(schema));
    for column in descriptor.columns() {
        builder =
            builder.set_column_encoding(column.path().clone(), format.encoding.of(column.physical_type()));
    }
    let mut properties = builder.build();
    if format.arrow != ArrowNote::None {
        let plain = parquet_to_arrow_schema(&descriptor, None)?;
        let noted = Schema::new(noted_fields(plain.fields(), format.arrow));
        add_encoded_arrow_schema_to_metadata(&noted, &mut properties);
    }
    Ok(properties)
}

fn noted_fields(fields: &Fields, note: ArrowNote) -> Fields {
    fields.iter().map(|field| noted_field(field, note)).collect()
}

fn noted_field(field: &Arc<ArrowField>, note: ArrowNote) -> ArrowField {
    let kind = match (field.data_type(), note) {
        (DataType::Utf8, ArrowNote::Large) => DataType::LargeUtf8,
        (DataType::Utf8, ArrowNote::View) => DataType::Utf8View,
        (DataType::Utf8, ArrowNote::Dictionary) => {
            DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
        }
        (DataType::List(element), ArrowNote::Large) => {
            DataType::LargeList(Arc::new(noted_field(element, note)))
        }
        (DataType::List(element), _) => DataType::List(Arc::new(noted_field(element, note))),
        (DataType::Struct(fields), _) => DataType::Struct(noted_fields(fields, note)),
        (other, _) => other.clone(),
    };
    ArrowField::new(field.name(), kind, field.is_nullable())
}

fn write_leaf(group: &mut SerializedRowGroupWriter<'_, File>, leaf: &Leaf) -> Result<()> {
    let mut column = group.next_column()?.context("the schema has fewer leaves than the rows")?;
    let (definitions, repetitions) = (Some(leaf.definitions.as_slice()), Some(leaf.repetitions.as_slice()));
    match &leaf.values {
        Values::Text(values) => {
            column.typed::<ByteArrayType>().write_batch(values, definitions, repetitions)?
        }
        Values::Int(values) => column.typed::<Int32Type>().write_batch(values, definitions, repetitions)?,
        Values::Long(values) => column.typed::<Int64Type>().write_batch(values, definitions, repetitions)?,
        Values::Flag(values) => column.typed::<BoolType>().write_batch(values, definitions, repetitions)?,
    };
    column.close()?;
    Ok(())
}
