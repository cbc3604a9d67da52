//! Finds the needed columns in a file's schema, and checks their types.
//!
//! Not here: how names match, and the layouts of lists (`layout`).

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::{SchemaDescriptor, Type};
use tally_dataset::{ColumnKind, ColumnSpec, ElementKind, TableSpec, Width};

use crate::layout::{OtherType, Walk, child, describe, is, is_list};

/// A needed leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its index among the file's leaves.
    pub index: usize,
    /// For lists, the lowest definition level at which there is an element.
    pub element_def: i16,
    /// For integers that may have either width, theirs.
    pub width: Option<Width>,
}

/// The result of a lookup of a needed column in a schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// No field has the name.
    Missing,
    /// The leaf.
    Found(Leaf),
    /// The field has another type, which is described.
    WrongType(String),
    /// Several fields match the name; their names.
    Ambiguous(String),
}

/// The name of a column kind in messages.
pub fn kind_name(kind: ColumnKind) -> &'static str {
    match kind {
        ColumnKind::Bool => "boolean",
        ColumnKind::Int64 => "64-bit integer",
        ColumnKind::Text => "string",
        ColumnKind::ListMinInt32 => "32-bit integer in a list",
        ColumnKind::Int => "32-bit or 64-bit integer",
        ColumnKind::Element(ElementKind::Bool) => "boolean in a list",
        ColumnKind::Element(ElementKind::Int) => "32-bit or 64-bit integer in a list",
        ColumnKind::Element(ElementKind::Text) => "string in a list",
    }
}

/// The columns of a table in a file's schema.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableLookup {
    /// By column of the table.
    pub columns: Box<[Lookup]>,
    /// If the file has the list but none of the needed fields of its elements: a leaf of the list, from whose levels the
    /// elements are counted.
    pub shape: Option<Leaf>,
}

impl TableLookup {
    /// The columns of `table` that exist in the file, with their leaves.
    pub fn leaves<'a>(
        &'a self,
        table: &'a TableSpec,
    ) -> impl Iterator<Item = (&'a ColumnSpec, usize)> + Clone {
        let pairs = table.columns.iter().zip(&self.columns);
        let found = pairs.filter_map(|(spec, lookup)| match lookup {
            Lookup::Found(leaf) => Some((spec, leaf.index)),
            _ => None,
        });
        let elements = table.columns.iter().find(|spec| is_element(spec));
        found.chain(elements.zip(self.shape).map(|(spec, leaf)| (spec, leaf.index)))
    }
}

/// Whether a column is a field of the elements that are delivered one by one.
pub(crate) fn is_element(spec: &ColumnSpec) -> bool {
    matches!(spec.kind, ColumnKind::Element(_))
}

/// Looks up the columns of a table in a file's schema.
pub fn lookup(schema: &SchemaDescriptor, table: &TableSpec) -> TableLookup {
    let elements = || table.columns.iter().filter(|spec| is_element(spec));
    let fields: Vec<&str> = elements().filter_map(|spec| spec.path.get(1).copied()).collect();
    let list = elements().next().map(|spec| spec.path[0]);
    let columns = table.columns.iter().map(|spec| match is_element(spec) {
        true if list != Some(spec.path[0]) => Lookup::WrongType("a field of a second list".into()),
        true => lookup_column(schema, spec, &fields),
        false => lookup_column(schema, spec, &spec.path[1..]),
    });
    let columns: Box<[Lookup]> = columns.collect();
    let mut found = table.columns.iter().zip(&columns).filter(|(spec, _)| is_element(spec));
    let none = found.all(|(_, lookup)| *lookup == Lookup::Missing);
    let shape = list.filter(|_| none).and_then(|list| shape(schema, list, &fields));
    TableLookup { columns, shape }
}

/// A leaf of a list whose elements have none of these fields.
fn shape(schema: &SchemaDescriptor, list: &str, fields: &[&str]) -> Option<Leaf> {
    let mut walk = Walk::default();
    let list = child(schema.root_schema(), list).ok()??;
    walk.enter(list);
    let element_def = walk.element(list, fields).ok()?.level(&walk);
    let leaves = schema.columns().iter().enumerate();
    let mine = leaves.filter(|(_, leaf)| leaf.path().parts().starts_with(&walk.names));
    // A leaf that is in a further list has more levels, and strings take more bytes than numbers.
    let (index, _) = mine.min_by_key(|(index, leaf)| {
        let text = matches!(leaf.physical_type(), Physical::BYTE_ARRAY | Physical::FIXED_LEN_BYTE_ARRAY);
        (leaf.max_rep_level(), leaf.physical_type() != Physical::BOOLEAN, text, *index)
    })?;
    Some(Leaf { index, element_def, width: None })
}

/// Looks up a column. The elements of its list may have any of `fields`.
fn lookup_column(schema: &SchemaDescriptor, spec: &ColumnSpec, fields: &[&str]) -> Lookup {
    let mut walk = Walk::default();
    let mut node = schema.root_schema();
    let mut element_def = 0;
    let last = spec.path.len() - 1;
    for (depth, name) in spec.path.iter().enumerate() {
        node = match child(node, name) {
            Ok(Some(child)) => child,
            Ok(None) => return Lookup::Missing,
            Err(names) => return Lookup::Ambiguous(walk.joined(&names)),
        };
        walk.enter(node);
        if depth == last {
            break;
        }
        if (spec.kind == ColumnKind::ListMinInt32 || is_element(spec)) && depth == 0 {
            match walk.element(node, fields) {
                Ok(element) => {
                    element_def = element.level(&walk);
                    node = element.0;
                }
                Err(OtherType(found)) => return Lookup::WrongType(found),
            }
        } else if !node.is_group() || is(node, Repetition::REPEATED) || is_list(node) {
            return Lookup::WrongType(describe(node));
        }
    }
    if !fits(node, spec.kind) {
        return Lookup::WrongType(describe(node));
    }
    let width = match spec.kind {
        ColumnKind::Int | ColumnKind::Element(ElementKind::Int) => Some(match node.get_physical_type() {
            Physical::INT32 => Width::W32,
            _ => Width::W64,
        }),
        _ => None,
    };
    let found = schema.columns().iter().position(|c| c.path().parts() == walk.names.as_slice());
    match found {
        Some(index) => Lookup::Found(Leaf { index, element_def, width }),
        None => Lookup::Missing,
    }
}

fn fits(node: &Type, kind: ColumnKind) -> bool {
    if node.is_group() || is(node, Repetition::REPEATED) {
        return false;
    }
    let converted = node.get_basic_info().converted_type();
    let logical = node.get_basic_info().logical_type_ref();
    let plain = logical.is_none() && converted == ConvertedType::NONE;
    let signed = |width: i8, old: ConvertedType| {
        plain
            || converted == old
            || matches!(logical, Some(LogicalType::Integer(i)) if i.bit_width == width && i.is_signed)
    };
    use ColumnKind::{Bool, Element, Int, Int64, ListMinInt32, Text};
    match (kind, node.get_physical_type()) {
        (Bool | Element(ElementKind::Bool), Physical::BOOLEAN) => true,
        (Int64 | Int | Element(ElementKind::Int), Physical::INT64) => signed(64, ConvertedType::INT_64),
        (ListMinInt32 | Int | Element(ElementKind::Int), Physical::INT32) => {
            signed(32, ConvertedType::INT_32)
        }
        (Text | Element(ElementKind::Text), Physical::BYTE_ARRAY) => {
            plain
                || matches!(converted, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
                || matches!(logical, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;
    use tally_dataset::Missing;

    fn check(message: &str, path: &'static [&'static str], kind: ColumnKind, expect: Lookup) {
        let schema = SchemaDescriptor::new(Arc::new(parse_message_type(message).unwrap()));
        let spec = ColumnSpec { path, kind, filter: false, missing: Missing::IsNull };
        assert_eq!(lookup_column(&schema, &spec, &path[1..]), expect, "{message}");
    }

    fn list(body: &str, expect: Lookup) {
        let message = format!("message m {{ optional int32 before; {body} }}");
        check(&message, &["addons", "day"], ColumnKind::ListMinInt32, expect);
    }

    fn at(element_def: i16) -> Lookup {
        Lookup::Found(Leaf { index: 1, element_def, width: None })
    }

    #[test]
    fn every_list_layout_has_its_leaf_and_element_level() {
        let three = |middle: &str, inner: &str| {
            format!(
                "optional group addons (LIST) {{ repeated group {middle} {{ optional group {inner} {{ optional int32 day; }} }} }}"
            )
        };
        list(&three("list", "element"), at(2));
        list(&three("bag", "array_element"), at(2));
        list(&three("bag", "array"), at(2));
        list("optional group addons (LIST) { repeated group array { optional int32 day; } }", at(2));
        list("required group addons (LIST) { repeated group addons_tuple { optional int32 day; } }", at(1));
        list(
            "optional group addons (LIST) { repeated group x { optional int32 day; optional int32 e; } }",
            at(2),
        );
        list("repeated group addons { optional int32 day; }", at(1));
        list(
            "required group addons (LIST) { repeated group list { required group element { required int32 day; } } }",
            at(1),
        );
    }

    /// A table of a list's fields `a` (string) and `b` (integer), and a column `n`.
    fn elements(message: &str) -> TableLookup {
        let column = |path, kind| ColumnSpec { path, kind, filter: false, missing: Missing::IsNull };
        let columns = vec![
            column(&["l", "a"], ColumnKind::Element(ElementKind::Text)),
            column(&["l", "b"], ColumnKind::Element(ElementKind::Int)),
            column(&["n"], ColumnKind::Int),
        ];
        let schema = SchemaDescriptor::new(Arc::new(parse_message_type(message).unwrap()));
        lookup(&schema, &TableSpec { name: "t", help: "", columns })
    }

    #[test]
    fn a_list_without_needed_fields_has_a_leaf_that_tells_its_shape() {
        let found = |index, element_def, width| Lookup::Found(Leaf { index, element_def, width });
        let three = |fields: &str| {
            format!(
                "message m {{ optional int64 n; optional group l (LIST) {{ repeated group list {{ optional group element {{ {fields} }} }} }} }}"
            )
        };
        let all = elements(&three("optional int32 b; optional binary a;"));
        let expected = [found(2, 2, None), found(1, 2, Some(Width::W32)), found(0, 0, Some(Width::W64))];
        assert_eq!((&*all.columns, all.shape), (&expected[..], None));
        let one = elements(&three("optional int64 b;"));
        assert_eq!((&one.columns[0], one.shape), (&Lookup::Missing, None));
        assert_eq!(one.columns[1], found(1, 2, Some(Width::W64)));
        // Rather a flat leaf than one in a further list, rather a boolean than a number, rather that than a string.
        for (fields, shape) in [
            ("optional binary x; optional int64 y;", 2),
            ("optional binary x; optional int64 y; optional boolean z;", 3),
            ("repeated boolean x; optional binary y;", 2),
            ("optional group x { repeated int32 y; }", 1),
        ] {
            let none = elements(&three(fields));
            assert_eq!(none.columns[..2], [Lookup::Missing, Lookup::Missing], "{fields}");
            assert_eq!(none.shape, Some(Leaf { index: shape, element_def: 2, width: None }), "{fields}");
        }
        let none = elements("message m { optional int32 n; }");
        assert_eq!((&none.columns[..2], none.shape), (&[Lookup::Missing, Lookup::Missing][..], None));
    }

    #[test]
    fn a_repeated_group_of_one_needed_field_is_the_element() {
        for (field, at) in [("optional binary a;", 0), ("optional int32 B;", 1)] {
            let found = elements(&format!(
                "message m {{ optional group l (LIST) {{ repeated group x {{ {field} }} }} }}"
            ));
            assert!(
                matches!(found.columns[at], Lookup::Found(Leaf { index: 0, element_def: 2, .. })),
                "{field}"
            );
            assert_eq!(found.columns[1 - at], Lookup::Missing, "{field}");
        }
        let list = elements(
            "message m { optional group l (LIST) { repeated group list { optional int32 element; } } }",
        );
        assert_eq!(list.columns[..2], [Lookup::WrongType("INT32".into()), Lookup::WrongType("INT32".into())]);
    }

    #[test]
    fn all_elements_of_a_table_are_fields_of_one_list() {
        let column = |path| ColumnSpec {
            path,
            kind: ColumnKind::Element(ElementKind::Bool),
            filter: false,
            missing: Missing::IsNull,
        };
        let columns = vec![column(&["l", "a"]), column(&["k", "a"])];
        let list = |name: &str| format!("repeated group {name} {{ optional boolean a; }}");
        let message = parse_message_type(&format!("message m {{ {} {} }}", list("l"), list("k"))).unwrap();
        let found =
            lookup(&SchemaDescriptor::new(Arc::new(message)), &TableSpec { name: "t", help: "", columns });
        assert!(matches!(&found.columns[..], [Lookup::Found(_), Lookup::WrongType(_)]), "{found:?}");
    }

    #[test]
    fn names_match_without_regard_to_letter_case_the_exact_one_first() {
        let case = |body: &str, path, expect| {
            check(&format!("message m {{ {body} }}"), path, ColumnKind::Text, expect);
        };
        let found = |index| Lookup::Found(Leaf { index, element_def: 0, width: None });
        let ambiguous = |names: &str| Lookup::Ambiguous(names.into());
        case("optional binary Client_ID (UTF8);", &["client_id"], found(0));
        case("optional binary Client_ID; optional binary client_id;", &["client_id"], found(1));
        case("optional binary client_id; optional binary CLIENT_ID;", &["client_id"], found(0));
        case(
            "optional binary Client_ID; optional binary x; optional binary CLIENT_ID;",
            &["client_id"],
            ambiguous("Client_ID and CLIENT_ID"),
        );
        case("optional binary id; optional binary id;", &["id"], ambiguous("id and id"));
        // Not only in ASCII: the lower case of a Kelvin sign is k.
        case("optional binary \u{212a}ey;", &["key"], found(0));
        let theme = |body: &str, expect| {
            case(&format!("optional group Active_Theme {{ {body} }}"), &["active_theme", "addon_id"], expect);
        };
        theme("optional binary name; optional binary ADDON_ID;", found(1));
        theme(
            "optional binary Addon_Id; optional binary ADDON_ID;",
            ambiguous("Active_Theme.Addon_Id and Active_Theme.ADDON_ID"),
        );
        theme("optional binary addonid;", Lookup::Missing);
        // A name that contains a dot is not a path.
        case("optional binary active_theme.addon_id;", &["active_theme", "addon_id"], Lookup::Missing);
    }

    #[test]
    fn fields_of_lists_match_without_regard_to_letter_case() {
        let three = |field: &str| {
            format!(
                "optional group ADDONS (LIST) {{ repeated group list {{ optional group element {{ {field} }} }} }}"
            )
        };
        list(&three("optional int32 Day;"), at(2));
        list(
            &three("optional int32 Day; optional int32 DAY;"),
            Lookup::Ambiguous("ADDONS.list.element.Day and ADDONS.list.element.DAY".into()),
        );
        list("optional group Addons (LIST) { repeated group array { optional int32 DAY; } }", at(2));
        list("optional group Addons (LIST) { repeated group x { optional int32 DAY; } }", at(2));
        list("repeated group Addons { optional int32 dAY; }", at(1));
    }

    #[test]
    fn annotations_that_spark_reads_as_the_type_fit() {
        let one = |column: &str, kind, fits: bool| {
            let schema = parse_message_type(&format!("message m {{ optional {column}; }}")).unwrap();
            let found = lookup_column(
                &SchemaDescriptor::new(Arc::new(schema)),
                &ColumnSpec { path: &["c"], kind, filter: false, missing: Missing::IsNull },
                &[],
            );
            assert_eq!(matches!(found, Lookup::Found(_)), fits, "{column}: {found:?}");
        };
        for annotation in ["", "(UTF8)", "(STRING)", "(ENUM)", "(JSON)"] {
            one(&format!("binary c {annotation}"), ColumnKind::Text, true);
        }
        for column in
            ["binary c (BSON)", "binary c (DECIMAL(9, 2))", "fixed_len_byte_array(16) c (UUID)", "int32 c"]
        {
            one(column, ColumnKind::Text, false);
        }
        for annotation in ["", "(INT_64)", "(INTEGER(64, true))"] {
            one(&format!("int64 c {annotation}"), ColumnKind::Int64, true);
        }
        for column in [
            "int64 c (UINT_64)",
            "int64 c (INTEGER(64, false))",
            "int64 c (TIMESTAMP(MILLIS, true))",
            "int64 c (TIME_MICROS)",
            "int64 c (DECIMAL(9, 2))",
            "int32 c",
            "double c",
        ] {
            one(column, ColumnKind::Int64, false);
        }
    }

    #[test]
    fn other_types_are_described() {
        list(
            "optional group addons (LIST) { repeated group list { optional group element { optional int64 day; } } }",
            Lookup::WrongType("INT64".into()),
        );
        list("optional int32 addons;", Lookup::WrongType("INT32".into()));
        list(
            "optional group addons (LIST) { repeated group list { optional group element { optional int32 other; } } }",
            Lookup::Missing,
        );
        list(
            "optional group addons (MAP) { repeated group key_value { required binary key (UTF8); optional group value { optional int32 day; } } }",
            Lookup::WrongType("list or map".into()),
        );
        list(
            "optional group addons (LIST) { repeated group list { optional group element (LIST) { repeated group list { optional group element { optional int32 day; } } } } }",
            Lookup::WrongType("list or map of list or map".into()),
        );
        let theme: &[&str] = &["theme", "id"];
        check(
            "message m { optional group theme { optional binary id (UTF8); } }",
            theme,
            ColumnKind::Text,
            Lookup::Found(Leaf { index: 0, element_def: 0, width: None }),
        );
        check(
            "message m { optional group theme { optional binary x (UTF8); } }",
            theme,
            ColumnKind::Text,
            Lookup::Missing,
        );
        check(
            "message m { optional binary theme (UTF8); }",
            theme,
            ColumnKind::Text,
            Lookup::WrongType("BYTE_ARRAY (UTF8)".into()),
        );
        check(
            "message m { optional int64 day (TIMESTAMP_MILLIS); }",
            &["day"],
            ColumnKind::Int64,
            Lookup::WrongType("INT64 (TIMESTAMP_MILLIS)".into()),
        );
    }
}
