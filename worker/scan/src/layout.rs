//! A walk through a file's schema: which field has a name, and which group is the element of a list.
//!
//! Names match without regard to letter case, as in Spark: a field of exactly the name takes precedence, otherwise the
//! only field that differs in case.
//!
//! Lists have several layouts: three levels (`list.element`, `bag.array_element`, `bag.array`), two levels (`array`),
//! or a bare repeated group. The layout is determined by the format's rules for old writers, not by the names of one
//! writer. Not here: which columns are needed, and their types (`resolve`).

use parquet::basic::{ConvertedType, LogicalType, Repetition};
use parquet::schema::types::Type;

/// Fields of the same name that a message names.
const MAX_NAMED: usize = 4;

/// The path from the root so far, and its definition level.
#[derive(Default)]
pub(crate) struct Walk {
    pub(crate) names: Vec<String>,
    def: i16,
}

impl Walk {
    /// The names of fields of the current group, with their paths. A few are enough.
    pub(crate) fn joined(&self, names: &[&str]) -> String {
        let path = |name: &&str| [&self.names[..], &[(*name).to_string()]].concat().join(".");
        let named = names.iter().take(MAX_NAMED).map(path).collect::<Vec<_>>().join(" and ");
        match names.len().saturating_sub(MAX_NAMED) {
            0 => named,
            more => format!("{named} and {more} more"),
        }
    }

    pub(crate) fn enter(&mut self, node: &Type) {
        self.names.push(node.name().to_string());
        self.def += i16::from(!is(node, Repetition::REQUIRED));
    }

    /// Enters the element of a list. It may have any of `fields`.
    pub(crate) fn element<'a>(&mut self, list: &'a Type, fields: &[&str]) -> Result<Element<'a>, OtherType> {
        if is_map(list) {
            return Err(OtherType(describe(list)));
        }
        if is(list, Repetition::REPEATED) {
            return group(list).map(Element);
        }
        let [repeated] = group(list)?.get_fields() else { return Err(OtherType(describe(list))) };
        if !is(repeated, Repetition::REPEATED) || is_map(repeated) {
            return Err(OtherType(describe(list)));
        }
        self.enter(repeated);
        let inner = group(repeated)?.get_fields();
        let two_levels = inner.len() != 1
            || repeated.name() == "array"
            || repeated.name() == format!("{}_tuple", list.name())
            || (!inner[0].is_group() && fields.iter().any(|field| same(inner[0].name(), field)));
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

/// The group that is the element of a list.
pub(crate) struct Element<'a>(pub(crate) &'a Type);

impl Element<'_> {
    /// The lowest definition level at which there is an element, after `walk` entered it.
    pub(crate) fn level(&self, walk: &Walk) -> i16 {
        walk.def - i16::from(is(self.0, Repetition::OPTIONAL))
    }
}

/// The description of a type that the needed column cannot have.
pub(crate) struct OtherType(pub(crate) String);

fn group(node: &Type) -> Result<&Type, OtherType> {
    if node.is_group() { Ok(node) } else { Err(OtherType(describe(node))) }
}

/// The field that matches a name, or the names of several that match.
pub(crate) fn child<'a>(node: &'a Type, name: &str) -> Result<Option<&'a Type>, Vec<&'a str>> {
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

pub(crate) fn is(node: &Type, repetition: Repetition) -> bool {
    let info = node.get_basic_info();
    info.has_repetition() && info.repetition() == repetition
}

fn is_map(node: &Type) -> bool {
    let info = node.get_basic_info();
    matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
        || matches!(info.logical_type_ref(), Some(LogicalType::Map))
}

pub(crate) fn is_list(node: &Type) -> bool {
    let info = node.get_basic_info();
    is_map(node)
        || info.converted_type() == ConvertedType::LIST
        || matches!(info.logical_type_ref(), Some(LogicalType::List))
}

/// The description of a type in messages.
pub(crate) fn describe(node: &Type) -> String {
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
