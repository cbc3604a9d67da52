//! What the modules of a crate import, from their text. Not here: what they may import (`modules`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A module by its path; empty for the crate's root.
pub type Module = Vec<String>;
/// Modules with their files and their code.
pub type Modules = BTreeMap<Module, (PathBuf, String)>;

/// The paths that a `use` names: `a::{b, c::{d}}` are `a::b` and `a::c::d`.
fn paths(tree: &str) -> Vec<String> {
    let Some((before, inner)) = tree.split_once('{') else {
        return vec![tree.split(" as ").next().unwrap_or_default().trim().into()];
    };
    let inner = inner.rsplit_once('}').map_or(inner, |(inner, _)| inner);
    let mut depth = 0;
    let parts = inner.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let parts = parts.filter(|part| !part.trim().is_empty());
    parts.flat_map(|part| paths(part.trim())).map(|path| format!("{}{path}", before.trim())).collect()
}

/// The target of a path in `from`, from the crate's root; None if it is in another crate.
fn absolute(from: &Module, path: &str, modules: &Modules) -> Option<Module> {
    let mut parts: Vec<String> = path.split("::").map(String::from).collect();
    if parts.last().is_some_and(|last| last == "self" || last == "*") {
        parts.pop();
    }
    let mut base = from.clone();
    match parts.first()?.as_str() {
        "crate" => base.clear(),
        "self" => {}
        "super" => {
            while parts.get(1).is_some_and(|next| next == "super") {
                base.pop();
                parts.remove(0);
            }
            base.pop();
        }
        first => {
            let child = [from.clone(), vec![first.into()]].concat();
            return modules.contains_key(&child).then(|| [from.clone(), parts].concat());
        }
    }
    base.extend(parts.into_iter().skip(1));
    Some(base)
}

/// The modules that each module of a crate imports. A re-exported name counts for the module that defines it; imports
/// from parent modules do not count: a folder's root and its files are one unit.
pub fn imports(modules: &Modules) -> BTreeMap<Module, BTreeSet<Module>> {
    let mut handed_on: BTreeMap<Module, Module> = BTreeMap::new();
    let mut named: Vec<(&Module, Module)> = Vec::new();
    for (module, (_, code)) in modules {
        let mut rest = String::new();
        for statement in code.split_inclusive(';') {
            let line = statement.rfind("use ").filter(|&at| {
                let before = statement[..at].lines().last().unwrap_or_default().trim();
                before.is_empty() || before.starts_with("pub")
            });
            let Some(at) = line else {
                rest.push_str(statement);
                continue;
            };
            rest.push_str(&statement[..at]);
            let public =
                statement[..at].lines().last().is_some_and(|before| before.trim().starts_with("pub"));
            for path in paths(statement[at + 4..].trim_end_matches(';')) {
                let Some(target) = absolute(module, &path, modules) else { continue };
                match target.last() {
                    Some(name) if public => {
                        handed_on.insert([module.clone(), vec![name.clone()]].concat(), target.clone());
                    }
                    _ => named.push((module, target)),
                }
            }
        }
        let words = rest.split(|c: char| !c.is_alphanumeric() && c != '_' && c != ':');
        for path in words.filter(|word| word.starts_with("crate::") || word.starts_with("super::")) {
            named.extend(absolute(module, path, modules).map(|target| (module, target)));
        }
    }
    let mut imports: BTreeMap<Module, BTreeSet<Module>> = BTreeMap::new();
    for (from, mut target) in named {
        // A function may have the name of the file that contains only it: the file has precedence.
        loop {
            let module =
                (0..=target.len()).rev().find(|&end| modules.contains_key(&target[..end])).unwrap_or(0);
            let handed = target.get(..module + 1).and_then(|name| handed_on.get(name));
            let Some(made) = handed.filter(|made| **made != target) else {
                target.truncate(module);
                break;
            };
            target = [made, &target[module + 1..]].concat();
        }
        if !from.starts_with(&target) {
            imports.entry(from.clone()).or_default().insert(target);
        }
    }
    imports
}

#[test]
fn imports_are_understood() {
    assert_eq!(paths("a::{b, c::{d, e as f}, self}"), ["a::b", "a::c::d", "a::c::e", "a::self"]);
    let code = [
        ("", "pub use a::Made;\nmod a;\nmod b;"),
        ("a", "use crate::b::{self, c};\nstruct Made;"),
        ("b", "use super::Made;\nfn f() { crate::b::c::g(); }"),
        ("b::c", "use super::super::a::{\n    Other,\n};"),
    ];
    let module = |name: &str| name.split("::").filter(|part| !part.is_empty()).map(String::from).collect();
    let modules: BTreeMap<Module, _> =
        code.into_iter().map(|(name, code)| (module(name), (PathBuf::new(), code.to_string()))).collect();
    let found = imports(&modules);
    let of = |name: &str| found[&module(name)].iter().map(|target| target.join("::")).collect::<Vec<_>>();
    assert_eq!(of("a"), ["b", "b::c"]);
    assert_eq!(of("b"), ["a", "b::c"], "a name that is handed on counts where it is made");
    assert_eq!(of("b::c"), ["a"]);
}
