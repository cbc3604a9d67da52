//! A Parquet footer as a tree of Thrift values, modified: chunks, names, annotations, encryption, fields of a later version.
//!
//! Not here: how the tree is read and written (`thrift`), and which changes are tried (`tests/footers.rs`).

use crate::thrift::{BINARY, BYTE, I32, I64, LIST, STRUCT, Value};

/// Bytes that are not valid UTF-8.
pub fn bad() -> Value {
    Value::Binary(b"\xfe\xff\x80".to_vec())
}

/// A name or another string.
pub fn text(text: &str) -> Value {
    Value::Binary(text.as_bytes().to_vec())
}

/// A struct that no version of the format has.
pub fn later() -> Value {
    let inner = Value::Struct(vec![(3, BINARY, bad()), (4, LIST, Value::List(I64, vec![Value::Number(-9)]))]);
    Value::Struct(vec![(1, 2, Value::Byte(2)), (2, LIST, Value::List(0, vec![])), (5, STRUCT, inner)])
}

/// Changes all row groups.
pub fn each_group(footer: &mut Value, change: impl FnMut(&mut Value)) {
    footer.field(4).elements().iter_mut().for_each(change);
}

/// Changes all column chunks.
pub fn each_chunk(footer: &mut Value, mut change: impl FnMut(&mut Value)) {
    each_group(footer, |group| group.field(1).elements().iter_mut().for_each(&mut change));
}

/// Changes all nodes of the schema, the root too.
pub fn each_node(footer: &mut Value, change: impl FnMut(&mut Value)) {
    footer.field(2).elements().iter_mut().for_each(change);
}

/// The path of a chunk's column.
pub fn path(chunk: &mut Value) -> &mut Vec<Value> {
    chunk.field(3).field(3).elements()
}

/// A name as a string.
fn name_of(value: &mut Value) -> String {
    String::from_utf8_lossy(value.binary()).into_owned()
}

/// Changes the chunks of a column, if the file has it.
pub fn chunks_of(footer: &mut Value, column: &str, mut change: impl FnMut(&mut Value)) {
    each_chunk(footer, |chunk| {
        let found = path(chunk).iter_mut().map(name_of).collect::<Vec<_>>().join(".");
        if found == column {
            change(chunk);
        }
    });
}

/// Changes the schema's node of a column, if the file has it.
pub fn column(footer: &mut Value, column: &str, change: impl FnOnce(&mut Value)) {
    let at = nodes(footer).into_iter().position(|path| path == column);
    if let Some(at) = at {
        change(&mut footer.field(2).elements()[at]);
    }
}

/// The dotted paths of all nodes of the schema; the root's is empty.
pub fn nodes(footer: &mut Value) -> Vec<String> {
    // Open groups, with the number of their remaining children.
    let mut open: Vec<(Vec<String>, i64)> = vec![];
    let mut paths = vec![];
    each_node(footer, |node| {
        let mut path = open.last().map_or(vec![], |(path, _)| path.clone());
        if !paths.is_empty() {
            path.push(name_of(node.field(4)));
        }
        paths.push(path.join("."));
        if let Some((_, left)) = open.last_mut() {
            *left -= 1;
        }
        let children = if node.has(5) { node.field(5).clone() } else { Value::Number(0) };
        if let Value::Number(children @ 1..) = children {
            open.push((path, children));
        }
        while open.last().is_some_and(|(_, left)| *left == 0) {
            open.pop();
        }
    });
    paths
}

/// Renames all columns and fields, in the schema and where chunks name them, byte by byte.
pub fn rename_bytes(footer: &mut Value, mut new: impl FnMut(&[u8]) -> Vec<u8>) {
    let mut change = |name: &mut Value| *name.binary() = new(name.binary());
    footer.field(2).elements().iter_mut().skip(1).for_each(|node| change(node.field(4)));
    each_chunk(footer, |chunk| path(chunk).iter_mut().for_each(&mut change));
}

/// Renames all columns and fields, in the schema and where chunks name them.
pub fn rename(footer: &mut Value, mut new: impl FnMut(&str) -> String) {
    rename_bytes(footer, |name| new(&String::from_utf8_lossy(name)).into_bytes());
}

/// Renames the fields of a struct of the first level.
pub fn rename_under(footer: &mut Value, group: &str, mut new: impl FnMut(&str) -> String) {
    let prefix = format!("{group}.");
    for (at, path) in nodes(footer).into_iter().enumerate() {
        if let Some(name) = path.strip_prefix(&prefix) {
            *footer.field(2).elements()[at].field(4) = text(&new(name));
        }
    }
    each_chunk(footer, |chunk| {
        let path = path(chunk);
        if name_of(&mut path[0]) == group {
            path[1] = text(&new(&name_of(&mut path[1].clone())));
        }
    });
}

/// Sets the type of lists without elements; the format allows more of them.
pub fn empty_lists(footer: &mut Value, kind: u8) {
    let none = || Value::List(kind, vec![]);
    for id in [5, 7] {
        footer.set(id, LIST, none());
    }
    each_group(footer, |group| group.set(4, LIST, none()));
    each_chunk(footer, |chunk| {
        for id in [2, 8, 13] {
            chunk.field(3).set(id, LIST, none());
        }
    });
    if footer.field(4).elements().is_empty() {
        *footer.field(4) = none();
    }
}

/// Gives a node an old annotation, a new one (its number and what it holds), both, or none.
fn annotate(node: &mut Value, old: Option<i64>, new: Option<(i16, Value)>) {
    node.remove(6);
    node.remove(10);
    if let Some(old) = old {
        node.set(6, I32, Value::Number(old));
    }
    if let Some((number, new)) = new {
        node.set(10, STRUCT, Value::Struct(vec![(number, STRUCT, new)]));
    }
}

/// Annotates the needed strings.
pub fn strings(footer: &mut Value, old: Option<i64>, new: Option<i16>) {
    for name in ["client_id", "addon_id", "active_theme.addon_id"] {
        column(footer, name, |node| annotate(node, old, new.map(|number| (number, Value::Struct(vec![])))));
    }
}

/// Annotates a node as an integer, in the old way or with a width in bits.
pub fn integer(node: &mut Value, old: Option<i64>, width: Option<u8>) {
    let new = width.map(|width| Value::Struct(vec![(1, BYTE, Value::Byte(width)), (2, 1, Value::Byte(1))]));
    annotate(node, old, new.map(|new| (10, new)));
}

/// What a footer in the clear says of a file that has encrypted columns.
pub fn encryption(footer: &mut Value) {
    let aes = Value::Struct(vec![(2, BINARY, bad())]);
    footer.set(8, STRUCT, Value::Struct(vec![(1, STRUCT, aes)]));
    footer.set(9, BINARY, bad());
}

/// An encryption by the footer's key.
pub fn footer_key() -> Value {
    Value::Struct(vec![(1, STRUCT, Value::Struct(vec![]))])
}

/// Encrypts a chunk with a key of its own; `keep_metadata` keeps what a plaintext footer may still state about it.
pub fn own_key(chunk: &mut Value, keep_metadata: bool) {
    let path = Value::List(BINARY, path(chunk).clone());
    let key = Value::Struct(vec![(1, LIST, path), (2, BINARY, bad())]);
    chunk.set(8, STRUCT, Value::Struct(vec![(2, STRUCT, key)]));
    chunk.set(9, BINARY, bad());
    if !keep_metadata {
        chunk.remove(3);
    }
}
