//! The files that the rules are about. Not here: the rules.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The top of the repository.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git tracks or would add, by path from the top.
pub fn files() -> Result<Vec<PathBuf>> {
    let args = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let output = Command::new("git").args(args).current_dir(top()).output().context("starting git")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout)?;
    let files: Vec<PathBuf> = names.split_terminator('\0').map(PathBuf::from).collect();
    Ok(files.into_iter().filter(|file| top().join(file).is_file()).collect())
}

/// Each Rust file with its text.
pub fn sources() -> Result<Vec<(PathBuf, String)>> {
    let rust = files()?.into_iter().filter(|file| file.extension().is_some_and(|ext| ext == "rs"));
    let sources: Vec<_> = rust
        .map(|file| Ok((file.clone(), std::fs::read_to_string(top().join(&file))?)))
        .collect::<Result<_>>()?;
    ensure!(sources.len() > 20, "only {} Rust files were found", sources.len());
    Ok(sources)
}
