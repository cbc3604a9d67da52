//! House rules that neither rustfmt nor clippy checks: a head on every module, no long file, no test that is switched
//! off, no name of the development machine; which crate may use which, and no files that import each other
//! (ARCHITECTURE.md, "Code map").

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A file with more lines must be split.
const MAX_LINES: usize = 800;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git tracks or would add, by path from the top.
fn files() -> Result<Vec<PathBuf>> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git").args(args).current_dir(top()).output().context("starting git")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    let files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    Ok(files.into_iter().filter(|file| top().join(file).is_file()).collect())
}

/// Each Rust file with its text.
fn sources() -> Result<Vec<(PathBuf, String)>> {
    let rust = files()?.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs"));
    let sources: Vec<_> = rust
        .map(|file| Ok((file.clone(), std::fs::read_to_string(top().join(&file))?)))
        .collect::<Result<_>>()?;
    ensure!(sources.len() > 20, "only {} Rust files were found", sources.len());
    Ok(sources)
}

#[test]
fn every_module_says_what_it_is_for() -> Result<()> {
    let headless = |text: &str| !text.lines().take(5).any(|line| line.starts_with("//!"));
    let found: Vec<_> =
        sources()?.into_iter().filter(|(_, text)| headless(text)).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "no `//!` in the first five lines of {found:?}");
    Ok(())
}

#[test]
fn no_file_is_too_long() -> Result<()> {
    let lines = sources()?.into_iter().map(|(file, text)| (text.lines().count(), file));
    let found: Vec<_> = lines.filter(|(lines, _)| *lines > MAX_LINES).collect();
    assert!(found.is_empty(), "more than {MAX_LINES} lines: {found:?}");
    Ok(())
}

/// A test that is switched off would look like one that passes.
#[test]
fn no_test_is_switched_off() -> Result<()> {
    let mark = ["#[ign", "ore"].concat();
    let found: Vec<_> =
        sources()?.into_iter().filter(|(_, text)| text.contains(&mark)).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

/// State machines that the simulation runs in virtual time, and the shells in them, which do the I/O.
const PURE: [&str; 2] = ["coordinator/src/driver", "coordinator/src/cluster"];
const SHELLS: [&str; 1] = ["coordinator/src/driver/shell.rs"];

#[test]
fn state_machines_read_no_clock_and_start_no_task() -> Result<()> {
    let words = ["Instant::now", "SystemTime::now", "rand::", "tokio::spawn", "spawn_blocking", "thread::"];
    let mut found = Vec::new();
    let mut seen = 0;
    for (file, text) in sources()? {
        if !PURE.iter().any(|folder| file.starts_with(folder))
            || SHELLS.iter().any(|shell| file.ends_with(shell))
        {
            continue;
        }
        seen += 1;
        found.extend(
            words
                .iter()
                .filter(|word| text.contains(**word))
                .map(|word| format!("{}: {word}", file.display())),
        );
    }
    assert!(found.is_empty() && seen > 20, "{seen} files; time and chance are arguments there: {found:?}");
    Ok(())
}

/// Files of the coordinator that wait for a file system. They are called only on threads outside of its runtime: on a
/// slow file system no heartbeat would be sent, and all workers would be lost.
const WAITING: [&str; 6] = [
    "audit/buckets.rs",
    "audit/local_copy.rs",
    "audit/part_rows.rs",
    "journal/state_dir.rs",
    "plan/local_files.rs",
    "publish/file_system.rs",
];

#[test]
fn the_coordinator_waits_for_file_systems_only_outside_of_its_runtime() -> Result<()> {
    let calls = ["std::fs", "fs::read_dir", "fs::metadata", "File::open", ".canonicalize()", "rustix::fs"];
    let waits = |text: &str| {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        calls.iter().any(|call| code.contains(call))
    };
    let inside = |(file, text): (PathBuf, String)| {
        let file = file.strip_prefix("coordinator/src").ok()?.display().to_string();
        (!["tests.rs", "schedules.rs"].iter().any(|tests| file.ends_with(tests)) && waits(&text))
            .then_some(file)
    };
    let found: BTreeSet<String> = sources()?.into_iter().filter_map(inside).collect();
    assert_eq!(found, WAITING.map(String::from).into());
    Ok(())
}

#[test]
fn nothing_names_the_machine_it_was_written_on() -> Result<()> {
    // Split, so that this file does not find itself.
    let words = [
        ["/wo", "rk/"],
        ["/fa", "rm/"],
        ["far", "m-"],
        [".lib", "rary/"],
        ["arti", "factory"],
        ["/tmp/", "bench"],
    ];
    let words = words.map(|halves| halves.concat());
    let mut found = Vec::new();
    for file in files()? {
        // Data files are not text.
        let Ok(text) = std::fs::read_to_string(top().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            if words.iter().any(|word| line.contains(word)) {
                found.push(format!("{}:{}: {line}", file.display(), at + 1));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// The patches of `tests/mutations` and of the simulator still apply, and the tests that the former name exist.
#[test]
fn each_mutation_applies_and_names_a_test() -> Result<()> {
    let sources = sources()?;
    let patches: Vec<_> =
        files()?.into_iter().filter(|file| file.extension().is_some_and(|kind| kind == "patch")).collect();
    ensure!(patches.len() >= 50, "only {} patches were found", patches.len());
    for patch in patches {
        let shown = patch.display();
        if patch.starts_with("tests/mutations") {
            let text = std::fs::read_to_string(top().join(&patch))?;
            let test = text.lines().find_map(|line| line.strip_prefix("Test: "));
            let name = test.and_then(|test| test.rsplit([' ', ':']).next()).context("no line `Test: `")?;
            let defined = format!("fn {name}(");
            ensure!(
                sources.iter().any(|(_, text)| text.contains(&defined)),
                "{shown}: there is no test {name}"
            );
        }
        let tried = ["-p1", "-s", "-f", "--dry-run", "-i"];
        let tried = Command::new("patch").args(tried).arg(&patch).current_dir(top()).output()?;
        ensure!(tried.status.success(), "{shown}: {}", String::from_utf8_lossy(&tried.stdout));
    }
    Ok(())
}

/// Words and names with a standard term that replaces them, such as `MAX_` for `MOST_`.
const OLD_TERMS: [&str; 13] = [
    "anew",
    "nobody",
    "whoever",
    "reckoned",
    "lacks",
    "bereave",
    "forgetful",
    "spoil",
    "spoils",
    "spoilt",
    "handover",
    "MOST",
    "LEAST",
];

#[test]
fn names_and_texts_use_standard_terms() -> Result<()> {
    // These two files list the words.
    let lists = ["tests/tests/tidy.rs", "tests/deploy/test_docs.py"].map(Path::new);
    let mut found = Vec::new();
    for file in files()?.into_iter().filter(|file| !lists.contains(&file.as_path())) {
        let Ok(text) = std::fs::read_to_string(top().join(&file)) else { continue };
        for (at, line) in text.lines().enumerate() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric());
            let old = words
                .filter(|word| OLD_TERMS.iter().any(|term| word == term || word.to_lowercase() == *term));
            found.extend(old.map(|word| format!("{}:{}: {word}", file.display(), at + 1)));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// The crates of the code map by their folders: the name, and the crates of this workspace that it uses. A crate uses
/// only crates above it.
const CRATES: [(&str, &str, &[&str]); 15] = [
    ("proto", "tally-proto", &[]),
    ("consul", "consul-api-client", &[]),
    ("common", "tally-common", &["consul-api-client", "tally-proto"]),
    ("worker/dataset", "tally-dataset", &[]),
    ("worker/scan", "tally-scan", &["tally-common", "tally-dataset", "tally-proto"]),
    ("worker/shuffle", "tally-shuffle", &["tally-common", "tally-dataset", "tally-proto", "tally-scan"]),
    (
        "worker",
        "tally-worker",
        &["tally-common", "tally-dataset", "tally-proto", "tally-scan", "tally-shuffle"],
    ),
    ("coordinator/scheduler", "tally-scheduler", &["tally-proto"]),
    ("coordinator/generate", "tally-generate", &[]),
    (
        "coordinator",
        "tally-coordinator",
        &[
            "consul-api-client",
            "tally-common",
            "tally-dataset",
            "tally-proto",
            "tally-scan",
            "tally-scheduler",
        ],
    ),
    (
        "coordinator/cli",
        "tally",
        &[
            "tally-common",
            "tally-coordinator",
            "tally-dataset",
            "tally-generate",
            "tally-proto",
            "tally-scan",
            "tally-scheduler",
            "tally-shuffle",
            "tally-worker",
        ],
    ),
    ("tests", "tally-tests", &["tally-proto"]),
    (
        "tests/hostile",
        "tally-hostile",
        &[
            "consul-api-client",
            "tally-common",
            "tally-coordinator",
            "tally-dataset",
            "tally-proto",
            "tally-scan",
            "tally-shuffle",
            "tally-tests",
        ],
    ),
    ("tests/toy", "tally-toy", &["tally", "tally-dataset", "tally-worker"]),
    (
        "tests/simulation",
        "tally-simulation",
        &[
            "tally-common",
            "tally-coordinator",
            "tally-dataset",
            "tally-proto",
            "tally-scan",
            "tally-scheduler",
            "tally-shuffle",
            "tally-worker",
        ],
    ),
];
/// Their tests may use these, too.
const FOR_TESTS: [&str; 3] = ["consul-api-client", "tally-generate", "tally-tests"];

/// The names of the dependencies in the sections of a manifest named `section`.
fn dependencies(manifest: &str, section: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line == section;
        } else if inside && !line.starts_with('#') {
            names
                .extend(line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty()).map(String::from));
        }
    }
    names
}

#[test]
fn crates_use_only_what_the_code_map_lets_them() -> Result<()> {
    let known = |name: &String| CRATES.iter().any(|(_, known, _)| known == name);
    let mut above = BTreeSet::new();
    for (folder, name, uses) in CRATES {
        let manifest = std::fs::read_to_string(top().join(folder).join("Cargo.toml"))?;
        ensure!(manifest.contains(&format!("name = \"{name}\"")), "{folder} is not the crate {name}");
        let uses: BTreeSet<String> = uses.iter().map(|name| (*name).into()).collect();
        let found = dependencies(&manifest, "[dependencies]").into_iter().filter(known).collect();
        ensure!(uses == found, "{name} may use {uses:?}, and its manifest has {found:?}");
        ensure!(uses.is_subset(&above), "{name} uses a crate below it");
        for name in dependencies(&manifest, "[dev-dependencies]").iter().filter(|name| known(name)) {
            ensure!(FOR_TESTS.contains(&name.as_str()), "the tests of {folder} use {name}");
        }
        above.insert(name.to_string());
    }
    let workspace = std::fs::read_to_string(top().join("Cargo.toml"))?;
    let members = workspace.lines().find_map(|line| line.strip_prefix("members = ["));
    let members = members.context("no members")?.split('"').skip(1).step_by(2).count();
    ensure!(members == CRATES.len(), "the workspace has {members} crates, this list {}", CRATES.len());
    Ok(())
}

/// The folders of all crates except the test crates.
fn products() -> impl Iterator<Item = &'static str> {
    CRATES.iter().map(|(folder, ..)| *folder).filter(|folder| !folder.starts_with("tests"))
}

/// A module by its path; empty for the crate's root.
type Module = Vec<String>;

/// The modules of a crate's `src`, except tests: their files, and their code without unit tests and comments.
fn modules(folder: &str) -> Result<BTreeMap<Module, (PathBuf, String)>> {
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
fn absolute(from: &Module, path: &str, modules: &BTreeMap<Module, (PathBuf, String)>) -> Option<Module> {
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
fn imports(modules: &BTreeMap<Module, (PathBuf, String)>) -> BTreeMap<Module, BTreeSet<Module>> {
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
