//! The tables of `deploy/docs/json.md`: which fields an answer has, and their types.
//!
//! Not here: the answers (`tests/json_output.rs`).

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

/// The page, by the titles of its sections: each documented path with its type.
#[derive(Debug)]
pub struct JsonDocs(BTreeMap<String, Vec<Field>>);

#[derive(Clone, Debug)]
struct Field {
    /// Such as `stages[].name`.
    path: String,
    /// Such as `string or null`.
    kind: String,
}

impl JsonDocs {
    /// Reads the page of the source tree.
    ///
    /// # Errors
    /// It cannot be read, or has a row of another form.
    pub fn read() -> Result<Self> {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/docs/json.md");
        Self::parse(&std::fs::read_to_string(page)?)
    }

    fn parse(text: &str) -> Result<Self> {
        let mut sections = BTreeMap::new();
        for section in text.split("\n## ").skip(1) {
            let (title, body) = section.split_once('\n').context("a section without a body")?;
            let rows = body.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| field |"));
            let fields = rows.map(|row| {
                let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
                let [path, kind, _] = cells[..] else { bail!("{title}: {row}") };
                Ok(Field { path: path.into(), kind: kind.into() })
            });
            sections.insert(title.trim().to_string(), fields.collect::<Result<Vec<_>>>()?);
        }
        Ok(JsonDocs(sections))
    }

    /// The titles of all sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Checks an answer against a section: it has each documented field, with its type, and no other one.
    ///
    /// # Errors
    /// Names the fields that differ.
    pub fn check(&self, section: &str, answer: &Value) -> Result<()> {
        self.check_without(section, &[], answer)
    }

    /// The same, except for these fields of the section.
    ///
    /// # Errors
    /// As [`JsonDocs::check`].
    pub fn check_without(&self, section: &str, without: &[&str], answer: &Value) -> Result<()> {
        let fields = self.0.get(section).with_context(|| format!("json.md has no section {section:?}"))?;
        let fields: Vec<Field> =
            fields.iter().filter(|field| !without.contains(&field.path.as_str())).cloned().collect();
        let mut wrong = vec![];
        compare("", answer, &fields, &mut wrong);
        ensure!(wrong.is_empty(), "{section}: {}\n{answer}", wrong.join("; "));
        Ok(())
    }
}

/// Notes where a value differs from the fields whose paths start with `path`.
fn compare(path: &str, value: &Value, fields: &[Field], wrong: &mut Vec<String>) {
    if let Some(field) = fields.iter().find(|field| field.path == path) {
        if !field.kind.split(" or ").any(|kind| is_kind(kind.split(',').next().unwrap_or(kind), value)) {
            wrong.push(format!("{path} is not {}", field.kind));
        }
        // The fields of an object may be documented, too.
        if !value.is_object() || !fields.iter().any(|field| field.path.starts_with(&format!("{path}."))) {
            return;
        }
    }
    match value {
        Value::Array(values) if fields.iter().any(|field| field.path.starts_with(&format!("{path}[]"))) => {
            values.iter().for_each(|value| compare(&format!("{path}[]"), value, fields, wrong));
        }
        Value::Object(object) => {
            let dot = if path.is_empty() { String::new() } else { format!("{path}.") };
            let below = |name: &String| format!("{dot}{name}");
            object.iter().for_each(|(name, value)| compare(&below(name), value, fields, wrong));
            for field in fields {
                let Some(rest) = field.path.strip_prefix(&dot) else { continue };
                let name = rest.split(['.', '[']).next().unwrap_or(rest);
                // If the object has a row of its own, that says whether it can be missing.
                if rest != name && fields.iter().any(|other| other.path == format!("{dot}{name}")) {
                    continue;
                }
                if !object.contains_key(name) && !field.kind.contains("optional") {
                    wrong.push(format!("{dot}{name} is missing"));
                }
            }
        }
        _ => wrong.push(format!("{path} is not documented")),
    }
}

fn is_kind(kind: &str, value: &Value) -> bool {
    match kind.trim() {
        "string" => value.is_string(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PAGE: &str = "# Page\n\n## one\n\nText.\n\n| field | type | meaning |\n|---|---|---|\n| a | integer | x |\n\
                        | b[].c | string or null | y |\n| d | object, optional | z |\n| e | object or null, optional | z |\n| e.f | integer | z |\n";

    #[test]
    fn an_answer_has_all_documented_fields_and_no_others() {
        let docs = JsonDocs::parse(PAGE).unwrap();
        let wrong = |answer: Value| docs.check("one", &answer).map_err(|e| e.to_string());
        assert_eq!(wrong(json!({ "a": 1, "b": [{ "c": "x" }, { "c": null }] })), Ok(()));
        assert_eq!(wrong(json!({ "a": 1, "b": [], "d": { "any": 1 } })), Ok(()));
        assert_eq!(wrong(json!({ "a": 1, "b": [], "e": null })), Ok(()));
        assert_eq!(wrong(json!({ "a": 1, "b": [], "e": { "f": 1 } })), Ok(()));
        for (answer, said) in [
            (json!({ "b": [] }), "a is missing"),
            (json!({ "a": "1", "b": [] }), "a is not integer"),
            (json!({ "a": 1, "b": [{}] }), "b[].c is missing"),
            (json!({ "a": 1, "b": [{ "c": "x", "e": 1 }] }), "b[].e is not documented"),
            (json!({ "a": 1, "b": [], "g": 1 }), "g is not documented"),
            (json!({ "a": 1, "b": [], "e": {} }), "e.f is missing"),
            (json!({ "a": 1, "b": [], "e": { "f": 1, "g": 1 } }), "e.g is not documented"),
            (json!({ "a": 1, "b": [], "e": 1 }), "e is not object"),
            (json!({ "a": 1, "b": [1] }), "b[] is not documented"),
        ] {
            let error = wrong(answer).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
        assert!(docs.check("two", &json!({})).is_err());
    }
}
