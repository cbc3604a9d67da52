//! Turns rows into Parquet columns: the schema of one file and, for each leaf, its values with definition and
//! repetition levels. Doing this by hand allows list layouts that writers no longer produce. Not here: pages, codecs
//! and files (`day`), or the layouts of a test (`random`).

use std::collections::HashSet;
use std::sync::Arc;

use anyhow::Result;
use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::data_type::ByteArray;
use parquet::schema::types::{Type, TypePtr};

/// How a list of structs is spelled in a file's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ListLayout {
    /// `repeated group list { optional group element }`: the format's own.
    ListElement,
    /// `repeated group bag { optional group array_element }`: Hive.
    BagArrayElement,
    /// `repeated group bag { optional group array }`: Spark in its legacy mode.
    BagArray,
    /// `repeated group array`: two levels, so that an element can't be null. Avro and early Parquet.
    TwoLevel,
}

impl ListLayout {
    pub const ALL: [Self; 4] = [Self::ListElement, Self::BagArrayElement, Self::BagArray, Self::TwoLevel];

    /// The names below the list: of the repeated group, and of the element inside it.
    fn names(self) -> (&'static str, Option<&'static str>) {
        match self {
            Self::ListElement => ("list", Some("element")),
            Self::BagArrayElement => ("bag", Some("array_element")),
            Self::BagArray => ("bag", Some("array")),
            Self::TwoLevel => ("array", None),
        }
    }
}

/// The physical type of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Text,
    Int,
    Long,
    Flag,
}

/// One value of a leaf.
pub enum Cell {
    Text(String),
    Int(i32),
    Long(i64),
    Flag(bool),
}

/// A leaf's accessor: the row, and the position in the list (0 outside of lists).
pub type Get<R> = fn(&R, usize) -> Option<Cell>;

/// A leaf column, at the top level or within a struct.
pub struct Field<R> {
    pub name: String,
    pub kind: Kind,
    pub get: Get<R>,
    pub required: bool,
}

impl<R> Field<R> {
    /// A nullable leaf.
    pub fn new(name: impl Into<String>, kind: Kind, get: Get<R>) -> Self {
        Self { name: name.into(), kind, get, required: false }
    }

    fn schema(&self) -> Result<TypePtr> {
        let (physical, logical) = match self.kind {
            Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Kind::Int => (Physical::INT32, None),
            Kind::Long => (Physical::INT64, None),
            Kind::Flag => (Physical::BOOLEAN, None),
        };
        let leaf = Type::primitive_type_builder(&self.name, physical)
            .with_repetition(repetition(self.required))
            .with_logical_type(logical);
        Ok(Arc::new(leaf.build()?))
    }
}

/// A top-level column of a file.
pub enum Column<R> {
    Flat(Field<R>),
    Group {
        name: &'static str,
        present: fn(&R) -> bool,
        fields: Vec<Field<R>>,
        required: bool,
    },
    List {
        name: &'static str,
        layout: ListLayout,
        len: fn(&R) -> Option<usize>,
        element_present: fn(&R, usize) -> bool,
        fields: Vec<Field<R>>,
        required: bool,
        element_required: bool,
    },
}

impl<R> Column<R> {
    /// The column's name in the schema.
    pub fn name(&self) -> &str {
        match self {
            Self::Flat(field) => &field.name,
            Self::Group { name, .. } | Self::List { name, .. } => name,
        }
    }

    /// Declares required everything that `rows` allow: a node is required if it is never null where its parent is
    /// present.
    pub fn require(&mut self, rows: &[R]) {
        match self {
            Self::Flat(field) => field.required = rows.iter().all(|row| (field.get)(row, 0).is_some()),
            Self::Group { present, fields, required, .. } => {
                *required = rows.iter().all(*present);
                for field in fields {
                    let mut there = rows.iter().filter(|row| present(row));
                    field.required = there.all(|row| (field.get)(row, 0).is_some());
                }
            }
            Self::List { len, element_present, fields, required, element_required, .. } => {
                *required = rows.iter().all(|row| len(row).is_some());
                let spots =
                    || rows.iter().flat_map(|row| (0..len(row).unwrap_or(0)).map(move |at| (row, at)));
                *element_required = spots().all(|(row, at)| element_present(row, at));
                for field in fields {
                    let mut there = spots().filter(|(row, at)| element_present(row, *at));
                    field.required = there.all(|(row, at)| (field.get)(row, at).is_some());
                }
            }
        }
    }

    /// The column's type in the file's schema.
    pub fn schema(&self) -> Result<TypePtr> {
        match self {
            Self::Flat(field) => field.schema(),
            Self::Group { name, fields, required, .. } => {
                group(name, repetition(*required), None, schemas(fields)?)
            }
            Self::List { name, layout, fields, required, element_required, .. } => {
                let (repeated, element) = layout.names();
                let inner = match element {
                    Some(element) => {
                        vec![group(element, repetition(*element_required), None, schemas(fields)?)?]
                    }
                    None => schemas(fields)?,
                };
                let middle = group(repeated, Repetition::REPEATED, None, inner)?;
                group(name, repetition(*required), Some(ConvertedType::LIST), vec![middle])
            }
        }
    }

    /// The leaves of `rows`, in the order of the schema.
    pub fn leaves(&self, rows: &[R]) -> Vec<Leaf> {
        match self {
            Self::Flat(field) => vec![flat_leaf(field, rows)],
            Self::Group { present, fields, required, .. } => {
                fields.iter().map(|field| group_leaf(field, rows, *present, *required)).collect()
            }
            Self::List { .. } => self.list_leaves(rows),
        }
    }

    fn list_leaves(&self, rows: &[R]) -> Vec<Leaf> {
        let Self::List { layout, len, element_present, fields, required, element_required, .. } = self else {
            return Vec::new();
        };
        let three_levels = *layout != ListLayout::TwoLevel;
        let list = i16::from(!required);
        let element = list + 1 + i16::from(three_levels && !element_required);
        let shred = |field: &Field<R>| {
            let mut leaf = Leaf::new(field.kind);
            for row in rows {
                match len(row) {
                    None => leaf.push_null(0, 0),
                    Some(0) => leaf.push_null(list, 0),
                    Some(n) => (0..n).for_each(|at| {
                        let repeated = i16::from(at > 0);
                        if three_levels && !element_present(row, at) {
                            leaf.push_null(list + 1, repeated);
                        } else {
                            leaf.push((field.get)(row, at), element, field.required, repeated);
                        }
                    }),
                }
            }
            leaf
        };
        fields.iter().map(shred).collect()
    }
}

/// One leaf of a row group: the values that are present, and all levels.
pub struct Leaf {
    pub values: Values,
    pub definitions: Vec<i16>,
    pub repetitions: Vec<i16>,
}

/// The values of a leaf without its nulls.
pub enum Values {
    Text(Vec<ByteArray>),
    Int(Vec<i32>),
    Long(Vec<i64>),
    Flag(Vec<bool>),
}

impl Leaf {
    fn new(kind: Kind) -> Self {
        let values = match kind {
            Kind::Text => Values::Text(Vec::new()),
            Kind::Int => Values::Int(Vec::new()),
            Kind::Long => Values::Long(Vec::new()),
            Kind::Flag => Values::Flag(Vec::new()),
        };
        Self { values, definitions: Vec::new(), repetitions: Vec::new() }
    }

    fn push_null(&mut self, definition: i16, repetition: i16) {
        self.definitions.push(definition);
        self.repetitions.push(repetition);
    }

    /// `parent` is the definition level at which the leaf's parent is present.
    fn push(&mut self, cell: Option<Cell>, parent: i16, required: bool, repetition: i16) {
        let full = parent + i16::from(!required);
        match (cell, &mut self.values) {
            (Some(Cell::Text(value)), Values::Text(values)) => values.push(value.into_bytes().into()),
            (Some(Cell::Int(value)), Values::Int(values)) => values.push(value),
            (Some(Cell::Long(value)), Values::Long(values)) => values.push(value),
            (Some(Cell::Flag(value)), Values::Flag(values)) => values.push(value),
            (None, _) if !required => return self.push_null(parent, repetition),
            _ => panic!("a field's accessor does not give what its kind says"),
        }
        self.push_null(full, repetition);
    }
}

fn flat_leaf<R>(field: &Field<R>, rows: &[R]) -> Leaf {
    let mut leaf = Leaf::new(field.kind);
    for row in rows {
        leaf.push((field.get)(row, 0), 0, field.required, 0);
    }
    leaf
}

fn group_leaf<R>(field: &Field<R>, rows: &[R], present: fn(&R) -> bool, required: bool) -> Leaf {
    let mut leaf = Leaf::new(field.kind);
    for row in rows {
        if present(row) {
            leaf.push((field.get)(row, 0), i16::from(!required), field.required, 0);
        } else {
            leaf.push_null(0, 0);
        }
    }
    leaf
}

fn repetition(required: bool) -> Repetition {
    if required { Repetition::REQUIRED } else { Repetition::OPTIONAL }
}

fn schemas<R>(fields: &[Field<R>]) -> Result<Vec<TypePtr>> {
    let names: HashSet<&str> = fields.iter().map(|field| field.name.as_str()).collect();
    assert_eq!(names.len(), fields.len(), "two fields of one name");
    fields.iter().map(Field::schema).collect()
}

fn group(
    name: &str,
    repetition: Repetition,
    converted: Option<ConvertedType>,
    fields: Vec<TypePtr>,
) -> Result<TypePtr> {
    let built = Type::group_type_builder(name)
        .with_repetition(repetition)
        .with_converted_type(converted.unwrap_or(ConvertedType::NONE))
        .with_fields(fields);
    Ok(Arc::new(built.build()?))
}
