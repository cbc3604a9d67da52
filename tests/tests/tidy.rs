//! The rules of the house that neither rustfmt nor clippy checks: a head on every module, no long file, no test that is
//! switched off, no name of the machine that the code was written on.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// More lines than this make a file two rooms.
const MOST_LINES: usize = 800;

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files that git knows of or would add, by path from the top.
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
    let found: Vec<_> = lines.filter(|(lines, _)| *lines > MOST_LINES).collect();
    assert!(found.is_empty(), "more than {MOST_LINES} lines: {found:?}");
    Ok(())
}

/// A test that is switched off would pass for one that passes.
#[test]
fn no_test_is_switched_off() -> Result<()> {
    let mark = ["#[ign", "ore"].concat();
    let found: Vec<_> =
        sources()?.into_iter().filter(|(_, text)| text.contains(&mark)).map(|(file, _)| file).collect();
    assert!(found.is_empty(), "{found:?}");
    Ok(())
}

#[test]
fn nothing_names_the_machine_it_was_written_on() -> Result<()> {
    // In pieces, so that this file does not find itself.
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
        // Data files are no text.
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
