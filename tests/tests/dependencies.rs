//! The project's dependencies, as reported by Cargo alone and without any network: licences that may be shipped, one
//! registry, no banned crate, no duplicates without a reason.
//!
//! Not here: known vulnerabilities, which change daily (`SECURITY.md` describes that check).

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Licences that require only their text.
const LICENCES: [&str; 13] = [
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];
/// Other implementations of TLS: the project has one, rustls with ring.
const BANNED: [&str; 6] = ["openssl", "openssl-sys", "native-tls", "aws-lc-rs", "aws-lc-sys", "boring-sys"];
/// Crates with two versions, because other crates require different ones. Check every new one: often an update or
/// another feature avoids it.
const TWICE: [&str; 22] = [
    "base64",
    "bit-vec",
    "crypto-common",
    "digest",
    "foldhash",
    "getrandom",
    "hashbrown",
    "itertools",
    "num-bigint",
    "r-efi",
    "rand",
    "rand_core",
    "syn",
    "synstructure",
    "unicode-width",
    // Only for Windows, where nothing of this is built: chrono, and `generator` of the simulation.
    "windows-core",
    "windows-implement",
    "windows-interface",
    "windows-link",
    "windows-result",
    "windows-strings",
    "windows-sys",
];
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The packages of `Cargo.lock`: name, version and source, where it is not of this workspace.
fn locked() -> Result<Vec<(String, String, Option<String>)>> {
    let text = std::fs::read_to_string(top().join("Cargo.lock"))?;
    let field = |package: &str, name: &str| {
        let line = package.lines().find_map(|line| line.strip_prefix(&format!("{name} = \"")));
        line.and_then(|rest| rest.strip_suffix('"')).map(str::to_owned)
    };
    let package = |package: &str| {
        let name = field(package, "name").context("a package without a name")?;
        let version = field(package, "version").with_context(|| name.clone())?;
        Ok((name, version, field(package, "source")))
    };
    let packages: Vec<_> = text.split("[[package]]").skip(1).map(package).collect::<Result<_>>()?;
    ensure!(packages.len() > 100, "only {} packages are locked", packages.len());
    Ok(packages)
}

#[test]
fn all_comes_from_one_registry_and_nothing_is_banned() -> Result<()> {
    for (name, version, source) in locked()? {
        ensure!(source.is_none_or(|source| source == REGISTRY), "{name} {version} comes from elsewhere");
        ensure!(
            !BANNED.contains(&name.as_str()),
            "{name} {version} is banned: find the crate that requires it"
        );
    }
    Ok(())
}

#[test]
fn no_crate_is_there_twice_without_a_reason() -> Result<()> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, version, _) in locked()? {
        versions.entry(name).or_default().insert(version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let known: BTreeSet<_> = TWICE.map(str::to_owned).into();
    let found: BTreeSet<_> = versions.keys().cloned().collect();
    let new: Vec<_> = found.difference(&known).map(|name| (name, &versions[name])).collect();
    assert!(new.is_empty(), "twice: {new:?}; avoid it, or add it to the list");
    let obsolete: Vec<_> = known.difference(&found).collect();
    assert!(obsolete.is_empty(), "no longer twice: remove them from the list: {obsolete:?}");
    Ok(())
}

/// Whether an SPDX expression allows a choice that may be shipped. Brackets bind, then AND, then OR (also written `/`).
fn may_be_shipped(expression: &str) -> bool {
    if let Some((before, rest)) = expression.split_once('(')
        && let Some((inner, after)) = rest.split_once(')')
    {
        let inner = if may_be_shipped(inner) { "MIT" } else { "(none)" };
        return may_be_shipped(&format!("{before}{}{after}", inner.trim_matches(['(', ')'])));
    }
    let text = expression.replace('/', " OR ");
    text.split(" OR ").any(|all| all.split(" AND ").all(|one| LICENCES.contains(&one.trim())))
}

#[test]
fn licences_may_be_shipped() -> Result<()> {
    let said = Command::new("rustc").arg("-vV").output().context("starting rustc")?;
    let said = String::from_utf8(said.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names no host")?;
    // Crates of other systems are not downloaded.
    let flags = ["metadata", "--format-version", "1", "--offline", "--locked", "--filter-platform", host];
    let output =
        Command::new(env!("CARGO")).args(flags).current_dir(top()).output().context("starting cargo")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("no packages")?;
    ensure!(packages.len() > 100, "only {} packages", packages.len());
    for package in packages {
        let licence = package["license"].as_str().unwrap_or_default();
        ensure!(may_be_shipped(licence), "{} is under {licence:?}", package["name"]);
    }
    Ok(())
}

#[test]
fn expressions_are_understood() {
    for good in
        ["MIT", "MIT/Apache-2.0", "GPL-3.0 OR MIT", "(MIT OR GPL-3.0) AND Unicode-3.0", "Apache-2.0 / MIT"]
    {
        assert!(may_be_shipped(good), "{good}");
    }
    for bad in ["", "GPL-3.0", "MIT AND GPL-3.0", "(GPL-3.0 OR AGPL-3.0) AND MIT", "MITx"] {
        assert!(!may_be_shipped(bad), "{bad}");
    }
}
