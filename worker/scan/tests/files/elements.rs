//! Fields of the elements of lists: files of many layouts, encodings and schemas, compared with what the Arrow reader of
//! the parquet crate reads from them.
//!
//! Not here: damaged files (`damaged`).

use std::sync::Arc;

use arrow_array::{ArrayRef, ListArray, RecordBatch, StructArray};
use arrow_buffer::OffsetBuffer;
use arrow_schema::{DataType, Field, Fields};
use parquet::basic::{Compression, Encoding};
use parquet::data_type::Int32Type as Narrow;
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;
use tally_dataset::Width;
use tally_scan::ScanError;

use crate::Result;
use crate::reading::{Collect, check, scan};
use crate::writing::{ALL, FILL, Fill, batch, kinds, layout_file, write};

#[test]
fn every_encoding_and_page_version_is_read() -> Result<()> {
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        for (at, fill) in
            [FILL, Fill { nulls: 0, ..FILL }, Fill { nulls: 2, wide: true, ..FILL }].into_iter().enumerate()
        {
            let base = || {
                WriterProperties::builder()
                    .set_writer_version(version)
                    .set_compression(Compression::SNAPPY)
                    .set_data_page_size_limit(3000)
                    .set_write_batch_size(64)
            };
            let leaf = |name: &str| ColumnPath::from(format!("addons.list.element.{name}"));
            let plain = || base().set_dictionary_enabled(false);
            let batch = batch(fill, &ALL)?;
            for (what, properties) in [
                ("dictionary", base()),
                ("fallback", base().set_dictionary_page_size_limit(900)),
                ("plain", plain()),
                (
                    "delta",
                    plain()
                        .set_column_encoding(leaf("id"), Encoding::DELTA_BYTE_ARRAY)
                        .set_column_encoding(leaf("day"), Encoding::DELTA_BINARY_PACKED),
                ),
                ("delta lengths", plain().set_column_encoding(leaf("id"), Encoding::DELTA_LENGTH_BYTE_ARRAY)),
                ("split", plain().set_column_encoding(leaf("day"), Encoding::BYTE_STREAM_SPLIT)),
                ("one page", base().set_data_page_size_limit(1 << 30).set_write_batch_size(1 << 20)),
            ] {
                let what = format!("{what} {version:?} {at}");
                let found = check(&what, &write(&batch, properties)?)?;
                let width = if fill.wide { Width::W64 } else { Width::W32 };
                assert!(found.widths.iter().all(|found| *found == width), "{what}");
            }
        }
    }
    Ok(())
}

#[test]
fn files_may_lack_fields_or_have_others_in_any_order() -> Result<()> {
    for names in [
        &["day", "other", "id", "flag"][..],
        &["flag", "id"],
        &["day"],
        &["id"],
        &["FLAG", "Day", "iD"],
        &["other", "more"],
        &["other"],
    ] {
        for fill in [FILL, Fill { nulls: 0, ..FILL }] {
            let bytes = write(&batch(fill, names)?, WriterProperties::builder())?;
            if names[0] == "FLAG" {
                // The oracle compares letter case.
                let same =
                    check("", &write(&batch(fill, &["flag", "day", "id"])?, WriterProperties::builder())?)?;
                let mut mapper = Collect::default();
                scan(&bytes, &mut mapper, 64 << 20)??;
                assert!(mapper.rows == same.rows);
                continue;
            }
            let found = check(&format!("{names:?}"), &bytes)?;
            assert!(found.rows.iter().any(|(_, elements)| elements.len() > 1), "{names:?}");
        }
    }
    let no_list = batch(FILL, &ALL)?.project(&[0])?;
    let found = check("no list", &write(&no_list, WriterProperties::builder())?)?;
    assert!(found.rows.len() == FILL.rows && found.rows.iter().all(|(_, elements)| elements.is_empty()));
    Ok(())
}

const FIELDS: &str = "optional binary id (UTF8); optional boolean flag; optional int32 day;";

#[test]
fn every_list_layout_is_read() -> Result<()> {
    let rows = kinds(500);
    let optional = FIELDS;
    let required = "required binary id (UTF8); required boolean flag; required int32 day;";
    let three = |outer: &str, middle: &str, inner: &str, element: &str, fields: &str| {
        format!(
            "{outer} group addons (LIST) {{ repeated group {middle} {{ {element} group {inner} {{ {fields} }} }} }}"
        )
    };
    let two = |outer: &str, middle: &str, fields: &str| {
        format!("{outer} group addons (LIST) {{ repeated group {middle} {{ {fields} }} }}")
    };
    for (message, layout) in [
        (three("optional", "list", "element", "optional", optional), [0, 1, 2, 3, 4]),
        (three("optional", "list", "item", "optional", optional), [0, 1, 2, 3, 4]),
        (three("optional", "bag", "array_element", "optional", optional), [0, 1, 2, 3, 4]),
        (three("optional", "bag", "array", "optional", optional), [0, 1, 2, 3, 4]),
        (three("optional", "list", "element", "required", optional), [0, 1, 2, 2, 3]),
        (three("required", "list", "element", "optional", optional), [0, 0, 1, 2, 3]),
        (three("optional", "list", "element", "required", required), [0, 1, 2, 2, 2]),
        (three("required", "list", "element", "required", required), [0, 0, 1, 1, 1]),
        (two("optional", "array", optional), [0, 1, 2, 2, 3]),
        (two("optional", "addons_tuple", optional), [0, 1, 2, 2, 3]),
        (two("required", "array", required), [0, 0, 1, 1, 1]),
        (two("optional", "anything", optional), [0, 1, 2, 2, 3]),
        (format!("repeated group addons {{ {optional} }}"), [0, 0, 1, 1, 2]),
    ] {
        let bytes = layout_file(&message, layout, [&rows; 3])?;
        let found = check(&message, &bytes)?;
        let elements = rows.iter().flatten().filter(|kind| **kind > 1).count();
        assert_eq!(
            found.rows.iter().map(|(_, elements)| elements.len()).sum::<usize>(),
            elements,
            "{message}"
        );
    }
    Ok(())
}

#[test]
fn the_shape_of_a_list_is_read_from_a_leaf_in_a_further_list() -> Result<()> {
    let inner = "optional group x (LIST) { repeated group list { optional int32 element; } }";
    let message = format!(
        "optional group addons (LIST) {{ repeated group list {{ optional group element {{ {inner} }} }} }}"
    );
    let schema = Arc::new(parse_message_type(&format!("message m {{ {message} }}"))?);
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::default())?;
    let mut group = writer.next_row_group()?;
    let mut column = group.next_column()?.ok_or("no column")?;
    // [[1, 2], null], null, [[], [3, null], null element], []
    let def = [6, 6, 3, 0, 4, 6, 5, 2, 1];
    let rep = [0, 2, 1, 0, 0, 1, 2, 1, 0];
    column.typed::<Narrow>().write_batch(&[1, 2, 3], Some(&def), Some(&rep))?;
    column.close()?;
    group.close()?;
    writer.close()?;
    let found = check(&message, &bytes)?;
    let counts: Vec<usize> = found.rows.iter().map(|(_, elements)| elements.len()).collect();
    assert_eq!(counts, [2, 0, 3, 0]);
    Ok(())
}

#[test]
fn leaves_that_disagree_are_corrupt() -> Result<()> {
    let message = format!(
        "optional group addons (LIST) {{ repeated group list {{ optional group element {{ {FIELDS} }} }} }}"
    );
    let right = kinds(300);
    let with = |alter: fn(&mut Vec<Vec<usize>>)| {
        let mut rows = right.clone();
        alter(&mut rows);
        rows
    };
    for (other, what) in [
        // One element more.
        (with(|rows| rows[299].push(4)), "values in lists"),
        // An element less, and one more null list instead: as many entries.
        (with(|rows| (rows[298], rows[299]) = (vec![4], vec![4])), "values in lists"),
        (
            with(|rows| {
                rows.iter_mut().for_each(|row| {
                    if row[0] == 0 {
                        *row = vec![4]
                    }
                })
            }),
            "numbers of elements",
        ),
    ] {
        for at in 0..3 {
            let mut rows = [&right[..]; 3];
            rows[at] = &other;
            let bytes = layout_file(&message, [0, 1, 2, 3, 4], rows)?;
            let error = scan(&bytes, &mut Collect::default(), 64 << 20)?.err().ok_or("no error")?;
            assert!(matches!(error, ScanError::Corrupt { .. }), "{error}");
            let said = error.to_string();
            assert!(
                said.contains(what) && said.contains("column addons.") && said.contains("part-7"),
                "{said}"
            );
        }
    }
    Ok(())
}

#[test]
fn a_field_of_another_type_is_an_error() -> Result<()> {
    for (fields, what) in [
        ("optional int64 id;", "addons.id: it must be a string in a list, but it is INT64"),
        ("optional binary day;", "addons.day: it must be a 32-bit or 64-bit integer in a list"),
        ("optional int32 flag;", "addons.flag: it must be a boolean in a list"),
        ("repeated int32 day;", "addons.day: it must be"),
    ] {
        let message = format!(
            "message m {{ optional group addons (LIST) {{ repeated group list {{ optional group element {{ {fields} }} }} }} }}"
        );
        let mut bytes = Vec::new();
        let mut writer =
            SerializedFileWriter::new(&mut bytes, Arc::new(parse_message_type(&message)?), Arc::default())?;
        let mut group = writer.next_row_group()?;
        let mut column = group.next_column()?.ok_or("no column")?;
        match column.untyped() {
            parquet::column::writer::ColumnWriter::Int64ColumnWriter(column) => {
                column.write_batch(&[], Some(&[0]), Some(&[0]))?
            }
            parquet::column::writer::ColumnWriter::Int32ColumnWriter(column) => {
                column.write_batch(&[], Some(&[0]), Some(&[0]))?
            }
            parquet::column::writer::ColumnWriter::ByteArrayColumnWriter(column) => {
                column.write_batch(&[], Some(&[0]), Some(&[0]))?
            }
            _ => return Err("another type".into()),
        };
        column.close()?;
        group.close()?;
        writer.close()?;
        let error = scan(&bytes, &mut Collect::default(), 64 << 20)?.err().ok_or("no error")?.to_string();
        assert!(error.contains(what), "{error}");
    }
    Ok(())
}

#[test]
fn a_row_with_very_many_elements_takes_its_memory_from_the_budget() -> Result<()> {
    let elements = 1_000_000;
    let day: ArrayRef = Arc::new(arrow_array::Int32Array::from_iter_values(0..elements));
    let fields = Fields::from(vec![Field::new("day", DataType::Int32, true)]);
    let structs = StructArray::new(fields.clone(), vec![day], None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    let lengths = [3, elements as usize - 5, 2];
    let lists = ListArray::new(element, OffsetBuffer::from_lengths(lengths), Arc::new(structs), None);
    let columns: Vec<(&str, ArrayRef)> = vec![("addons", Arc::new(lists))];
    let bytes = write(&RecordBatch::try_from_iter(columns)?, WriterProperties::builder())?;
    let mut mapper = Collect::default();
    scan(&bytes, &mut mapper, 64 << 20)??;
    let last = |row: usize| mapper.rows[row].1.last().and_then(|element| element[2].clone());
    assert_eq!([last(0), last(1), last(2)].map(Option::unwrap), ["2", "999997", "999999"]);
    let error = scan(&bytes, &mut Collect::default(), 8 << 20)?.err().ok_or("no error")?;
    assert!(matches!(error, ScanError::Memory { .. }), "{error}");
    assert!(error.to_string().contains("addons.day: the elements of a row"), "{error}");
    Ok(())
}
