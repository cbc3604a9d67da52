//! Which crate may use which. Not here: which file may import which (`modules`).

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use crate::tree::top;

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
    let listed = |list: &str| {
        let found = workspace.lines().find_map(|line| line.strip_prefix(list));
        let found = found.with_context(|| format!("no {list}"))?;
        Ok::<BTreeSet<_>, anyhow::Error>(found.split('"').skip(1).step_by(2).collect())
    };
    let members = listed("members = [")?;
    ensure!(
        members == CRATES.iter().map(|(folder, ..)| *folder).collect(),
        "this list differs from {members:?}"
    );
    // A plain `cargo build` builds no programs of the tests.
    let defaults = listed("default-members = [")?;
    ensure!(defaults == products().collect(), "the default members are {defaults:?}");
    Ok(())
}

/// The folders of all crates except the test crates.
pub fn products() -> impl Iterator<Item = &'static str> {
    CRATES.iter().map(|(folder, ..)| *folder).filter(|folder| !folder.starts_with("tests"))
}
