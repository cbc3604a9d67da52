//! How large and deep the schema in a footer is, before the Parquet crate builds it: that recurses as deep as a schema
//! nests and copies the path of every column, so a footer of some kilobytes could end the process or take gigabytes.
//!
//! The walk is stricter than the crate, so that both read the same: types on the wire must be those of `parquet.thrift`, and
//! nothing but numbers stands before the schema. The crate reads the first schema only, so what follows is not looked at.

use super::thrift::Input;
use super::thrift::ThriftError::{self, Malformed};

/// How deep a schema may nest: far deeper than any table, far less than a stack has room for.
const MOST_DEPTH: usize = 100;
/// Names in the paths of all its nodes: each is copied once a column.
const MOST_NAMES: usize = 1 << 18;

/// Types on the wire.
const I8: u8 = 3;
const I32: u8 = 5;
const I64: u8 = 6;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const STRUCT: u8 = 12;

const ODD: ThriftError = Malformed("a field of its schema has another type than it must have");

/// Says no to a schema that nests too deep or is too large.
pub(super) fn check(footer: &[u8]) -> Result<(), ThriftError> {
    let mut input = Input::new(footer);
    let mut last = 0;
    while let Some(field) = input.field(&mut last)? {
        match (field.id, field.kind) {
            (1, I32) | (3, I64) => input.zigzag().map(drop)?,
            (2, LIST) => return schema(&mut input),
            _ => return Err(Malformed("something stands before its schema")),
        }
    }
    // The crate says what lacks.
    Ok(())
}

fn schema(input: &mut Input<'_>) -> Result<(), ThriftError> {
    let head = input.byte()?;
    let count = if head >> 4 == 15 { input.varint()? } else { u64::from(head >> 4) };
    if count > 0 && head & 0x0f != STRUCT {
        return Err(ODD);
    }
    // The children that are still to come of each group that is open.
    let mut open: Vec<usize> = vec![];
    let mut names = 0;
    for _ in 0..count {
        let children = element(input)?;
        names += open.len().max(1);
        if open.len() > MOST_DEPTH {
            return Err(Malformed("its schema nests too deep"));
        }
        if names > MOST_NAMES {
            return Err(Malformed("its schema is too large"));
        }
        if let Some(left) = open.last_mut() {
            *left -= 1;
        }
        if children > 0 {
            open.push(children);
        }
        while open.last() == Some(&0) {
            open.pop();
        }
    }
    Ok(())
}

/// Reads a node; gives the number of its children.
fn element(input: &mut Input<'_>) -> Result<usize, ThriftError> {
    let mut children = 0;
    input.each_field(|input, field| {
        match (field.id, field.kind) {
            (5, I32) => children = input.size()?,
            (1..=3 | 6..=9, I32) => input.int().map(drop)?,
            (4, BINARY) => input.skip(BINARY, 0)?,
            (10, STRUCT) => logical_type(input)?,
            (1..=10, _) => return Err(ODD),
            (_, kind) => unknown(input, kind)?,
        }
        Ok(true)
    })?;
    Ok(children)
}

/// Reads the union of logical types.
fn logical_type(input: &mut Input<'_>) -> Result<(), ThriftError> {
    input.each_field(|input, variant| {
        if variant.kind != STRUCT {
            return Err(ODD);
        }
        let number = variant.id;
        input.each_field(|input, field| {
            match (number, field.id, field.kind) {
                // A decimal's numbers; a time's unit; the width of an integer; the version of a variant; of geometry and
                // geography the system of coordinates, and how edges run.
                (5, 1 | 2, I32) | (18, 2, I32) => input.int().map(drop)?,
                (7 | 8, 2, STRUCT) => unit(input)?,
                (10 | 16, 1, I8) => input.byte().map(drop)?,
                (17 | 18, 1, BINARY) => input.skip(BINARY, 0)?,
                // Booleans have no bytes: whether a time is in UTC, whether an integer has a sign.
                (7 | 8, 1, 1 | 2) | (10, 2, 1 | 2) => {}
                (1..=18, ..) => return Err(ODD),
                (.., kind) => unknown(input, kind)?,
            }
            Ok(true)
        })?;
        Ok(true)
    })
}

/// Reads a union of empty structs.
fn unit(input: &mut Input<'_>) -> Result<(), ThriftError> {
    input.each_field(|input, variant| match (variant.kind, input.byte()?) {
        (STRUCT, 0) => Ok(true),
        _ => Err(ODD),
    })
}

/// Passes what this version of the format does not have: no lists or maps, which are passed in other ways elsewhere.
fn unknown(input: &mut Input<'_>, kind: u8) -> Result<(), ThriftError> {
    match kind {
        1..=BINARY => input.skip(kind, 0),
        STRUCT => input.each_field(|input, field| match field.kind {
            1..=BINARY => input.skip(field.kind, 0).map(|()| true),
            _ => Err(ODD),
        }),
        _ => Err(ODD),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer's beginning: these nodes, each a name and its number of children.
    fn footer(nodes: &[(u8, usize)]) -> Vec<u8> {
        let mut bytes = vec![0x15, 2, 0x19, 0xfc];
        let varint = |bytes: &mut Vec<u8>, mut value: usize| {
            while value > 0x7f {
                bytes.push(value as u8 | 0x80);
                value >>= 7;
            }
            bytes.push(value as u8);
        };
        varint(&mut bytes, nodes.len());
        for &(name, children) in nodes {
            bytes.extend([0x35, 0, 0x18, 1, name]);
            if children > 0 {
                bytes.push(0x15);
                varint(&mut bytes, 2 * children);
            }
            bytes.push(0);
        }
        bytes.push(0);
        bytes
    }

    fn chain(depth: usize) -> Vec<u8> {
        let mut nodes = vec![(b'g', 1); depth];
        nodes.push((b'c', 0));
        footer(&nodes)
    }

    #[test]
    fn schemas_that_nest_like_tables_pass_and_deeper_ones_do_not() {
        assert_eq!(check(&chain(MOST_DEPTH)), Ok(()));
        for depth in [MOST_DEPTH + 1, 100_000] {
            assert_eq!(check(&chain(depth)), Err(Malformed("its schema nests too deep")));
        }
        // Neighbours do not add up.
        let mut wide = vec![(b'r', 5_000)];
        wide.extend([(b'g', 1), (b'c', 0)].repeat(5_000));
        assert_eq!(check(&footer(&wide)), Ok(()));
    }

    #[test]
    fn schemas_of_too_many_names_do_not_pass() {
        let mut deep = vec![(b'g', 1); 90];
        deep.push((b'g', 10_000));
        deep.extend(vec![(b'c', 0); 10_000]);
        assert_eq!(check(&footer(&deep)), Err(Malformed("its schema is too large")));
    }

    #[test]
    fn what_could_hide_a_schema_does_not_pass() {
        for bytes in [
            // Another field first; a schema that is no list, or of numbers; a name that is a number.
            &[0x48, 1, b'x', 0][..],
            &[0x28, 1, b'x', 0],
            &[0x29, 0x25, 1, 1],
            &[0x29, 0x1c, 0x45, 1, 0, 0],
            // A logical type with a list in it.
            &[0x29, 0x1c, 0xac, 0x5c, 0x19, 0x05, 0, 0, 0, 0],
        ] {
            assert!(matches!(check(bytes), Err(Malformed(_))), "{bytes:x?}: {:?}", check(bytes));
        }
    }
}
