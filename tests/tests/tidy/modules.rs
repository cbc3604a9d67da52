//! The modules of each crate: no two have one name, and no files import each other. Not here: what is an import
//! (`imports`).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::crates::products;
use crate::imports::{Module, Modules, imports};
use crate::tree::sources;

/// The modules of a crate's `src`, except tests: their files, and their code without unit tests and comments.
fn modules(folder: &str) -> Result<Modules> {
    let mut modules = BTreeMap::new();
    let mut tests = Vec::new();
    for (file, text) in sources()? {
        let Ok(inside) = file.strip_prefix(Path::new(folder).join("src")) else { continue };
        let mut module: Module =
            inside.with_extension("").iter().map(|part| part.to_string_lossy().into()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            module.pop();
        }
        for marked in text.split("#[cfg(test)]\nmod ").skip(1) {
            if let Some(name) = marked.lines().next().and_then(|line| line.strip_suffix(';')) {
                tests.push([module.clone(), vec![name.into()]].concat());
            }
        }
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines();
        let code = code.map(|line| line.split("//").next().unwrap_or_default());
        modules.insert(module, (file, code.collect::<Vec<_>>().join("\n")));
    }
    modules.retain(|module, _| !tests.iter().any(|test| module.starts_with(test)));
    ensure!(!modules.is_empty(), "{folder} has no source");
    Ok(modules)
}

#[test]
fn no_files_of_a_crate_import_each_other() -> Result<()> {
    let mut found: Vec<String> = Vec::new();
    for folder in products() {
        let modules = modules(folder)?;
        let mut imports = imports(&modules);
        ensure!(modules.len() < 3 || !imports.is_empty(), "no imports were found in {folder}");
        // A module that imports none of the remaining ones is in no cycle.
        loop {
            let left: BTreeSet<Module> = imports.keys().cloned().collect();
            imports.values_mut().for_each(|targets| targets.retain(|target| left.contains(target)));
            let before = imports.len();
            imports.retain(|_, targets| !targets.is_empty());
            if imports.len() == before {
                break;
            }
        }
        // Every remaining module leads into a cycle: following the imports returns to a visited file.
        let mut way: Vec<&Module> = imports.keys().next().into_iter().collect();
        while let Some(next) = way.last().and_then(|last| imports[*last].first()) {
            if let Some(from) = way.iter().position(|module| *module == next) {
                let files = way[from..].iter().map(|module| modules[*module].0.display().to_string());
                found.push(files.collect::<Vec<_>>().join(", "));
                break;
            }
            way.push(next);
        }
    }
    assert!(found.is_empty(), "each of these imports the next, and the last the first: {found:?}");
    Ok(())
}

#[test]
fn a_file_is_known_by_its_name() -> Result<()> {
    let files: BTreeSet<PathBuf> = sources()?.into_iter().map(|(file, _)| file).collect();
    let beside: Vec<_> = files
        .iter()
        .filter(|file| files.iter().any(|other| other.parent() == Some(&file.with_extension(""))))
        .collect();
    assert!(beside.is_empty(), "the root of a folder's modules is its `mod.rs`: {beside:?}");
    for folder in products() {
        let mut names: BTreeMap<String, PathBuf> = BTreeMap::new();
        for (module, (file, _)) in modules(folder)? {
            let Some(name) = module.last().cloned() else { continue };
            if let Some(other) = names.insert(name, file.clone()) {
                anyhow::bail!("{} and {} have one name", file.display(), other.display());
            }
        }
    }
    Ok(())
}
