//! The version with the commit, and the linker's options: compressed debug information halves the size of the binary.
//! Only this crate is built again after a commit. Not here: what the debug information contains (the profile in the
//! workspace's manifest).

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-link-arg-bins=-Wl,-O2,--compress-debug-sections=zlib");
    }
    println!("cargo:rerun-if-env-changed=TALLY_COMMIT");
    let version = env!("CARGO_PKG_VERSION");
    let given = std::env::var("TALLY_COMMIT").ok().filter(|commit| !commit.trim().is_empty());
    match given.or_else(commit) {
        Some(commit) => println!("cargo:rustc-env=TALLY_VERSION={version} ({})", commit.trim()),
        None => println!("cargo:rustc-env=TALLY_VERSION={version}"),
    }
}

/// The commit of the source tree; `None` without git or outside of a repository of Tally.
fn commit() -> Option<String> {
    // The log of HEAD changes with each commit, checkout and merge. Without one, only HEAD is watched.
    for name in ["logs/HEAD", "HEAD"] {
        let path = git(&["rev-parse", "--git-path", name])?;
        if Path::new(&path).exists() {
            println!("cargo:rerun-if-changed={path}");
            break;
        }
    }
    // The tree of a package may be in the repository of something else.
    git(&["ls-files", "--error-unmatch", "build.rs"])?;
    git(&["rev-parse", "--short=12", "HEAD"])
}

fn git(args: &[&str]) -> Option<String> {
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8(output.stdout).ok()?.trim().to_string()).filter(|text| !text.is_empty())
}
