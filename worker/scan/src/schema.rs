//! Decodes the schema in a footer from Thrift to the Parquet crate's types, with limits. The crate walks schemas
//! recursively and copies the path of every column, so a footer of a few kilobytes could overflow the stack or take
//! gigabytes.
//!
//! A file may use newer types and annotations, and names need not be UTF-8. This matters only if the column is needed,
//! so it is not an error here. An annotation that is unknown, or that does not fit its type, becomes
//! [`LogicalType::Unknown`], which fits no needed column. Not here: which column is needed (`resolve`).

use std::sync::Arc;

use parquet::basic::{ConvertedType, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::schema::types::{Type, TypePtr};

use crate::thrift::ThriftError::{self, Malformed};
use crate::thrift::{BINARY, FieldHeader, I32, STRUCT, ThriftReader};

/// Maximum nesting of a schema: far deeper than any table, and far less than the stack allows.
const MAX_DEPTH: usize = 100;
/// Maximum number of names in the paths of all nodes; each name is copied once per column.
const MAX_NAMES: usize = 1 << 18;
/// Maximum bytes of these names.
const MAX_NAME_BYTES: usize = 16 << 20;

const PHYSICAL: [Physical; 8] = [
    Physical::BOOLEAN,
    Physical::INT32,
    Physical::INT64,
    Physical::INT96,
    Physical::FLOAT,
    Physical::DOUBLE,
    Physical::BYTE_ARRAY,
    Physical::FIXED_LEN_BYTE_ARRAY,
];
const CONVERTED: [ConvertedType; 22] = [
    ConvertedType::UTF8,
    ConvertedType::MAP,
    ConvertedType::MAP_KEY_VALUE,
    ConvertedType::LIST,
    ConvertedType::ENUM,
    ConvertedType::DECIMAL,
    ConvertedType::DATE,
    ConvertedType::TIME_MILLIS,
    ConvertedType::TIME_MICROS,
    ConvertedType::TIMESTAMP_MILLIS,
    ConvertedType::TIMESTAMP_MICROS,
    ConvertedType::UINT_8,
    ConvertedType::UINT_16,
    ConvertedType::UINT_32,
    ConvertedType::UINT_64,
    ConvertedType::INT_8,
    ConvertedType::INT_16,
    ConvertedType::INT_32,
    ConvertedType::INT_64,
    ConvertedType::JSON,
    ConvertedType::BSON,
    ConvertedType::INTERVAL,
];
const REPETITION: [Repetition; 3] = [Repetition::REQUIRED, Repetition::OPTIONAL, Repetition::REPEATED];

/// The entry of a table for a number of the format.
pub(crate) fn at<T: Copy>(table: &[T], number: i32) -> Option<T> {
    usize::try_from(number).ok().and_then(|at| table.get(at)).copied()
}

/// A node as stored in the list, which its children follow.
#[derive(Default)]
struct Element {
    name: String,
    children: usize,
    physical: Option<i32>,
    length: Option<i32>,
    repetition: Option<Repetition>,
    converted: Option<i32>,
    scale: Option<i32>,
    precision: Option<i32>,
    logical: Option<LogicalType>,
}

/// A group whose children follow.
struct Open {
    element: Element,
    fields: Vec<TypePtr>,
    /// Bytes of the names on its path, including its own name.
    bytes: usize,
}

/// Reads the list of a schema's nodes.
///
/// # Errors
/// The list is not a tree, nests too deep, or is too large.
pub(crate) fn read(input: &mut ThriftReader<'_>) -> Result<TypePtr, ThriftError> {
    let count = input.list(STRUCT)?;
    let mut open: Vec<Open> = vec![];
    let mut root: Option<TypePtr> = None;
    let (mut names, mut bytes) = (0, 0);
    for at in 0..count {
        if root.is_some() {
            return Err(Malformed("its schema has several roots"));
        }
        let element = element(input)?;
        if open.len() > MAX_DEPTH {
            return Err(Malformed("its schema nests too deep"));
        }
        let path = open.last().map_or(0, |group| group.bytes) + element.name.len();
        names += open.len().max(1);
        bytes += path;
        if names > MAX_NAMES || bytes > MAX_NAME_BYTES {
            return Err(Malformed("its schema is too large"));
        }
        if at > 0 && element.repetition.is_none() {
            return Err(Malformed("its schema does not state the repetition of a field"));
        }
        if element.children > 0 {
            open.push(Open { element, fields: vec![], bytes: path });
            continue;
        }
        let mut built = if at > 0 && element.physical.is_some() {
            leaf(&element)
        } else {
            group(&element, vec![], at == 0)
        };
        // Closes all groups whose last child it is.
        loop {
            let node = Arc::new(built?);
            let Some(mut parent) = open.pop() else {
                root = Some(node);
                break;
            };
            parent.fields.push(node);
            if parent.fields.len() < parent.element.children {
                open.push(parent);
                break;
            }
            built = group(&parent.element, parent.fields, open.is_empty());
        }
    }
    root.ok_or(Malformed("its schema ends too soon"))
}

fn element(input: &mut ThriftReader<'_>) -> Result<Element, ThriftError> {
    let mut read = Element::default();
    input.each_field(|input, field| {
        match (field.id, field.kind) {
            (1, I32) => read.physical = Some(input.int()?),
            (2, I32) => read.length = Some(input.int()?),
            (3, I32) => {
                let known = at(&REPETITION, input.int()?);
                read.repetition =
                    Some(known.ok_or(Malformed("its schema states an unknown repetition of a field"))?);
            }
            (4, BINARY) => read.name = String::from_utf8_lossy(input.binary()?).into_owned(),
            (5, I32) => read.children = input.size()?,
            (6, I32) => read.converted = Some(input.int()?),
            (7, I32) => read.scale = Some(input.int()?),
            (8, I32) => read.precision = Some(input.int()?),
            (10, STRUCT) => read.logical = Some(logical(input)?),
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(read)
}

/// Reads the union of logical types.
fn logical(input: &mut ThriftReader<'_>) -> Result<LogicalType, ThriftError> {
    let mut found = LogicalType::Unknown;
    input.each_field(|input, variant| {
        if variant.kind != STRUCT {
            return Ok(false);
        }
        let mut fields = Fields::default();
        input.each_field(|input, field| fields.take(input, field))?;
        found = fields.of(variant.id);
        Ok(true)
    })?;
    Ok(found)
}

/// The fields that any logical type may have.
#[derive(Default)]
struct Fields {
    numbers: [i32; 2],
    flags: [bool; 2],
    width: i8,
    unit: i16,
}

impl Fields {
    fn take(&mut self, input: &mut ThriftReader<'_>, field: &FieldHeader) -> Result<bool, ThriftError> {
        const I8: u8 = 3;
        match (field.id, field.kind) {
            (1 | 2, I32) => self.numbers[usize::from(field.id == 2)] = input.int()?,
            // The value of a boolean is in its field header.
            (1 | 2, 1 | 2) => self.flags[usize::from(field.id == 2)] = field.kind == 1,
            (1, I8) => self.width = input.byte()? as i8,
            (2, STRUCT) => input.each_field(|_, unit| {
                self.unit = unit.id;
                Ok(false)
            })?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn of(&self, number: i16) -> LogicalType {
        let unit = match self.unit {
            1 => Some(TimeUnit::MILLIS),
            2 => Some(TimeUnit::MICROS),
            3 => Some(TimeUnit::NANOS),
            _ => None,
        };
        match (number, unit) {
            (1, _) => LogicalType::String,
            (2, _) => LogicalType::Map,
            (3, _) => LogicalType::List,
            (4, _) => LogicalType::Enum,
            (5, _) => LogicalType::decimal(self.numbers[0], self.numbers[1]),
            (6, _) => LogicalType::Date,
            (7, Some(unit)) => LogicalType::time(self.flags[0], unit),
            (8, Some(unit)) => LogicalType::timestamp(self.flags[0], unit),
            (10, _) if matches!(self.width, 8 | 16 | 32 | 64) => {
                LogicalType::integer(self.width, self.flags[1])
            }
            (12, _) => LogicalType::Json,
            (13, _) => LogicalType::Bson,
            (14, _) => LogicalType::Uuid,
            (15, _) => LogicalType::Float16,
            _ => LogicalType::Unknown,
        }
    }
}

/// The annotations to try, in order: the first one that the Parquet crate accepts for the type is used. If old and new
/// annotations contradict each other, the old one is used, as in parquet-java.
fn annotations(element: &Element) -> [(ConvertedType, Option<LogicalType>); 3] {
    let unknown = (ConvertedType::NONE, Some(LogicalType::Unknown));
    let logical = element.logical.clone();
    let Some(number) = element.converted else {
        return [(ConvertedType::NONE, logical), unknown.clone(), unknown];
    };
    let Some(converted) = at(&CONVERTED, number) else {
        let logical = logical.or(Some(LogicalType::Unknown));
        return [(ConvertedType::NONE, logical), unknown.clone(), unknown];
    };
    [(converted, logical), (converted, None), unknown]
}

fn leaf(element: &Element) -> Result<Type, ThriftError> {
    let physical = element.physical.and_then(|number| at(&PHYSICAL, number));
    let length = element.length.unwrap_or(-1);
    let build = |(converted, logical): (ConvertedType, Option<LogicalType>)| {
        let physical = physical.unwrap_or(Physical::INT96);
        let fixed = physical == Physical::FIXED_LEN_BYTE_ARRAY;
        Type::primitive_type_builder(&element.name, physical)
            .with_repetition(element.repetition.unwrap_or(Repetition::OPTIONAL))
            .with_converted_type(converted)
            .with_logical_type(logical)
            .with_length(if fixed { length.max(0) } else { length })
            .with_precision(element.precision.unwrap_or(-1))
            .with_scale(element.scale.unwrap_or(-1))
            .build()
            .ok()
    };
    // An unknown type is represented by a type that fits no column.
    let skip = if physical.is_none() { 2 } else { 0 };
    annotations(element)
        .into_iter()
        .skip(skip)
        .find_map(build)
        .ok_or(Malformed("a field of its schema is inconsistent"))
}

fn group(element: &Element, fields: Vec<TypePtr>, root: bool) -> Result<Type, ThriftError> {
    let [(converted, logical), ..] = annotations(element);
    let agree = converted == ConvertedType::NONE
        || logical.as_ref().is_none_or(|logical| ConvertedType::from(Some(logical.clone())) == converted);
    let builder = Type::group_type_builder(&element.name)
        .with_converted_type(converted)
        .with_logical_type(logical.filter(|_| agree))
        .with_fields(fields);
    // Some writers give the root a repetition, which has no meaning.
    let builder = match element.repetition {
        Some(repetition) if !root => builder.with_repetition(repetition),
        _ => builder,
    };
    builder.build().map_err(|_| Malformed("a group of its schema is inconsistent"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The list of these nodes, each given by its name and number of children.
    fn list(nodes: &[(&[u8], usize)]) -> Vec<u8> {
        let mut bytes = vec![0xfc];
        let varint = |bytes: &mut Vec<u8>, mut value: usize| {
            while value > 0x7f {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        };
        varint(&mut bytes, nodes.len());
        for &(name, children) in nodes {
            bytes.extend([0x35, 0, 0x18]);
            varint(&mut bytes, name.len());
            bytes.extend(name);
            if children > 0 {
                bytes.push(0x15);
                varint(&mut bytes, 2 * children);
            }
            bytes.push(0);
        }
        bytes
    }

    fn chain(depth: usize) -> Vec<u8> {
        let mut nodes = vec![(&b"g"[..], 1); depth];
        nodes.push((b"c", 0));
        list(&nodes)
    }

    fn check(bytes: &[u8]) -> Result<TypePtr, ThriftError> {
        read(&mut ThriftReader::new(bytes))
    }

    #[test]
    fn schemas_that_nest_like_tables_pass_and_deeper_ones_do_not() {
        assert!(check(&chain(MAX_DEPTH)).is_ok());
        for depth in [MAX_DEPTH + 1, 100_000] {
            assert_eq!(check(&chain(depth)), Err(Malformed("its schema nests too deep")));
        }
        // The depths of siblings do not add up.
        let mut wide = vec![(&b"r"[..], 5_000)];
        wide.extend([(&b"g"[..], 1), (b"c", 0)].repeat(5_000));
        assert_eq!(check(&list(&wide)).map(|root| root.get_fields().len()), Ok(5_000));
    }

    #[test]
    fn schemas_of_too_many_names_or_too_long_ones_do_not_pass() {
        let mut deep = vec![(&b"g"[..], 1); 90];
        deep.push((b"g", 10_000));
        deep.extend(vec![(&b"c"[..], 0); 10_000]);
        assert_eq!(check(&list(&deep)), Err(Malformed("its schema is too large")));
        // A long name that would be repeated in the paths of many columns.
        let name = vec![b'n'; 1_000_000];
        let mut long = vec![(&b"r"[..], 1), (&name[..], 20)];
        long.extend(vec![(&b"c"[..], 0); 20]);
        assert_eq!(check(&list(&long)), Err(Malformed("its schema is too large")));
    }

    #[test]
    fn lists_that_are_not_trees_do_not_pass() {
        for (nodes, what) in [
            (&[][..], "its schema ends too soon"),
            (&[(&b"r"[..], 2), (b"a", 0)], "its schema ends too soon"),
            (&[(b"r", 1), (b"a", 0), (b"b", 0)], "its schema has several roots"),
        ] {
            assert_eq!(check(&list(nodes)), Err(Malformed(what)), "{nodes:?}");
        }
        // A list of numbers.
        assert_eq!(check(&[0x25, 1, 1]), Err(Malformed("a list has the wrong element type")));
    }

    /// The type of one column, given the number of its physical type and more fields of its element.
    fn column(physical: u8, fields: &[u8]) -> Type {
        let mut bytes = vec![0x2c, 0x48, 1, b'r', 0x15, 2, 0];
        bytes.extend([0x15, 2 * physical, 0x25, 2, 0x18, 2, b'c', 0xff]);
        bytes.extend(fields);
        bytes.push(0);
        check(&bytes).unwrap().get_fields()[0].as_ref().clone()
    }

    #[test]
    fn annotations_that_fit_the_type_are_used_and_the_old_one_takes_precedence() {
        use Physical::{BYTE_ARRAY, INT32, INT64, INT96};
        let unknown = Some(LogicalType::Unknown);
        let integer = Some(LogicalType::integer(64, true));
        let cases: [(u8, &[u8], _); 12] = [
            // Text without an annotation; both annotations; the new one alone; a contradiction; an unknown one.
            (6, &[], (BYTE_ARRAY, ConvertedType::NONE, None)),
            (6, &[0x25, 0, 0x4c, 0x1c, 0, 0], (BYTE_ARRAY, ConvertedType::UTF8, Some(LogicalType::String))),
            (6, &[0x6c, 0xcc, 0, 0], (BYTE_ARRAY, ConvertedType::JSON, Some(LogicalType::Json))),
            (6, &[0x25, 0, 0x4c, 0xdc, 0, 0], (BYTE_ARRAY, ConvertedType::UTF8, None)),
            (6, &[0x25, 0, 0x4c, 0x0c, 100, 0, 0], (BYTE_ARRAY, ConvertedType::UTF8, None)),
            // An unknown new annotation that contains a list of structs; an old annotation with an unknown number.
            (
                6,
                &[0x6c, 0x0c, 100, 0x19, 0x1c, 0x15, 2, 0, 0, 0],
                (BYTE_ARRAY, ConvertedType::NONE, unknown.clone()),
            ),
            (6, &[0x25, 80], (BYTE_ARRAY, ConvertedType::NONE, unknown.clone())),
            // Integer widths, valid and invalid.
            (2, &[0x6c, 0xac, 0x13, 64, 0x11, 0, 0], (INT64, ConvertedType::INT_64, integer)),
            (2, &[0x6c, 0xac, 0x13, 24, 0x11, 0, 0], (INT64, ConvertedType::NONE, unknown.clone())),
            // An unknown physical type; text on an integer; a decimal without digits.
            (20, &[], (INT96, ConvertedType::NONE, unknown.clone())),
            (1, &[0x25, 0], (INT32, ConvertedType::NONE, unknown.clone())),
            (2, &[0x25, 10], (INT64, ConvertedType::NONE, unknown)),
        ];
        for (physical, fields, expect) in cases {
            let column = column(physical, fields);
            let info = column.get_basic_info();
            let found = (column.get_physical_type(), info.converted_type(), info.logical_type_ref().cloned());
            assert_eq!(found, expect, "{physical} {fields:x?}");
            // The valid part of a name that is not UTF-8 is kept.
            assert_eq!(column.name(), "c\u{fffd}");
        }
    }
}
