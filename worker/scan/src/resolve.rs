//! Finds the needed columns in a file's schema, and checks their types.
//!
//! Names match without regard to letter case, as in Spark: a field of exactly the name takes precedence, otherwise the
//! only field that differs in case.
//!
//! Lists have several layouts: three levels (`list.element`, `bag.array_element`, `bag.array`), two levels (`array`),
//! or a bare repeated group. The layout is determined by the format's rules for old writers, not by the names of one
//! writer.

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::{SchemaDescriptor, Type};
use tally_dataset::{ColumnKind, ColumnSpec, ElementKind, TableSpec};

/// Fields of the same name that a message names.
const MAX_NAMED: usize = 4;

/// A needed leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Its index among the file's leaves.
    pub index: usize,
    /// For lists, the lowest definition level at which there is an element.
    pub element_def: i16,
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

/// The columns of a table that exist in a file, with their leaves. `found` has a lookup for each of the table's
/// columns.
pub fn leaves<'a>(
    table: &'a TableSpec,
    found: &'a [Lookup],
) -> impl Iterator<Item = (&'a ColumnSpec, usize)> + Clone {
    table.columns.iter().zip(found).filter_map(|(spec, lookup)| match lookup {
        Lookup::Found(leaf) => Some((spec, leaf.index)),
        _ => None,
    })
}

/// Looks up a column of the specification in a file's schema.
pub fn lookup(schema: &SchemaDescriptor, spec: &ColumnSpec) -> Lookup {
    let mut walk = Walk { names: vec![], def: 0 };
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
        if spec.kind == ColumnKind::ListMinInt32 && depth == 0 {
            match walk.element(node, spec.path[1]) {
                Ok(element) => node = element.0,
                Err(OtherType(found)) => return Lookup::WrongType(found),
            }
            element_def = walk.def - i16::from(is(node, Repetition::OPTIONAL));
        } else if !node.is_group() || is(node, Repetition::REPEATED) || is_list(node) {
            return Lookup::WrongType(describe(node));
        }
    }
    if !fits(node, spec.kind) {
        return Lookup::WrongType(describe(node));
    }
    let found = schema.columns().iter().position(|c| c.path().parts() == walk.names.as_slice());
    match found {
        Some(index) => Lookup::Found(Leaf { index, element_def }),
        None => Lookup::Missing,
    }
}

/// The path from the root so far, and its definition level.
struct Walk {
    names: Vec<String>,
    def: i16,
}

impl Walk {
    /// The names of fields of the current group, with their paths. A few are enough.
    fn joined(&self, names: &[&str]) -> String {
        let path = |name: &&str| [&self.names[..], &[(*name).to_string()]].concat().join(".");
        let named = names.iter().take(MAX_NAMED).map(path).collect::<Vec<_>>().join(" and ");
        match names.len().saturating_sub(MAX_NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    fn enter(&mut self, node: &Type) {
        self.names.push(node.name().to_string());
        self.def += i16::from(!is(node, Repetition::REQUIRED));
    }

    /// Enters the element of a list. `field` is the field of the element that is looked up next.
    fn element<'a>(&mut self, list: &'a Type, field: &str) -> Result<Element<'a>, OtherType> {
        if is_map(list) {
            return Err(OtherType(describe(list)));
        }
        if is(list, Repetition::REPEATED) {
            return group(list).map(Element);
        }
        let fields = group(list)?.get_fields();
        let [repeated] = fields else { return Err(OtherType(describe(list))) };
        if !is(repeated, Repetition::REPEATED) || is_map(repeated) {
            return Err(OtherType(describe(list)));
        }
        self.enter(repeated);
        let inner = group(repeated)?.get_fields();
        let two_levels = inner.len() != 1
            || repeated.name() == "array"
            || repeated.name() == format!("{}_tuple", list.name())
            || (same(inner[0].name(), field) && !inner[0].is_group());
        if two_levels {
            return Ok(Element(repeated));
        }
        self.enter(&inner[0]);
        if is(&inner[0], Repetition::REPEATED) || is_list(&inner[0]) {
            return Err(OtherType(format!("{} of {}", describe(list), describe(&inner[0]))));
        }
        group(&inner[0]).map(Element)
    }
}

struct Element<'a>(&'a Type);

/// The description of a type that the needed column cannot have.
struct OtherType(String);

fn group(node: &Type) -> Result<&Type, OtherType> {
    if node.is_group() { Ok(node) } else { Err(OtherType(describe(node))) }
}

/// The field that matches a name, or the names of several that match.
fn child<'a>(node: &'a Type, name: &str) -> Result<Option<&'a Type>, Vec<&'a str>> {
    if !node.is_group() {
        return Ok(None);
    }
    let exact: Vec<&Type> = node.get_fields().iter().map(|f| &**f).filter(|f| f.name() == name).collect();
    let found = match exact[..] {
        [] => node.get_fields().iter().map(|f| &**f).filter(|f| same(f.name(), name)).collect(),
        _ => exact,
    };
    match found[..] {
        [] => Ok(None),
        [field] => Ok(Some(field)),
        _ => Err(found.iter().map(|field| field.name()).collect()),
    }
}

/// Whether names are equal without regard to letter case.
fn same(one: &str, other: &str) -> bool {
    one == other || one.to_lowercase() == other.to_lowercase()
}

fn is(node: &Type, repetition: Repetition) -> bool {
    let info = node.get_basic_info();
    info.has_repetition() && info.repetition() == repetition
}

fn is_map(node: &Type) -> bool {
    let info = node.get_basic_info();
    matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
        || matches!(info.logical_type_ref(), Some(LogicalType::Map))
}

fn is_list(node: &Type) -> bool {
    let info = node.get_basic_info();
    is_map(node)
        || info.converted_type() == ConvertedType::LIST
        || matches!(info.logical_type_ref(), Some(LogicalType::List))
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
    match (kind, node.get_physical_type()) {
        (ColumnKind::Bool, Physical::BOOLEAN) => true,
        (ColumnKind::Int64, Physical::INT64) => signed(64, ConvertedType::INT_64),
        (ColumnKind::ListMinInt32, Physical::INT32) => signed(32, ConvertedType::INT_32),
        (ColumnKind::Text, Physical::BYTE_ARRAY) => {
            plain
                || matches!(converted, ConvertedType::UTF8 | ConvertedType::ENUM | ConvertedType::JSON)
                || matches!(logical, Some(LogicalType::String | LogicalType::Enum | LogicalType::Json))
        }
        _ => false,
    }
}

/// The description of a type in messages.
fn describe(node: &Type) -> String {
    let info = node.get_basic_info();
    let repeated = if is(node, Repetition::REPEATED) { "repeated " } else { "" };
    if node.is_group() {
        let what = if is_list(node) { "list or map" } else { "struct" };
        return format!("{repeated}{what}");
    }
    let annotation = match (info.logical_type_ref(), info.converted_type()) {
        (Some(logical), _) => format!(" ({logical:?})"),
        (None, ConvertedType::NONE) => String::new(),
        (None, converted) => format!(" ({converted})"),
    };
    format!("{repeated}{}{annotation}", node.get_physical_type())
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
        assert_eq!(lookup(&schema, &spec), expect, "{message}");
    }

    fn list(body: &str, expect: Lookup) {
        let message = format!("message m {{ optional int32 before; {body} }}");
        check(&message, &["addons", "day"], ColumnKind::ListMinInt32, expect);
    }

    fn at(element_def: i16) -> Lookup {
        Lookup::Found(Leaf { index: 1, element_def })
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

    #[test]
    fn names_match_without_regard_to_letter_case_the_exact_one_first() {
        let case = |body: &str, path, expect| {
            check(&format!("message m {{ {body} }}"), path, ColumnKind::Text, expect);
        };
        let found = |index| Lookup::Found(Leaf { index, element_def: 0 });
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
            let found = lookup(
                &SchemaDescriptor::new(Arc::new(schema)),
                &ColumnSpec { path: &["c"], kind, filter: false, missing: Missing::IsNull },
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
            Lookup::Found(Leaf { index: 0, element_def: 0 }),
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
